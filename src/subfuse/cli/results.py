"""Commands that use a run: predict, explain, audit, report, serve."""

import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from subfuse.cli.command import (
    Command,
    add_device,
    add_role,
    add_workers,
    chosen_role,
    n_workers,
    read_chosen_cohort,
)
from subfuse.cli.console import DISCLAIMER, print_table, progress_bar
from subfuse.cli.options import add_number, require_new_file, require_spaces
from subfuse.errors import ConfigurationError, counted
from subfuse.run_folder.names import AUDIT, COMPARISONS, CONFIG, FAILURES, METRICS, PREDICTIONS

_TABLES = (PREDICTIONS, METRICS, COMPARISONS, FAILURES)  # of a run


def _add_predict(parser: ArgumentParser) -> None:
    from subfuse.expression.units import MODEL_SCALE

    parser.add_argument("run", type=str, help="Run folder, exported models, or hf://OWNER/NAME of such on the hub.")
    parser.add_argument(
        "--cohort", type=Path, default=None, help="Prepared folder of the patients to predict; needs no outcomes."
    )
    add_role(parser)
    parser.add_argument(
        "--slide", type=Path, nargs="+", action="extend", default=[], help="Slide or feature files of one new patient."
    )
    add_number(parser, "--mpp", float, None, "Pixel size (µm at level 0) of slides whose files do not say it.")
    parser.add_argument(
        "--expression", type=Path, default=None, help="The new patient's expression: columns gene, value; or one row."
    )
    parser.add_argument(
        "--unit",
        type=str,
        choices=list(MODEL_SCALE),
        default=None,
        help="Unit of --expression; default: that of the run's cohort.",
    )
    parser.add_argument("--model", type=str, default=None, help="Model; default: the main one, of exported models all.")
    add_device(parser)
    parser.add_argument("--out", type=Path, default=Path(PREDICTIONS), help="CSV or JSON to write.")


def _predict(arguments: Namespace) -> None:
    from subfuse.files import remove_parts, write_json, write_table
    from subfuse.runs.external_validation import mean_predictions
    from subfuse.runs.prediction.document import prediction_document
    from subfuse.runs.prediction.predictor import log_notes
    from subfuse.sharing.places import load_models

    has_files = bool(arguments.slide or arguments.expression or arguments.mpp or arguments.unit)
    if has_files == (arguments.cohort is not None):
        raise ConfigurationError("either --cohort, or files of one patient (--slide, --expression), are required.")
    out = arguments.out
    read = [*arguments.slide, arguments.expression, *(Path(arguments.run, name) for name in _TABLES)]
    require_new_file("--out", out, read)
    of_patients = out.with_name(f"{out.stem}_patients.csv")
    require_new_file("--out", of_patients, read)
    require_spaces("--slide", [str(path) for path in arguments.slide if not path.exists()])
    run = load_models(arguments.run, device=arguments.device)
    if has_files:
        table, notes = _predict_files(run, arguments)
    else:
        cohort = read_chosen_cohort(arguments.cohort, arguments.role)
        table, notes = run.predict_with_notes(cohort, model=arguments.model or run.default_model)
        log_notes(notes)
    mean = mean_predictions(table)
    print(f"Predicted {counted(table['patient_id'].nunique(), 'patient')}")
    remove_parts(out)
    if out.suffix.lower() == ".json":
        write_json(out, prediction_document(mean, table, notes))
        print(f"The mean of the models, and each model by itself: {out}\n{DISCLAIMER}")
        return
    write_table(out, table)
    remove_parts(of_patients)
    write_table(of_patients, mean)
    print(
        f"The mean of the models, one row for each patient and task: {of_patients}\n"
        f"Each model by itself: {out}\n{DISCLAIMER}"
    )


def _predict_files(run: Any, arguments: Namespace) -> tuple[Any, list[str]]:
    from subfuse.evaluation.regression.columns import PREDICTED_VALUE
    from subfuse.runs.new_patient import predict_new_patient

    found = predict_new_patient(
        run,
        slides=arguments.slide,
        mpp=arguments.mpp,
        expression=arguments.expression,
        unit=arguments.unit,
        model=arguments.model,
    )
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    of_numbers = set(found.summary.loc[found.summary["quantity"] == PREDICTED_VALUE, "task"])
    rows = [
        (
            row.task,
            _quantity(str(row.quantity), of_numbers=row.task in of_numbers),
            f"{row.mean:.3g}",
            f"{row.spread:.2g}".replace("nan", "unknown"),
            f"{row.lowest:.3g} to {row.highest:.3g}",
            row.n_models,
        )
        for row in found.summary.itertuples()
    ]
    print_table("New patient", ("task", "quantity", "mean", "spread", "range of the models", "models"), rows)
    for promise in found.promises:
        print(f"Promised: {promise}")
    return found.predictions, list(found.notes)


def _quantity(column: str, *, of_numbers: bool = False) -> str:
    """Returns a column of predictions.csv in words.

    Example:
        >>> _quantity("survival_1095"), _quantity("contribution_tumour"), _quantity("recalibrated_p_G4")
        ('survival at 3 years', 'contribution of tumour to the logit', 'probability of G4, recalibrated')
        >>> _quantity("contribution_tumour", of_numbers=True)
        'contribution of tumour to the predicted value'
    """
    from subfuse.evaluation.metrics import duration
    from subfuse.evaluation.predictions import EXPECTED_CHANGE, RECALIBRATED
    from subfuse.training.models import subspace_title

    if column.startswith(RECALIBRATED):
        return f"{_quantity(column.removeprefix(RECALIBRATED))}, recalibrated"
    if column == EXPECTED_CHANGE:
        return "change to expect with expression"
    kind, _, of = column.partition("_")
    whole = "the predicted value" if of_numbers else "the logit"
    words = {"contribution": f"contribution of {subspace_title(of)} to {whole}", "p": f"probability of {of}"}
    return f"survival at {duration(int(of))}" if kind == "survival" else words.get(kind, column.replace("_", " "))


def _add_explain(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--patient", type=str, default=None, help="Patient identifier; default: the whole cohort.")
    parser.add_argument("--cohort", type=Path, default=None, help="Prepared folder; default: the run's own.")
    add_role(parser, own=True)
    parser.add_argument("--model", type=str, default="subspace", help="Model of the run.")
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help="Folder; default: RUN/explanations/PATIENT, or cohort for everybody; for another than the main model in "
        "RUN/explanations_MODEL, which report and viewer do not show.",
    )
    parser.add_argument(
        "--wsidata", type=Path, default=None, help="Folder of SLIDE.zarr stores to add the patient's patch scores to."
    )
    add_device(parser)
    add_workers(parser)


def _explain(arguments: Namespace) -> None:
    from subfuse.runs.run import load_run

    if arguments.patient is None and arguments.wsidata is not None:
        raise ConfigurationError("--wsidata stores patch scores of one patient. Name it with --patient.")
    run = load_run(arguments.run, device=arguments.device)
    own = arguments.cohort is None
    cohort = read_chosen_cohort(run.cohort_folder if own else arguments.cohort, arguments.role, own=own)
    if arguments.patient is None:
        with progress_bar("explain") as progress:
            folder = run.explain_cohort(
                cohort,
                arguments.out,
                model=arguments.model,
                workers=n_workers(arguments),
                scheduler=arguments.scheduler,
                progress=progress,
            )
    else:
        folder = run.explain(cohort, arguments.patient, arguments.out, model=arguments.model, stores=arguments.wsidata)
    print(f"Explained {arguments.patient or cohort.name}: {folder}\n{DISCLAIMER}")


def _add_audit(parser: ArgumentParser) -> None:
    parser.add_argument(
        "paths", type=Path, nargs="+", help="Run folder, or CSV files of predictions of any models; a model per file."
    )
    parser.add_argument("--out", type=Path, default=None, help="JSON to write; default: audit.json beside the results.")
    parser.add_argument(
        "--modalities",
        type=dict[str, list[str]],
        default={},
        help='What models of other names read: \'{"mymodel": ["slides", "expression"], "age": ["covariates"]}\'.',
    )
    add_number(
        parser,
        "--exchanges",
        int,
        0,
        "Test patients per fold of a run among whom slides and expression are exchanged, to tell what models of both "
        "have beyond their sum: 80 or more; costs the square of it in predictions. 0: not told.",
        ge=0,
        le=1000,
    )
    parser.add_argument(
        "--patients",
        type=Path,
        default=None,
        help="CSV of the patients of the files: outcomes, strata, and the columns on which trivial models are fitted, "
        "which the others must add to (age, sex, grade, markers, site, batch).",
    )
    parser.add_argument(
        "--strata", type=str, nargs="+", default=[], help="Columns of --patients within which results are shown too."
    )
    parser.add_argument(
        "--columns",
        type=dict[str, str],
        default={},
        help='Names of the files, and what they are here: \'{"risk_score": "risk", "case_id": "patient_id"}\'.',
    )


def _audit(arguments: Namespace) -> None:
    from subfuse.audit.any_origin.prediction_files import audit_files
    from subfuse.audit.audit import audit_run
    from subfuse.cli.audit_text import print_added, print_audit
    from subfuse.files import remove_parts, write_sealed_json

    paths, modalities, first = arguments.paths, arguments.modalities, arguments.paths[0]
    out = arguments.out or (first if first.is_dir() else first.parent) / AUDIT
    of_runs = [path / name for path in paths for name in (CONFIG, *_TABLES)]
    require_new_file("--out", out, [*paths, arguments.patients, *of_runs])
    of_files = {name: getattr(arguments, name) for name in ("patients", "strata", "columns")}
    is_run = len(paths) == 1 and (first.is_dir() or not (first.exists() or first.suffix))
    if not is_run and out.name == AUDIT and (out.parent / CONFIG).exists():
        raise ConfigurationError(f"--out must be another file than {out}, which is the run's own audit and a part of "
                                 "its report. Found files of predictions. Name a file.")  # fmt: skip
    if is_run:
        given = [f"--{name}" for name, value in of_files.items() if value]
        if given:
            raise ConfigurationError(f"{given[0]} is for files of predictions. Found the run folder {first}, which "
                                     "knows its patients. Leave it out.")  # fmt: skip
        audit = audit_run(first, modalities=modalities, exchanges=arguments.exchanges)
    elif arguments.exchanges:
        raise ConfigurationError(f"--exchanges is for a run. Found the file {first}. Leave it out.")
    else:
        audit = audit_files(paths, modalities=modalities, **of_files)
    remove_parts(out)
    write_sealed_json(out, audit.to_dict())
    print_audit(audit)
    if not is_run:  # whose report has it
        print_added(audit)
    print(f"All findings: {out}\n{DISCLAIMER}")


def _add_report(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")


def _report(arguments: Namespace) -> None:
    from subfuse.report.document import write_report

    print(f"Report: {write_report(arguments.run)}\n{DISCLAIMER}")


def _add_serve(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--cohort", type=Path, default=None, help="Prepared folder; default: the run's own.")
    add_role(parser, own=True)
    add_device(parser)
    add_number(parser, "--port", int, 8000, "Port; 0: a free one.", ge=0, le=65535)
    parser.add_argument("--host", type=str, default="127.0.0.1", help="Address; beyond loopback a token is required.")


def _serve(arguments: Namespace) -> None:
    from subfuse.runs.run import load_run
    from subfuse.serve.server import serve

    own = arguments.cohort is None
    role = arguments.role if own else chosen_role(arguments.cohort, arguments.role)[0]

    def announce(address: str) -> None:
        folder = load_run(arguments.run).cohort_folder if own else arguments.cohort
        _, taken, left = chosen_role(folder, role, own=own)
        if left or not own:
            print(f"Cohort: {taken}{left}", file=sys.stderr)
        print(f"Viewer: {address}\nStop it with Ctrl-C. {DISCLAIMER}", flush=True)

    serve(
        arguments.run,
        cohort=arguments.cohort,
        role=role,
        device=arguments.device,
        host=arguments.host,
        port=arguments.port,
        announce=announce,
    )


COMMANDS = {
    "predict": Command(
        "Predict the patients of a prepared cohort, or one patient from slide and expression files.",
        "subfuse predict run --slide new.svs --expression new.csv --out new_patient.csv",
        _add_predict,
        _predict,
    ),
    "explain": Command(
        "Explain one patient (heat maps, genes, contributions, GeoJSON), or without --patient the cohort.",
        "subfuse explain run --patient TCGA-02-0047",
        _add_explain,
        _explain,
    ),
    "audit": Command(
        "Look for leakage, a missing benefit of fusion, probabilities that are off and unfit labels.",
        "subfuse audit run",
        _add_audit,
        _audit,
    ),
    "report": Command("Write the report of a run as one HTML file.", "subfuse report run", _add_report, _report),
    "serve": Command(
        "Show a run in the browser: patients, slides, explanations; predict with another expression file.",
        "subfuse serve run --port 8000",
        _add_serve,
        _serve,
        when_stopped="Explanations that are complete are kept.",
    ),
}

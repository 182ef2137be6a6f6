"""The `subfuse` command: parse, call one library function, print what was done."""

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from subfuse import __version__
from subfuse.errors import ConfigurationError, SubfuseError, preview
from subfuse.execution import Progress, available_cores

DISCLAIMER = "Research use only. Not a medical device."
DEMO_MODELS = ("subspace", "abmil", "snn", "concat")


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    summary: str
    example: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 done, 1 a defect, 2 wrong usage, 3 bad data."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        parser = build_parser(arguments[0] if arguments else None)
        parsed = parser.parse_args(arguments or ["--help"])
        COMMANDS[parsed.subcommand].run(parsed[parsed.subcommand])
    except SubfuseError as error:
        if debug:
            raise
        print(f"subfuse: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("subfuse: stopped. What is complete is kept; the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


def build_parser(chosen: str | None = None) -> ArgumentParser:
    """Returns the parser; only the chosen subcommand gets its arguments, so that `--help` is instant."""
    parser = ArgumentParser(
        prog="subfuse",
        version=__version__,
        description="Subspace fusion of histology and gene expression, from raw files to a report. " + DISCLAIMER,
        epilog="`subfuse COMMAND --help` explains a command. `--debug` shows tracebacks.",
    )
    subcommands = parser.add_subcommands(metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = ArgumentParser(description=f"{command.summary} Example: {command.example}")
        if name == chosen:
            command.add_arguments(subparser)
        subcommands.add_subcommand(name, subparser, help=command.summary)
    return parser


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Yields a progress callback: a bar with time left on a terminal, plain lines elsewhere."""
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:

        def plain(done: int, total: int, what: str) -> None:
            print(f"{title}: {done}/{total} {what}", file=sys.stderr, flush=True)

        yield plain
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[what]}"))  # fmt: skip
    with rich_progress.Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, what="")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, what=what)


# --- simulate ---------------------------------------------------------------------------------------------------------


def _add_simulate(parser: ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="Folder to write.")
    parser.add_argument("--patients", type=int, default=40, help="Number of patients.")
    parser.add_argument("--seed", type=int, default=0, help="Same seed, same bytes.")
    parser.add_argument(
        "--visibility", type=float, default=0.8, help="Share of its latent that a modality shows; 0 or 1: no gain."
    )
    _add_workers(parser, scheduler=False)


def _simulate(arguments: Namespace) -> None:
    from subfuse.data.synthetic import simulate

    with progress_bar("simulate") as progress:
        path = simulate(
            arguments.out,
            patients=arguments.patients,
            seed=arguments.seed,
            visibility=arguments.visibility,
            workers=_workers(arguments),
            progress=progress,
        )
    print(f"Simulated cohort: {path}\nNext: subfuse prepare {path} --out prepared")


# --- init, check, prepare ---------------------------------------------------------------------------------------------


def _add_init(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", default=Path("."), help="Where to write cohort.yaml.")


def _init(arguments: Namespace) -> None:
    from subfuse.data.cohort_template import TEMPLATE
    from subfuse.files import write_text

    path = arguments.folder / "cohort.yaml"
    if path.exists():
        raise ConfigurationError(f"{path} exists already. Remove it, or give another folder.")
    write_text(path, TEMPLATE)
    print(f"Wrote {path}. Edit it, then: subfuse check {path}")


def _add_check(parser: ArgumentParser) -> None:
    parser.add_argument("cohort", type=Path, help="Cohort file.")


def _check(arguments: Namespace) -> None:
    from subfuse.data.cohort_file import read_cohort_file
    from subfuse.data.cohort_plan import plan_cohort
    from subfuse.data.feature_import import feature_sources, survey_features
    from subfuse.data.slides import inspect_slide

    plan = plan_cohort(read_cohort_file(arguments.cohort))
    ready = feature_sources(plan.slides)
    survey = survey_features(ready)
    unreadable = list(survey.exclusions.itertuples(index=False, name=None))
    for source in plan.slides if not ready else ():
        try:
            inspect_slide(source)
        except SubfuseError as error:
            unreadable.append(("slide", source.slide_id, str(error)))
    exclusions = [*plan.exclusions.itertuples(index=False, name=None), *unreadable]
    print(plan.summary())
    if ready:
        print(survey.summary())
    _print_exclusions(exclusions)
    _print_table(
        "Gene sets",
        ("subspace", "genes", "measured", "not measured", "shared with"),
        [(row.subspace, row.n_genes, row.n_found, row.missing, row.overlap) for row in plan.coverage.itertuples()],
    )
    _print_harmonisation(plan.harmonisation)
    for warning in (*plan.warnings, *survey.warnings()):
        print(f"warning: {warning}", file=sys.stderr)


def _print_harmonisation(harmonisation: Any) -> None:
    if harmonisation.empty:
        return
    rows = [
        (row.cohort, row.reference, row.gene_set, row.n_genes, row.n_shared, f"{row.shift:.2f}", f"{row.ks:.2f}")
        for row in harmonisation.itertuples()
    ]
    _print_table(
        "Expression of the cohorts: median shift of means, in spreads, and of distributions (KS, 0 to 1)",
        ("cohort", "against", "gene set", "genes", "shared", "shift", "KS"),
        rows,
    )


def _print_exclusions(exclusions: Sequence[tuple[str, str, str]]) -> None:
    by_reason: dict[tuple[str, str], list[str]] = {}
    for level, name, reason in exclusions:
        by_reason.setdefault((level, reason), []).append(name)
    rows = [(level, len(names), reason, preview(names, 3)) for (level, reason), names in by_reason.items()]
    _print_table(f"Excluded ({len(exclusions)})", ("level", "number", "reason", "which"), rows)


def _add_prepare(parser: ArgumentParser) -> None:
    from subfuse.data.patch_encoders import OFFLINE_ENCODER

    parser.add_argument("cohort", type=Path, help="Cohort file.")
    parser.add_argument("--out", type=Path, default=Path("prepared"), help="Prepared folder.")
    parser.add_argument(
        "--encoder", type=str, default=OFFLINE_ENCODER, help="Patch encoder: offline default or timm name."
    )
    parser.add_argument("--device", type=str, default="cpu", help="Device of the encoder: cpu, cuda, mps.")
    _add_workers(parser)


def _prepare(arguments: Namespace) -> None:
    from subfuse.data.preparation import prepare

    with progress_bar("prepare slides") as progress:
        done = prepare(
            arguments.cohort,
            arguments.out,
            encoder=arguments.encoder,
            device=arguments.device,
            workers=_workers(arguments),
            scheduler=arguments.scheduler,
            progress=progress,
        )
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"Prepared {done.n_patients} patients and {len(done.slides)} slides in {done.folder}; "
          f"{len(done.exclusions)} exclusions (exclusions.csv).")  # fmt: skip
    print(f"Next: subfuse crossval {done.folder} --out run")


# --- train ------------------------------------------------------------------------------------------------------------


def _add_train(parser: ArgumentParser) -> None:
    from jsonargparse import ActionConfigFile

    from subfuse.training.settings import ArchitectureSettings, TrainingSettings

    parser.add_argument("--config", action=ActionConfigFile, help="YAML with any of these settings.")
    parser.add_argument("prepared", type=Path, help="Prepared folder.")
    parser.add_argument("--task", type=str, required=True, help="Task of the cohort file.")
    parser.add_argument("--model", type=str, default="subspace", help="Name of the model, as for crossval.")
    parser.add_argument("--fold", type=int, default=0, help="Fold of the cohort's own splits, from 0.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of weights and batch order.")
    parser.add_argument("--out", type=Path, default=Path("run"), help="Run folder.")
    parser.add_argument("--resume", action="store_true", help="Go on with an interrupted training, if there is one.")
    parser.add_argument(
        "--allow-inputs", type=str, nargs="+", default=[], help="Genes or covariates that may look like the outcome."
    )
    parser.add_argument("--devices", type=int, default=1, help="Processes per machine; torchrun overrides it.")
    parser.add_argument("--nodes", type=int, default=1, help="Machines; torchrun overrides it.")
    parser.add_class_arguments(TrainingSettings, "train")
    parser.add_class_arguments(ArchitectureSettings, "architecture")


def _train(arguments: Namespace) -> None:
    from subfuse.data.cohort import read_cohort
    from subfuse.evaluation.single_training import train_model
    from subfuse.training.processes import is_first_process
    from subfuse.training.settings import ArchitectureSettings, TrainingSettings

    with progress_bar("train") if is_first_process() else nullcontext() as progress:
        metrics = train_model(
            read_cohort(arguments.prepared),
            task=arguments.task,
            model=arguments.model,
            out=arguments.out,
            fold=arguments.fold,
            seed=arguments.seed,
            training=TrainingSettings(**arguments.train.as_dict()),
            architecture=ArchitectureSettings(**arguments.architecture.as_dict()),
            devices=arguments.devices,
            nodes=arguments.nodes,
            resume=arguments.resume,
            allow_inputs=arguments.allow_inputs,
            progress=progress,
        )
    if metrics is not None:
        _print_metrics(metrics)
        print(f"Trained: {arguments.out}\nNext: subfuse report {arguments.out}\n{DISCLAIMER}")


# --- crossval ---------------------------------------------------------------------------------------------------------


def _add_crossval(parser: ArgumentParser) -> None:
    from jsonargparse import ActionConfigFile

    from subfuse.training.recipe import MODELS
    from subfuse.training.settings import ArchitectureSettings, TrainingSettings

    parser.add_argument("--config", action=ActionConfigFile, help="YAML with any of these settings.")
    parser.add_argument("prepared", type=Path, help="Prepared folder.")
    parser.add_argument("--tasks", type=str, nargs="+", default=None, help="Tasks of the cohort file; default: all.")
    parser.add_argument("--models", type=str, nargs="+", default=list(DEMO_MODELS), help=f"{', '.join(MODELS)}.")
    parser.add_argument(
        "--folds", type=int, default=None, help="Draw this many folds; default: the cohort's own splits."
    )
    parser.add_argument("--repeats", type=int, default=None, help="Draw all folds this often; default: as prepared.")
    parser.add_argument(
        "--search", type=int, default=0, help="Trials of a search for each neural model's settings, on inner splits."
    )
    parser.add_argument(
        "--allow-inputs", type=str, nargs="+", default=[], help="Genes or covariates that may look like the outcome."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of weights and batch order.")
    parser.add_argument(
        "--explain", type=bool, default=True, help="Explain cohort and two patients before the report; slow if large."
    )
    parser.add_argument("--out", type=Path, default=Path("run"), help="Run folder.")
    parser.add_class_arguments(TrainingSettings, "train")
    parser.add_class_arguments(ArchitectureSettings, "model")
    _add_workers(parser)


def _crossval(arguments: Namespace) -> None:
    from subfuse.data.cohort import read_cohort
    from subfuse.evaluation.cross_validation import cross_validate
    from subfuse.report.document import write_report
    from subfuse.runs import explain_and_report
    from subfuse.training.settings import ArchitectureSettings, TrainingSettings

    cohort = read_cohort(arguments.prepared)
    with progress_bar("cross-validate") as progress:
        result = cross_validate(
            cohort,
            task=arguments.tasks or list(cohort.tasks),
            models=arguments.models,
            folds=arguments.folds,
            repeats=arguments.repeats,
            seed=arguments.seed,
            out=arguments.out,
            training=TrainingSettings(**arguments.train.as_dict()),
            architecture=ArchitectureSettings(**arguments.model.as_dict()),
            search=arguments.search,
            allow_inputs=arguments.allow_inputs,
            workers=_workers(arguments),
            scheduler=arguments.scheduler,
            progress=progress,
        )
    _print_metrics(result.metrics)
    for row in result.failures.itertuples():
        print(f"warning: {row.task} · {row.model} · fold {row.fold} failed: {row.reason}", file=sys.stderr)
    if arguments.explain:
        with progress_bar("explain") as progress:
            report = explain_and_report(result.folder, cohort, progress=progress)
    else:
        report = write_report(result.folder)
    print(f"Report: {report}\n{DISCLAIMER}")


def _print_metrics(metrics: Any) -> None:
    headline = metrics[metrics["metric"].isin(["c_index", "auc"])]
    rows = [
        (row.task, row.model, row.metric, f"{row.value:.3f}", f"{row.lower:.3f} to {row.upper:.3f}")
        for row in headline.itertuples()
    ]
    _print_table("Test folds", ("task", "model", "metric", "mean", "95 % interval"), rows)


# --- evaluate ---------------------------------------------------------------------------------------------------------


def _add_evaluate(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--cohort", type=Path, required=True, help="Prepared folder of the other cohort.")
    parser.add_argument(
        "--role", type=str, default=None, help="Where that folder has several cohorts: external, or a cohort's name."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the bootstrap.")
    parser.add_argument("--out", type=Path, default=Path("external"), help="Folder for the results.")


def _evaluate(arguments: Namespace) -> None:
    from subfuse.data.cohort import read_cohort
    from subfuse.report.document import write_report
    from subfuse.runs import load_run

    cohort = read_cohort(arguments.cohort, role=arguments.role)
    _print_metrics(load_run(arguments.run).evaluate(cohort, arguments.out, seed=arguments.seed))
    print(f"Report: {write_report(arguments.out)}\n{DISCLAIMER}")


# --- predict, explain, report -----------------------------------------------------------------------------------------


def _add_predict(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--cohort", type=Path, default=None, help="Prepared folder of the patients to predict.")
    parser.add_argument(
        "--slide", type=Path, nargs="+", action="extend", default=[], help="Slide or feature files of one new patient."
    )
    parser.add_argument(
        "--expression", type=Path, default=None, help="The new patient's expression: columns gene, value; or one row."
    )
    parser.add_argument("--model", type=str, default="subspace", help="Model of the run.")
    parser.add_argument("--out", type=Path, default=Path("predictions.csv"), help="CSV to write.")


def _predict(arguments: Namespace) -> None:
    from subfuse.data.cohort import read_cohort
    from subfuse.files import write_table
    from subfuse.runs import load_run

    run, has_files = load_run(arguments.run), bool(arguments.slide or arguments.expression)
    if has_files == (arguments.cohort is not None):
        raise ConfigurationError("either --cohort, or files of one patient (--slide, --expression), are required.")
    if has_files:
        table = _predict_files(run, arguments)
    else:
        table = run.predict(read_cohort(arguments.cohort), model=arguments.model)
    write_table(arguments.out, table)
    n_patients = table["patient_id"].nunique()
    print(f"Predicted {n_patients} patient{'' if n_patients == 1 else 's'}: {arguments.out}\n{DISCLAIMER}")


def _predict_files(run: Any, arguments: Namespace) -> Any:
    from subfuse.new_patient import predict_new_patient

    found = predict_new_patient(run, slides=arguments.slide, expression=arguments.expression, model=arguments.model)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    rows = [
        (row.task, row.quantity, f"{row.mean:.3g}", f"{row.lowest:.3g} to {row.highest:.3g}", row.n_models)
        for row in found.summary.itertuples()
    ]
    _print_table("New patient", ("task", "quantity", "mean", "range of the models", "models"), rows)
    return found.predictions


def _add_explain(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--patient", type=str, default=None, help="Patient identifier; default: the whole cohort.")
    parser.add_argument("--cohort", type=Path, default=None, help="Prepared folder; default: the run's own.")
    parser.add_argument("--model", type=str, default="subspace", help="Model of the run.")
    parser.add_argument(
        "--out", type=Path, default=None, help="Folder; default: RUN/explanations/PATIENT, or cohort for everybody."
    )
    parser.add_argument(
        "--wsidata", type=Path, default=None, help="Folder of SLIDE.zarr stores to add the patient's patch scores to."
    )


def _explain(arguments: Namespace) -> None:
    from subfuse.data.cohort import read_cohort
    from subfuse.runs import load_run

    run = load_run(arguments.run)
    cohort = run.cohort() if arguments.cohort is None else read_cohort(arguments.cohort)
    if arguments.patient is None:
        if arguments.wsidata is not None:
            raise ConfigurationError("--wsidata stores patch scores of one patient. Name it with --patient.")
        with progress_bar("explain") as progress:
            folder = run.explain_cohort(cohort, arguments.out, model=arguments.model, progress=progress)
    else:
        folder = run.explain(cohort, arguments.patient, arguments.out, model=arguments.model, stores=arguments.wsidata)
    print(f"Explained {arguments.patient or cohort.name}: {folder}\n{DISCLAIMER}")


def _add_audit(parser: ArgumentParser) -> None:
    parser.add_argument("path", type=Path, help="Run folder, or a CSV of predictions of any model.")
    parser.add_argument("--out", type=Path, default=None, help="JSON to write; default: audit.json beside the results.")
    parser.add_argument(
        "--modalities",
        type=dict[str, list[str]],
        default={},
        help='What models of other names read: \'{"mymodel": ["slides", "expression"]}\'.',
    )


def _audit(arguments: Namespace) -> None:
    from subfuse.evaluation.audit import audit_predictions, audit_run, read_table
    from subfuse.evaluation.findings import LEVELS
    from subfuse.files import write_json

    path, modalities = arguments.path, arguments.modalities
    if path.is_dir():
        audit = audit_run(path, modalities=modalities)
    else:
        audit = audit_predictions(read_table(path), modalities=modalities)
    out = arguments.out or (path if path.is_dir() else path.parent) / "audit.json"
    write_json(out, audit.to_dict())
    for level in LEVELS:
        rows = [(finding.task or "all", finding.check, finding.found, finding.remedy)
                for finding in audit.of_level(level)]  # fmt: skip
        if rows:
            _print_table(f"{level} ({len(rows)})", ("task", "check", "found", "remedy"), rows)
    print(f"Audit: {out}\n{DISCLAIMER}")


def _add_report(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")


def _report(arguments: Namespace) -> None:
    from subfuse.report.document import write_report

    print(f"Report: {write_report(arguments.run)}\n{DISCLAIMER}")


def _add_serve(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--cohort", type=Path, default=None, help="Prepared folder; default: the run's own.")
    parser.add_argument("--port", type=int, default=8000, help="Port; 0: a free one.")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="Address; beyond loopback a token is required.")


def _serve(arguments: Namespace) -> None:
    from subfuse.serve.server import serve

    def announce(address: str) -> None:
        print(f"Viewer: {address}\nStop it with Ctrl-C. {DISCLAIMER}", flush=True)

    serve(arguments.run, cohort=arguments.cohort, host=arguments.host, port=arguments.port, announce=announce)


# --- convert, doctor, demo --------------------------------------------------------------------------------------------


def _add_convert(parser: ArgumentParser) -> None:
    parser.add_argument("released", type=Path, help="Checkpoint of the published code (.pth), a plain state dict.")
    parser.add_argument("--out", type=Path, default=Path("converted"), help="Folder for the converted weights.")


def _convert(arguments: Namespace) -> None:
    from subfuse.training.released_checkpoint import convert_file

    unused = convert_file(arguments.released, arguments.out)
    print(
        f"Converted to {arguments.out}. Unused in the released model, left out ({len(unused)}): {preview(unused, 10)}"
    )


def _add_doctor(parser: ArgumentParser) -> None:
    parser.add_argument("--encoder", type=str, default=None, help="Also try to load this patch encoder.")


def _doctor(arguments: Namespace) -> None:
    from subfuse.doctor import diagnose

    rows = diagnose(arguments.encoder)
    _print_table("subfuse doctor", ("what", "state", "remedy"), rows)


def _add_demo(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("subfuse-demo"), help="Folder for everything.")
    parser.add_argument("--patients", type=int, default=40, help="Number of simulated patients.")
    _add_workers(parser, scheduler=False)


def _demo(arguments: Namespace) -> None:
    from subfuse.demo import run_demo

    with progress_bar("demo") as progress:
        report = run_demo(
            arguments.out,
            patients=arguments.patients,
            models=DEMO_MODELS,
            workers=_workers(arguments),
            progress=progress,
        )
    print(f"Report: {report}\nOpen it in a browser. The cohort is simulated. {DISCLAIMER}")


# --- shared -----------------------------------------------------------------------------------------------------------


def _add_workers(parser: ArgumentParser, *, scheduler: bool = True) -> None:
    parser.add_argument("--workers", type=int, default=0, help="Local processes; 0: one per core.")
    if scheduler:
        parser.add_argument("--scheduler", type=str, default=None, help="Address of a running Dask scheduler instead.")


def _workers(arguments: Namespace) -> int:
    return arguments.workers or available_cores()


def _print_table(title: str, columns: Sequence[str], rows: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    Console(markup=False, width=None if sys.stdout.isatty() else 160).print(table)


COMMANDS: dict[str, Command] = {
    "demo": Command(
        "Simulated cohort from raw files to a report.", "subfuse demo --out subfuse-demo", _add_demo, _demo
    ),
    "simulate": Command(
        "Write a simulated cohort in the raw formats, with its ground truth.",
        "subfuse simulate cohort/ --patients 40 --seed 0",
        _add_simulate,
        _simulate,
    ),
    "init": Command("Write a commented cohort.yaml.", "subfuse init my-cohort/", _add_init, _init),
    "check": Command(
        "Say what is found, joined and excluded, and why; writes nothing.",
        "subfuse check cohort.yaml",
        _add_check,
        _check,
    ),
    "prepare": Command(
        "Prepare slides, expression, labels and splits; a rerun does only what is missing.",
        "subfuse prepare cohort.yaml --out prepared",
        _add_prepare,
        _prepare,
    ),
    "train": Command(
        "Train one model on one fold; under torchrun or Slurm on many devices, and resumable.",
        "subfuse train prepared --task survival --model subspace --fold 0 --out run --resume",
        _add_train,
        _train,
    ),
    "crossval": Command(
        "Train, test and compare every model on identical folds, explain, and write the report.",
        "subfuse crossval prepared --tasks survival grade --models subspace snn --out run --train.lr 3e-4",
        _add_crossval,
        _crossval,
    ),
    "evaluate": Command(
        "Validate a run on another cohort, with everything fitted frozen.",
        "subfuse evaluate run --cohort prepared2 --out external",
        _add_evaluate,
        _evaluate,
    ),
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
        "Look for leakage, a missing benefit of fusion, wrong probabilities and unfit labels.",
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
    ),
    "convert": Command(
        "Convert a checkpoint of the published code.",
        "subfuse convert released.pth --out converted",
        _add_convert,
        _convert,
    ),
    "doctor": Command("Say what works on this machine.", "subfuse doctor", _add_doctor, _doctor),
}

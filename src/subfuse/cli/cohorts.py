"""Commands up to a prepared cohort, and out of it: demo, simulate, init, check, prepare, export-mudata."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from subfuse.cli.command import Command, add_device, add_workers, n_workers
from subfuse.cli.console import DISCLAIMER, print_table, print_warnings, progress_bar
from subfuse.cli.options import add_number, add_seed
from subfuse.errors import ConfigurationError, SubfuseError, command_line, counted, preview, printable

_SECONDS_OF_LOOKING = 10.0  # that `check` spends on the values of ready features


def _add_demo(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("subfuse-demo"), help="Folder for everything.")
    add_number(parser, "--patients", int, 24, "Number of simulated patients.", ge=1)
    add_workers(parser, scheduler=False)


def _demo(arguments: Namespace) -> None:
    workers = n_workers(arguments)
    from subfuse.pipeline import run_demo

    with progress_bar("demo") as progress:
        report = run_demo(arguments.out, patients=arguments.patients, workers=workers, progress=progress)
    print(f"Report: {report}\nOpen it in a browser. The cohort is simulated. {DISCLAIMER}")


def _add_simulate(parser: ArgumentParser) -> None:
    parser.add_argument("out", type=Path, help="Folder to write.")
    add_number(parser, "--patients", int, 40, "Number of patients.", ge=1)
    add_seed(parser, "Same seed, same bytes.")
    shown = "Share of its latent that a modality shows; 0 or 1: no gain."
    add_number(parser, "--visibility", float, 0.8, shown, ge=0, le=1)
    add_workers(parser, scheduler=False)


def _simulate(arguments: Namespace) -> None:
    from subfuse.simulation.cohort import simulate

    with progress_bar("simulate") as progress:
        path = simulate(
            arguments.out,
            patients=arguments.patients,
            seed=arguments.seed,
            visibility=arguments.visibility,
            workers=n_workers(arguments),
            progress=progress,
        )
    print(f"Simulated cohort: {path}\nNext: {command_line('prepare', path, '--out', 'prepared')}")


def _add_init(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=_folder, nargs="?", default=Path("."), help="Where to write cohort.yaml.")
    parser.add_argument(
        "--from", action="append", metavar="FOLDER", help="Data as they are, which cohort.yaml is drafted from."
    ).complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}  # read by shtab


def _folder(name: str | Path) -> Path:
    """Returns the folder of a name, which is not left out by mistake, as with a variable that is not set."""
    if not str(name):
        raise ConfigurationError("the folder for cohort.yaml must have a name. Found an empty one")
    return Path(name)


def _init(arguments: Namespace) -> None:
    from subfuse.cohort.marker import COHORT_FILE
    from subfuse.cohort.template import TEMPLATE
    from subfuse.files import remove_parts, write_text

    path = arguments.folder / COHORT_FILE
    remove_parts(path)
    if path.exists():
        raise ConfigurationError(f"{path} exists already. Remove it, or give another folder.")
    sources = getattr(arguments, "from")
    if not sources:
        write_text(path, TEMPLATE)
        print(f"Wrote {path}. Edit it, then: {command_line('check', path)}")
        return

    from subfuse.recognition import draft_of_folder

    if len(sources) > 1 or not sources[0]:
        found = preview(sources) if len(sources) > 1 else "an empty name"
        raise ConfigurationError(f"--from: one folder is required. Found {found}.")
    draft = draft_of_folder(Path(sources[0]), arguments.folder)
    write_text(path, draft.text)
    told = f"Wrote {path}. Look through it{', and answer:' if draft.questions else '.'}"
    print("\n".join([told, *map(printable, draft.questions), f"Next: {command_line('check', path)}"]))


def _add_check(parser: ArgumentParser) -> None:
    parser.add_argument("cohort", type=Path, help="Cohort file.")


def _check(arguments: Namespace) -> None:
    from subfuse.cohort.cohort_file import read_cohort_file

    cohort_file = read_cohort_file(arguments.cohort)  # before the slow imports: most mistakes are here

    from subfuse.exclusions import NothingLeft
    from subfuse.preparation.contrast import require_varying_features
    from subfuse.preparation.plan import plan_cohort
    from subfuse.preparation.remaining import remaining

    try:
        plan = plan_cohort(cohort_file)
        failures, notes, warnings, contrasts = _opened_slides(plan.slides)
        plan = remaining(plan, failures)
        warnings += require_varying_features(plan.slides, plan.patients, contrasts)
    except NothingLeft as error:
        print_exclusions(error.exclusions, told=str(error))
        raise
    print("\n".join([plan.summary(), *notes]))
    print_exclusions(plan.exclusions)
    if len(plan.coverage):
        print_table(
            "Gene sets",
            ("subspace", "genes", "measured", "not measured", "shared with"),
            [(row.subspace, row.n_genes, row.n_found, row.missing, row.overlap) for row in plan.coverage.itertuples()],
        )
    _print_harmonisation(plan.harmonisation)
    print_warnings([*plan.warnings, *warnings])


def _opened_slides(slides: Sequence[Any]) -> tuple[Any, list[str], tuple[str, ...], dict[str, Any]]:
    """Returns the slides that cannot be opened, with reasons; what was looked at; warnings; and contrasts of slides."""
    from subfuse.exclusions import exclusion_table
    from subfuse.preparation.slides.feature_survey import (
        feature_sources,
        group_warnings,
        look_into_features,
        survey_features,
    )
    from subfuse.preparation.slides.slide import inspect_slide
    from subfuse.slides.patch_width import mixed_widths

    ready = feature_sources(slides)
    if ready:
        survey, n_read, contrasts = look_into_features(ready, survey_features(ready), seconds=_SECONDS_OF_LOOKING)
        looked = f"  looked at: headers of all slide features, and the values of {n_read}; `prepare` reads all values"
        warnings = (*survey.warnings(), *mixed_widths(survey.width_um, by_spacing=survey.by_spacing))
        return survey.exclusions, [survey.summary(), looked], warnings, contrasts
    unreadable, warnings_of = [], {}
    for source in slides:
        try:
            warnings_of[source.slide_id] = inspect_slide(source).warnings
        except SubfuseError as error:
            unreadable.append(("slide", source.slide_id, str(error)))
    looked = "  looked at: headers of all slides; `prepare` looks for tissue, and reads pixels"
    return exclusion_table(unreadable), [looked] if slides else [], group_warnings(warnings_of.items()), {}


def _print_harmonisation(harmonisation: Any) -> None:
    if harmonisation.empty:
        return
    rows = [
        (row.cohort, row.reference, row.gene_set, row.n_genes, row.n_shared, f"{row.shift:.2f}", f"{row.ks:.2f}")
        for row in harmonisation.itertuples()
    ]
    print_table(
        "Expression of the cohorts: median shift of means, in spreads, and of distributions (KS, 0 to 1)",
        ("cohort", "against", "gene set", "genes", "shared", "shift", "KS"),
        rows,
    )


def print_exclusions(exclusions: Any, *, told: str = "") -> None:
    """Prints exclusions by reason; nothing where there are none, nor reasons that a message tells."""
    from subfuse.exclusions import group_reasons

    grouped = [row for row in group_reasons(exclusions).to_dict("records") if row["reason"].rstrip(".") not in told]
    rows = [(row["level"], row["n"], row["reason"], preview(row["ids"], 3)) for row in grouped]
    if rows:
        total = sum(row["n"] for row in grouped)
        print_table(
            f"{'Also excluded' if told else 'Excluded'} ({total})", ("level", "number", "reason", "which"), rows
        )


def _add_prepare(parser: ArgumentParser) -> None:
    from subfuse.features.encoder import OFFLINE_ENCODER

    parser.add_argument("cohort", type=Path, help="Cohort file.")
    parser.add_argument("--out", type=Path, default=Path("prepared"), help="Prepared folder.")
    parser.add_argument(
        "--encoder",
        type=str,
        default=OFFLINE_ENCODER,
        help="Encoder: offline default, timm name, TorchScript file, or one of `subfuse encoders`.",
    )
    add_device(parser)
    parser.add_argument(
        "--tiles-from", type=Path, default=None, help="Prepared folder of another encoder: takes its tissue and tiles."
    )
    add_workers(parser)


def _prepare(arguments: Namespace) -> None:
    from subfuse.preparation.prepare import prepare

    with progress_bar("prepare slides") as progress:
        done = prepare(
            arguments.cohort,
            arguments.out,
            encoder=arguments.encoder,
            device=arguments.device,
            workers=arguments.workers,
            scheduler=arguments.scheduler,
            tiles_from=arguments.tiles_from,
            progress=progress,
        )
    print_warnings(done.warnings)
    print(done.summary())
    print(f"Next: {next_step(done.folder, done.plan)}")


def next_step(folder: Path, plan: Any) -> str:
    """Returns the command that a prepared cohort is for: an external one has no folds to train on."""
    if plan.repeats:
        return command_line("crossval", folder, "--out", "run")
    commands = [command_line(name, "RUN", "--cohort", folder) for name in ("evaluate", "predict")]
    return f"{', or '.join(commands if plan.tasks else commands[1:])}, with the RUN of another cohort"


def _add_export_mudata(parser: ArgumentParser) -> None:
    parser.add_argument("prepared", type=Path, help="Prepared folder.")
    parser.add_argument("out", type=Path, help="File to write, OUT.h5mu; not there yet.")
    parser.add_argument("--run", type=Path, default=None, help="Run on this cohort: adds its held-out predictions.")


def _export_mudata(arguments: Namespace) -> None:
    from subfuse.explanation.mudata_export import export_mudata

    data = export_mudata(arguments.prepared, arguments.out, run=arguments.run)
    held = "; ".join(f"{name} {part.n_obs} × {part.n_vars}" for name, part in data.mod.items())
    of_run = f"; predictions of {data.uns['predictions']['model']}" if "predictions" in data.uns else ""
    print(f"Wrote {arguments.out}: {counted(data.n_obs, 'patient')}; {held}{of_run}")


COMMANDS = {
    "demo": Command(
        "Simulated cohort from raw files to a report.", "subfuse demo --out subfuse-demo", _add_demo, _demo
    ),
    "simulate": Command(
        "Write a simulated cohort in the raw formats, with its ground truth.",
        "subfuse simulate cohort/ --patients 40 --seed 0",
        _add_simulate,
        _simulate,
    ),
    "init": Command(
        "Write a cohort.yaml: a commented one, or a draft of what a folder holds.",
        "subfuse init my-cohort/ --from data/",
        _add_init,
        _init,
    ),
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
    "export-mudata": Command(
        "Write expression, slide vectors, labels and predictions as MuData, for scverse tools.",
        "subfuse export-mudata prepared cohort.h5mu --run run",
        _add_export_mudata,
        _export_mudata,
        when_stopped="Nothing was written.",
    ),
}

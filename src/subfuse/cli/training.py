"""Commands that train and validate: train, crossval, distil, evaluate."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from subfuse.cli.command import Command, add_device, add_role, add_workers, n_workers, read_chosen_cohort
from subfuse.cli.console import DISCLAIMER, print_metrics, print_warnings, progress_bar
from subfuse.cli.options import SWITCH, add_number, add_seed, add_settings, require_distinct
from subfuse.errors import command_line


def _add_shared(parser: ArgumentParser) -> None:
    """Adds what `train` and `crossval` have in common."""
    from jsonargparse import ActionConfigFile

    from subfuse.training.settings import ArchitectureSettings, TrainingSettings

    parser.add_argument("--config", action=ActionConfigFile, help="YAML with any of these settings.")
    parser.add_argument("prepared", type=Path, help="Prepared folder.")
    add_seed(parser, "Seed of weights and batch order.")
    parser.add_argument("--out", type=Path, default=Path("run"), help="Run folder.")
    parser.add_argument(
        "--allow-inputs", type=str, nargs="+", default=[], help="Genes or covariates that may look like the outcome."
    )
    add_device(parser)
    add_settings(parser, TrainingSettings, "train", "training")
    add_settings(parser, ArchitectureSettings, "architecture", "sizes of the neural models")


def _shared(arguments: Namespace, *, search: int = 0) -> dict[str, Any]:
    from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

    training = TrainingSettings(**arguments.train.as_dict())
    architecture = ArchitectureSettings(**arguments.architecture.as_dict())
    plan = TrainingPlan(
        training=training, architecture=architecture, seed=arguments.seed, search=search, device=arguments.device
    )
    return {"plan": plan, "out": arguments.out, "allow_inputs": arguments.allow_inputs}


def _add_train(parser: ArgumentParser) -> None:
    _add_shared(parser)
    parser.add_argument("--task", type=str, required=True, help="Task of the cohort file.")
    parser.add_argument("--model", type=str, default="subspace", help="Name of the model, as for crossval.")
    add_number(parser, "--fold", int, 0, "Fold of the cohort's own splits, from 0.", ge=0)
    parser.add_argument("--resume", action="store_true", help="Go on with an interrupted training, if there is one.")
    add_number(parser, "--devices", int, 1, "Processes per machine; torchrun overrides it.", ge=1)
    add_number(parser, "--nodes", int, 1, "Machines; torchrun overrides it.", ge=1)


def _train(arguments: Namespace) -> None:
    from subfuse.run_folder.layout import require_run_place

    require_run_place(arguments.out)

    from subfuse.cohort.cohort import read_cohort
    from subfuse.runs.single_training import train_model
    from subfuse.training.models import check_model_names
    from subfuse.training.processes import is_first_process

    check_model_names([arguments.model])
    with progress_bar("train") if is_first_process() else nullcontext() as progress:
        metrics = train_model(
            read_cohort(arguments.prepared),
            task=arguments.task,
            model=arguments.model,
            fold=arguments.fold,
            devices=arguments.devices,
            nodes=arguments.nodes,
            resume=arguments.resume,
            progress=progress,
            **_shared(arguments),
        )
    if metrics is not None:
        print_metrics(metrics)
        print(f"Trained: {arguments.out}\nNext: {command_line('report', arguments.out)}\n{DISCLAIMER}")


def _add_crossval(parser: ArgumentParser) -> None:
    from subfuse.training.models import MODELS, compared_models

    _add_shared(parser)
    parser.add_argument("--tasks", type=str, nargs="+", default=None, help="Tasks of the cohort file; default: all.")
    usual = f"default: those of {', '.join(compared_models())} whose inputs the cohort has"
    parser.add_argument("--models", type=str, nargs="+", default=None, help=f"{', '.join(MODELS)}; {usual}.")
    add_number(parser, "--folds", int, None, "Draw this many folds; default: the cohort's own splits.", ge=2)
    add_number(parser, "--repeats", int, None, "Draw all folds this often; default: as prepared.", ge=1)
    by_sites = "Also train and test on folds of whole hospitals: what do random folds promise beyond? Twice the time."
    parser.add_argument("--held-out-sites", **SWITCH, default=False, help=by_sites)
    searched = "Trials of a search for each neural model's settings, on inner splits."
    add_number(parser, "--search", int, 0, searched, ge=0)
    explained = "Explain cohort and two patients before the report; slow if large."
    parser.add_argument("--explain", **SWITCH, default=True, help=explained)
    add_workers(parser)


def _crossval(arguments: Namespace) -> None:
    from subfuse.run_folder.layout import require_run_place

    require_run_place(arguments.out)

    from subfuse.cohort.cohort import read_cohort
    from subfuse.runs.folds import choose_folds
    from subfuse.training.models import MODELS, check_model_names, compared_in, compared_models, is_trivial

    require_distinct("--tasks", arguments.tasks)
    require_distinct("--models", arguments.models)
    require_distinct("--allow-inputs", arguments.allow_inputs)
    check_model_names(arguments.models or ())
    cohort = read_cohort(arguments.prepared)
    comparable = compared_in(cohort, choose_folds(cohort, arguments.folds, seed=arguments.seed))
    models = arguments.models or comparable
    suited = [name for name in compared_models() if any(MODELS[name].suits(t.predicts) for t in cohort.tasks.values())]
    left_out = [name for name in suited if name not in models and not is_trivial(name)]
    if left_out and arguments.models is None:
        print(f"Left out, since nobody here has what they read: {', '.join(left_out)}.")
    trivial = [name for name in comparable if is_trivial(name)]
    if trivial and not set(trivial) & set(models):
        print(f"Compared with no trivial model: add {', '.join(trivial)} to --models to see what the others add.")
    workers = n_workers(arguments)
    from subfuse.pipeline import explain_and_report
    from subfuse.runs.cross_validation import cross_validate

    with progress_bar("cross-validate") as progress:
        result = cross_validate(
            cohort,
            task=arguments.tasks or list(cohort.tasks),
            models=models,
            folds=arguments.folds,
            repeats=arguments.repeats,
            held_out_sites=arguments.held_out_sites,
            workers=workers,
            scheduler=arguments.scheduler,
            progress=progress,
            **_shared(arguments, search=arguments.search),
        )
    print_metrics(result.metrics)
    _print_summary(result.folder)
    print_warnings(_failed(result.failures))
    with progress_bar("explain") as progress:
        report = explain_and_report(
            result.folder,
            cohort,
            explain=arguments.explain,
            device=arguments.device,
            workers=workers,
            scheduler=arguments.scheduler,
            progress=progress,
        )
    _print_report(report)


def _add_evaluate(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--cohort", type=Path, required=True, help="Prepared folder of the other cohort.")
    add_role(parser)
    add_seed(parser, "Seed of the bootstrap.")
    add_device(parser)
    parser.add_argument("--out", type=Path, default=Path("external"), help="Folder for the results.")


def _evaluate(arguments: Namespace) -> None:
    from subfuse.pipeline import reported
    from subfuse.runs.run import load_run

    run = load_run(arguments.run, device=arguments.device)
    cohort = read_chosen_cohort(arguments.cohort, arguments.role)
    metrics = run.evaluate(cohort, arguments.out, seed=arguments.seed)
    print_metrics(metrics, "External cohort, mean of the models")
    _print_summary(arguments.out)
    _print_report(reported(arguments.out))


def _add_distil(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder with the model subspace.")
    parser.add_argument("--out", type=Path, default=Path("students"), help="Run folder of the students.")
    add_device(parser)
    add_workers(parser)


def _distil(arguments: Namespace) -> None:
    from subfuse.run_folder.layout import require_run_place

    require_run_place(arguments.out)

    from subfuse.pipeline import reported
    from subfuse.runs.distillation.students import distil_run
    from subfuse.runs.run import load_run

    run = load_run(arguments.run, device=arguments.device)
    with progress_bar("distil") as progress:
        result = distil_run(
            run, arguments.out, workers=n_workers(arguments), scheduler=arguments.scheduler, progress=progress
        )
    print_metrics(result.metrics, "Students, which read slides alone")
    _print_summary(result.folder)
    print_warnings(_failed(result.failures))
    _print_report(reported(result.folder))


def _failed(failures: Any) -> list[str]:
    return [f"{row.task} · {row.model} · fold {row.fold} failed: {row.reason}" for row in failures.itertuples()]


def _print_summary(run: Path) -> None:
    """Prints who was tested, and what the audit found, as the report begins."""
    from subfuse.execution import Attempts
    from subfuse.report.run_files import read_run
    from subfuse.report.summary import caution, patients_of_run

    attempts = Attempts(on_failure=lambda what, reason: print_warnings([f"{what}: {reason}"]))
    with attempts.attempt("who was tested, and what the audit found, is not told"):
        files = read_run(run)
        print("\n".join([*patients_of_run(files), caution(files).sentence]))


def _print_report(report: Path | None) -> None:
    print(f"Report: {report or 'not written, see the warning'}\n{DISCLAIMER}")


COMMANDS = {
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
    "distil": Command(
        "Train students of slides alone, taught by the subspace fusion of a run: for patients without RNA.",
        "subfuse distil run --out students",
        _add_distil,
        _distil,
    ),
    "evaluate": Command(
        "Validate a run on another cohort, with everything fitted frozen.",
        "subfuse evaluate run --cohort prepared2 --out external",
        _add_evaluate,
        _evaluate,
    ),
}

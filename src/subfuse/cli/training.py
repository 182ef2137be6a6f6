"""Commands that train and validate: train, crossval, evaluate."""

from contextlib import nullcontext
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from subfuse.cli.command import Command, add_workers, n_workers
from subfuse.cli.console import DISCLAIMER, print_metrics, print_warnings, progress_bar


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
    from subfuse.cohort.cohort import read_cohort
    from subfuse.runs.single_training import train_model
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
        print_metrics(metrics)
        print(f"Trained: {arguments.out}\nNext: subfuse report {arguments.out}\n{DISCLAIMER}")


def _add_crossval(parser: ArgumentParser) -> None:
    from jsonargparse import ActionConfigFile

    from subfuse.training.models import COMPARED_MODELS, MODELS
    from subfuse.training.settings import ArchitectureSettings, TrainingSettings

    parser.add_argument("--config", action=ActionConfigFile, help="YAML with any of these settings.")
    parser.add_argument("prepared", type=Path, help="Prepared folder.")
    parser.add_argument("--tasks", type=str, nargs="+", default=None, help="Tasks of the cohort file; default: all.")
    parser.add_argument("--models", type=str, nargs="+", default=list(COMPARED_MODELS), help=f"{', '.join(MODELS)}.")
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
    add_workers(parser)


def _crossval(arguments: Namespace) -> None:
    from subfuse.cohort.cohort import read_cohort
    from subfuse.pipeline import explain_and_report
    from subfuse.report.document import write_report
    from subfuse.runs.cross_validation import cross_validate
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
            workers=n_workers(arguments),
            scheduler=arguments.scheduler,
            progress=progress,
        )
    print_metrics(result.metrics)
    print_warnings(
        [f"{row.task} · {row.model} · fold {row.fold} failed: {row.reason}" for row in result.failures.itertuples()]
    )
    if arguments.explain:
        with progress_bar("explain") as progress:
            report = explain_and_report(result.folder, cohort, progress=progress)
    else:
        report = write_report(result.folder)
    print(f"Report: {report}\n{DISCLAIMER}")


def _add_evaluate(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("--cohort", type=Path, required=True, help="Prepared folder of the other cohort.")
    parser.add_argument(
        "--role", type=str, default=None, help="Where that folder has several cohorts: external, or a cohort's name."
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of the bootstrap.")
    parser.add_argument("--out", type=Path, default=Path("external"), help="Folder for the results.")


def _evaluate(arguments: Namespace) -> None:
    from subfuse.cohort.cohort import read_cohort
    from subfuse.report.document import write_report
    from subfuse.runs.run import load_run

    cohort = read_cohort(arguments.cohort, role=arguments.role)
    print_metrics(load_run(arguments.run).evaluate(cohort, arguments.out, seed=arguments.seed))
    print(f"Report: {write_report(arguments.out)}\n{DISCLAIMER}")


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
    "evaluate": Command(
        "Validate a run on another cohort, with everything fitted frozen.",
        "subfuse evaluate run --cohort prepared2 --out external",
        _add_evaluate,
        _evaluate,
    ),
}

"""The demo: a simulated cohort from raw files to a report."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from subfuse.cohort.cohort import Cohort
from subfuse.devices import AUTO, gpus_of
from subfuse.errors import DataError, command_line
from subfuse.execution import Attempts, Progress, run_jobs
from subfuse.files import write_table
from subfuse.report.document import write_report
from subfuse.run_folder.explanations import FAILED_EXPLANATIONS
from subfuse.runs.run import Run, load_run
from subfuse.training.models import MAIN_MODEL

logger = logging.getLogger(__name__)

_N_EXPLAINED = 2  # patients of a new run with an explanation of their own
_DEMO_FOLDS = 3  # the whole path in minutes; five, the default elsewhere, would show no more of it


def explain_and_report(
    folder: Path,
    cohort: Cohort,
    *,
    explain: bool = True,
    device: str = AUTO,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Path | None:
    """Explains a finished run over its cohort and two of its patients, and writes the report; returns its path.

    Nothing here makes a finished training a failure: what cannot be explained or reported is logged with its reason,
    and the rest goes on. `explanations/failures.csv` lists it for the report. The report is also written before,
    without explanations: it is there if explaining, which takes long for a large cohort, is interrupted. A run without
    the model `subspace` is not explained.

    Args:
        folder: The run folder.
        cohort: The run's own cohort.
        explain: False: only the report.
        device: Where networks are explained.
        workers: Local processes.
        scheduler: Address of a running Dask scheduler, instead of local processes.
        progress: Called after each step.

    Returns:
        The report; None if it could not be written.
    """
    report = reported(folder)
    attempts = Attempts(on_failure=lambda what, reason: logger.warning("not explained: %s: %s", what, reason))
    with attempts.attempt("the run"):
        run = load_run(folder, device=device)
        if not explain or MAIN_MODEL not in set(run.predictions["model"]):
            return report
        with attempts.attempt("the cohort"):
            told = telling_next(progress, "now tables of the cohort, then single patients")
            run.explain_cohort(cohort, workers=workers, scheduler=scheduler, progress=told)
        chosen = patients_to_explain(run.predictions, _N_EXPLAINED)
        if not chosen:
            attempts.failed("single patients", DataError("a predicted test patient with data is required. Found none."))
        jobs = [(run, cohort, patient_id) for patient_id in chosen]
        told = telling_next(progress, "now the report")
        gpus = [] if scheduler is not None else gpus_of(device, min(workers, len(jobs)))
        of_jobs = run_jobs(Run.explain, jobs, workers=workers, scheduler=scheduler, gpus=gpus)
        for done, (index, outcome) in enumerate(of_jobs, 1):
            if isinstance(outcome, Exception):
                attempts.failed(f"patient {jobs[index][2]}", outcome)
            if told is not None:
                told(done, len(jobs), f"patient {jobs[index][2]}")
    return reported(folder, attempts)


def telling_next(progress: Progress | None, following: str) -> Progress | None:
    """Returns a progress that says with its last step what follows, which takes a while and has no steps."""
    if progress is None:
        return None
    return lambda done, total, what: progress(done, total, what if done < total else f"{what}; {following}")


def reported(folder: Path, explained: Attempts | None = None) -> Path | None:
    """Writes what could not be explained, then the report; returns its path, or None with a warning."""

    def warn(what: str, reason: str) -> None:
        again = command_line("report", folder)
        logger.warning("%s: %s. Once that is mended: %s", what, reason.rstrip("."), again)

    with Attempts(on_failure=warn).attempt("the report could not be written"):
        if explained is not None:
            write_table(folder / FAILED_EXPLANATIONS, explained.table())
        return write_report(folder)
    return None


def patients_to_explain(predictions: pd.DataFrame, count: int) -> list[str]:
    """Returns predicted test patients, from the highest and the lowest predicted risk inwards.

    They have both modalities; where nobody has, slides; where nobody has slides, expression.
    """
    test = predictions[(predictions["split"] == "test") & (predictions["model"] == MAIN_MODEL)]
    has_slides, has_expression = test["has_slides"], test["has_expression"]
    owners = (test[has_data] for has_data in (has_slides & has_expression, has_slides, has_expression))
    test = next((rows for rows in owners if len(rows)), test.iloc[:0])
    if test["risk"].isna().all():  # no task is survival: from the surest to the least sure
        test = test.assign(risk=test.filter(regex="^p_").max(axis=1))
    order = test.dropna(subset=["risk"]).sort_values("risk", ascending=False)["patient_id"].tolist()
    alternating = [patient for pair in zip(order, reversed(order), strict=True) for patient in pair]
    return list(dict.fromkeys(alternating))[:count]


def run_demo(
    out: Path, *, patients: int, models: Sequence[str] | None = None, workers: int, progress: Progress
) -> Path | None:
    """Simulates, prepares, cross-validates, explains and reports; returns the report, if it could be written.

    Every step is resumable, so a repeated call goes on where the last one stopped. Models: those that are compared
    unless others are named.
    """
    from subfuse.cohort.cohort import read_cohort
    from subfuse.preparation.prepare import prepare
    from subfuse.runs.cross_validation import cross_validate
    from subfuse.runs.folds import choose_folds
    from subfuse.simulation.cohort import simulate
    from subfuse.training.models import compared_in

    def step(title: str) -> Progress:
        return lambda done, total, what: progress(done, total, f"{title}: {what}")

    cohort_file = simulate(out / "cohort", patients=patients, seed=0, workers=workers, progress=step("simulate"))
    prepare(cohort_file, out / "prepared", workers=workers, progress=step("prepare"))
    cohort = read_cohort(out / "prepared")
    result = cross_validate(
        cohort,
        task=list(cohort.tasks),
        models=models or compared_in(cohort, choose_folds(cohort, _DEMO_FOLDS, seed=0)),
        folds=_DEMO_FOLDS,
        out=out / "run",
        workers=workers,
        progress=step("cross-validate"),
    )
    return explain_and_report(result.folder, cohort, workers=workers, progress=step("explain"))

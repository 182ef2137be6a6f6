"""The demo: a simulated cohort from raw files to a report."""

from collections.abc import Sequence
from pathlib import Path

from subfuse.execution import Progress


def run_demo(out: Path, *, patients: int, models: Sequence[str], workers: int, progress: Progress) -> Path:
    """Simulates, prepares, cross-validates, explains and reports; returns the report.

    Every step is resumable, so a repeated call goes on where the last one stopped.
    """
    from subfuse.data.cohort import read_cohort
    from subfuse.data.preparation import prepare
    from subfuse.data.synthetic import simulate
    from subfuse.evaluation.cross_validation import cross_validate
    from subfuse.runs import explain_and_report

    def step(title: str) -> Progress:
        return lambda done, total, what: progress(done, total, f"{title}: {what}")

    cohort_file = simulate(out / "cohort", patients=patients, seed=0, workers=workers, progress=step("simulate"))
    prepare(cohort_file, out / "prepared", workers=workers, progress=step("prepare"))
    cohort = read_cohort(out / "prepared")
    result = cross_validate(
        cohort,
        task=list(cohort.tasks),
        models=models,
        out=out / "run",
        workers=workers,
        progress=step("cross-validate"),
    )
    return explain_and_report(result.folder, cohort, progress=progress)

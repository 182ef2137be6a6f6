"""The demo: a simulated cohort from raw files to a report."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from subfuse.execution import Progress

N_EXPLAINED = 2


def run_demo(out: Path, *, patients: int, models: Sequence[str], workers: int, progress: Progress) -> Path:
    """Simulates, prepares, cross-validates, explains and reports; returns the report.

    Every step is resumable, so a repeated call goes on where the last one stopped.
    """
    from subfuse.data.cohort import read_cohort
    from subfuse.data.preparation import prepare
    from subfuse.data.synthetic import simulate
    from subfuse.evaluation.cross_validation import cross_validate
    from subfuse.report.document import write_report
    from subfuse.runs import load_run

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
    run = load_run(result.folder)
    chosen = patients_to_explain(result.predictions, N_EXPLAINED)
    for done, patient_id in enumerate(chosen, start=1):
        run.explain(cohort, patient_id)
        progress(done, len(chosen), f"explain: {patient_id}")
    return write_report(result.folder)


def patients_to_explain(predictions: pd.DataFrame, count: int) -> list[str]:
    """Returns test patients with both modalities, from the highest and the lowest predicted risk inwards."""
    test = predictions[(predictions["split"] == "test") & (predictions["model"] == "subspace")]
    test = test[test["has_slides"] & test["has_expression"] & test["risk"].notna()]
    order = test.sort_values("risk", ascending=False)["patient_id"].tolist()
    alternating = [patient for pair in zip(order, reversed(order), strict=True) for patient in pair]
    return list(dict.fromkeys(alternating))[:count]

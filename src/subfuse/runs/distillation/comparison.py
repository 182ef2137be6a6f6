"""What a student keeps of its teacher: both beside models of slides that had none, on the same patients."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from subfuse.evaluation.comparisons import compare_models
from subfuse.evaluation.intervals import evaluate_predictions
from subfuse.evaluation.predictions import HEADLINES
from subfuse.run_folder.job import jobs_of
from subfuse.run_folder.names import TEACHER_PREDICTIONS
from subfuse.run_folder.tables import read_predictions, stack_predictions
from subfuse.runs.distillation.teacher import WITHOUT_EXPRESSION
from subfuse.training.models import MODELS

TITLES = {  # in the order of the table
    "subspace": "Teacher, slides and expression",
    "distilled": "Student, slides alone",
    "subspace-slides": "The same network without a teacher",
    "abmil": "ABMIL",
    WITHOUT_EXPRESSION: "Teacher, expression hidden",
}
STUDENT, TEACHER = "distilled", "subspace"
STUDENT_COLUMNS = (
    "task", "model", "title", "metric", "value", "lower", "upper",
    "difference", "difference_lower", "difference_upper", "n_patients",
)  # fmt: skip
_ROW = ["task", "repeat", "fold", "cohort", "patient_id"]


def compare_students(
    out: Path, predictions: pd.DataFrame, *, n_bootstrap: int, seed: int, ordinal: Collection[str] = ()
) -> pd.DataFrame:
    """Returns the headline metric of students, their teachers and other models of slides; no rows without students.

    All are measured on the test patients whom the student predicts, who have slides. `difference` is a model's metric
    minus the student's.

    Args:
        out: Run folder; what teachers say of the test patients is in the folders of the students' jobs.
        predictions: Columns of predictions.csv.
        n_bootstrap: Replicates of the intervals.
        seed: Of the replicates.
        ordinal: Tasks whose classes are ordered.

    Returns:
        Columns `STUDENT_COLUMNS`.
    """
    of_students = predictions[predictions["model"].map(lambda name: name in MODELS and bool(MODELS[name].taught_by))]
    paths = [job.folder(out) / TEACHER_PREDICTIONS for job, _ in jobs_of(of_students)]
    said = [read_predictions(path) for path in paths if path.exists()]
    if not said:
        return pd.DataFrame(columns=list(STUDENT_COLUMNS))
    others = predictions[(predictions["split"] == "test") & predictions["model"].isin({*TITLES} - {TEACHER})]
    together = stack_predictions([*said, others])
    tested = pd.MultiIndex.from_frame(together.loc[together["model"] == STUDENT, _ROW])
    together = together[pd.MultiIndex.from_frame(together[_ROW]).isin(tested)]
    metrics = evaluate_predictions(together, n_bootstrap=n_bootstrap, seed=seed, ordinal=ordinal)
    metrics = metrics[metrics["metric"].isin(HEADLINES)]
    differences = compare_models(together, reference=STUDENT, n_bootstrap=n_bootstrap, seed=seed)
    named = {"lower": "difference_lower", "upper": "difference_upper"}
    differences = differences[["task", "model", "difference", *named]].rename(columns=named)
    titles = metrics["model"].map(TITLES)
    found = metrics.assign(title=titles).merge(differences, on=["task", "model"], how="left")
    order = {name: place for place, name in enumerate(TITLES)}
    of_tasks = [
        rows.sort_values("model", key=lambda names: names.map(order)) for _, rows in found.groupby("task", sort=False)
    ]
    return pd.concat(of_tasks)[list(STUDENT_COLUMNS)]

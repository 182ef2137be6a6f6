"""Reading predictions.csv: its tasks, and of every patient the outcome and what was predicted of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from subfuse.errors import DataError, preview
from subfuse.evaluation.censoring import SurvivalCurves, known_orders
from subfuse.evaluation.floors import LEAST
from subfuse.evaluation.regression.columns import holds_values, known_numbers
from subfuse.evaluation.regression.outcome import NumberOutcome

FOLD = ["repeat", "fold"]
PATIENT = ["cohort", "patient_id"]
_COLUMNS = ["task", "model", *FOLD, *PATIENT, "split"]
RECALIBRATED = "recalibrated_"  # before the name of the column that is recalibrated
SPREAD = "spread_"  # before the name of the column in which networks differ
IN_SET = "in_set_"  # before the name of a class: 1 where it is in the promised set
PROMISED_DAYS = "promised_days"  # column: the day to which a patient is promised to live
EXPECTED_CHANGE = "expected_change"  # column: how much expression, which a patient lacks, would change a prediction
UNLIKE = "unlike"  # column: by which inputs a patient is unlike those of training
COMPETING = "competing"  # column: whether an event of another cause ended the follow-up; of tasks with a cause alone
_TINY = 1e-7  # the least probability of which a logarithm is taken


@dataclass(frozen=True)
class SurvivalOutcome:
    """The time to an event, predicted by a risk; answers what differs between kinds of outcomes."""

    kind: ClassVar = "survival"
    headline: ClassVar = "c_index"  # the metric by which models are compared
    columns: ClassVar = ("time_days", "event")  # of what was observed; the last one's values make up the mixture
    predicted: ClassVar = ["risk"]  # columns
    scaled_by: ClassVar = FOLD  # the models of folds put their risks on different scales
    words: ClassVar = {"predicted": "risk", "order": "risk", "judged": "ranked", "fitted on": "events"}
    classes: ClassVar[None] = None

    def counts(self, patients: pd.DataFrame) -> dict[str, Any]:
        """Returns `n_patients` and `n_events` of rows with each patient once."""
        return {"n_patients": len(patients), "n_events": int(events(patients).sum())}

    def too_few(self, tested: pd.DataFrame, least: int = LEAST) -> str | None:
        """Returns why test patients, each once, have too few events for an interval; None where they suffice."""
        n_events = int(tested["event"].astype(bool).sum())
        return None if n_events >= least else f"{n_events} events among the test patients, {least} are needed"

    def is_complete(self, rows: pd.DataFrame) -> bool:
        """Returns True: no class can lack."""
        return True

    def suffices(self, rows: pd.DataFrame, least: int) -> bool:
        """Returns whether there are enough rows, of as many events as required, to fit something on."""
        return len(rows) > 0 and int(events(rows).sum()) >= least

    def scores(self, rows: pd.DataFrame) -> Float[np.ndarray, "patient 1"]:
        """Returns the risk."""
        return risks(rows)[:, None]

    def log_scores(self, rows: pd.DataFrame) -> Float[np.ndarray, "patient 1"]:
        """Returns the risk, which is a logarithm, up to its scale."""
        return self.scores(rows)

    def comparable(self, rows: pd.DataFrame) -> Bool[np.ndarray, "1 patient patient"]:
        """Returns whose event (second axis) came while another patient (third axis) was known to be without one."""
        return known_orders(times_days(rows), events(rows))[None]


@dataclass(frozen=True)
class ClassOutcome:
    """One of several classes, predicted by the probability of each; see `SurvivalOutcome`."""

    classes: tuple[str, ...]

    kind: ClassVar = "classes"
    headline: ClassVar = "auc"
    columns: ClassVar = ("label",)
    scaled_by: ClassVar = ["repeat"]  # probabilities share their scale between folds
    words: ClassVar = {
        "predicted": "probabilities",
        "order": "order of the classes",
        "judged": "classified",
        "fitted on": "patients and some of every class",
    }

    @property
    def predicted(self) -> list[str]:
        """The columns `p_<class>`."""
        return [f"p_{name}" for name in self.classes]

    def counts(self, patients: pd.DataFrame) -> dict[str, Any]:
        """Returns `n_patients`; `n_events` is missing."""
        return {"n_patients": len(patients), "n_events": pd.NA}

    def too_few(self, tested: pd.DataFrame, least: int = LEAST) -> str | None:
        """Returns which class is too rare; one without any patient leaves its metrics undefined, and does not count."""
        counts = tested["label"].astype(str).value_counts()
        rarest = counts.index[int(np.argmin(counts))] if len(counts) else ""
        few = len(counts) > 0 and counts.min() < least
        return f"{counts.min()} test patients of class {rarest}, {least} are needed" if few else None

    def is_complete(self, rows: pd.DataFrame) -> bool:
        """Returns whether every class has a row."""
        return len(set(label_indices(rows, self.classes).tolist())) == len(self.classes)

    def suffices(self, rows: pd.DataFrame, least: int) -> bool:
        """Returns whether there are as many rows as required, and some of every class."""
        return len(rows) >= least and self.is_complete(rows)

    def scores(self, rows: pd.DataFrame) -> Float[np.ndarray, "patient class"]:
        """Returns the probabilities."""
        return class_probabilities(rows, self.classes)

    def log_scores(self, rows: pd.DataFrame) -> Float[np.ndarray, "patient class"]:
        """Returns the log probabilities."""
        return np.log(np.maximum(self.scores(rows), _TINY))

    def comparable(self, rows: pd.DataFrame) -> Bool[np.ndarray, "class patient patient"]:
        """Returns who (second axis) is of a class while another patient (third axis) is not."""
        is_class = label_indices(rows, self.classes)[None] == np.arange(len(self.classes))[:, None]
        return is_class[:, :, None] & ~is_class[:, None, :]


Outcome = SurvivalOutcome | ClassOutcome | NumberOutcome
HEADLINES = (SurvivalOutcome.headline, ClassOutcome.headline, NumberOutcome.headline)


@dataclass(frozen=True)
class TaskPredictions:
    """All rows of one task."""

    name: str
    rows: pd.DataFrame
    outcome: Outcome

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Of the outcome; None for survival and for numbers."""
        return self.outcome.classes

    @property
    def headline(self) -> str:
        """The metric by which models of this task are compared."""
        return self.outcome.headline

    @property
    def tested(self) -> pd.DataFrame:
        """Rows of test patients, of every model."""
        return self.rows[self.rows["split"] == "test"]

    @property
    def models(self) -> tuple[str, ...]:
        """Models in order of appearance."""
        return tuple(self.rows["model"].unique())

    def tested_by(self, model: str) -> pd.DataFrame:
        """Returns one model's rows of test patients."""
        return self.tested[self.tested["model"] == model]

    def of_model(self, model: str) -> pd.DataFrame:
        """Returns one model's rows, of every split."""
        return self.rows[self.rows["model"] == model]


def read_tasks(predictions: pd.DataFrame) -> Iterator[TaskPredictions]:
    """Yields the tasks of a predictions table in order of appearance.

    A task with risks is survival, one with predicted values regression; otherwise its classes are the `p_<class>`
    columns that it fills, in their order.

    Raises:
        DataError: Columns are missing, a patient has two rows in a fold of a model, or a task lacks predictions
            or test patients.
    """
    _check_table(predictions)
    for name, rows in predictions.groupby("task", sort=False):
        if not (rows["split"] == "test").any():
            raise DataError(
                f"evaluation needs rows of split test. Found {preview(rows['split'].unique())} in task {name}."
            )
        if holds_risks(rows):
            yield TaskPredictions(str(name), rows, SurvivalOutcome())
            continue
        if holds_values(rows):
            yield TaskPredictions(str(name), rows, NumberOutcome())
            continue
        classes = predicted_classes(rows)
        if len(classes) < 2:
            raise DataError(
                f"predictions of task {name} must fill risk, predicted_value or p_<class> of two classes or more. "
                f"Found {preview(classes) or 'none'}. Add what the models predicted."
            )
        yield TaskPredictions(str(name), rows, ClassOutcome(tuple(classes)))


def holds_risks(rows: pd.DataFrame) -> bool:
    """Returns whether these rows of a task are of survival: they fill the column `risk`."""
    return "risk" in rows and bool(rows["risk"].notna().any())


def columns_with(rows: pd.DataFrame, *prefixes: str) -> list[str]:
    """Returns the columns of predictions that begin so, in their order: `p_`, `survival_`, `contribution_`, `risk`."""
    return [name for name in map(str, rows.columns) if name.startswith(prefixes)]


def class_columns(rows: pd.DataFrame) -> list[str]:
    """Returns the columns `p_<class>` that these rows of a task fill, in their order; none beside risks."""
    return [] if holds_risks(rows) else [name for name in columns_with(rows, "p_") if rows[name].notna().any()]


def predicted_classes(rows: pd.DataFrame) -> list[str]:
    """Returns the classes whose probabilities these rows hold, in the order of the columns."""
    return [name.removeprefix("p_") for name in class_columns(rows)]


def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns the rows of tables below each other; empty tables, whose columns have no type, change none."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def events(rows: pd.DataFrame) -> Bool[np.ndarray, " patient"]:
    """Returns the column `event`, whether read as booleans or as text.

    Raises:
        DataError: A value is neither True nor False.
    """
    return known_numbers(rows, "event", rows["event"].astype(str).map({"True": True, "False": False})).astype(bool)


def competing_events(rows: pd.DataFrame) -> Bool[np.ndarray, " patient"] | None:
    """Returns whose follow-up an event of another cause ended; None where the task tells no causes apart."""
    if COMPETING not in rows or not rows[COMPETING].notna().any():
        return None
    return known_numbers(rows, COMPETING, rows[COMPETING].astype(str).map({"True": True, "False": False})).astype(bool)


def times_days(rows: pd.DataFrame) -> Float[np.ndarray, " patient"]:
    """Returns the column `time_days`.

    Raises:
        DataError: A value is missing.
    """
    return known_numbers(rows, "time_days", rows["time_days"])


def risks(rows: pd.DataFrame) -> Float[np.ndarray, " patient"]:
    """Returns the column `risk`; higher is worse.

    Raises:
        DataError: A value is missing.
    """
    return known_numbers(rows, "risk", rows["risk"])


def class_probabilities(rows: pd.DataFrame, classes: Sequence[str]) -> Float[np.ndarray, "patient class"]:
    """Returns the columns `p_<class>`.

    Raises:
        DataError: A value is missing.
    """
    return np.stack([known_numbers(rows, f"p_{name}", rows[f"p_{name}"]) for name in classes], axis=1)


def label_indices(rows: pd.DataFrame, classes: Sequence[str]) -> Int[np.ndarray, " patient"]:
    """Returns the index of each row's `label` among the classes.

    Raises:
        DataError: A label is missing or is not one of the classes.
    """
    position = {name: index for index, name in enumerate(classes)}
    found = rows["label"].map(lambda label: position.get(class_name(label), np.nan))
    if found.isna().any():
        row = rows[found.isna()].iloc[0]
        raise DataError(
            f"label must be one of the predicted classes {preview(classes, 10)}. "
            f"Found {row['label']} for patient {row['patient_id']} of task {row['task']}. Correct the predictions."
        )
    return found.to_numpy(dtype=np.int64)


def class_name(label: object) -> str:
    """Returns a known class as text; a column of whole numbers with gaps is read as 2.0, 3.0."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def survival_curves(tested: pd.DataFrame) -> SurvivalCurves | None:
    """Returns the survival columns that this fold's model fills, with their days; None without any.

    Time bins differ between folds: of pooled folds, only the days that all share.

    Raises:
        DataError: A value is missing, or a column is not named `survival_<days>`.
    """
    columns = curve_columns(tested)
    if tested["fold"].nunique() > 1:  # pooled: a day of one fold says nothing about patients of the others
        columns = {day: column for day, column in columns.items() if tested[column].notna().all()}
    if not columns:
        return None
    curves = [known_numbers(tested, column, tested[column]) for column in columns.values()]
    return SurvivalCurves(np.array(list(columns)), np.stack(curves, axis=1))


def curve_columns(rows: pd.DataFrame) -> dict[float, str]:
    """Returns the survival columns that these rows fill, by their days in order.

    Raises:
        DataError: A column is not named `survival_<days>`.
    """
    days = {_days(column): column for column in columns_with(rows, "survival_")}
    return {day: days[day] for day in sorted(days) if np.isfinite(day) and rows[days[day]].notna().any()}


def _days(column: str) -> float:
    try:
        return float(column.removeprefix("survival_"))
    except ValueError as error:
        raise DataError(
            f"survival columns must be named survival_<days>. Found {column}. Rename it; a follow-up in months or "
            "years is time_months or time_years in `audit --columns`."
        ) from error


def _check_table(predictions: pd.DataFrame) -> None:
    missing = [column for column in _COLUMNS if column not in predictions]
    if missing:
        raise DataError(f"predictions need the columns {preview(_COLUMNS, 10)}. Missing: {preview(missing, 10)}.")
    repeated = predictions.duplicated([*_COLUMNS[:-1]])
    if repeated.any():
        row = predictions[repeated].iloc[0]
        raise DataError(
            f"predictions must have one row per patient, task, model and fold. Found several of patient "
            f"{row['patient_id']} (task {row['task']}, model {row['model']}, fold {row['fold']}). Remove the repeats."
        )

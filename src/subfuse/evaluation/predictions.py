"""Reading predictions.csv: which patients of a model are ranked together, with their outcomes and predictions."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from subfuse.errors import DataError, preview
from subfuse.evaluation.censoring import CensoringDistribution, SurvivalCurves, SurvivalSample
from subfuse.evaluation.delong import BinaryAuc, binary_auc
from subfuse.evaluation.metrics import Metric, classification_metrics, survival_metrics
from subfuse.evaluation.weighted_metrics import (
    weighted_auc,
    weighted_c_index,
    weighted_classification_metrics,
    weighted_probability_errors,
    weighted_survival_metrics,
)

FOLD = ["repeat", "fold"]
PATIENT = ["cohort", "patient_id"]
_COLUMNS = ["task", "model", *FOLD, *PATIENT, "split"]


@dataclass(frozen=True)
class TaskPredictions:
    """All rows of one task; `classes` is None for survival."""

    name: str
    rows: pd.DataFrame
    classes: tuple[str, ...] | None

    @property
    def headline(self) -> str:
        """The metric by which models of this task are compared."""
        return "c_index" if self.classes is None else "auc"

    @property
    def predicted(self) -> list[str]:
        """Columns of the predictions: `risk`, or `p_<class>` of every class."""
        return ["risk"] if self.classes is None else [f"p_{name}" for name in self.classes]

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


@dataclass(frozen=True)
class RankedPatients:
    """Test patients of one model that are compared with each other: those of one fold, or of several pooled."""

    patients: pd.MultiIndex  # cohort, patient_id; the order of the weights
    n_train: int
    metrics: Mapping[str, Metric]
    weighted: Callable[[np.ndarray], dict[str, np.ndarray]]  # weights (replicate, patient) -> metric -> (replicate,)
    weighted_headline: Callable[[np.ndarray], np.ndarray]  # weights (replicate, patient) -> (replicate,)
    truncation_days: float = np.nan  # of the censoring-weighted metrics; NaN without training patients
    delong: BinaryAuc | None = None  # of two classes with two patients each
    weighted_errors: Callable[[np.ndarray], dict[str, np.ndarray]] | None = None  # like `weighted`, of probabilities


def read_tasks(predictions: pd.DataFrame) -> Iterator[TaskPredictions]:
    """Yields the tasks of a predictions table in order of appearance.

    A task with risks is survival; otherwise its classes are the `p_<class>` columns that it fills, in their order.

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
            yield TaskPredictions(str(name), rows, None)
            continue
        classes = predicted_classes(rows)
        if len(classes) < 2:
            raise DataError(
                f"predictions of task {name} must fill the column risk or p_<class> of two classes or more. "
                f"Found {preview(classes) or 'none'}. Add what the models predicted."
            )
        yield TaskPredictions(str(name), rows, tuple(classes))


def holds_risks(rows: pd.DataFrame) -> bool:
    """Returns whether these rows of a task are of survival: they fill the column `risk`."""
    return "risk" in rows and bool(rows["risk"].notna().any())


def columns_with(rows: pd.DataFrame, *prefixes: str) -> list[str]:
    """Returns the columns of predictions that begin so, in their order: `p_`, `survival_`, `contribution_`, `risk`."""
    return [name for name in map(str, rows.columns) if name.startswith(prefixes)]


def class_columns(rows: pd.DataFrame) -> list[str]:
    """Returns the columns `p_<class>` that these rows fill, in their order."""
    return [name for name in columns_with(rows, "p_") if rows[name].notna().any()]


def predicted_classes(rows: pd.DataFrame) -> list[str]:
    """Returns the classes whose probabilities these rows hold, in the order of the columns."""
    return [name.removeprefix("p_") for name in class_columns(rows)]


def ranked_patients(
    rows: pd.DataFrame, classes: Sequence[str] | None, *, by: Sequence[str] = tuple(FOLD)
) -> list[RankedPatients]:
    """Returns the groups of one model's test patients that are ranked together, sorted by fold.

    Args:
        rows: One model's rows of one task, all splits.
        classes: Of the task; None for survival.
        by: What makes a group: repeat and fold, or the repeat alone to pool its folds.

    Raises:
        DataError: A test patient lacks an outcome or a prediction, or has a class that is not predicted.
    """
    trained = dict(list(rows[rows["split"] == "train"].groupby(list(by))))
    groups = []
    for key, tested in rows[rows["split"] == "test"].groupby(list(by)):
        train = trained.get(key, rows.iloc[:0])
        patients = pd.MultiIndex.from_frame(tested[PATIENT])
        if classes is None:
            group = _survival_group(tested, train, patients)
        else:
            label, probabilities = label_indices(tested, classes), class_probabilities(tested, classes)
            group = RankedPatients(
                patients,
                len(train),
                classification_metrics(label, probabilities, classes=classes),
                partial(weighted_classification_metrics, label, probabilities),
                partial(weighted_auc, label, probabilities),
                delong=_delong(label, probabilities, patients),
                weighted_errors=partial(weighted_probability_errors, label, probabilities),
            )
        groups.append(group)
    return groups


def stacked(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns the rows of tables below each other; empty tables, whose columns have no type, change none."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def events(rows: pd.DataFrame) -> Bool[np.ndarray, " patient"]:
    """Returns the column `event`, whether read as booleans or as text.

    Raises:
        DataError: A value is neither True nor False.
    """
    return _column(rows, "event", rows["event"].astype(str).map({"True": True, "False": False})).astype(bool)


def times_days(rows: pd.DataFrame) -> Float[np.ndarray, " patient"]:
    """Returns the column `time_days`.

    Raises:
        DataError: A value is missing.
    """
    return _column(rows, "time_days", rows["time_days"])


def risks(rows: pd.DataFrame) -> Float[np.ndarray, " patient"]:
    """Returns the column `risk`; higher is worse.

    Raises:
        DataError: A value is missing.
    """
    return _column(rows, "risk", rows["risk"])


def _survival_group(tested: pd.DataFrame, train: pd.DataFrame, patients: pd.MultiIndex) -> RankedPatients:
    time_days, event, risk = times_days(tested), events(tested), risks(tested)
    curves = survival_curves(tested)
    survival, survival_days = (None, None) if curves is None else (curves.survival, curves.days)
    train_time_days, train_event = (None, None) if train.empty else (times_days(train), events(train))
    metrics = survival_metrics(
        time_days,
        event,
        risk,
        train_time_days=train_time_days,
        train_event=train_event,
        survival=survival,
        survival_days=survival_days,
    )
    censoring = None if train.empty else CensoringDistribution.fit(times_days(train), events(train))
    sample = SurvivalSample(time_days, event, risk, censoring, survival, survival_days)
    return RankedPatients(
        patients,
        len(train),
        metrics,
        partial(weighted_survival_metrics, sample),
        partial(weighted_c_index, time_days, event, risk),
        truncation_days=np.nan if censoring is None else censoring.truncation_days,
    )


def _delong(
    label: Int[np.ndarray, " patient"], probabilities: Float[np.ndarray, "patient class"], patients: pd.MultiIndex
) -> BinaryAuc | None:
    is_second = label == 1
    if probabilities.shape[1] != 2 or min(is_second.sum(), (~is_second).sum()) < 2:
        return None
    return binary_auc(is_second, probabilities[:, 1], patients)


def class_probabilities(rows: pd.DataFrame, classes: Sequence[str]) -> Float[np.ndarray, "patient class"]:
    """Returns the columns `p_<class>`.

    Raises:
        DataError: A value is missing.
    """
    return np.stack([_column(rows, f"p_{name}", rows[f"p_{name}"]) for name in classes], axis=1)


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
    curves = [_column(tested, column, tested[column]) for column in columns.values()]
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
        raise DataError(f"survival columns must be named survival_<days>. Found {column}. Rename it.") from error


def _column(rows: pd.DataFrame, name: str, values: pd.Series) -> Float[np.ndarray, " patient"]:
    """Returns the values as numbers; missing ones are an error that names the first patient."""
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    missing = ~np.isfinite(numbers)
    if missing.any():
        row = rows[missing].iloc[0]
        raise DataError(
            f"{name} must be known for every evaluated patient. Found {row[name]} for {missing.sum()} rows, the first "
            f"patient {row['patient_id']} (task {row['task']}, model {row['model']}, fold {row['fold']}). "
            f"Leave out rows without an outcome; a model that predicts nothing has failed."
        )
    return numbers


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

"""Which test patients of a model are ranked together, with their metrics, and these for any weights of patients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from subfuse.evaluation.censoring import CensoringDistribution, SurvivalCurves, SurvivalSample
from subfuse.evaluation.delong import BinaryAuc, binary_auc
from subfuse.evaluation.metrics import Metric, classification_metrics, metrics_of
from subfuse.evaluation.predictions import (
    FOLD,
    PATIENT,
    Outcome,
    class_probabilities,
    events,
    label_indices,
    risks,
    survival_curves,
    times_days,
)
from subfuse.evaluation.regression.columns import observed_values, predicted_values
from subfuse.evaluation.regression.metrics import (
    regression_metrics,
    weighted_regression_metrics,
    weighted_value_errors,
)
from subfuse.evaluation.weighted_metrics import (
    weighted_auc,
    weighted_c_index,
    weighted_classification_metrics,
    weighted_order,
    weighted_probability_errors,
    weighted_survival_metrics,
)


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
    weighted_errors: Callable[[np.ndarray], dict[str, np.ndarray]] | None = (
        None  # like `weighted`, of what is predicted itself
    )


def ranked_patients(rows: pd.DataFrame, outcome: Outcome, *, by: Sequence[str] = tuple(FOLD)) -> list[RankedPatients]:
    """Returns the groups of one model's test patients that are ranked together, sorted by fold.

    Args:
        rows: One model's rows of one task, all splits.
        outcome: Of the task.
        by: What makes a group: repeat and fold, or the repeat alone to pool its folds.

    Raises:
        DataError: A test patient lacks an outcome or a prediction, or has a class that is not predicted.
    """
    trained = dict(list(rows[rows["split"] == "train"].groupby(list(by))))
    return [
        _group(tested, trained.get(key, rows.iloc[:0]), outcome)
        for key, tested in rows[rows["split"] == "test"].groupby(list(by))
    ]


def survival_sample(tested: pd.DataFrame, train: pd.DataFrame, curves: SurvivalCurves | None) -> SurvivalSample:
    """Returns test patients as survival metrics read them, with the censoring of the training patients, if any.

    Raises:
        DataError: A patient lacks an outcome, or a test patient a risk.
    """
    return SurvivalSample(
        times_days(tested),
        events(tested),
        risks(tested),
        None if train.empty else CensoringDistribution.fit(times_days(train), events(train)),
        *((None, None) if curves is None else (curves.survival, curves.days)),
    )


def _group(tested: pd.DataFrame, train: pd.DataFrame, outcome: Outcome) -> RankedPatients:
    if outcome.classes is not None:
        return _class_group(tested, len(train), outcome.classes)
    return _survival_group(tested, train) if outcome.kind == "survival" else _value_group(tested, len(train))


def _survival_group(tested: pd.DataFrame, train: pd.DataFrame) -> RankedPatients:
    sample = survival_sample(tested, train, survival_curves(tested))
    return RankedPatients(
        pd.MultiIndex.from_frame(tested[PATIENT]),
        len(train),
        metrics_of(sample),
        partial(weighted_survival_metrics, sample),
        partial(weighted_c_index, sample.time_days, sample.event, sample.risk),
        truncation_days=np.nan if sample.censoring is None else sample.censoring.truncation_days,
    )


def _class_group(tested: pd.DataFrame, n_train: int, classes: Sequence[str]) -> RankedPatients:
    patients = pd.MultiIndex.from_frame(tested[PATIENT])
    label, probabilities = label_indices(tested, classes), class_probabilities(tested, classes)
    return RankedPatients(
        patients,
        n_train,
        classification_metrics(label, probabilities, classes=classes),
        partial(weighted_classification_metrics, label, probabilities),
        partial(weighted_auc, label, probabilities),
        delong=_delong(label, probabilities, patients),
        weighted_errors=partial(weighted_probability_errors, label, probabilities),
    )


def _value_group(tested: pd.DataFrame, n_train: int) -> RankedPatients:
    value, predicted = observed_values(tested), predicted_values(tested)
    return RankedPatients(
        pd.MultiIndex.from_frame(tested[PATIENT]),
        n_train,
        regression_metrics(value, predicted),
        partial(weighted_regression_metrics, value, predicted),
        partial(weighted_order, value, predicted),
        weighted_errors=partial(weighted_value_errors, value, predicted),
    )


def _delong(
    label: Int[np.ndarray, " patient"], probabilities: Float[np.ndarray, "patient class"], patients: pd.MultiIndex
) -> BinaryAuc | None:
    is_second = label == 1
    if probabilities.shape[1] != 2 or min(is_second.sum(), (~is_second).sum()) < 2:
        return None
    return binary_auc(is_second, probabilities[:, 1], patients)

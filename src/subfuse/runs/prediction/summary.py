"""What the models of all folds say of one patient, in few numbers and in words."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from subfuse.errors import listed
from subfuse.evaluation.benefit.conformal import PROMISED
from subfuse.evaluation.predictions import (
    EXPECTED_CHANGE,
    IN_SET,
    PROMISED_DAYS,
    RECALIBRATED,
    SPREAD,
    columns_with,
    holds_risks,
)
from subfuse.evaluation.regression.columns import PREDICTED_VALUE, holds_values
from subfuse.runs.prediction.spread import joint_spread
from subfuse.training.models import model_title

SUMMARY_COLUMNS = ("task", "model", "quantity", "mean", "spread", "lowest", "highest", "n_models")


def summarise(predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns mean, spread and range, over the models of all folds, of what they say of one patient.

    Quantities: class probabilities; for survival the risk percentile (0 to 100, among a model's training patients),
    survival at one, three and five years and the contributions of the subspaces to the mean hazard logit; predicted
    numbers and the contributions to their distance from the training mean; both probabilities recalibrated, where the
    validation patients of the models suffice; of a patient without expression, how much it would change a prediction.
    Left out are contributions to a class, which is that predicted by the model, and not the same in all. The range is
    how far models disagree that were trained on other patients of the same cohort; the spread counts the networks of
    ensembles too, see `joint_spread`. Neither is a confidence interval.

    Returns:
        Columns task, model, quantity, mean, spread, lowest, highest, n_models.
    """
    rows = []
    for (task, model), table in predictions.groupby(["task", "model"], sort=False):
        kinds: tuple[str, ...] = ("p_",)
        if holds_risks(table) or holds_values(table):
            kinds = ("risk_percentile", "survival_", PREDICTED_VALUE, "contribution_")
        joint = joint_spread(table, ["task"]) if columns_with(table, SPREAD) else pd.DataFrame(index=[task])
        for name in columns_with(table, *kinds, RECALIBRATED, EXPECTED_CHANGE):
            values = table[name].dropna().to_numpy(float)
            if len(values):
                spread = joint[f"{SPREAD}{name}"].iloc[0] if f"{SPREAD}{name}" in joint else np.nan
                rows.append((task, model, name, values.mean(), spread, values.min(), values.max(), len(values)))
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


def promised(mean: pd.DataFrame) -> Iterator[str]:
    """Yields in words what is promised to a patient: a set of classes, or the day to which he or she lives.

    Args:
        mean: Of one patient, as `mean_predictions` returns it; a row without a promise yields nothing.
    """
    for row in mean.to_dict("records"):
        of, words = f"{row['task']} · {model_title(str(row['model']))}", f"with a probability of {PROMISED:.0%}"
        if np.isfinite(row.get(PROMISED_DAYS, np.nan)):
            yield f"{of}: no event before day {row[PROMISED_DAYS]:.0f}, {words}"
        sets = {name.removeprefix(IN_SET): row[name] for name in columns_with(mean, IN_SET) if np.isfinite(row[name])}
        if sets:
            chosen = [name for name, is_in in sets.items() if is_in]
            yield (
                f"{of}: one of {listed(chosen)}, {words}" if chosen else f"{of}: no class is sure enough to be promised"
            )

"""External validation: patients whom no model has seen, predicted by those of all folds with nothing refitted."""

import numpy as np
import pandas as pd

from subfuse.errors import DataError
from subfuse.run_folder import order_columns

GROUP = ["task", "model"]


def external_predictions(predicted: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Returns one test row per new patient, task and model: the mean over the models of all folds and repeats.

    Class probabilities and contributions are averaged. Risks of different folds have different scales, so `risk` is
    the mean percentile (0 to 100) of the patient among each model's training patients. Survival curves have other days
    in every fold and are left out.

    Args:
        predicted: What `Run.predict` returns for the new patients; rows of split `new` are used.
        known: The run's own predictions. Their test patients are returned as rows of split `train`, with their
            percentile as risk: censoring and thresholds come from the patients whom the models were developed on.

    Raises:
        DataError: There is no new patient with a known outcome.
    """
    new = predicted[(predicted["split"] == "new") & (predicted["event"].notna() | predicted["label"].notna())]
    if new.empty:
        raise DataError(
            "external validation needs new patients with a known outcome of the run's tasks. Found none among "
            f"{predicted['patient_id'].nunique()} predicted patients. Declare the outcomes in the cohort file."
        )
    tested = _averaged(new.assign(risk=new["risk_percentile"]), "test")
    developed = _averaged(with_percentiles(known).query("split == 'test'"), "train")
    groups = pd.MultiIndex.from_frame(tested[GROUP].drop_duplicates())
    developed = developed[pd.MultiIndex.from_frame(developed[GROUP]).isin(groups)]
    return order_columns(pd.concat([developed, tested], ignore_index=True).assign(repeat=0, fold=0))


def with_percentiles(known: pd.DataFrame) -> pd.DataFrame:
    """Returns predictions with `risk` as the percentile (0 to 100) among the training patients of the same model."""
    table = known.copy()
    for _, rows in known.groupby([*GROUP, "repeat", "fold"], sort=False):
        trained = np.sort(rows.loc[rows["split"] == "train", "risk"].dropna().to_numpy(float))
        table.loc[rows.index, "risk"] = risk_percentile(rows["risk"].to_numpy(float), trained)
    return table


def risk_percentile(risk: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Returns the share (0 to 100) of training patients with a lower risk; NaN where a risk is.

    Args:
        risk: (patient,) risks of one model.
        trained: (training patient,) risks of its training patients, sorted.
    """
    if len(trained) == 0:
        return np.full(len(risk), np.nan)
    return np.where(np.isnan(risk), np.nan, np.searchsorted(trained, risk) / len(trained) * 100)


def _averaged(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    averaged = [name for name in map(str, rows) if name.startswith(("p_", "contribution_"))]
    fixed = ["cohort", "time_days", "event", "label", "has_slides", "has_expression"]
    how = {"risk": "mean"} | dict.fromkeys(averaged, "mean") | dict.fromkeys(fixed, "first")
    return rows.groupby([*GROUP, "patient_id"], sort=False, as_index=False).agg(how).assign(split=split)

"""New patients, predicted by the models of all folds with nothing refitted: their mean, and validation on them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from subfuse.errors import DataError, preview
from subfuse.evaluation.predictions import (
    COMPETING,
    EXPECTED_CHANGE,
    IN_SET,
    PROMISED_DAYS,
    RECALIBRATED,
    SPREAD,
    UNLIKE,
    class_columns,
    columns_with,
    predicted_classes,
)
from subfuse.evaluation.recalibration import recalibrated_classes, recalibrated_survival
from subfuse.evaluation.regression.columns import PREDICTED_VALUE, VALUE, holds_values
from subfuse.evaluation.survival.horizons import HORIZON_COLUMNS
from subfuse.run_folder.tables import order_columns
from subfuse.runs.prediction.spread import joint_spread
from subfuse.runs.prediction.unlike import joint_unlike

GROUP = ["task", "model"]
_MODEL = [*GROUP, "repeat", "fold"]
_MEAN = "mean"  # in the column `fold`: the row of a patient, beside those of the models
_OF_PATIENT = ("split", "cohort", "time_days", "event", "label", "has_slides", "has_expression")


def mean_predictions(predicted: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per patient, task and model: the mean over the models of all folds and repeats.

    Risks, percentiles, survival, class probabilities and numbers are averaged as they are. Contributions to a class are
    those to the class that a model predicts: they are averaged where all models predict the same one, else empty.
    Survival at a horizon is the mean over the models whose training patients were followed so far, as `reason` says.
    Recalibrated probabilities are those of every model by its own validation patients, and empty where one has too few;
    so are promises. A class is in the promised set where it is in that of most models, and the promised day is the
    median: of promises that each hold for a share p, the majority holds for 2p - 1 at least, whatever they have in
    common (Gasparin and Ramdas 2024), and for about p where the models agree. Spreads are `joint_spread`, and a patient
    is unlike those of training by what most models find so.

    Returns:
        Columns of `predicted`, with fold `mean`, an empty repeat, and `n_models`.
    """
    numbers = columns_with(predicted, "risk", "survival_", "p_", "contribution_", PREDICTED_VALUE, RECALIBRATED, IN_SET)
    how = dict.fromkeys([*numbers, *columns_with(predicted, EXPECTED_CHANGE)], "mean")
    how |= dict.fromkeys(columns_with(predicted, PROMISED_DAYS), "median")
    of_patient = (*_OF_PATIENT, *(name for name in (VALUE, COMPETING) if name in predicted))
    how |= dict.fromkeys(of_patient, "first")
    grouped = predicted.groupby([*GROUP, "patient_id"], sort=False)
    table = grouped.agg(how)
    table["n_models"] = grouped.size()
    table.loc[~_agreed(predicted).reindex(table.index), columns_with(predicted, "contribution_")] = np.nan
    sets, days = columns_with(predicted, IN_SET), columns_with(predicted, PROMISED_DAYS)
    by_validation = columns_with(predicted, RECALIBRATED) + sets + days
    of_all = grouped[by_validation].count().eq(table["n_models"], axis=0)
    table[by_validation] = table[by_validation].where(of_all)
    table[sets] = (table[sets] > 0.5).astype(float).where(of_all[sets])
    if UNLIKE in predicted:
        table[UNLIKE] = joint_unlike(predicted, [*GROUP, "patient_id"])
    if columns_with(predicted, SPREAD):
        table = table.join(joint_spread(predicted, [*GROUP, "patient_id"]))
    horizons = [name for name in HORIZON_COLUMNS if name in predicted]
    reached = grouped[horizons].count()
    table["reason"] = [
        _reason(dict(zip(horizons, counts, strict=True)), n_models) if is_survival else None
        for counts, n_models, is_survival in zip(
            reached.to_numpy().tolist(), table["n_models"].tolist(), table["risk"].notna(), strict=True
        )
    ]
    return order_columns(table.reset_index().assign(fold=_MEAN, repeat=None))


def without_unknown_classes(predicted: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Returns the rows of patients whose class the models of a task know, or who have none, and a note on the others.

    A model cannot be right or wrong about a class that no training patient had.
    """
    kept, notes = [], []
    for task, rows in predicted.groupby("task", sort=False):
        classes = predicted_classes(rows)
        unknown = rows["label"].notna() & ~rows["label"].isin(classes) if classes else pd.Series(False, rows.index)
        others = rows[unknown]
        if len(others):
            found = preview(sorted(others["label"].astype(str).unique()))
            notes.append(
                f"{task}: {others['patient_id'].nunique()} patients of a class that no training patient had ({found}; "
                f"training had {preview(classes)}) are left out of this task: "
                f"{preview(others['patient_id'].unique())}. What means the same is written alike: correct the clinical "
                "table and prepare it again"
            )
        kept.append(rows[~unknown])
    return pd.concat(kept, ignore_index=True), notes


def told_of_known(patients: Sequence[str], known: pd.DataFrame) -> list[str]:
    """Returns a note on the patients of another cohort whom the run's own predictions name: they are not new to it."""
    there = set(known["patient_id"])
    both = [patient for patient in patients if patient in there]
    if not both:
        return []
    return [
        f"{len(both)} of {len(patients)} patients took part in the run, by their identifiers, and are left out: "
        f"{preview(both)}"
    ]


def external_predictions(predicted: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Returns one test row per new patient, task and model: the mean over the models, see `mean_predictions`.

    Args:
        predicted: What `Run.predict` returns for the new patients; rows of split `new` are used.
        known: The run's own predictions. Their test patients are returned as rows of split `train`: censoring and
            thresholds come from the patients whom the models were developed on. Each was predicted by one model, whose
            risks have their own location and spread: they are moved to the mean location and spread of the models.

    Raises:
        DataError: There is no new patient with a known outcome.
    """
    is_new = predicted["split"] == "new"
    outcomes = [name for name in ("event", "label", VALUE) if name in predicted]
    new = predicted[is_new & predicted[outcomes].notna().any(axis=1)]
    if new.empty:
        raise DataError(
            f"external validation needs new patients with a known outcome of {preview(predicted['task'].unique())}. "
            f"{_no_new_outcomes(predicted, is_new)}"
        )
    new = new.drop(
        columns=columns_with(new, SPREAD, IN_SET, PROMISED_DAYS, EXPECTED_CHANGE, UNLIKE)
    )  # of single patients
    tested = _complete_horizons(mean_predictions(new)).assign(split="test")
    of_tested = pd.MultiIndex.from_frame(known[GROUP]).isin(pd.MultiIndex.from_frame(tested[GROUP]))
    developed = with_percentiles(on_one_scale(known[of_tested])).query("split == 'test'")
    # survival is of other days in every fold
    developed = mean_predictions(developed.drop(columns=columns_with(developed, "survival_"))).assign(split="train")
    return order_columns(pd.concat([developed, tested], ignore_index=True).assign(repeat=0, fold=0))


def _no_new_outcomes(predicted: pd.DataFrame, is_new: pd.Series) -> str:
    """Returns why no patient has a prediction as a new one and an outcome, and what to do."""
    cohorts, n_patients = preview(predicted["cohort"].unique()), predicted["patient_id"].nunique()
    n_known = predicted.loc[~is_new, "patient_id"].nunique()
    if not n_known:
        return (
            f"The {n_patients} patients of {cohorts} have no outcome. Map it in patients.columns and prepare again, "
            "or use `subfuse predict`, which needs none."
        )
    took_part = (
        f"All {n_patients} patients of {cohorts} took part in the run"
        if n_known == n_patients
        else f"Of the {n_patients} patients of {cohorts}, {n_known} took part in the run, the others have no outcome"
    )
    return f"{took_part}. Choose another --cohort or --role."


def with_percentiles(known: pd.DataFrame) -> pd.DataFrame:
    """Returns predictions with `risk_percentile`, the percentile (0 to 100) among the model's training patients."""
    percentile = pd.Series(np.nan, index=known.index)
    for _, rows in known.groupby(_MODEL, sort=False):
        trained = np.sort(rows.loc[rows["split"] == "train", "risk"].dropna().to_numpy(float))
        percentile.loc[rows.index] = risk_percentile(rows["risk"].to_numpy(float), trained)
    return known.assign(risk_percentile=percentile)


def with_recalibrated(known: pd.DataFrame) -> pd.DataFrame:
    """Returns predictions with `recalibrated_...` beside every probability, by the model's own validation patients.

    Empty where a model has too few of them, and where it did not predict the patient.
    """
    tables = []
    for _, rows in known.groupby(_MODEL, sort=False):
        if holds_values(rows):
            continue
        rows = rows.dropna(subset=class_columns(rows) or ["risk"])
        validation, classes = rows[rows["split"] == "validation"], predicted_classes(rows)
        after = (
            recalibrated_classes(rows, validation, classes)
            if classes
            else recalibrated_survival(rows, rows, validation)
        )
        tables.append(after[columns_with(after, RECALIBRATED)])
    return known.join(pd.concat(tables)) if tables else known


def risk_percentile(risk: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Returns the share (0 to 100) of training patients, given their sorted risks, with a lower risk; NaN stays.

    Training patients of the same risk count one half: of a sparse model there may be many, alike in all genes it reads.
    """
    if len(trained) == 0:
        return np.full(len(risk), np.nan)
    below = (np.searchsorted(trained, risk, "left") + np.searchsorted(trained, risk, "right")) / 2
    return np.where(np.isnan(risk), np.nan, below / len(trained) * 100)


def on_one_scale(known: pd.DataFrame) -> pd.DataFrame:
    """Returns predictions with risks moved and scaled so that all folds' models share mean and spread in training.

    The shared mean and spread are the averages over the models of a task. Risks without any spread are only moved.
    """
    trained = known[known["split"] == "train"].groupby(_MODEL, sort=False)["risk"]
    own = pd.DataFrame({"mean": trained.mean(), "spread": trained.std()})
    shared = own.groupby(level=GROUP).transform("mean")
    factor = (shared["spread"] / own["spread"]).where(own["spread"] > 0, 1.0)
    of_row = pd.MultiIndex.from_frame(known[_MODEL])
    mean, target, scale = (part.reindex(of_row).to_numpy(float) for part in (own["mean"], shared["mean"], factor))
    return known.assign(risk=(known["risk"].to_numpy(float) - mean) * scale + target)


def _agreed(predicted: pd.DataFrame) -> pd.Series:
    """Returns per patient, task and model whether all models predict the same class; other tasks have none."""
    classes = columns_with(predicted, "p_")
    if not classes:
        return predicted.groupby([*GROUP, "patient_id"]).size() > 0
    best = predicted[classes].fillna(-1.0).to_numpy(float).argmax(axis=1)
    return predicted.assign(best=best).groupby([*GROUP, "patient_id"])["best"].nunique() == 1


def _reason(reached: dict[str, int], n_models: int) -> str | None:
    """Returns which horizons lie beyond the training follow-up of how many models."""
    parts = [
        f"{name}: follow-up of the training patients of {n_models - count} of {n_models} models ends before"
        for name, count in reached.items()
        if count < n_models
    ]
    return "; ".join(parts) or None


def _complete_horizons(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table without survival at a horizon that a model cannot predict for every patient."""
    horizons = [name for known in HORIZON_COLUMNS for name in (known, f"{RECALIBRATED}{known}") if name in table]
    missing = table[horizons].isna().groupby([table[name] for name in GROUP]).transform("any")
    return table.assign(**table[horizons].mask(missing))

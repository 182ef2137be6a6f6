"""Cohorts of a few patients, in which little is defined: they are audited, and what is undefined has its reason."""

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import CLASSES, cohort, predictions

from subfuse.audit.audit import audit_predictions
from subfuse.evaluation.intervals import evaluate_predictions

SIZES = (4, 7, 12)
MODELS = ("subspace", "snn", "site")
DAYS = (200, 500, 1500)


def survival(patients: pd.DataFrame, model: str) -> pd.DataFrame:
    table = predictions(patients, model=model, noise=0.5)
    hazard = np.exp(table["risk"].rank(pct=True) - 0.5) / 900
    return table.assign(**{f"survival_{day}": np.exp(-hazard * day) for day in DAYS})


def grade(patients: pd.DataFrame, model: str) -> pd.DataFrame:
    return predictions(patients, task="grade", model=model, noise=0.5)


def number(patients: pd.DataFrame, model: str) -> pd.DataFrame:
    table = predictions(patients, model=model, noise=0.5).assign(
        task="number", risk=np.nan, event=None, time_days=np.nan
    )
    severity = patients.set_index("patient_id")["severity"].round(1)
    noise = np.random.default_rng(3).normal(size=len(table))
    value = table["patient_id"].map(severity).to_numpy(float)
    return table.assign(value=value, predicted_value=value + noise)


def as_drawn(table: pd.DataFrame) -> pd.DataFrame:
    return table


def without_events(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(event=False)


def all_alike(table: pd.DataFrame) -> pd.DataFrame:
    """One outcome of everybody."""
    alike = {"survival": {"time_days": 400.0, "event": True}, "grade": {"label": "G3"}, "number": {"value": 1.5}}
    return table.assign(**alike[table["task"].iloc[0]])


def one_class_in_a_fold(table: pd.DataFrame) -> pd.DataFrame:
    in_fold = table["patient_id"].isin(table.loc[(table["fold"] == 0) & (table["split"] == "test"), "patient_id"])
    return table.assign(label=table["label"].mask(in_fold, "G2"))


def constant(table: pd.DataFrame) -> pd.DataFrame:
    """The first model says the same of everybody, the second in one fold."""
    is_constant = (table["model"] == MODELS[0]) | ((table["model"] == MODELS[1]) & (table["fold"] == 0))
    predicted = [name for name in table if name in ("risk", "predicted_value") or name.startswith(("p_", "survival_"))]
    said = {name: table[name].mask(is_constant, 1 / len(CLASSES)) for name in predicted if table[name].notna().any()}
    return table.assign(**said)


@pytest.mark.parametrize(
    ("predict", "change"),
    [
        *((predict, change) for predict in (survival, grade, number) for change in (as_drawn, all_alike, constant)),
        (survival, without_events),
        (grade, one_class_in_a_fold),
    ],
)
def test_the_audit_of_a_few_patients_has_no_fault(predict, change) -> None:
    """Numpy's warnings are errors here."""
    for n in SIZES:
        patients = cohort(seed=n, n=n, folds=2 + n % 2)
        known = patients[["patient_id"]].assign(site="AA" if n % 2 else list("ABBA" * 3)[:n], age=50.0, sex="f")
        table = change(pd.concat([predict(patients, model) for model in MODELS], ignore_index=True))
        audit = audit_predictions(table, patients=known, n_bootstrap=10)
        assert audit.to_dict()["findings"]
        metrics = evaluate_predictions(table, n_bootstrap=10)
        undefined = metrics["value"].isna() | metrics["lower"].isna()
        assert metrics.loc[undefined, "reason"].notna().all()
        curves = audit.tables["decision_curves"]
        if len(curves):
            assert curves.loc[curves["net_benefit"].isna(), "reason"].notna().all()


def test_a_net_benefit_of_patients_whom_nobody_followed_says_so() -> None:
    patients = cohort(seed=80, n=60)
    patients.loc[patients["severity"] > 0, ["time_days", "event"]] = [300.0, False]
    table = survival(patients, "subspace")
    hazard = np.exp(3 * patients.set_index("patient_id")["severity"]) / 900
    table = table.assign(survival_1095=np.exp(-table["patient_id"].map(hazard) * 1095))
    curves = audit_predictions(table, n_bootstrap=10).tables["decision_curves"]
    lost = curves["net_benefit"].isna()
    assert lost.any()
    assert not lost.all()
    assert curves.loc[lost, "reason"].str.contains("followed for so long").all()

"""What the audit says of strata and subgroups, and that it says nothing where there is nothing."""

import numpy as np
import pandas as pd
import pytest

from subfuse.audit import audit as audit_module
from subfuse.audit.any_origin.trivial_models import TrivialModels
from subfuse.audit.audit import audit_predictions
from subfuse.audit.audited_task import audited_tasks
from subfuse.audit.confounding.strata import CHECK, require_groups, strata_of, stratum_findings
from subfuse.errors import ConfigurationError

N = 240


@pytest.fixture(autouse=True)
def nothing_fitted(monkeypatch):
    """Without trivial models of the patients, which say nothing of strata and take long."""
    monkeypatch.setattr(audit_module, "fit_trivial_models", lambda *_: TrivialModels())


def drawn(seed: int, *, told_by_idh: float, skill: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of a model that sees IDH, and some of the rest, and what is known of the patients."""
    draw = np.random.default_rng(seed)
    idh, rest = draw.random(N) < 0.5, draw.normal(size=N)
    hazard = told_by_idh * idh + rest
    ids = [f"P{i:03d}" for i in range(N)]
    rows = pd.DataFrame(
        {
            "task": "survival", "model": "subspace", "repeat": 0, "fold": np.arange(N) % 4, "cohort": "c",
            "patient_id": ids, "split": "test", "time_days": draw.exponential(np.exp(6 - hazard)) + 1,
            "event": draw.random(N) < 0.8, "risk": told_by_idh * idh + skill * rest + draw.normal(size=N),
        }
    )  # fmt: skip
    patients = pd.DataFrame(
        {
            "patient_id": ids, "cohort": "c", "idh": np.where(idh, "wildtype", "mutant"),
            "age": draw.integers(20, 80, N).astype(str), "sex": np.where(draw.random(N) < 0.5, "f", "m"),
            "site": [f"S{i % 3}" if i < N - 4 else f"rare {i}" for i in range(N)],
        }
    )  # fmt: skip
    return rows, patients


def test_columns_are_markers_declared_ones_and_usual_subgroups():
    _, patients = drawn(0, told_by_idh=1, skill=1)
    patients["project"], patients["one"] = np.where(np.arange(N) % 2, "gbm", "lgg"), "same"
    strata, columns = strata_of(patients, ("project", "one"))
    assert strata == ["project", "one", "idh"]
    assert list(columns) == ["project", "one", "idh", "sex", "site", "age"]
    assert set(columns["site"]) == {"S0", "S1", "S2", "others"}
    low, high = (int(word) for word in sorted(set(columns["age"]))[0].split(" to "))
    known = patients["age"].astype(int).to_numpy()
    assert (columns["age"] == f"up to {low}").to_numpy()[known <= low].all()
    assert (columns["age"] == f"above {high}").to_numpy()[known > high].all()
    assert columns["age"].value_counts().min() > N / 4


@pytest.mark.parametrize(("column", "values"), [("age", range(N)), ("one", ["same"] * N), ("none", [None] * N)])
def test_a_column_that_groups_nobody_is_refused_and_never_called_fine(column, values):
    rows, patients = drawn(0, told_by_idh=1, skill=1)
    patients[column] = list(values)
    with pytest.raises(ConfigurationError, match=f"two groups of {column}, of 10 patients, are required. Found "):
        require_groups([column], patients)
    (task,) = audited_tasks(rows, n_bootstrap=20)
    strata, columns = strata_of(patients[["patient_id", "cohort", column]], [column])
    findings, _, _ = stratum_findings(task, strata, columns)
    assert {f.level for f in findings if f.check == CHECK} == {"note"}
    with pytest.raises(ConfigurationError, match="grade must be a column of the patients"):
        require_groups(["idh", "grade"], patients)
    with pytest.raises(ConfigurationError, match="idh is, which differs only in case"):
        require_groups(["IDH"], patients)
    with pytest.raises(ConfigurationError, match="strata: event is the outcome"):
        require_groups(["event"], patients.assign(event=True))


def test_a_model_that_tells_the_stratum_alone_is_a_warning():
    rows, patients = drawn(1, told_by_idh=4, skill=0)
    audit = audit_predictions(rows, patients=patients, n_bootstrap=200)
    (finding,) = [f for f in audit.findings if f.check == CHECK]
    assert finding.level == "warning"
    assert "within idh" in finding.found
    assert "of the comparable pairs lie between its values" in finding.found
    assert audit.tables["pairs"]["share"].sum() == pytest.approx(1)
    assert set(audit.tables["strata"]["column"]) == {"idh", "sex", "site", "age"}


@pytest.mark.walk
def test_a_model_as_good_within_strata_raises_no_alarm():
    alarms = []
    for seed in range(25):
        rows, patients = drawn(seed, told_by_idh=0, skill=1)
        (task,) = audited_tasks(rows, n_bootstrap=60)
        findings, _, _ = stratum_findings(task, *strata_of(patients, ()))
        alarms += [finding.level == "warning" for finding in findings]
    assert len(alarms) == 100  # idh, sex, site, age
    assert np.mean(alarms) <= 0.05


@pytest.mark.walk
def test_few_patients_raise_no_alarm_and_are_not_called_fine():
    levels = []
    for seed in range(16):
        rows, patients = drawn(seed, told_by_idh=0, skill=4)
        rows, patients = rows[:60], patients[:60]
        (task,) = audited_tasks(rows, n_bootstrap=60)
        findings, _, _ = stratum_findings(task, *strata_of(patients, ()))
        levels += [finding.level for finding in findings if finding.check == "subgroups"]
    assert len(levels) > 40
    assert np.mean([level == "warning" for level in levels]) <= 0.05
    assert np.mean([level == "ok" for level in levels]) < 0.5


def test_a_model_that_fails_in_a_subgroup_is_a_warning():
    rows, patients = drawn(5, told_by_idh=0, skill=3)
    rows.loc[patients["sex"] == "f", "risk"] *= -1
    audit = audit_predictions(rows, patients=patients, n_bootstrap=100)
    (finding,) = [f for f in audit.findings if f.check == "subgroups" and " by sex " in f.found]
    assert finding.level == "warning"
    assert " for f" in finding.found


def test_patients_of_another_cohort_name_are_matched_by_identifier():
    rows, patients = drawn(2, told_by_idh=4, skill=0)
    audit = audit_predictions(rows.drop(columns="cohort"), patients=patients, n_bootstrap=50)
    (finding,) = [f for f in audit.findings if f.check == CHECK]
    assert finding.level == "warning"


def test_strata_without_events_say_why_nothing_is_told():
    rows, patients = drawn(3, told_by_idh=1, skill=1)
    rows["event"] = np.arange(N) == 0
    audit = audit_predictions(rows, patients=patients, n_bootstrap=20)
    (finding,) = [f for f in audit.findings if f.check == CHECK]
    assert finding.level == "note"
    assert "within idh cannot be told" in finding.found


def test_a_stratum_of_few_patients_is_not_called_fine():
    rows, patients = drawn(4, told_by_idh=1, skill=3)
    few = patients["patient_id"] >= f"P{N - 12}"
    patients["idh"] = np.where(few, "wildtype", "mutant")
    audit = audit_predictions(rows, patients=patients, n_bootstrap=100)
    (finding,) = [f for f in audit.findings if f.check == CHECK]
    assert finding.level == "note"
    assert "not shown to be above chance for wildtype" in finding.found or "not told of wildtype" in finding.found


def test_only_subgroups_that_are_tested_are_quoted_as_differing():
    rows, patients = drawn(6, told_by_idh=0, skill=3)
    few = patients["patient_id"] >= f"P{N - 11}"
    patients["sex"] = np.where(few, "unknown", patients["sex"])
    rows["event"] = rows["event"] & ~few.to_numpy()
    (task,) = audited_tasks(rows, n_bootstrap=60)
    findings, table, _ = stratum_findings(task, *strata_of(patients, ()))
    (finding,) = [finding for finding in findings if " by sex " in finding.found]
    assert table[(table["column"] == "sex") & (table["stratum"] == "unknown")]["lower"].isna().all()
    assert " for f" in finding.found
    assert "unknown" not in finding.found


def test_a_stratum_that_is_the_outcome_is_said_to_be_and_a_single_rare_value_keeps_its_name():
    _, patients = drawn(5, told_by_idh=1, skill=1)
    patients["grade"] = ["G3"] * 9 + ["G2", "G4"] * ((N - 9) // 2) + ["G4"] * ((N - 9) % 2)
    share = {name: (patients["grade"] == name) * 0.5 + 1 / 6 for name in ("G2", "G3", "G4")}
    rows = patients[["patient_id", "cohort"]].assign(
        task="grade", model="subspace", repeat=0, fold=0, split="test", label=patients["grade"],
        **{f"p_{name}": values for name, values in share.items()},
    )  # fmt: skip
    (task,) = audited_tasks(rows, n_bootstrap=5)
    strata, columns = strata_of(patients[["patient_id", "cohort", "grade"]], ["grade"])
    (finding,), _, _ = stratum_findings(task, strata, columns)
    assert set(columns["grade"]) == {"G2", "G3", "G4"}
    assert finding.found.endswith("within grade cannot be told: grade is the outcome, or tells it: all are alike")
    assert "no number of patients helps" in finding.remedy

"""Which models nobody should be sent to."""

import pandas as pd
from audited_tables import run_of

from subfuse.audit.audited_task import audited_tasks
from subfuse.audit.comparison_family import compare_task
from subfuse.audit.fusion import fusion_benefit
from subfuse.audit.recommendation import unfit
from subfuse.audit.simple_baselines import compare_with_simple


def test_a_model_that_predicts_one_class_is_not_recommended(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"subspace": 4.0, "logistic": 0.5, "abmil": 6.0}, "grade")
    columns = [name for name in rows if name.startswith("p_")]
    linear = rows["model"] == "logistic"
    rows.loc[linear, columns] *= 0.001  # as good a ranking as before, but one class for everybody
    rows.loc[linear, columns[0]] += 1 - rows.loc[linear, columns].sum(axis=1)
    modalities = {"subspace": {"slides", "expression"}, "logistic": {"expression"}, "abmil": {"slides"}}
    (task,) = audited_tasks(rows, modalities, n_bootstrap=100)
    contest, comparisons = compare_task(task, reference="none")
    verdicts = [*compare_with_simple(task, comparisons), *fusion_benefit(contest, comparisons).findings]
    against = [f.remedy for f in verdicts if f.model == "subspace"]

    assert unfit(task, "logistic") == "it predicts one class in every fold"
    assert unfit(task, "subspace") is None
    assert any("no alternative: it predicts one class in every fold" in remedy for remedy in against)
    assert not any("Prefer Logistic" in remedy or "prefer the linear" in remedy for remedy in against)
    rows.loc[linear, columns] = [0.6, 0.4, 0.0]
    rows.loc[linear & (rows["patient_id"].str[-1] < "5"), columns] = [0.4, 0.6, 0.0]
    assert unfit(audited_tasks(rows, modalities)[0], "logistic") == f"it never predicts class {columns[2][2:]}"


def test_a_model_below_chance_is_not_recommended(patients: pd.DataFrame) -> None:
    rows = run_of(patients, {"subspace": 4.0, "abmil": 6.0}, "grade")
    columns = [name for name in rows if name.startswith("p_")]
    worse = rows["model"] == "abmil"
    rows.loc[worse, columns] = rows.loc[worse, [*columns[1:], columns[0]]].to_numpy()  # every class for another
    (task,) = audited_tasks(rows)
    assert unfit(task, "abmil") == "its AUC is not above chance"
    assert unfit(task, "subspace") is None

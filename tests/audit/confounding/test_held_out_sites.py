import pandas as pd
import pytest
from drawn_predictions import cohort

from subfuse.audit.audited_task import audited_tasks
from subfuse.audit.confounding.held_out_sites import held_out_findings
from subfuse.files import write_table
from subfuse.run_folder.names import HELD_OUT_SITES
from subfuse.run_folder.tables import order_columns


def rows(noise: float, n: int = 200, *, events: int | None = None) -> pd.DataFrame:
    patients = cohort(n=n)
    known = patients[["patient_id", "cohort", "time_days", "event"]].assign(
        task="survival", model="subspace", repeat=0, split="test", fold=patients["fold_tested"]
    )
    disturbed = patients["severity"] + noise * pd.Series(range(n)).sample(frac=1, random_state=0).to_numpy() / n
    known["event"] = known["event"] if events is None else known.index < events
    return known.assign(risk=disturbed)


@pytest.mark.parametrize(("noise", "events", "level", "words"), [
    (20.0, None, "warning", "in random folds, a gap of +0."), (0.0, None, "ok", "a gap of +0.000 (+0.000 to +0.000)"),
    (0.0, 3, "note", "the gap cannot be told: 3 events among the test patients, 5 are needed"),
])  # fmt: skip
def test_a_gap_is_a_warning_and_none_is_passed(tmp_path, noise, events, level, words):
    write_table(tmp_path / HELD_OUT_SITES / "predictions.csv", order_columns(rows(noise, events=events)))
    (finding,), table = held_out_findings(tmp_path, audited_tasks(rows(0.0, events=events), n_bootstrap=100))
    assert finding.level == level
    assert words in finding.found
    assert len(table) == 1
    assert (finding.short == "") == (level == "note")


def test_without_hospitals_held_out_nothing_is_said(tmp_path):
    assert held_out_findings(tmp_path, audited_tasks(rows(0.0)))[0] == []


def test_hospitals_that_could_not_be_held_out_are_not_passed_over_in_silence(tmp_path):
    (tmp_path / HELD_OUT_SITES).mkdir()
    (finding,), table = held_out_findings(tmp_path, audited_tasks(rows(0.0)))
    assert (finding.level, len(table)) == ("note", 0)
    assert finding.found == "cannot be told: hospitals were to be held out, and there are no results"

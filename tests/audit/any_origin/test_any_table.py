import numpy as np
import pandas as pd
import pytest

from subfuse.audit.any_origin.any_table import auditable
from subfuse.audit.audit import audit_predictions
from subfuse.cli import main
from subfuse.errors import DataError

SURVIVAL = pd.DataFrame(
    {"patient_id": ["A", "B", "C", "D"], "time_days": [100, 200, 300, 400], "event": True, "risk": [4.0, 3, 2, 1]}
)
CLASSES = pd.DataFrame({"patient_id": ["A", "B"], "label": ["x", "y"], "p_x": [0.75, 0.25], "p_y": [0.25, 0.75]})


@pytest.mark.parametrize(
    "words", [("yes", "no"), ("1:DECEASED", "0:LIVING"), ("Dead", "alive"), ("TRUE", "False"), (1.0, 0.0), ("1", "0")]
)
def test_events_are_read_from_words_of_one_meaning(words):
    table, findings = auditable(SURVIVAL.assign(event=[words[0], words[1], words[0], words[1]]))
    assert table["event"].tolist() == [True, False, True, False]
    assert not [finding for finding in findings if "left out" in finding.found]


@pytest.mark.parametrize(
    ("table", "named"),
    [
        (SURVIVAL.assign(event=["2", "1", "2", "1"]), r"column event: true or false .* Found '2' for patient A"),
        (SURVIVAL.assign(event=["progression"] * 4), r"column event: .* and 3 more such rows\. Write true where"),
        (SURVIVAL.assign(time_days="12 months"), r"column time_days: a number .* '12 months' .* Convert it to days"),
        (SURVIVAL.assign(risk="high"), r"column risk: a number .* 'high'"),
        (CLASSES.assign(p_x=[2.6, -1.0], p_y=[0.4, 4.0]), r"columns p_x, p_y: probabilities .* not logits"),
        (CLASSES.assign(p_x=[0.4, 0.4], p_y=[0.3, 0.3]), r"columns p_x, p_y: .* in sum 0\.7, for patient A.*unrounded"),
        (CLASSES.assign(p_x=[4.0, 0.4], p_y=[-3.0, 0.6]), r"in sum 1, for patient A.*softmax outputs, not logits"),
        (CLASSES.assign(p_x="0.7;"), r"column p_x: a number .* '0\.7;'"),
        (SURVIVAL.assign(risk=["0,5", 1, 2, 3]), r"Found '0,5' for patient A\. Write it with a decimal point, as 0\.5"),
        (
            SURVIVAL.assign(time_days=0),
            r"column time_days: follow-ups above 0 .* Found 0 for all 4 patients of task task",
        ),
        (SURVIVAL.assign(survival_365="high"), r"column survival_365: a number .* 'high'"),
        (SURVIVAL.assign(survival_365=96.0), r"column survival_365: a probability from 0 to 1 .* Divide per cent"),
        (SURVIVAL.assign(fold=[0, None, 1, 1]), r"column fold: a value .* an empty cell for patient B\. Fill it in"),
        (SURVIVAL.assign(patient_id=["A", None, None, "D"]), r"column patient_id: .* in row 2, and 1 more such row\."),
        (
            CLASSES.assign(label=["X", "y"]),
            r"column label: .* classes x, y .* 'X' for patient A\. It differs .* in case",
        ),
        (CLASSES.assign(label="z"), r"'z' for patient A, and 1 more such row\. Add its probability as p_z"),
    ],
)
def test_what_has_no_certain_meaning_is_named_with_its_remedy(table, named):
    with pytest.raises(DataError, match=named) as raised:
        auditable(table)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("classes", [("1", "0"), ("1.0", "0.0")])
@pytest.mark.parametrize("labels", [["1.0", "0.0"], ["1", "0"], [1.0, 0.0]])
def test_whole_numbers_are_the_class_however_they_are_written(classes, labels):
    table = CLASSES.rename(columns=dict(zip(["p_x", "p_y"], [f"p_{name}" for name in classes], strict=True)))
    read, _ = auditable(table.assign(label=labels))
    assert read["label"].tolist() == list(classes)


@pytest.mark.parametrize("word", ["unknown", "Not Reported", "--", "None", ""])
def test_words_for_unknown_leave_the_patient_out_as_an_empty_cell_does(word):
    for table, column in ((SURVIVAL, "event"), (SURVIVAL, "risk"), (CLASSES, "label"), (CLASSES, "p_x")):
        read, findings = auditable(table.assign(**{column: [word, *table[column].astype(str)[1:]]}))
        assert read["patient_id"].tolist() == table["patient_id"].tolist()[1:]
        assert [f.found for f in findings if "left out" in f.found]
    assert auditable(CLASSES.assign(label=["NA", "y"]).rename(columns={"p_x": "p_NA"}))[0]["label"].tolist() == [
        "NA",
        "y",
    ]


def test_days_may_carry_their_unit_and_probabilities_the_sign():
    table, _ = auditable(CLASSES.assign(p_x=["75 %", "25%"], p_y=[25, 75]))
    assert table["p_x"].tolist() == [0.75, 0.25]
    table, _ = auditable(SURVIVAL.assign(time_days=["100 d", "200days", "300", " 400 day"]))
    assert table["time_days"].tolist() == [100, 200, 300, 400]


@pytest.mark.parametrize(
    ("factor", "words"), [(100.0, "read as per cent"), (0.98, "divided by their sums"), (1.02, "divided by their sums")]
)
def test_per_cent_and_rounded_probabilities_become_those_that_sum_to_one(factor, words):
    changed = CLASSES.assign(p_x=CLASSES["p_x"] * factor, p_y=CLASSES["p_y"] * factor)
    table, findings = auditable(changed)
    np.testing.assert_allclose(table[["p_x", "p_y"]], CLASSES[["p_x", "p_y"]])
    assert [words in finding.found for finding in findings if finding.check == "reading"] == [True]
    untouched, findings = auditable(CLASSES)
    assert not [finding for finding in findings if finding.check == "reading"]
    pd.testing.assert_frame_equal(untouched[["p_x", "p_y"]], CLASSES[["p_x", "p_y"]])


def test_a_reversed_risk_is_a_failure_and_the_right_one_is_not():
    draw = np.random.default_rng(0)
    risk = draw.normal(size=60)
    time = 1000 * np.exp(-risk + 0.5 * draw.normal(size=60))
    table = pd.DataFrame({"patient_id": range(60), "time_days": time, "event": True, "risk": risk})
    found = {
        sign: list(audit_predictions(table.assign(risk=sign * risk), n_bootstrap=20).of_level("failure"))
        for sign in (1, -1)
    }
    assert not found[1]
    assert [finding.found.startswith("the risk is reversed") for finding in found[-1]] == [True]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("cbio", 0, ""), ("yes", 0, ""), ("unit", 0, ""), ("percent", 0, ""), ("reversed", 0, "the risk is reversed"),
        ("logits", 3, "p_G2, p_G3"), ("notsum", 3, "p_G2, p_G3"), ("rounded1", 3, "p_G2, p_G3"),
    ],
)  # fmt: skip
def test_tables_of_others_are_read_or_refused_in_one_line(cases, tmp_path, capsys, name, code, said):
    assert main(["audit", str(cases / "audit_tables" / f"{name}.csv"), "--out", str(tmp_path / "audit.json")]) == code
    shown = capsys.readouterr()
    assert said in " ".join((shown.out + shown.err).split())
    if code:
        assert shown.err.count("\n") == 1


def test_means_of_models_as_predict_writes_them_are_audited():
    means = SURVIVAL.assign(task="survival", model="theirs", split="test", fold="mean", repeat=np.nan)
    audit = audit_predictions(pd.concat([means.assign(patient_id=means["patient_id"] + str(i)) for i in range(5)]))
    assert "survival" in {finding.task for finding in audit.findings}


@pytest.mark.parametrize("table", [SURVIVAL.assign(time_days=np.nan, event=None), CLASSES.assign(label=None)])
def test_predictions_of_patients_without_outcomes_are_one_line(table, tmp_path, capsys):
    table.assign(split="new", fold="mean", repeat=np.nan).to_csv(tmp_path / "new.csv", index=False)
    assert main(["audit", str(tmp_path / "new.csv")]) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "Found none that is complete" in line
    assert "--patients" in line


def test_survival_that_rises_with_time_is_a_warning_and_days_of_other_folds_are_not_looked_at():
    rows = pd.concat([SURVIVAL] * 6, ignore_index=True).assign(patient_id=[f"P{i}" for i in range(24)], fold=0)
    falling = rows.assign(survival_1095=0.4, survival_365=0.7)
    other_days = rows.assign(patient_id=[f"Q{i}" for i in range(24)], fold=1, survival_700=0.9, survival_2000=0.5)
    few = falling.assign(survival_1095=np.where(falling.index == 0, 0.8, 0.4))

    for table in (falling, pd.concat([falling, other_days]), few):
        assert not [finding for finding in auditable(table)[1] if "rises" in finding.found]
    (finding,) = (f for f in auditable(rows.assign(survival_365=0.3, survival_1095=0.6))[1] if "rises" in f.found)
    assert (finding.level, finding.found) == ("warning", "survival of model rises with time in 24 of 24 rows")


def test_patients_of_several_folds_are_a_warning_unless_they_are_in_all_or_of_repeats():
    slides = SURVIVAL.assign(fold=[0, 0, 1, 2])
    again = pd.concat([slides, slides.iloc[:1].assign(fold=2)])
    everywhere = pd.concat([SURVIVAL.assign(fold=fold) for fold in range(3)])
    repeated = again.assign(repeat=[0, 0, 0, 0, 1])
    told = {
        name: [finding.found for finding in auditable(table)[1] if "several folds" in finding.found]
        for name, table in {"again": again, "everywhere": everywhere, "repeated": repeated, "once": slides}.items()
    }
    assert told == {"again": ["1 patient tested in several folds (A)"], "everywhere": [], "repeated": [], "once": []}


def test_contradicting_rows_of_a_fold_are_refused_and_equal_ones_are_repeats():
    again = pd.concat([SURVIVAL, SURVIVAL.iloc[1:3].assign(risk=9.0)])
    table, findings = auditable(again)
    assert len(table) == len(SURVIVAL)
    assert [f.level for f in findings if "2 rows too many" in f.found] == ["failure"]
    again["time_days"] = [100, 200, 300, 400, 250, 350]
    with pytest.raises(
        DataError, match=r"must agree\. Found '200(\.0)?, True'; '250.* patient B, and 1 more such patient"
    ):
        auditable(again)
    with pytest.raises(
        DataError, match=r"column label: rows of one patient must agree\. Found 'x', 'y' for patient A\."
    ):
        auditable(pd.concat([CLASSES, CLASSES.iloc[:1].assign(label="y")]))


def test_an_infinite_risk_leaves_one_row_out_as_a_warning():
    _, findings = auditable(SURVIVAL.assign(risk=[4.0, float("inf"), 2, 1]))
    assert [f.level for f in findings if "1 row without a finite prediction left out" in f.found] == ["warning"]

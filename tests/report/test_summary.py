import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from fake_run import write_fake_run

from subfuse.report import write_report
from subfuse.report.run_files import read_run
from subfuse.report.statements import counted, duration, metric_name, singular
from subfuse.report.summary import NO_CALIBRATION, summary


def lines(run: Path) -> dict[str, tuple[str, ...]]:
    return {line.heading: line.sentences for line in summary(read_run(run))}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("summary") / "run", patients=50, explained=0)


def with_audit(run: Path, level: str, found: str) -> None:
    finding = {"level": level, "check": "calibration", "task": "survival", "found": found, "why": "", "remedy": "",
               "model": "subspace"}  # fmt: skip
    (run / "audit.json").write_text(json.dumps({"counts": {level: 1}, "findings": [finding], "tables": {}}))


def test_there_are_five_lines_whatever_the_tasks(run):
    assert list(lines(run)) == ["Patients", "Accuracy", "Fusion", "Probabilities", "Before use"]


def test_accuracy_is_said_in_pairs_of_patients_and_as_in_the_table(run):
    table = pd.read_csv(run / "metrics.csv").set_index(["task", "model", "metric"])
    row = table.loc[("survival", "subspace", "c_index")]
    text = lines(run)["Accuracy"][0].replace("\u00a0", " ")
    assert f"gets the higher risk in {row['value']:.0%}".replace("%", " % of pairs (chance: 50 %)") in text
    assert f"C-index {row['value']:.3f}, 95 % interval {row['lower']:.3f} to {row['upper']:.3f}" in text


def test_a_better_model_than_the_main_one_is_named(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    table = pd.read_csv(run / "metrics.csv")
    table.loc[(table["model"] == "snn") & (table["metric"] == "c_index"), "value"] = 0.987
    table.to_csv(run / "metrics.csv", index=False)
    assert "; the highest is SNN (expression only) with 0.987." in lines(run)["Accuracy"][0]


def test_what_was_not_tested_is_said_once(run):
    assert lines(run)["Probabilities"] == (NO_CALIBRATION,)
    assert lines(run)["Before use"][0].startswith("This run was not audited")


@pytest.mark.parametrize(
    ("level", "words"),
    [
        ("ok", "no sign that the probabilities of Subspace fusion are off (p = 0.4)"),
        ("warning", "recalibrate the probabilities of Subspace fusion before use (p = 0.4)"),
        ("note", "the probabilities of Subspace fusion were not tested (p = 0.4)"),
    ],
)
def test_calibration_of_the_main_model_comes_from_the_audit(tmp_path, level, words):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    with_audit(run, level, "subspace: p = 0.4")
    assert lines(run)["Probabilities"] == (words + ".",)
    assert ("1 warning." in lines(run)["Before use"][0]) == (level == "warning")


def test_external_validation_is_named(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    (run / "config.yaml").write_text(yaml.safe_dump({"trained": "run-a", "evaluated": "hospital"}))
    text = lines(run)
    assert "an external cohort, predicted by the finished models of run-a" in text["Patients"][0]
    assert "other hospitals" not in text["Before use"][0]
    assert read_run(run).title == "hospital"


def test_one_of_a_kind_is_singular_everywhere(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), explained=0)
    (run / "cohort" / "exclusions.csv").write_text("level,id,reason\npatient,007,no label\n")
    patients = pd.read_csv(run / "cohort" / "patients.csv").head(1).assign(n_slides=1, has_expression=True)
    patients.to_csv(run / "cohort" / "patients.csv", index=False)
    comparisons = pd.read_csv(run / "comparisons.csv")
    comparisons["reason"] = "1 patients left out"
    comparisons.to_csv(run / "comparisons.csv", index=False)
    with_audit(run, "warning", "1 patients in two folds")
    page = write_report(run).read_text(encoding="utf-8")
    assert "1 patient left out" in page
    assert "1 patient in two folds" in page
    plural = r"(?<![\w.,:;#&-])1 (?:patient|slide|event|fold|warning|failure|note|year|month|gene|cohort|site)s\b"
    for text in (page, (run / "MODEL_CARD.md").read_text(encoding="utf-8")):
        assert re.findall(plural, re.sub(r"<[^>]+>", " ", text)) == []


def test_numbers_take_their_nouns_along():
    assert [counted(n, "fold") for n in (0, 1, 21)] == ["0 folds", "1 fold", "21 folds"]
    assert singular("1 patients, 21 patients, 0.1 patients; AUC 1 years") == (
        "1 patient, 21 patients, 0.1 patients; AUC 1 year"
    )
    assert duration(365) == "1 year"
    assert metric_name("auc_365_days") == "AUC at 1 year"

"""The card is read by the hub's own library, and says of patients nothing but numbers of groups."""

import json
from pathlib import Path

import pandas as pd
import pytest
from fake_run import write_fake_run
from shared_run import shared_run

from subfuse.audit.findings import Audit, Finding
from subfuse.report.run_files import read_run
from subfuse.run_folder.job import Job
from subfuse.sharing.card import sharing_card

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def fake(tmp_path_factory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("card") / "run", patients=50, explained=0)


def test_the_hub_reads_the_front_matter(tmp_path_factory):
    hub = pytest.importorskip("huggingface_hub")
    run, folder, _ = shared_run(tmp_path_factory)
    card = hub.ModelCard.load(folder / "README.md")
    data = card.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "subfuse", "other")
    assert {"subfuse", "histopathology", "gene-expression", "survival-analysis", "classification"} <= set(data.tags)
    metrics = pd.read_csv(run / "metrics.csv").query("model == 'subspace'").dropna(subset=["value", "lower", "upper"])
    stated = {(result.task_name.split(":")[0].lower(), result.metric_type): result.metric_value
              for result in data.eval_results}  # fmt: skip
    assert len(stated) == len(metrics) > 5
    for row in metrics.itertuples():
        assert stated[row.task, row.metric] == pytest.approx(row.value, abs=1e-4)
    assert hub.ModelCardData(**data.to_dict()).to_dict()["license"] == "cc-by-4.0"


def test_the_card_says_what_it_is_for_and_how_to_predict(tmp_path_factory):
    text = (shared_run(tmp_path_factory)[1] / "README.md").read_text(encoding="utf-8")
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["The models", "How good they are", "What the audit found", "Intended use", "To predict"]
    assert "not a medical device" in text.lower()
    assert "subfuse predict FOLDER --slide SLIDE --expression EXPRESSION" in text
    assert "Licence: cc-by-4.0." in text
    assert "60 test patients" in text


def test_a_licence_that_nobody_stated_is_told(fake):
    text = sharing_card(read_run(fake), [Job("survival", "subspace", 0)], license="other")
    assert "license: other" in text
    assert "not stated by who exported this" in text


def test_metrics_without_an_interval_are_left_out(fake, tmp_path):
    run = read_run(fake)
    run.metrics.loc[run.metrics["metric"] == "c_index", ["lower", "upper"]] = float("nan")
    text = sharing_card(run, [Job("survival", "subspace", 0)], license="mit")
    assert "type: c_index" not in text
    run.metrics["lower"] = float("nan")
    text = sharing_card(run, [Job("survival", "subspace", 0)], license="mit")
    assert "model-index" not in text
    assert "too few test patients for a number with an interval" in text


def test_findings_are_told_without_what_may_name_patients(fake):
    findings = (
        Finding("failure", "patient leakage", "P0001 in two folds", "why P0001", "move P0001"),
        Finding("warning", "calibration", "Subspace fusion: off", "why", "", "grade", "subspace"),
    )
    (fake / "audit.json").write_text(json.dumps(Audit(findings).to_dict()))
    text = sharing_card(read_run(fake), [Job("grade", "subspace", 0)], license="mit")
    assert "- Patient leakage, 1 failure" in text
    assert "- Calibration, 1 warning" in text
    assert "P0001" not in text

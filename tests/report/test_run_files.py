"""A run's files in memory: what is missing, lost or not the run's own."""

import json

import pytest
from fake_run import write_fake_run

from subfuse.errors import ConfigurationError, DataError
from subfuse.report import write_report
from subfuse.report.run_files import read_run
from subfuse.run_folder.job import Job


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="must be a finished run"):
        write_report(tmp_path)
    (tmp_path / "predictions.csv").write_text("patient_id\n")
    with pytest.raises(DataError, match=r"metrics\.csv: required for a report"):
        write_report(tmp_path)


def test_an_empty_table_of_metrics_is_none(tmp_path):
    run = write_fake_run(tmp_path, patients=40, tasks=("survival",), optional=False)
    (run / "metrics.csv").write_text("\n")
    with pytest.raises(DataError, match=r"metrics\.csv: required for a report, not found or empty"):
        write_report(run)


def test_a_cohort_that_was_prepared_again_since_is_told_and_the_run_stands(tmp_path, caplog):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    (run / "config.yaml").write_text("prepared: ../prepared\n")
    for folder, sha256 in ((run / "cohort", "1"), (tmp_path / "prepared", "1")):
        folder.mkdir()
        (folder / "provenance.json").write_text(json.dumps({"files": {"expression.h5ad": sha256}}))
    assert "has changed since" not in write_report(run).read_text(encoding="utf-8") + caplog.text

    (tmp_path / "prepared" / "provenance.json").write_text(json.dumps({"files": {"expression.h5ad": "2"}}))
    page = write_report(run).read_text(encoding="utf-8")
    said = "the prepared cohort has changed since (other expression.h5ad). The run stands, for the cohort as it was"
    assert said in page[page.index('id="provenance"') :]
    assert [record.getMessage() for record in caplog.records if said in record.getMessage()]


def test_files_that_a_run_has_lost_are_named(tmp_path, caplog, monkeypatch):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), explained=1)
    assert not read_run(run).lost  # copied without any model: so are runs that are shared
    for folder in run.glob("survival/*/fold_*"):
        for name in ("predictions.csv", "model.json", "model.safetensors"):
            (folder / name).touch()
    assert not read_run(run).lost
    lost = ["survival/snn/fold_1/predictions.csv", "survival/subspace/fold_0/model.safetensors",
            "explanations/patient_0/genes.csv", "explanations/cohort/survival/gene_values.csv"]  # fmt: skip
    for name in lost:
        (run / name).unlink()
    assert sorted(read_run(run).lost) == sorted(lost)
    monkeypatch.setattr(Job, "description", lambda job, _: None)  # the files of models are empty here
    page = write_report(run).read_text(encoding="utf-8")
    (told,) = [record.getMessage() for record in caplog.records if "are missing" in record.getMessage()]
    assert all(name in told and name in page for name in lost)


def test_a_run_without_predictions_says_which_file_is_missing(tmp_path):
    (tmp_path / "config.yaml").write_text("cohort: a\n")
    with pytest.raises(ConfigurationError, match=r"Found no predictions\.csv\. Repeat the command that made the run"):
        write_report(tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(ConfigurationError, match=r"Found no config\.yaml and no predictions\.csv"):
        write_report(tmp_path)

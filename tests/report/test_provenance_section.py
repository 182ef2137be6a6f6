"""What the run was made from, and how it is made again."""

import json

from fake_run import FOLDS, MODELS, write_fake_run

from subfuse.report import write_report
from subfuse.report.provenance_section import command, provenance_section
from subfuse.report.run_files import read_run


def test_disclaimer_command_and_hashes_are_there(run, text):
    provenance = json.loads((run / "provenance.json").read_text())
    assert "Research use only. Not a medical device." in text
    assert " ".join(provenance["command"]) in text
    assert provenance["hashes"]["encoder"] in text
    assert text.count(f"{FOLDS}</td>") >= len(MODELS)


def test_failed_jobs_are_listed(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), optional=False)
    (run / "failures.csv").write_text("task,model,fold,reason\ngrade,snn,3,no patient has expression\n")
    assert "no patient has expression" in write_report(run).read_text()


def test_a_run_from_python_is_repeated_by_python_that_can_be_read(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("grade",), explained=0)
    provenance = json.loads((run / "provenance.json").read_text()) | {"command": "Python"}
    (run / "provenance.json").write_text(json.dumps(provenance))
    text = command(read_run(run))
    compile(text, "command", "exec")
    assert "task=['grade']" in text
    assert "plan=TrainingPlan(" in text  # with the run's own seed, settings and sizes


def test_hashes_of_the_runs_files_are_listed(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=50, explained=0)
    groups = {group["name"]: dict(group["pairs"]) for group in provenance_section(read_run(run)).content["groups"]}
    assert set(groups["Files of this run, sha256"]) == {
        "config.yaml", "predictions.csv", "metrics.csv", "comparisons.csv",
    }  # fmt: skip
    assert groups["Run"]["versions.torch"] == "2.14.1"

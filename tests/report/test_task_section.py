"""A task in the report: its metrics and comparisons are those of the tables."""

import re

import pandas as pd
import pytest
from fake_run import write_fake_run
from report_page import written

from subfuse.report import write_report
from subfuse.report.model_card import model_card
from subfuse.report.run_files import read_run
from subfuse.report.task_section import task_section
from subfuse.run_folder.job import Job


def test_every_printed_metric_is_the_table_to_three_decimals(run, text):
    table = pd.read_csv(run / "metrics.csv").set_index(["task", "model", "metric"])
    pattern = (
        r'data-task="(.*?)" data-model="(.*?)" data-metric="(.*?)".*?class="value">([−0-9.]+)<?.*?interval">(.*?)<'
    )
    found = re.findall(
        pattern, re.sub(r"<td[^>]*?>\s*<span class=\"value undefined.*?</td>", "", text, flags=re.DOTALL)
    )
    assert len(found) == table["value"].notna().sum()
    for task, model, metric, value, interval in found:
        row = table.loc[(task, model, metric)]
        assert value == f"{row['value']:.3f}"
        assert interval == f"{row['lower']:.3f}–{row['upper']:.3f}"


def test_best_values_are_marked_and_lower_is_better_for_errors(run, page):
    table = pd.read_csv(run / "metrics.csv")
    marked = {
        (a["data-task"], a["data-metric"], a["data-model"])
        for a in page.of("td")
        if "best" in (a.get("class") or "").split()
    }
    expected = set()
    for (task, metric), rows in table.dropna(subset=["value"]).groupby(["task", "metric"]):
        lower = metric in ("brier", "expected_calibration_error", "integrated_brier")
        best = rows.loc[rows["value"].idxmin() if lower else rows["value"].idxmax(), "model"]
        expected.add((task, metric, best))
    assert marked == expected


def test_paired_comparisons_are_those_of_the_table(run, text):
    table = pd.read_csv(run / "comparisons.csv")
    names = {"abmil": "ABMIL", "snn": "SNN", "concat": "Concatenation"}
    for row in table.to_dict("records"):
        difference, *interval = (f"{row[name]:+.3f}".replace("-", "−") for name in ("difference", "lower", "upper"))
        adjusted = "&lt; 0.001" if row["p_adjusted"] < 0.001 else f"{row['p_adjusted']:.3f}"
        cells = [names[row["model"]], difference, " to ".join(interval), f"{row['p_value']:.3f}", adjusted]
        assert re.search(r"\s*".join(rf"<td[^>]*>{re.escape(cell)}</td>" for cell in cells), text), cells


def test_undefined_metrics_are_named_with_their_reason(text):
    cell = re.search(r'<td[^>]*data-model="abmil" data-metric="precision".*?</td>', text, re.DOTALL)[0]
    assert "undefined" in cell
    note = re.search(r'href="#(note-\d+-\d+)"', cell)[1]
    assert f'<li id="{note}">class G3 never predicted</li>' in text
    assert ">nan<" not in text.lower()


@pytest.mark.parametrize(("task", "other"), [("survival", "Confusion matrix"), ("grade", "Predicted risk groups")])
def test_one_kind_of_task_is_enough(tmp_path, task, other):
    page = written(tmp_path, patients=80, tasks=(task,), optional=False)
    assert f'data-task="{task}"' in page
    assert other not in page


def test_reasons_of_comparisons_are_shown_once_with_their_models(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), explained=0)
    table = pd.read_csv(run / "comparisons.csv")
    table["reason"] = "2 patients left out"
    table.to_csv(run / "comparisons.csv", index=False)
    assert "ABMIL, SNN, Concatenation: 2 patients left out" in write_report(run).read_text()


def test_how_much_networks_say_beside_their_linear_path_is_told(tmp_path, monkeypatch):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), explained=0)
    told = "Networks are mixed with linear models of the same inputs"
    assert told not in write_report(run).read_text()
    shares = {"subspace": [0.5, 0.0, 0.0, 1.0, 0.0], "abmil": [1.0] * 5}
    monkeypatch.setattr(
        Job, "description",
        lambda job, _: {"details": {"network_share": shares[job.model][job.fold_index]} if job.model in shares else {}},
    )  # fmt: skip
    text = write_report(run).read_text()
    of_main = "share of the network 0.30 in the mean; in 3 of 5 folds it is the linear model alone"
    assert f"{told}. Subspace fusion: {of_main}. ABMIL: share of the network 1.00 in the mean." in text
    assert f"<dt>Linear path</dt><dd>{of_main}</dd>" in text
    assert f"It is mixed with a linear model of the same inputs: {of_main}." in model_card(read_run(run))
    untold = {"training": {"linear_path": True}, "chosen_epochs": [3]}
    monkeypatch.setattr(
        Job, "description",
        lambda job, _: {"details": {"network_share": 0.5} if job.fold_index < 2 else untold},
    )  # fmt: skip
    assert "in 3 of 5 folds it has no line, for want of 10 events" in write_report(run).read_text()


def test_students_stand_beside_their_teachers(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), explained=0)
    known = {"task": "grade", "metric": "auc", "lower": 0.6, "upper": 0.9, "n_patients": 58}
    differing = {"difference": 0.05, "difference_lower": -0.01, "difference_upper": 0.11}
    rows = [
        {**known, **differing, "model": "subspace", "title": "Teacher, slides and expression", "value": 0.8125},
        {**known, "model": "distilled", "title": "Student, slides alone", "value": 0.7625},
    ]
    pd.DataFrame(rows).to_csv(run / "students.csv", index=False)
    content = next(iter(task_section(read_run(run), "grade", index=0).content["students"].rows))
    assert content == ["Teacher, slides and expression", "0.812", "0.600–0.900", "+0.050", "−0.010 to +0.110"]
    text = write_report(run).read_text(encoding="utf-8")
    assert "The 58 test patients with slides" in text
    assert "Student, slides alone" in text
    (run / "students.csv").unlink()
    assert "Student, slides alone" not in write_report(run).read_text(encoding="utf-8")

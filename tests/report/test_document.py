import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import FOLDS, MODELS, SCRIPT, made_report, write_fake_run
from PIL import Image

from subfuse.errors import ConfigurationError, DataError
from subfuse.report import patient_section as pictures
from subfuse.report import write_report
from subfuse.report.run_files import read_run


class Page(HTMLParser):
    """Collects what the tests ask about: elements with their attributes, and the text of each."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_data(self, data):
        self.text.append(data)
        if self.elements:
            self.elements[-1][2].append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return made_report(tmp_path_factory)


@pytest.fixture(scope="module")
def text(run) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def written(folder: Path, **options) -> str:
    return write_report(write_fake_run(folder / "run", **options)).read_text(encoding="utf-8")


def test_every_metric_in_the_page_equals_the_table(run, page):
    table = pd.read_csv(run / "metrics.csv").set_index(["task", "model", "metric"])["value"]
    cells = {
        (a["data-task"], a["data-model"], a["data-metric"]): float(a["data-value"])
        for a in page.of("td")
        if "data-metric" in a
    }
    assert set(cells) == set(table.index)
    for key, value in table.items():
        np.testing.assert_equal(cells[key], value)


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


def test_the_page_loads_nothing_from_anywhere(text, page):
    for _, attributes, _ in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/")), value
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert not page.of("script")


def test_names_are_shown_as_text_never_as_markup(text):
    assert SCRIPT not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2  # exclusions and explained patients


def test_hostile_names_in_every_table_stay_text(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), explained=1)
    for path in (*run.glob("*.csv"), *run.glob("cohort/*.csv"), *run.glob("explanations/*/*.csv")):
        hostile = path.read_text().replace("G3", "<img src=x>$a_b$").replace("EGFR", "<b>&").replace("concat", "<i>")
        path.write_text(hostile)
    page = Page(write_report(run).read_text())
    assert all("style" in attributes for attributes in page.of("i"))
    assert page.of("img")
    assert all(attributes["src"].startswith("data:image/") for attributes in page.of("img"))
    assert any("<img src=x>$a_b$" in part for part in page.text)


def test_identifiers_in_the_page_are_unique(page):
    identifiers = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_references_inside_the_page_resolve(text, page):
    identifiers = {attributes["id"] for _, attributes, _ in page.elements if "id" in attributes}
    targets = {
        a[name][1:] for _, a, _ in page.elements for name in ("href", "xlink:href") if (a.get(name) or "")[:1] == "#"
    }
    targets |= set(re.findall(r"url\(#(.*?)\)", text))
    assert targets <= identifiers


def test_paired_comparisons_are_those_of_the_table(run, text):
    table = pd.read_csv(run / "comparisons.csv")
    names = {"abmil": "ABMIL", "snn": "SNN", "concat": "Concatenation"}
    for row in table.to_dict("records"):
        difference, *interval = (f"{row[name]:+.3f}".replace("-", "−") for name in ("difference", "lower", "upper"))
        adjusted = "&lt; 0.001" if row["p_adjusted"] < 0.001 else f"{row['p_adjusted']:.3f}"
        cells = [names[row["model"]], difference, " to ".join(interval), f"{row['p_value']:.3f}", adjusted]
        assert re.search(r"\s*".join(rf"<td[^>]*>{re.escape(cell)}</td>" for cell in cells), text), cells


def test_areas_of_the_roc_curves_are_those_of_the_predictions(run, text):
    from sklearn.metrics import roc_auc_score

    tested = pd.read_csv(run / "predictions.csv").query("task == 'grade' and model == 'subspace' and split == 'test'")
    areas = {name: roc_auc_score(tested["label"] == name, tested[f"p_{name}"]) for name in ("G2", "G3", "G4")}
    shown = ", ".join(f"{name} ({area:.3f})" for name, area in areas.items())
    macro = f"macro ({np.mean(list(areas.values())):.3f})"
    assert f"Receiver operating characteristics with area under the curve: {shown}, {macro}." in text


def test_the_flow_of_patients_and_the_quality_of_slides_are_those_of_the_tables(run, page, text):
    patients = pd.read_csv(run / "cohort" / "patients.csv")
    exclusions = pd.read_csv(run / "cohort" / "exclusions.csv").query("level == 'patient'")
    words = " ".join(" ".join(page.text).split())
    both = ((patients["n_slides"] > 0) & patients["has_expression"]).sum()
    for count, label in (
        (len(patients) + len(exclusions), "patients found"),
        (len(exclusions), "excluded"),
        (len(patients), "in the cohort"),
        (int((patients["n_slides"] > 0).sum()), f"with slides ({patients['n_slides'].sum()} slides)"),
        (int(both), "with both"),
    ):
        assert f"{count} {label}" in words
    lowest, highest = pd.read_csv(run / "cohort" / "slide_quality.csv")["tissue_mm2"].agg(["min", "max"])
    assert re.search(rf"<td[^>]*>2 of 2</td><td[^>]*>{lowest:g}</td><td[^>]*>158</td><td[^>]*>{highest:g}</td>", text)
    assert "12% of the stained area is pen marks and was left out" in words


def test_undefined_metrics_are_named_with_their_reason(text):
    cell = re.search(r'<td[^>]*data-model="abmil" data-metric="precision".*?</td>', text, re.DOTALL)[0]
    assert "undefined" in cell
    note = re.search(r'href="#(note-\d+-\d+)"', cell)[1]
    assert f'<li id="{note}">class G3 never predicted</li>' in text
    assert ">nan<" not in text.lower()


def test_summary_says_whether_fusion_helps(page):
    text = " ".join("".join(page.text).split())
    assert text.index("Fusion helps.") < text.index("Fusion is not shown to help.") < text.index("Flow of patients")
    assert "Subspace fusion is better than the best single modality, SNN (expression only) (+0.051" in text  # survival
    assert "Subspace fusion is not shown to be better than the best single modality, SNN" in text  # grade


def test_every_picture_and_figure_has_a_description(page):
    assert page.of("img")
    assert all(attributes.get("alt") for attributes in page.of("img"))
    assert all(a.get("aria-label") for a in page.of("figure") if a.get("role") == "group")
    assert len(page.of("caption")) == len(page.of("table"))


def test_exclusions_are_counted_by_reason(run, text):
    exclusions = pd.read_csv(run / "cohort" / "exclusions.csv")
    for reason, count in exclusions["reason"].value_counts().items():
        row = re.search(rf">{re.escape(reason)}</td>\s*<td class=\"number\">(\d+)</td>", text)
        assert int(row[1]) == count


def test_the_ledger_of_an_explained_patient_adds_up(run, text):
    content = json.loads((run / "explanations" / "patient_0" / "explanation.json").read_text())
    total = sum(row["contribution"] for row in content["ledger"])
    assert f"the bars add up to {total:.3f}".replace("-", "−") in text
    for row in content["ledger"]:
        if row["modality"] != "baseline":
            assert f"{row['contribution']:+.3f}".replace("-", "−") in text


def test_disclaimer_command_and_hashes_are_there(run, text):
    provenance = json.loads((run / "provenance.json").read_text())
    assert "Research use only. Not a medical device." in text
    assert " ".join(provenance["command"]) in text
    assert provenance["hashes"]["encoder"] in text
    assert text.count(f"{FOLDS}</td>") >= len(MODELS)


@pytest.mark.walk
def test_the_same_run_gives_the_same_report(run, text):
    assert write_report(run).read_text(encoding="utf-8") == text


def test_only_predictions_and_metrics_are_needed(tmp_path):
    left = tmp_path / "run" / ".report.elsewhere-1.abcdefgh.part.html"  # by a process that was killed
    left.parent.mkdir()
    left.touch()
    os.utime(left, (0, 0))
    page = written(tmp_path, patients=80, optional=False)
    assert not left.exists()
    assert "was not tested" in page
    titles = re.findall(r'<h2 id="[\w-]+-title">(.*?)</h2>', page)
    assert titles == ["Cohort", "Survival", "Grade", "Provenance"]  # no section without content
    for absent in ("What models rely on was not computed", "This run was not audited", "keeps no training log"):
        assert page.count(absent) >= 1


@pytest.mark.parametrize(("task", "other"), [("survival", "Confusion matrix"), ("grade", "Predicted risk groups")])
def test_one_kind_of_task_is_enough(tmp_path, task, other):
    page = written(tmp_path, patients=80, tasks=(task,), optional=False)
    assert f'data-task="{task}"' in page
    assert other not in page


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="must be a finished run"):
        write_report(tmp_path)
    (tmp_path / "predictions.csv").write_text("patient_id\n")
    with pytest.raises(DataError, match=r"metrics\.csv: required for a report"):
        write_report(tmp_path)


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


def test_files_that_a_run_has_lost_are_named(tmp_path, caplog):
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


def test_a_survival_run_without_training_rows_says_why_there_are_no_risk_groups(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("survival",), optional=False)
    table = pd.read_csv(run / "predictions.csv")
    table[table["split"] == "test"].to_csv(run / "predictions.csv", index=False)
    assert "No risk groups:" in write_report(run).read_text()


def test_patients_without_a_prediction_are_counted_not_drawn(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), optional=False)
    table = pd.read_csv(run / "predictions.csv")
    lost = (table["model"] == "subspace") & (table["split"] == "test") & (np.arange(len(table)) % 10 == 0)
    table.loc[lost, [column for column in table if column.startswith("p_")]] = np.nan
    table.to_csv(run / "predictions.csv", index=False)
    assert (
        f"Not in the figures: {lost.sum()} test patients without a label or a prediction"
        in write_report(run).read_text()
    )


def test_reasons_of_comparisons_are_shown_once_with_their_models(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), explained=0)
    table = pd.read_csv(run / "comparisons.csv")
    table["reason"] = "2 patients left out"
    table.to_csv(run / "comparisons.csv", index=False)
    assert "ABMIL, SNN, Concatenation: 2 patients left out" in write_report(run).read_text()


def test_failed_jobs_are_listed(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), optional=False)
    (run / "failures.csv").write_text("task,model,fold,reason\ngrade,snn,3,no patient has expression\n")
    assert "no patient has expression" in write_report(run).read_text()


def test_numeric_looking_identifiers_keep_their_zeros(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), optional=False)
    (run / "cohort").mkdir()
    (run / "cohort" / "exclusions.csv").write_text("level,id,reason\npatient,007,no label\n")
    assert ">007<" in write_report(run).read_text()


def test_pictures_stay_within_the_budget(tmp_path, monkeypatch):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), optional=False)
    sheets = run / "cohort" / "contact_sheets"
    sheets.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (400, 2000, 3), dtype=np.uint8)
    for number in range(3):
        Image.fromarray(pixels).save(sheets / f"{number}.jpg")
    monkeypatch.setattr(pictures, "MAX_PICTURE_BYTES", 250_000)
    path = write_report(run)
    page = path.read_text()
    assert path.stat().st_size < 600_000
    assert page.count("<img") < 3
    assert "more pictures of slides in the run's folder cohort/contact_sheets/" in page.replace("&#39;", "'")

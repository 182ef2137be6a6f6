import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml
from fake_run import SCRIPT, write_fake_run

from subfuse.audit.findings import Audit, Finding
from subfuse.report.document import write_report
from subfuse.report.model_card import escaped, model_card
from subfuse.report.run_files import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("card") / "run", patients=50, explained=0)


def test_the_card_has_every_part_in_order(run):
    titles = re.findall(r"^## (.*)$", model_card(read_run(run)), re.MULTILINE)
    assert titles == [
        "In short", "The model", "Data", "Intended use", "Limits", "Metrics", "To reproduce",
    ]  # fmt: skip


def test_every_metric_of_the_main_model_is_in_the_card_as_in_the_table(run):
    card = model_card(read_run(run))
    table = pd.read_csv(run / "metrics.csv")
    of_model = table[table["model"] == "subspace"].to_dict("records")
    assert of_model
    for row in of_model:
        assert f"| {row['value']:.3f} | {row['lower']:.3f} to {row['upper']:.3f} |" in card
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) in (5, 6) for line in rows)


def test_trained_models_and_findings_are_named(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    folder = run / "survival" / "subspace" / "fold_0"
    folder.mkdir(parents=True)
    recipe = {"gene_sets": {"tumour": [0, 1, 2], "microenvironment": [3]}}
    description = {"recipe": recipe, "encoder": "uni_v2", "expression_unit": "log2_tpm"}
    (folder / "model.json").write_text(json.dumps(description))
    finding = {
        "level": "failure",
        "check": "leakage",
        "task": None,
        "found": "1 patients twice",
        "why": "",
        "remedy": "",
    }
    (run / "audit.json").write_text(json.dumps({"findings": [finding], "tables": {}}))
    card = model_card(read_run(run))
    assert "genes per subspace: tumour 3, microenvironment 1; expression in log2\\_tpm; patch encoder uni\\_v2" in card
    assert "- Leakage, 1 failure · All: 1 patient twice." in card
    assert card.index("Do not use these results") < card.index("## The model")


def test_warnings_are_counted_by_kind_not_listed(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("grade",), optional=False)
    of_models = [("fusion benefit", model) for model in ("subspace", "concat")] + [("calibration", "snn")] * 20
    findings = [
        Finding.of_model("warning", check, f"found {number}", "why", "what to do", task="grade", model=model)
        for number, (check, model) in enumerate(of_models)
    ]
    (run / "audit.json").write_text(json.dumps(Audit(tuple(findings)).to_dict()))
    card = model_card(read_run(run))
    assert "The audit found no failure and 22 warnings." in card
    assert [line for line in card.splitlines() if "warning" in line][1:] == [
        "- Fusion benefit, 2 warnings · Grade: Subspace fusion, Concatenation: for example Subspace fusion: found 0.",
        "- Calibration, 20 warnings · Grade: SNN: for example found 2.",
    ]


def test_what_new_patients_have_otherwise_than_training_stands_in_card_and_report(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("grade",), explained=0)
    path, note = run / "provenance.json", "therapy: proton beam never occurred in training"
    path.write_text(json.dumps({**json.loads(path.read_text()), "notes": [note]}))
    assert f"- {note}" in model_card(read_run(run))
    assert f"Note: {note}" in write_report(run).read_text()


def test_hostile_names_are_text(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("grade",), explained=0)
    for path in (*run.glob("*.csv"), *run.glob("cohort/*.csv")):
        path.write_text(path.read_text().replace("G3", "<img src=x>|[a](b)").replace("no tissue found", SCRIPT))
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"cohort": f"# {SCRIPT}"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    card = model_card(read_run(run))
    assert "<" not in card.replace("&lt;", "")
    assert r"\|\[a\](b)" in card
    assert card.startswith(r"# Model card: \# &lt;script&gt;")


def test_escaped_text_stays_on_one_line():
    assert escaped("a\n## b `c`") == r"a \#\# b \`c\`"

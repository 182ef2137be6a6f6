"""The examples on real data run as their comments say."""

import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from command_run import BRIEF, evaluate_roughly
from subfuse.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = [pytest.mark.real_data, pytest.mark.walk]


def prepare(example: str, out: Path) -> Path:
    assert main(["prepare", str(EXAMPLES / example / "cohort.yaml"), "--out", str(out), "--workers", "1"]) == 0
    return out


@pytest.fixture(scope="module")
def gliomas(real_data, tmp_path_factory) -> Path:
    """All 569 patients, prepared."""
    return prepare("tcga_gbmlgg", tmp_path_factory.mktemp("gliomas") / "prepared-tcga")


def test_the_real_slide_becomes_patches_features_and_pictures(real_data, tmp_path):
    prepared = prepare("cmu_slide", tmp_path / "prepared")
    slide = pd.read_csv(prepared / "slides.csv").iloc[0]
    assert slide["mpp"] == pytest.approx(0.499, abs=1e-3)
    assert (slide["width_px"], slide["height_px"]) == (2220, 2967)
    assert 20 < slide["n_patches"] <= 99  # the slide holds 8.7 x 11.6 patches of 128 µm
    wsi = prepared / "wsi" / "20x_256px_0px_overlap"
    assert (wsi / "thumbnails" / "CMU-1-Small-Region.jpg").exists()
    outline = json.loads((wsi / "contours_geojson" / "CMU-1-Small-Region.geojson").read_text())
    assert outline["features"]


def test_gliomas_end_in_a_model_to_share_whose_card_states_what_the_audit_found(
    real_data, gliomas, tmp_path, monkeypatch
):
    """By the example's own commands, of one task and two folds."""
    text = (EXAMPLES / "tcga_gbmlgg" / "cohort.yaml").read_text(encoding="utf-8")
    commands = [shlex.split(line) for line in re.findall(r"^#   subfuse (.*)", text, re.MULTILINE)]
    train, export, predict = commands[-3:]
    assert [command[0] for command in (train, export, predict)] == ["crossval", "export", "predict"]
    tasks = train[train.index("--tasks") + 1 : train.index("--models")]
    train = [word for word in train if word not in tasks or word == "grade"]
    train += ["--folds", "2", "--workers", "1", "--explain", "false"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prepared-tcga").symlink_to(gliomas)
    expression = pd.read_csv(real_data / "tcga_gbmlgg" / "expression_zscores.csv.gz", index_col=0, nrows=1)
    expression.to_csv("new.csv")
    evaluate_roughly(monkeypatch)
    for command in (train, export, predict):
        assert main(command) == 0, command
    card = Path("glioma-expression", "README.md").read_text(encoding="utf-8")
    findings = json.loads(Path("run-glioma", "audit.json").read_text(encoding="utf-8"))["findings"]
    serious = Counter((finding["check"].capitalize(), finding["level"]) for finding in findings)
    serious = Counter({key: n for key, n in serious.items() if key[1] in ("failure", "warning")})
    stated = Counter[tuple[str, str]]()
    for check, n, level in re.findall(r"^- ([^,\n]+), (\d+) (failure|warning)s? · Grade", card, re.MULTILINE):
        stated[check, level] += int(n)
    assert stated == serious
    assert {("Site and label", "warning"), ("Confounding", "warning")} <= set(serious)
    assert len(pd.read_csv("new_patient.csv")) == 2
    assert set(pd.read_csv("new_patient.csv")["model"]) == {"logistic"}


def test_paired_patients_are_predicted_by_a_model_of_the_published_folds(gliomas, tmp_path, caplog, monkeypatch):
    evaluate_roughly(monkeypatch)
    paired, run = prepare("tcga_paired", tmp_path / "b"), tmp_path / "run"
    slides = pd.read_csv(paired / "slides.csv")
    assert slides["patient_id"].nunique() == 5
    assert (slides["n_patches"] >= 4).all()
    options = ["--tasks", "grade", "--models", "subspace", *BRIEF, "--train.epochs", "1", "--workers", "1"]
    options += ["--train.linear_path", "false", "--explain", "false"]
    assert main(["crossval", str(gliomas), "--out", str(run), *options]) == 0
    out = tmp_path / "predictions.csv"
    assert main(["predict", str(run), "--cohort", str(paired), "--out", str(out)]) == 0
    assert caplog.text.count("no training patient had slides") == 1
    predicted = pd.read_csv(out)
    assert predicted.groupby("task")["patient_id"].nunique().to_dict() == {"grade": 5}
    # all five are among the 569: each is predicted only by the fold that held it out
    assert set(predicted["split"]) == {"test"}
    assert not predicted.duplicated(["task", "patient_id"]).any()
    assert predicted["has_expression"].all()
    assert not predicted["has_slides"].any()


@pytest.fixture(scope="module")
def paired_run(real_data, tmp_path_factory) -> Path:
    """A run on the five, with tiles and expression, and on twenty others without tiles; folds of both kinds.

    Beside it are the prepared patients (`both`) and the five with tiles alone (`tiles`).
    """
    place = tmp_path_factory.mktemp("paired")
    given = yaml.safe_load((EXAMPLES / "tcga_paired" / "cohort.yaml").read_text(encoding="utf-8"))
    labels = pd.read_csv(real_data / "tcga_gbmlgg" / "labels.csv").query("project == 'LGG'")
    five = given["patients"]["include"]
    labels.assign(tiles=labels["case_id"].isin(five)).to_csv(place / "labels.csv", index=False)
    others = [name for name in labels["case_id"] if name not in five][:20]
    patients = {**given["patients"], "table": str(place / "labels.csv"), "include": [*five, *others]}
    patients["columns"] |= {"tiles": "tiles"}
    given["slides"]["table"] = str(EXAMPLES / "tcga_paired" / "slides.csv")
    given |= {
        "role": "develop",
        "tasks": {"grade": {"column": "grade", "classes": ["G2", "G3"]}},
        "splits": {"folds": 2, "validation": 0.3, "stratify": ["tiles"], "seed": 0},
        "patients": patients,
    }
    (place / "both.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    alone = {name: part for name, part in given.items() if name not in ("expression", "gene_sets", "splits", "tasks")}
    alone |= {"role": "external", "patients": {**patients, "include": five}}
    (place / "tiles.yaml").write_text(yaml.safe_dump(alone), encoding="utf-8")
    for name in ("both", "tiles"):
        assert main(["prepare", str(place / f"{name}.yaml"), "--out", str(place / name), "--workers", "1"]) == 0
    options = ["--models", "subspace", *BRIEF, "--train.epochs", "1", "--workers", "1", "--explain", "false"]
    assert main(["crossval", str(place / "both"), "--out", str(place / "run"), *options]) == 0
    return place / "run"


def predicted(run: Path, cohort: str) -> pd.DataFrame:
    """What the run says of the five, as a prepared cohort has them."""
    out = run.parent / f"{run.name}-{cohort}.csv"
    assert main(["predict", str(run), "--cohort", str(run.parent / cohort), "--out", str(out)]) == 0
    table = pd.read_csv(out).set_index("patient_id")
    five = pd.read_csv(run.parent / "tiles" / "patients.csv")["patient_id"]
    return table.loc[[patient for patient in five if patient in table.index]]


def test_paired_patients_are_predicted_from_tiles_alone_and_from_both(paired_run):
    """Trained with few tiles and the expression of twenty-five: what is compared is how, not how well."""
    both, tiles = predicted(paired_run, "both"), predicted(paired_run, "tiles")
    assert list(tiles.index) == list(both.index)
    assert len(tiles) == 5
    assert (tiles["fold"] == both["fold"]).all()  # by the model that held the patient out
    assert both[["has_slides", "has_expression"]].all(axis=None)
    assert tiles["has_slides"].all()
    assert not tiles["has_expression"].any()
    assert (tiles["p_G3"] != both["p_G3"]).all()


def test_the_student_predicts_paired_patients_from_tiles_beside_the_teacher_that_reads_both(paired_run):
    students = paired_run.parent / "students"
    assert main(["distil", str(paired_run), "--out", str(students), "--workers", "1"]) == 0
    assert (students / "audit.json").exists()
    assert not (students / "failed_results.csv").exists()
    student, teacher = predicted(students, "tiles"), predicted(paired_run, "both")
    side_by_side = teacher.join(student, lsuffix="_teacher", rsuffix="_student")
    assert len(side_by_side) == 5
    assert set(student["model"]) == {"distilled"}
    assert (side_by_side["fold_teacher"] == side_by_side["fold_student"]).all()
    assert side_by_side["has_expression_teacher"].all()
    assert not side_by_side["has_expression_student"].any()
    assert (side_by_side["p_G3_teacher"] != side_by_side["p_G3_student"]).all()
    told = pd.read_csv(students / "students.csv").set_index("model")
    assert {"subspace", "distilled"} <= set(told.index)
    assert (told["n_patients"] == 5).all()

"""The examples on real data run as their comments say."""

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from command_run import BRIEF
from subfuse.cli import main

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = [pytest.mark.real_data, pytest.mark.walk]


def prepare(example: str, out: Path) -> Path:
    assert main(["prepare", str(EXAMPLES / example / "cohort.yaml"), "--out", str(out), "--workers", "1"]) == 0
    return out


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


def test_paired_patients_are_predicted_by_a_model_of_the_published_folds(real_data, tmp_path, caplog):
    trained_on, paired, run = (
        prepare("tcga_gbmlgg", tmp_path / "a"),
        prepare("tcga_paired", tmp_path / "b"),
        tmp_path / "run",
    )
    slides = pd.read_csv(paired / "slides.csv")
    assert slides["patient_id"].nunique() == 5
    assert (slides["n_patches"] >= 4).all()
    options = ["--tasks", "grade", "--models", "subspace", *BRIEF, "--train.epochs", "1", "--workers", "1"]
    options += ["--explain", "false"]
    assert main(["crossval", str(trained_on), "--out", str(run), *options]) == 0
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


def test_paired_patients_are_predicted_from_tiles_alone_and_from_both(real_data, tmp_path):
    """Trained with the tiles of the other four and the expression of sixty: what is compared is how, not how well."""
    given = yaml.safe_load((EXAMPLES / "tcga_paired" / "cohort.yaml").read_text(encoding="utf-8"))
    labels = pd.read_csv(real_data / "tcga_gbmlgg" / "labels.csv").query("project == 'LGG'")
    five = given["patients"]["include"]
    others = [name for name in labels["case_id"] if name not in five][:60]
    given["slides"]["table"] = str(EXAMPLES / "tcga_paired" / "slides.csv")
    given |= {
        "role": "develop",
        "tasks": {"grade": {"column": "grade", "classes": ["G2", "G3"]}},
        "splits": {"folds": 2, "validation": 0.15, "stratify": ["grade"], "seed": 0},
        "patients": {**given["patients"], "include": [*five, *others]},
    }
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    alone = {name: part for name, part in given.items() if name not in ("expression", "gene_sets", "splits", "tasks")}
    alone |= {"role": "external", "patients": {**given["patients"], "include": five}}
    (tmp_path / "tiles.yaml").write_text(yaml.safe_dump(alone), encoding="utf-8")
    for name in ("both", "tiles"):
        assert main(["prepare", str(tmp_path / f"{name}.yaml"), "--out", str(tmp_path / name), "--workers", "1"]) == 0
    run = tmp_path / "run"
    options = ["--models", "subspace", *BRIEF, "--train.epochs", "1", "--workers", "1", "--explain", "false"]
    assert main(["crossval", str(tmp_path / "both"), "--out", str(run), *options]) == 0
    tables = {}
    for name in ("both", "tiles"):
        out = tmp_path / f"{name}.csv"
        assert main(["predict", str(run), "--cohort", str(tmp_path / name), "--out", str(out)]) == 0
        table = pd.read_csv(out).set_index("patient_id")
        tables[name] = table.loc[[patient for patient in five if patient in table.index]]
    both, tiles = tables["both"], tables["tiles"]
    assert list(tiles.index) == list(both.index) == five
    assert (tiles["fold"] == both["fold"]).all()  # by the model that held the patient out
    assert both[["has_slides", "has_expression"]].all(axis=None)
    assert tiles["has_slides"].all()
    assert not tiles["has_expression"].any()
    assert (tiles["p_G3"] != both["p_G3"]).all()

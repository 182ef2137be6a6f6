"""Shared models predict as their run does, on a machine that has nothing of it; what was changed is named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from shared_run import shared_run, without

from subfuse.cli import main
from subfuse.errors import DataError
from subfuse.features.store import read_features, write_features
from subfuse.files import write_sealed_json
from subfuse.runs.new_patient import predict_new_patient
from subfuse.runs.run import load_run
from subfuse.sharing.export import export_run
from subfuse.sharing.shared_models import load_shared

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return shared_run(tmp_path_factory)


@pytest.fixture
def moved(shared, tmp_path) -> Path:
    return Path(shutil.copytree(shared[1], tmp_path / "elsewhere"))


@pytest.mark.parametrize("lacking", [None, "slides", "expression"])
def test_predictions_are_those_of_the_run(shared, moved, lacking):
    run, _, cohort = shared
    cohort = cohort if lacking is None else without(cohort, lacking)
    expected = load_run(run).predict(cohort, model="subspace")
    found = load_shared(moved).predict(cohort)
    pd.testing.assert_frame_equal(found, expected)
    assert {"survival", "grade"} == set(found["task"])
    assert found["risk_percentile"].notna().sum() == found["risk"].notna().sum() > 0
    assert found["recalibrated_p_G4"].notna().any()


def test_linear_models_predict_as_in_the_run(shared, tmp_path):
    run, _, cohort = shared
    folder = export_run(run, tmp_path / "linear", models=["cox", "logistic"])
    found = load_shared(folder).predict(cohort)
    assert set(found["model"]) == {"cox", "logistic"}
    for model in ("cox", "logistic"):
        expected = load_run(run).predict(cohort, model=model)
        ours = found[found["model"] == model].dropna(axis=1, how="all").reset_index(drop=True)
        pd.testing.assert_frame_equal(ours, expected.dropna(axis=1, how="all"), check_dtype=False)
    assert found["survival_365"].notna().any()


def test_the_command_predicts_files_as_of_the_run(shared, moved, tmp_path, capsys):
    run, _, cohort = shared
    patient = cohort.patients[0]
    pairs = zip(cohort.genes, patient.expression.tolist(), strict=True)
    (tmp_path / "rna.csv").write_text("gene,value\n" + "".join(f"{gene},{value!r}\n" for gene, value in pairs))
    files = ["--slide", str(patient.slides[0]), "--expression", str(tmp_path / "rna.csv")]
    for place, out in ((run, "run.csv"), (moved, "shared.csv")):
        assert main(["predict", str(place), *files, "--out", str(tmp_path / out)]) == 0
    for end in ("", "_patients"):
        ours, expected = (pd.read_csv(tmp_path / f"{name}{end}.csv") for name in ("shared", "run"))
        pd.testing.assert_frame_equal(ours, expected)
    assert "survival at 1 year" in capsys.readouterr().out


def test_models_of_different_inputs_ask_for_one(shared, moved, tmp_path):
    run, _, cohort = shared
    folder = export_run(run, tmp_path / "mixed", models=["subspace", "cox"])
    models = load_shared(folder)
    found = predict_new_patient(models, slides=cohort.patients[0].slides)
    assert set(found.predictions["model"]) == {"subspace"}


def test_files_that_do_not_fit_are_one_line(shared, moved, tmp_path, capsys):
    run, _, cohort = shared
    of_genes = export_run(run, tmp_path / "cox", models=["cox"])
    slide, other = cohort.patients[0].slides[0], tmp_path / "other.h5"
    stored = read_features(slide)
    write_features(other, replace(stored, encoder="resnet18", encoder_sha256="1" * 64), tile_px=256)
    wide = tmp_path / "wide" / "scan.h5"
    write_features(wide, replace(stored, level0_mpp=stored.level0_mpp * 4), tile_px=256)
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"")
    for place, files, code, words in (
        (of_genes, ["--slide", slide], 2, "cox reads expression. Found only slides. Give --expression"),
        (moved, ["--slide", other], 3, "slides of other.h5 must be encoded by fake as in training. Found resnet18"),
        (moved, ["--slide", wide], 3, "slides of scan.h5 must have patches as wide as in training, 128 µm. Found 512"),
        (moved, ["--slide", picture], 2, "slides can be prepared only for a run whose own slides were"),
        (moved, ["--expression", tmp_path / "none.csv"], 2, "none.csv: a file is required. Found none"),
        (moved, ["--slide", slide, "--model", "cox"], 2, "has no model cox. Name one that it has with --model"),
    ):
        command = ["predict", str(place), *map(str, files), "--out", str(tmp_path / "new.csv")]
        assert main(command) == code, words
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error
        assert not (tmp_path / "new.csv").exists()


def changed_manifest(folder: Path, **changes) -> None:
    content = json.loads((folder / "subfuse.json").read_text())
    del content["sha256"]
    write_sealed_json(folder / "subfuse.json", content | changes)


@pytest.mark.parametrize("name", ["README.md", "survival/subspace/fold_1/model.safetensors",
                                  "grade/subspace/fold_0/reference.json"])  # fmt: skip
def test_a_changed_or_missing_file_is_named(moved, name, tmp_path, capsys):
    path = moved / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    command = ["predict", str(moved), "--cohort", str(tmp_path), "--out", str(tmp_path / "new.csv")]
    assert main(command) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: the file that subfuse.json names is required. Found that it was changed" in line
    path.unlink()
    assert main(command) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: required by subfuse.json, not found" in line


def test_models_in_exchanged_folders_are_refused(moved):
    one, other = moved / "survival" / "subspace", moved / "grade" / "subspace"
    one.rename(moved / "between")
    other.rename(one)
    (moved / "between").rename(other)
    files = json.loads((moved / "subfuse.json").read_text())["files"]
    swap = {"survival": "grade", "grade": "survival"}
    named = {"/".join([swap.get(n.split("/")[0], n.split("/")[0]), *n.split("/")[1:]]): h for n, h in files.items()}
    changed_manifest(moved, files=named)
    with pytest.raises(DataError, match=r"the model of .* is required\. Found another one, which differs in task"):
        load_shared(moved).predict(None)


def test_percentiles_are_those_of_the_training_patients_within_a_group(shared):
    run, _, cohort = shared
    run = load_run(run)
    predicted = run.predict(cohort, model="cox")
    for row in predicted[predicted["task"] == "survival"].itertuples():
        rows = run.predictions.query("task == 'survival' and model == 'cox' and fold == @row.fold and split == 'train'")
        share = np.mean(rows["risk"] < row.risk) * 100
        assert abs(row.risk_percentile - share) <= 5 / len(rows) * 100 + 1e-9

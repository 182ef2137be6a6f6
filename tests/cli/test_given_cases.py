"""Small inputs of the kinds that people report in public, each given to the command that meets it."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from subfuse.cli import main

pytestmark = pytest.mark.real_data

CHECKED = {
    "log_units/l1__log2_tpm_001": (0, "Found no value below 0, as of log2(x + 1)"),
    "log_units/lfpkm__log2_tpm": (0, "TPM sum to one million per sample. Found a median of 266100"),
    "log_units/ln1__log2_tpm": (0, "values look like natural logarithms"),
    "log_units/log10__log2_tpm": (0, "values look like logarithms to base 10"),
    "two_encoders/cohort": (3, "conch_v15 in P000.h5, P002.h5, P004.h5 and 3 more; 24 features of uni_v1 in P001.h5"),
    "stamp_2_0/c": (0, "7 of 9 patients (2 excluded)"),  # S3 and S5 have no size of their tiles
    "normal_tissue_slides/cohort": (0, "not the primary tumour, of which TCGA-A1-1005 has a slide"),
    "gdc_follow_up_apart/cohort": (0, "60 patients (events: 11)"),
    "h5ad/r02_noX": (3, "values in X are required. Found layers: tpm. Name one as `layer`"),
    "h5ad/r06_ln": (3, 'Found natural logarithms in X (uns["log1p"])'),
    "h5ad/r11_nanpid": (0, "no name of a patient"),
    "identifiers_do_not_match/a2": (3, "TARGET-30-PAAXYZ, TARGET-30-PABXYZ, TARGET-30-PACXYZ and 17 more; expression:"),
    "task_name_is_a_path/cohort": (2, "tasks.../../evil: a name must be printable"),
    "yaml_bombs/bomb": (2, "at most 200000 entries are allowed"),
    "yaml_bombs/deep": (2, "at most 30 levels of nesting are allowed"),
    "yaml_bombs/self": (2, "an alias must not stand within its own anchor"),
}


@pytest.mark.parametrize("name", CHECKED)
def test_check_says_what_is_wrong_in_its_exit_code_and_its_words(
    cases: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    code, words = CHECKED[name]
    assert main(["check", str(cases / f"{name}.yaml")]) == code
    told = capsys.readouterr()
    assert words in told.out + told.err
    assert sum(line.startswith("subfuse: error:") for line in told.err.splitlines()) == (code > 0)


def prepared(cohort_file: Path, out: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the slides that a prepared cohort has, and those that were left out."""
    assert main(["prepare", str(cohort_file), "--out", str(out), "--workers", "1"]) == 0
    left_out = pd.read_csv(out / "exclusions.csv", index_col="id").query("level == 'slide'")
    return pd.read_csv(out / "slides.csv", index_col="slide_id"), left_out


def test_tissue_is_measured_once_however_often_a_patch_is_given(cases: Path, tmp_path: Path) -> None:
    slides, left_out = prepared(cases / "feature_shapes" / "cohort.yaml", tmp_path / "shapes")
    assert slides["tissue_mm2"]["P007"] == pytest.approx(slides["tissue_mm2"]["P003"])
    assert "Found (-5000, -5000) in row 0" in left_out["reason"]["P008"]
    overlapping, _ = prepared(cases / "overlapping_patches" / "c.yaml", tmp_path / "overlap")
    assert overlapping["tissue_mm2"].tolist() == pytest.approx([0.147456] * 8)


def test_hostile_feature_files_are_left_out_by_name_and_the_others_prepared(cases: Path, tmp_path: Path) -> None:
    shutil.copytree(cases / "ready_features_explain", given := tmp_path / "given", copy_function=shutil.copyfile)
    hostile = [path for path in sorted((cases / "hostile_features").glob("*.h5")) if path.stem != "PT-000_s1"]
    ready = sorted((given / "features").glob("*.h5"))
    for path, in_its_place in zip(hostile, ready, strict=False):
        shutil.copyfile(path, in_its_place)
    slides, left_out = prepared(given / "cohort.yaml", tmp_path / "prepared")
    assert sorted(left_out.index) == [path.stem for path in ready[: len(hostile)]]
    assert all(name in reason for name, reason in left_out["reason"].items())
    assert sorted(slides.index) == [path.stem for path in ready[len(hostile) :]]


@pytest.fixture(scope="module")
def run(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model of the cases' ready features, beside the cohort that it was trained on."""
    folder = tmp_path_factory.mktemp("run")
    prepared(cases / "ready_features_explain" / "cohort.yaml", folder / "prepared")
    training = ["--task", "grade", "--model", "snn", "--train.epochs", "1", "--device", "cpu"]
    assert main(["train", str(folder / "prepared"), *training, "--out", str(folder / "run")]) == 0
    return folder


@pytest.mark.parametrize("number", range(1, 8))
def test_a_hostile_description_of_a_model_ends_in_one_line_that_names_it(
    cases: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    shutil.copytree(run / "run", tmp_path / "run")
    (described,) = (tmp_path / "run").rglob("model.json")
    shutil.copyfile(cases / "hostile_model_json" / f"{number}.json", described)
    of_patients = ["--cohort", str(run / "prepared"), "--model", "snn", "--out", str(tmp_path / "out.csv")]
    assert main(["predict", str(tmp_path / "run"), *of_patients]) == 3
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("subfuse: error:")]
    assert len(told) == 1
    assert "model.json" in told[0]
    assert not (tmp_path / "out.csv").exists()

"""What mudata and anndata read is the cohort, and what a run predicted of it."""

import shutil
from pathlib import Path

import anndata
import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import yaml

from small_cohort import slide_features
from subfuse.cli import main
from subfuse.cohort.cohort import read_cohort
from subfuse.cohort.fold_files import SPLITS, read_repeats
from subfuse.expression.h5ad import read_anndata
from subfuse.features.store import read_features, write_features
from subfuse.runs.cross_validation import cross_validate

pytestmark = pytest.mark.walk

SIZES = {"here": 24, "there": 9}
COLUMNS = ("patient_id", "time_days", "event", "grade", "age", "purity", "pfi_t", "pfi")
ENDPOINTS = {"pfi": {"time": "pfi_t", "event": "pfi"}}
GENES = [f"G{i}" for i in range(6)]


def write_cohort(folder: Path, *, vectors: bool) -> None:
    """Cohorts `here` and `there`: the first patient has no slide, the second no expression, the third two slides."""
    random = np.random.default_rng(0)
    members, all_vectors = [], []
    for cohort, n in SIZES.items():
        names, latent = [f"{cohort}{i:02d}" for i in range(n)], random.normal(size=n)
        patients = pd.DataFrame({"patient_id": names, "time_days": np.round(400 * np.exp(-latent)) + 1})
        patients["event"] = [i % 4 > 0 for i in range(n)]
        patients["grade"] = np.where(latent > 0, "G2/3", "G4")
        patients["pfi_t"], patients["pfi"] = patients["time_days"] // 2 + 1, [i % 3 for i in range(n)]
        patients["pfi"] = patients["pfi"].clip(upper=1)
        patients["purity"] = np.where(np.arange(n) == 4, "", random.random(n).round(3).astype(str))
        patients["age"] = np.where(np.arange(n) == 5, "", random.integers(30, 80, n).astype(str))
        patients.to_csv(folder / f"{cohort}.csv", index=False)
        values = np.exp(random.normal(size=(n, len(GENES))) + latent[:, None]).round(3)
        pd.DataFrame(values, names, GENES).drop(names[1]).to_csv(folder / f"{cohort}_rna.csv", index_label="case")
        slides = [(f"{name}-{k}", name) for i, name in enumerate(names) for k in range(0 if i == 0 else 1 + (i == 2))]
        pd.DataFrame(slides, columns=["slide_id", "patient_id"]).to_csv(folder / f"{cohort}_slides.csv", index=False)
        source = {"table": f"{cohort}_slides.csv"}
        if vectors:
            source["feature_table"] = "vectors.csv"
            all_vectors.append(pd.DataFrame(random.normal(size=(len(slides), 4)), [slide for slide, _ in slides]))
        else:
            source["features"] = f"{cohort}_features"
            for slide, _ in slides:
                path = folder / f"{cohort}_features" / f"{slide}.h5"
                write_features(path, slide_features(random, 0.0, 4), tile_px=256)
        members.append(
            {
                "name": cohort,
                "role": "develop" if cohort == "here" else "external",
                "patients": {
                    "table": f"{cohort}.csv",
                    "columns": {name: name for name in COLUMNS},
                    "endpoints": ENDPOINTS,
                },
                "slides": source,
                "expression": {"table": f"{cohort}_rna.csv", "unit": "tpm"},
            }
        )
    if vectors:
        pd.concat(all_vectors).add_prefix("f").to_csv(folder / "vectors.csv", index_label="slide_id")
    (folder / "sets.gmt").write_text("A\td\tG0\tG1\tG2\tG3\n")
    content = {
        "name": "mixed",
        "cohorts": members,
        "gene_sets": {"tumour": "sets.gmt"},
        "covariates": ["age"],
        "tasks": {
            "survival": {"time": "time_days", "event": "event"},
            "grade": {"column": "grade"},
            "pfi": {"time": "pfi_days", "event": "pfi_event"},
            "purity": {"column": "purity", "kind": "regression"},
        },
        "splits": {"folds": 2, "repeats": 2},
    }
    (folder / "cohort.yaml").write_text(yaml.safe_dump(content))
    assert main(["prepare", str(folder / "cohort.yaml"), "--out", str(folder / "prepared"), "--workers", "1"]) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A prepared folder of patch features, and a Cox model of it."""
    folder = tmp_path_factory.mktemp("mixed")
    write_cohort(folder, vectors=False)
    cross_validate(read_cohort(folder / "prepared"), task="survival", models=["cox"], out=folder / "run")
    return folder


@pytest.fixture(scope="module")
def exported(folder: Path) -> mudata.MuData:
    run = ["--run", str(folder / "run")]
    assert main(["export-mudata", str(folder / "prepared"), str(folder / "out.h5mu"), *run]) == 0
    with mudata.set_options(pull_on_update=False):
        return mudata.read_h5mu(folder / "out.h5mu")


def patients_of(folder: Path) -> dict:
    """The patients of both cohorts, as models see them."""
    cohorts = [read_cohort(folder / "prepared", role) for role in ("develop", "external")]
    return {patient.patient_id: patient for cohort in cohorts for patient in cohort}


def test_expression_and_slides_are_those_of_the_cohort(folder, exported):
    patients = patients_of(folder)
    rna, slides = exported["rna"], exported["slides"]
    assert set(exported.obs_names) == set(patients)
    assert set(rna.obs_names) == {name for name, patient in patients.items() if patient.expression is not None}
    assert set(slides.obs_names) == {name for name, patient in patients.items() if patient.slides}
    assert 0 < rna.n_obs < len(patients) > slides.n_obs
    assert list(rna.var_names) == list(read_cohort(folder / "prepared").genes)
    for name, values in zip(rna.obs_names, rna.X, strict=True):
        np.testing.assert_array_equal(values, patients[name].expression)
    for name, values in zip(slides.obs_names, slides.X, strict=True):
        patches = np.concatenate([read_features(path).features for path in patients[name].slides]).astype(float)
        np.testing.assert_allclose(values, patches.mean(axis=0), rtol=1e-5, atol=1e-6)
        assert slides.obs.loc[name, "n_patches"] == len(patches)
    assert slides.uns == {"vectors": "mean of patch features", "encoder": "fake"}
    assert exported.uns["cohorts"] == {"here": "develop", "there": "external"}


def test_outcomes_covariates_and_folds_are_those_of_the_cohort(folder, exported):
    obs = exported.obs
    for name, patient in patients_of(folder).items():
        row = obs.loc[name]
        assert (row["cohort"], row["time_days"], row["event"]) == (patient.cohort, patient.time_days, patient.event)
        assert row["grade"] == patient.labels["grade"]
        assert (None if pd.isna(row["age"]) else str(row["age"])) == patient.covariates.get("age")
        assert row["n_slides"] == len(patient.slides)
        assert row["has_expression"] == (patient.expression is not None)
        assert row["pfi_days"] == float(patient.labels["pfi_days"])
        assert row["pfi_event"] == (patient.labels["pfi_event"].lower() == "true")
    assert (obs["age"].isna().sum(), obs["purity"].isna().sum()) == (2, 2)
    assert [obs[name].dtype.kind for name in ("pfi_days", "pfi_event", "purity")] in (["i", "b", "f"], ["f", "b", "f"])
    assert obs.loc[obs["cohort"] == "there", "fold"].isna().all()
    assert not (obs["fold"] == obs["fold_repeat_1"])[obs["fold"].notna()].all()


def test_predictions_are_means_of_the_tested_rows(folder, exported):
    table = pd.read_csv(folder / "run" / "predictions.csv").query("split == 'test'")
    risks = table.groupby("patient_id")["risk"].mean()
    obs = exported.obs
    assert set(obs.index[obs["survival_risk"].notna()]) == set(risks.index)
    np.testing.assert_allclose(obs.loc[risks.index, "survival_risk"], risks)
    horizons = [name for name in obs if name.startswith("survival_survival_")]
    assert horizons
    assert obs.loc[risks.index, horizons].notna().all(axis=None)
    assert exported.uns["predictions"] == {"model": "cox", "repeats": table["repeat"].nunique()}


def test_folds_are_those_that_tested_the_patients_of_the_run(folder, exported, tmp_path):
    run, prepared = tmp_path / "run", folder / "prepared"
    cohort = read_cohort(prepared)
    cross_validate(cohort, task="survival", models=["cox"], folds=3, repeats=2, seed=5, out=run)
    assert main(["export-mudata", str(prepared), str(tmp_path / "o.h5mu"), "--run", str(run)]) == 0
    with mudata.set_options(pull_on_update=False):
        found = mudata.read_h5mu(tmp_path / "o.h5mu")
    table = pd.read_csv(run / "predictions.csv").query("split == 'test'")
    for repeat, column in enumerate(("fold", "fold_repeat_1")):
        tested_in = table[table["repeat"] == repeat].set_index("patient_id")["fold"].to_dict()
        assert found.obs[column].dropna().to_dict() == tested_in
        assert set(found.obs.index[found.obs["survival_risk"].notna()]) == set(tested_in)
    assert (found.uns["folds"], exported.uns["folds"]) == ("of the run", "of the run")
    assert main(["export-mudata", str(prepared), str(tmp_path / "p.h5mu")]) == 0
    with mudata.set_options(pull_on_update=False):
        found = mudata.read_h5mu(tmp_path / "p.h5mu")
    assert found.uns["folds"] == "of the prepared folder"
    for column, folds in zip(("fold", "fold_repeat_1"), read_repeats(prepared / SPLITS), strict=True):
        tested = {patient: k for k, fold in enumerate(folds) for patient in fold.test}
        assert found.obs[column].dropna().to_dict() == tested


def test_anndata_and_our_reader_read_its_expression(folder, exported, tmp_path):
    with h5py.File(folder / "out.h5mu") as file:
        rna = anndata.io.read_elem(file["mod/rna"])
    np.testing.assert_array_equal(rna.X, exported["rna"].X)
    assert (rna.uns["unit"], rna.uns["scale"]) == ("tpm", "log2_tpm")
    rna.write_h5ad(tmp_path / "rna.h5ad")
    again = read_anndata(tmp_path / "rna.h5ad")
    assert again.unit == "log2_tpm"
    np.testing.assert_array_equal(again.values, rna.X)


def test_slide_vectors_are_called_so_and_classes_with_a_slash_have_a_column(folder, tmp_path):
    write_cohort(tmp_path, vectors=True)
    run = tmp_path / "run"
    cross_validate(read_cohort(tmp_path / "prepared"), task="grade", models=["logistic"], out=run)
    assert main(["export-mudata", str(tmp_path / "prepared"), str(tmp_path / "v.h5mu"), "--run", str(run)]) == 0
    with mudata.set_options(pull_on_update=False):
        found = mudata.read_h5mu(tmp_path / "v.h5mu")
    assert found["slides"].uns["vectors"] == "mean of slide vectors"
    assert found["slides"].uns["encoder"] == "vectors"
    assert found["slides"].obs.loc["here02", "n_vectors"] == 2
    given = pd.read_csv(tmp_path / "vectors.csv", index_col=0)
    expected = given.loc[["here02-0", "here02-1"]].mean().to_numpy()
    np.testing.assert_allclose(found["slides"]["here02"].X.ravel(), expected, rtol=2e-3, atol=1e-3)
    both = found.obs[["grade_p_G2_3", "grade_p_G4"]].dropna()
    assert len(both) > 10
    np.testing.assert_allclose(both.sum(axis=1), 1, atol=1e-5)


def refusal(capsys, *command: object, code: int) -> str:
    """The one line with which a command refuses."""
    capsys.readouterr()
    assert main(["export-mudata", *map(str, command)]) == code
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


def test_what_cannot_be_exported_is_one_line(folder, tmp_path, capsys):
    prepared, out = folder / "prepared", tmp_path / "new.h5mu"
    assert "must end in .h5mu. Found new.h5ad" in refusal(capsys, prepared, tmp_path / "new.h5ad", code=2)
    assert "a prepared folder is required" in refusal(capsys, tmp_path, out, code=2)
    assert "a prepared folder is required" in refusal(capsys, tmp_path / "absent", out, code=2)
    assert "must be a finished run" in refusal(capsys, prepared, out, "--run", tmp_path, code=2)
    out.write_text("mine")
    assert "exists already" in refusal(capsys, prepared, out, code=2)
    assert out.read_text() == "mine"
    out.unlink()
    assert list(tmp_path.iterdir()) == []


def doctored(folder: Path, run: Path, change) -> Path:
    """A copy of the run whose predictions are changed, as of a version that recorded no hashes."""
    shutil.copytree(folder / "run", run)
    (run / "provenance.json").unlink()
    change(pd.read_csv(run / "predictions.csv")).to_csv(run / "predictions.csv", index=False)
    return run


def test_runs_of_other_cohorts_and_without_tested_patients_are_one_line(folder, tmp_path, capsys):
    prepared, out = folder / "prepared", tmp_path / "new.h5mu"
    untested = doctored(folder, tmp_path / "untested", lambda table: table[table["split"] != "test"])
    assert "predictions of tested patients" in refusal(capsys, prepared, out, "--run", untested, code=3)
    others = doctored(folder, tmp_path / "others", lambda table: table.replace({"patient_id": {"here03": "P3"}}))
    assert "patients that are not in it: P3" in refusal(capsys, prepared, out, "--run", others, code=3)
    shutil.copytree(folder, tmp_path / "again", ignore=shutil.ignore_patterns("run", "*.h5mu"))
    table = pd.read_csv(tmp_path / "again" / "here.csv").assign(age=lambda known: 50 + known.index % 2)
    table.to_csv(tmp_path / "again" / "here.csv", index=False)
    again = tmp_path / "again" / "prepared"
    assert main(["prepare", str(tmp_path / "again" / "cohort.yaml"), "--out", str(again), "--workers", "1"]) == 0
    assert "other age" in refusal(capsys, again, out, "--run", folder / "run", code=3)
    assert not out.exists()
    assert list(tmp_path.glob(".*.part*")) == []


def test_two_columns_of_one_name_are_refused(folder, tmp_path, capsys):
    write_cohort(tmp_path, vectors=True)
    content = yaml.safe_load((tmp_path / "cohort.yaml").read_text())
    for member in content["cohorts"]:
        table = pd.read_csv(tmp_path / member["patients"]["table"]).assign(fold="a")
        table.to_csv(tmp_path / member["patients"]["table"], index=False)
        member["patients"]["columns"]["fold"] = "fold"
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(content))
    prepared = tmp_path / "prepared"
    assert main(["prepare", str(tmp_path / "cohort.yaml"), "--out", str(prepared), "--workers", "1"]) == 0
    assert "each once. Found fold" in refusal(capsys, prepared, tmp_path / "x.h5mu", code=3)

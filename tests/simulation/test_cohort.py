"""A simulated cohort: the same bytes again, whatever interrupts it, and readable as real data are."""

import json
from pathlib import Path

import pandas as pd
import pytest

from subfuse.clinical.reading import read_clinical
from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.errors import ConfigurationError
from subfuse.expression.gene_sets import load_gene_sets
from subfuse.expression.reading import read_expression
from subfuse.files import sha256_of_file
from subfuse.preparation.slides.slide_table import read_slides
from subfuse.simulation.cohort import simulate
from subfuse.simulation.patients import DIAGNOSES, LATENTS

PATIENTS = 3


@pytest.fixture(scope="module")
def cohort_yaml(tmp_path_factory) -> Path:
    return simulate(tmp_path_factory.mktemp("simulated") / "cohort", patients=PATIENTS, seed=5)


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_of_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_arguments_give_same_bytes_whatever_the_workers(cohort_yaml, tmp_path):
    other = simulate(tmp_path / "again", patients=PATIENTS, seed=5, workers=2)

    assert hashes(other.parent) == hashes(cohort_yaml.parent)


def test_interrupted_simulation_goes_on(cohort_yaml):
    before = hashes(cohort_yaml.parent)
    slide = next((cohort_yaml.parent / "slides").iterdir())
    cohort_yaml.unlink()
    slide.unlink()
    calls = []

    simulate(cohort_yaml.parent, patients=PATIENTS, seed=5, progress=lambda *call: calls.append(call))

    assert hashes(cohort_yaml.parent) == before
    assert calls[-1] == (PATIENTS, PATIENTS, "TCGA-SC-0003")


def test_refuses_the_folder_of_something_else(cohort_yaml, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")

    with pytest.raises(ConfigurationError, match="other files"):
        simulate(tmp_path, patients=PATIENTS)
    with pytest.raises(ConfigurationError, match="same simulation"):
        simulate(cohort_yaml.parent, patients=PATIENTS, seed=6)
    with pytest.raises(ConfigurationError, match="Found a file"):
        simulate(tmp_path / "mine.txt", patients=PATIENTS)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("wrong", [{"patients": 2}, {"visibility": 1.5}, {"seed": -1}, {"workers": 0}])
def test_wrong_arguments_are_named(tmp_path, wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        simulate(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_cohort_reads_with_its_irregularities(cohort_yaml):
    cohort_file = read_cohort_file(cohort_yaml)
    clinical = read_clinical(cohort_file.patients)
    slides, left_out, warnings = read_slides(cohort_file.slides, clinical.patients["patient_id"].tolist())
    expression = read_expression(cohort_file.expression)
    latents = pd.read_csv(cohort_yaml.parent / "truth" / "latents.csv")

    first, without_expression, without_slide = latents["patient_id"]
    assert clinical.patients["patient_id"].tolist() == latents["patient_id"].tolist()
    assert clinical.patients["time_days"].notna().all()
    assert clinical.patients["event"].notna().all()
    assert set(clinical.patients["diagnosis"]) <= set(DIAGNOSES)
    assert set(clinical.patients["grade"]) <= {"G2", "G3", "G4"}
    assert {slide.patient_id for slide in slides} == {first, without_expression}
    assert left_out.empty
    assert warnings == ()
    assert expression.values.index.tolist() == [first, without_slide]
    assert f"{first}-02A" in set(expression.exclusions["id"])  # recurrent, listed before the primary sample
    assert set(cohort_file.tasks) == {"diagnosis", "grade", "survival"}


def test_truth_names_the_causal_genes_of_each_subspace(cohort_yaml):
    causal = pd.read_csv(cohort_yaml.parent / "truth" / "genes.csv")
    gene_sets = load_gene_sets(read_cohort_file(cohort_yaml).gene_sets)

    for latent in LATENTS:
        genes = set(causal.loc[causal["subspace"] == latent, "gene"])
        others = set().union(*(gene_sets[other] for other in LATENTS if other != latent))
        assert len(genes) > 40
        assert genes < set(gene_sets[latent])
        assert not genes & others
    assert json.loads((cohort_yaml.parent / "truth" / "simulation.json").read_text())["seed"] == 5

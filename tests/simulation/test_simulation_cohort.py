import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from subfuse.clinical.reading import read_clinical
from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.errors import ConfigurationError
from subfuse.expression.gene_sets import load_gene_sets
from subfuse.expression.reading import read_expression
from subfuse.files import sha256_of_file
from subfuse.preparation.slides.slide_table import read_slides
from subfuse.simulation.cohort import simulate
from subfuse.simulation.genes import draw_counts, draw_genes, star_table
from subfuse.simulation.layout import CELL_PX, GLASS, LYMPHOCYTE, MALIGNANT, NECROTIC, REGIONS, VASCULAR, draw_layout
from subfuse.simulation.patients import DIAGNOSES, LATENTS, draw_patients, view_strength
from subfuse.simulation.plan import STAR_SUFFIX
from subfuse.simulation.slide import Staining, draw_slide

PATIENTS = 3
GDC_STAR_HEAD = [
    "# gene-model: GENCODE v36",
    "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second\ttpm_unstranded\tfpkm_unstranded\t"
    "fpkm_uq_unstranded",
]


@pytest.fixture(scope="module")
def cohort_yaml(tmp_path_factory) -> Path:
    return simulate(tmp_path_factory.mktemp("simulated") / "cohort", patients=PATIENTS, seed=5)


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256_of_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


# --- files -----------------------------------------------------------------------------------------------------------


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


def test_openslide_reads_pyramids_at_half_a_micrometre(cohort_yaml):
    openslide = pytest.importorskip("openslide")
    for path in (cohort_yaml.parent / "slides").iterdir():
        with openslide.OpenSlide(path) as slide:
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
            assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.5)
            width, height = slide.dimensions
            assert 1900 < width < 2200
            assert 1900 < height < 2200
            assert slide.level_dimensions == tuple((width // f, height // f) for f in (1, 4, 16))
            corner = np.asarray(slide.read_region((0, 0), 0, (16, 16)))[..., :3]
            assert corner.min() > 235  # glass
            assert path.stat().st_size < 2_500_000


def test_region_truth_covers_the_slide_and_matches_its_colours(cohort_yaml):
    openslide = pytest.importorskip("openslide")
    path = sorted((cohort_yaml.parent / "slides").iterdir())[0]
    regions = pd.read_csv(cohort_yaml.parent / "truth" / "regions" / f"{path.stem}.csv")
    with openslide.OpenSlide(path) as slide:
        image = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"), dtype=float)

    assert set(regions["region"]) <= set(REGIONS)
    assert regions["x"].max() + CELL_PX >= image.shape[1] > regions["x"].max()
    assert regions["y"].max() + CELL_PX >= image.shape[0] > regions["y"].max()
    regions["green"] = [image[y : y + s, x : x + s, 1].mean() for x, y, s in regions[["x", "y", "size"]].to_numpy()]
    green = regions.groupby("region")["green"].mean()
    assert green["glass"] > 230 > 200 > green["necrotic"] > green["malignant"]
    assert green["lymphocyte"] < green["normal"]


def test_count_files_have_the_gdc_layout(cohort_yaml):
    sheet = pd.read_csv(cohort_yaml.parent / "gdc_sample_sheet.tsv", sep="\t")
    for record in sheet.to_dict("records"):
        path = cohort_yaml.parent / "expression" / record["File ID"] / record["File Name"]
        lines = path.read_text().splitlines()
        assert lines[:2] == GDC_STAR_HEAD
        assert [line.split("\t")[0] for line in lines[2:6]] == [
            "N_unmapped",
            "N_multimapping",
            "N_noFeature",
            "N_ambiguous",
        ]
        assert {line.count("\t") for line in lines[1:]} == {8}
        table = pd.read_csv(path, sep="\t", comment="#").iloc[4:]
        assert table["gene_id"].str.fullmatch(r"ENSG\d{11}\.\d+").all()
        assert table["gene_id"].is_unique
        assert table["tpm_unstranded"].sum() == pytest.approx(1e6, abs=1.0)
        assert (table["stranded_first"] + table["stranded_second"] == table["unstranded"]).all()


@pytest.mark.real_data
def test_count_files_have_the_header_of_a_real_one(real_data):
    real = (real_data / "gdc" / f"star_counts_3_genes{STAR_SUFFIX.removeprefix('.rna_seq')}").read_text().splitlines()

    assert real[:2] == GDC_STAR_HEAD
    assert {line.count("\t") for line in real[1:]} == {8}


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


# --- expression ------------------------------------------------------------------------------------------------------


def test_causal_genes_and_no_others_follow_the_latents():
    generator = np.random.default_rng(0)
    genes = draw_genes(generator)
    views = generator.standard_normal((150, 2))
    tpm = [star_table(genes, draw_counts(genes, tuple(v), generator), generator)["tpm_unstranded"] for v in views]
    values = np.log2(np.array(tpm) + 1)

    standardised = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)
    correlation = np.abs(standardised.T @ (views - views.mean(axis=0)) / views.std(axis=0) / len(views))
    causal = genes.effect != 0
    for column in range(len(LATENTS)):
        assert np.median(correlation[causal[:, column], column]) > 0.5
        assert roc_auc_score(causal[:, column], correlation[:, column]) > 0.95
        # An independent variable correlates by 0.054 in the median at 150 samples.
        assert np.median(correlation[~causal[:, column], column]) < 0.09


# --- tissue ----------------------------------------------------------------------------------------------------------


def test_malignant_nuclei_grow_with_the_tumour_latent():
    layout = np.full((20, 24), MALIGNANT, dtype=np.uint8)

    def nuclear_share(tumour: float) -> float:
        image = draw_slide(
            layout, 640, 768, tumour=tumour, staining=Staining(), generator=np.random.default_rng(1)
        ).astype(float)
        return float((image[..., 0] < 120).mean())

    low, middle, high = (nuclear_share(tumour) for tumour in (-1.5, 0.0, 1.5))

    assert 1.3 * low < middle
    assert 1.3 * middle < high


def test_microenvironment_regions_grow_with_their_latent():
    def share(latent: float) -> float:
        layouts = [
            draw_layout(1990, 2110, microenvironment=latent, generator=np.random.default_rng(seed)) for seed in range(5)
        ]
        tissue = sum(int((layout != GLASS).sum()) for layout in layouts)
        assert 0.5 < tissue / sum(layout.size for layout in layouts) < 0.85
        return sum(int(np.isin(layout, (LYMPHOCYTE, VASCULAR, NECROTIC)).sum()) for layout in layouts) / tissue

    shares = [share(latent) for latent in (-2.0, -1.0, 0.0, 1.0, 2.0)]

    assert np.all(np.diff(shares) > 0.03)
    assert shares[-1] > 5 * shares[0]


# --- outcomes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_small_cohorts_can_be_stratified(seed):
    patients = draw_patients(40, visibility=0.6, generator=np.random.default_rng(seed))

    assert np.bincount(patients.diagnosis, minlength=3).min() >= 8
    assert np.bincount(patients.grade)[2:].min() >= 8
    assert (~patients.event).mean() == pytest.approx(0.40, abs=0.03)
    assert patients.time_days.min() >= 1
    assert (patients.grade[patients.diagnosis == DIAGNOSES.index("Glioblastoma")] == 4).all()
    assert (patients.grade[patients.diagnosis == DIAGNOSES.index("Oligodendroglioma")] < 4).all()


def posterior_terms(patients, visibility: float, modalities: list[int]) -> np.ndarray:
    """Expected t, m and tm given what some modalities show: what an ideal model could know."""
    share = view_strength(visibility)[modalities].ravel()
    design = np.sqrt(share)[:, None] * np.tile(np.eye(2), (len(modalities), 1))
    prior = np.array([[1.0, 0.1], [0.1, 1.0]])
    gain = prior @ design.T @ np.linalg.pinv(design @ prior @ design.T + np.diag(1.0 - share))
    mean = patients.views[:, modalities].reshape(len(patients.latents), -1) @ gain.T
    return np.column_stack([mean, mean[:, 0] * mean[:, 1]])


def oracle_gap(visibility: float) -> tuple[float, float, float]:
    """Gain of both modalities over the better one: AUC of diagnosis and of grade, concordance of survival."""
    patients = draw_patients(3000, visibility=visibility, generator=np.random.default_rng(0))
    scores = []
    for modalities in ([0], [1], [0, 1]):
        terms = posterior_terms(patients, visibility, modalities)
        row = []
        for label in (patients.diagnosis, patients.grade):
            model = LogisticRegression().fit(terms[:1500], label[:1500])
            row.append(roc_auc_score(label[1500:], model.predict_proba(terms[1500:]), multi_class="ovr"))
        severity = terms @ np.array([1.0, 1.0, 0.5])
        scores.append([*row, concordance_index(patients.time_days, -severity, patients.event)])
    slide, expression, both = scores
    return tuple(b - max(s, e) for s, e, b in zip(slide, expression, both, strict=True))


def test_two_modalities_know_more_than_either_between_the_extremes():
    nothing, default, everything = (oracle_gap(visibility) for visibility in (0.0, 0.6, 1.0))

    assert max(np.abs(nothing)) < 0.03
    assert min(default) >= 0.055
    assert max(np.abs(everything)) < 0.005

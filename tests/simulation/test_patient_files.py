"""Files of simulated patients: slides that OpenSlide reads, counts in the layout of the GDC."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from subfuse.simulation.cohort import simulate
from subfuse.simulation.layout import CELL_PX, REGIONS
from subfuse.simulation.plan import STAR_SUFFIX

PATIENTS = 3
GDC_STAR_HEAD = [
    "# gene-model: GENCODE v36",
    "gene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second\ttpm_unstranded\tfpkm_unstranded\t"
    "fpkm_uq_unstranded",
]


@pytest.fixture(scope="module")
def cohort_yaml(tmp_path_factory) -> Path:
    return simulate(tmp_path_factory.mktemp("simulated") / "cohort", patients=PATIENTS, seed=5)


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

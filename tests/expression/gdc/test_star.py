"""STAR counts of the GDC: which files speak for a patient, and shares over all genes of the file."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expression_sections import expression_section
from subfuse.errors import DataError
from subfuse.expression.gdc.star import read_star_file
from subfuse.expression.reading import read_expression
from subfuse.expression.table import read_expression_h5ad, write_expression

SUFFIX = ".rna_seq.augmented_star_gene_counts.tsv"
HEADER = (
    "# gene-model: GENCODE v36\ngene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second\t"
    "tpm_unstranded\tfpkm_unstranded\tfpkm_uq_unstranded\nN_unmapped\t\t\t9\t9\t9\t\t\t\n"
)
GENES = [
    ("ENSG01.1", "H2AFZ", "protein_coding", 1),
    ("ENSG02.3", "EGFR", "protein_coding", 3),
    ("ENSG03.1", "HN1", "lncRNA", 4),
    ("ENSG04.9", "XIST", "lncRNA", 12),
]
ALIQUOTS = {  # file: aliquot, depth
    "a": ("TCGA-02-0001-01A-01R-1849-01", 1),
    "b": ("TCGA-02-0001-01A-02R-1850-01", 5),
    "c": ("TCGA-02-0001-02A-01R-1849-01", 9),
    "d": ("TCGA-02-0002-11A-01R-1849-01", 9),
    "e": ("TCGA-02-0002-02A-01R-1849-01", 2),
}


def write_star(path: Path, depth: float) -> None:
    rows = [
        f"{identifier}\t{name}\t{kind}\t{value * depth}\t0\t0\t{value}\t{value / 2}\t{value / 4}"
        for identifier, name, kind, value in GENES
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")


@pytest.fixture(params=["one folder per file", "one folder"])
def download(request, tmp_path) -> Path:
    """What the GDC client leaves: files, metadata JSON and manifest."""
    records, manifest = [], ["id\tfilename\tmd5\tsize\tstate"]
    for name, (aliquot, depth) in ALIQUOTS.items():
        folder = tmp_path / "star" / (f"uuid-{name}" if request.param == "one folder per file" else "")
        write_star(folder / f"{name}{SUFFIX}", depth)
        entity = {"entity_submitter_id": aliquot, "entity_type": "aliquot", "case_id": "some uuid"}
        records.append({"file_name": f"{name}{SUFFIX}", "file_id": f"uuid-{name}", "associated_entities": [entity]})
        manifest.append(f"uuid-{name}\t{name}{SUFFIX}\tx\t{(folder / f'{name}{SUFFIX}').stat().st_size}\treleased")
    (tmp_path / "metadata.json").write_text(json.dumps(records))
    (tmp_path / "manifest.txt").write_text("\n".join(manifest) + "\n")
    return tmp_path


def read(folder: Path, unit: str = "tpm", **keys):
    keys = {"folder": "star", "metadata": "metadata.json", **keys}
    section = expression_section(format="gdc_star", unit=unit, **{name: folder / key for name, key in keys.items()})
    return read_expression(section, keep_genes={"JPT1"})


def test_primary_then_deepest_aliquot_and_every_choice_is_recorded(download):
    table = read(download)
    assert table.samples["samples"].to_dict() == {
        "TCGA-02-0001": "TCGA-02-0001-01A-02R-1850-01",
        "TCGA-02-0002": "TCGA-02-0002-02A-01R-1849-01",
    }
    reasons = dict(zip(table.exclusions["id"], table.exclusions["reason"], strict=True))
    assert reasons == {
        "TCGA-02-0001-01A-01R-1849-01": "TCGA-02-0001-01A-02R-1850-01 of the same patient is used (a lower total)",
        "TCGA-02-0001-02A-01R-1849-01": (
            "TCGA-02-0001-01A-02R-1850-01 of the same patient is used (not the primary tumour)"
        ),
        "TCGA-02-0002-11A-01R-1849-01": "normal tissue",
    }
    assert set(table.exclusions["level"]) == {"expression"}


@pytest.mark.parametrize("unit", ["tpm", "counts", "fpkm", "fpkm_uq"])
def test_units_agree_up_to_the_scale_and_names_are_approved(download, unit):
    table = read(download, unit)
    assert table.values.columns.tolist() == ["H2AZ1", "EGFR", "JPT1"]  # a lncRNA of the gene sets, by its earlier name
    share = np.array([1, 3, 4]) * (1 if unit == "tpm" else 1e6 / 20)
    np.testing.assert_allclose(2 ** table.values.to_numpy() - 1, [share, share], rtol=1e-4)


def test_incomplete_and_broken_files_are_excluded_and_the_rest_goes_on(download):
    broken = next(download.rglob(f"b{SUFFIX}"))
    broken.write_text("<html>")
    table = read(download)
    assert table.samples.loc["TCGA-02-0001", "samples"] == ALIQUOTS["a"][0]
    reason = table.exclusions.set_index("id").loc[f"b{SUFFIX}", "reason"]
    assert "web page" in reason
    table = read(download, manifest="manifest.txt")
    assert "6 of " in table.exclusions.set_index("id").loc[f"b{SUFFIX}", "reason"]


def test_a_folder_of_broken_files_is_an_error(download):
    for path in download.rglob(f"*{SUFFIX}"):
        path.write_text("")
    with pytest.raises(DataError, match="empty file"):
        read(download)


STAR_HEADER = (
    "# gene-model: GENCODE v36\ngene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second\t"
    "tpm_unstranded\tfpkm_unstranded\tfpkm_uq_unstranded\nN_unmapped\t\t\t9\t9\t9\t\t\t\n"
)


def star_text(values: dict[str, tuple[str, str, float]]) -> str:
    rows = [
        f"{gene_id}\t{name}\t{kind}\t{value * 10:g}\t0\t0\t{value:g}\t{value / 2:g}\t{value / 4:g}"
        for gene_id, (name, kind, value) in values.items()
    ]
    return STAR_HEADER + "\n".join(rows) + "\n"


def star_values(scale: float) -> dict[str, tuple[str, str, float]]:
    return {
        "ENSG01.1": ("TP53", "protein_coding", 1 * scale),
        "ENSG02.3": ("EGFR", "protein_coding", 3 * scale),
        "ENSG02.3_PAR_Y": ("EGFR", "protein_coding", 0),
        "ENSG03.1": ("MIAT", "lncRNA", 7 * scale),
        "ENSG04.1": ("XIST", "lncRNA", 15 * scale),
    }


@pytest.fixture
def star_folder(tmp_path):
    """Two patients; the first has normal tissue, a recurrence, and two primaries of different depth."""
    samples = [
        ("f0", "TCGA-02-0001", "TCGA-02-0001-11A", "Solid Tissue Normal", 8),
        ("f1", "TCGA-02-0001", "TCGA-02-0001-02A", "Recurrent Tumor", 9),
        ("f2", "TCGA-02-0001", "TCGA-02-0001-01A", "Primary Tumor", 1),
        ("f3", "TCGA-02-0001", "TCGA-02-0001-01A", "Primary Tumor", 2),
        ("f4", "case 2, case 2", "sample x", "Primary Tumor", 1),
        ("f5", "absent", "sample y", "Primary Tumor", None),
    ]
    lines = ["File ID\tFile Name\tData Type\tCase ID\tSample ID\tSample Type"]
    for identifier, case, sample, kind, scale in samples:
        name = f"{identifier}.rna_seq.augmented_star_gene_counts.tsv"
        lines.append(f"{identifier}\t{name}\tGene Expression Quantification\t{case}\t{sample}\t{kind}")
        if scale is not None:
            (tmp_path / "star" / identifier).mkdir(parents=True)
            (tmp_path / "star" / identifier / name).write_text(star_text(star_values(scale)), encoding="utf-8")
    lines.append("f9\tf9.htseq.counts.gz\tGene Expression Quantification\tx\ty\tPrimary Tumor")
    (tmp_path / "sheet.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def read_star(folder: Path, unit: str = "tpm"):
    section = expression_section(
        folder=folder / "star", format="gdc_star", sample_sheet=folder / "sheet.tsv", unit=unit
    )
    return read_expression(section, keep_genes={"MIAT"})


def test_star_sample_choice_and_gene_axis(star_folder):
    table = read_star(star_folder)
    assert list(table.values.index) == ["TCGA-02-0001", "case 2"]
    assert list(table.values.columns) == ["TP53", "EGFR", "MIAT"]
    np.testing.assert_allclose(2 ** table.values.to_numpy() - 1, [[2, 6, 14], [1, 3, 7]], rtol=1e-5)
    assert table.genes.loc["EGFR", "gene_id"] == "ENSG02.3"
    by_level = table.exclusions.groupby("level")["id"].apply(list).to_dict()
    assert by_level["gene"] == ["ENSG02.3_PAR_Y"]
    assert by_level["expression"] == [
        "f5.rna_seq.augmented_star_gene_counts.tsv",
        "TCGA-02-0001-11A",
        "TCGA-02-0001-01A (f2.rna_seq.augmented_star_gene_counts.tsv)",
        "TCGA-02-0001-02A",
    ]


@pytest.mark.parametrize("unit", ["fpkm", "fpkm_uq", "counts"])
def test_star_units_sum_over_all_genes_before_the_choice(star_folder, unit):
    table = read_star(star_folder, unit)
    np.testing.assert_allclose(2 ** table.values["EGFR"].to_numpy() - 1, 3 / 26 * 1e6, rtol=1e-4)
    assert "5 genes" in table.transform


def test_star_genes_of_any_type_may_be_excluded(star_folder):
    section = expression_section(
        folder=star_folder / "star", format="gdc_star", sample_sheet=star_folder / "sheet.tsv", unit="tpm",
        exclude=("EGFR", "XIST"),
    )  # fmt: skip
    assert read_expression(section).values.columns.tolist() == ["TP53"]


def test_star_files_of_different_releases(star_folder):
    path = star_folder / "star" / "f3" / "f3.rna_seq.augmented_star_gene_counts.tsv"
    path.write_text(star_text({"ENSG01.2": ("TP53", "protein_coding", 1.0)}), encoding="utf-8")
    with pytest.raises(DataError, match=r"f3.*same genes in the same order"):
        read_star(star_folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("<html>", "web page"),
        (STAR_HEADER, "at least one gene"),
        ("gene_id\tcount\nENSG1\t5\n", "Missing columns: gene_name"),
        (star_text({"ENSG01.1": ("TP53", "protein_coding", -1.0)}), r"gene ENSG01.1 \(TP53\): unstranded must be"),
        (star_text({"ENSG01.1": ("TP53", "protein_coding", 1.0)}).replace("\t10\t", "\t?\t"), "Found '\\?'"),
    ],
)
def test_bad_star_files(tmp_path, content, message):
    path = tmp_path / "x.augmented_star_gene_counts.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"x.augmented.*{message}"):
        read_star_file(path)


def test_sample_sheet_without_files(star_folder):
    (star_folder / "star2").mkdir()
    section = expression_section(
        folder=star_folder / "star2", format="gdc_star", sample_sheet=star_folder / "sheet.tsv", unit="tpm"
    )
    with pytest.raises(DataError, match="Found none; listed: 6, in the folder: 0"):
        read_expression(section)
    (star_folder / "star2" / "F3.rna_seq.augmented_star_gene_counts.tsv").touch()
    with pytest.raises(DataError, match=r"in the folder: 1. listed: .*; in the folder: .*; nearest: .* only in case"):
        read_expression(section)


@pytest.mark.real_data
def test_real_star_head(real_data):
    content = read_star_file(next((real_data / "gdc").glob("star_counts_3_genes*.tsv")))
    assert content["gene_name"].tolist() == ["TSPAN6", "TNMD", "DPM1"]
    assert content["unstranded"].tolist() == [3231, 0, 1083]


def test_h5ad_round_trip_keeps_gene_ids(star_folder, tmp_path):
    table = read_star(star_folder)
    write_expression(tmp_path / "e.h5ad", table)
    back = read_expression_h5ad(tmp_path / "e.h5ad")
    pd.testing.assert_frame_equal(back.values, table.values, check_names=False)
    assert (back.unit, back.transform, back.source) == (table.unit, table.transform, table.source)
    assert back.genes.loc["MIAT", ["gene_id", "gene_type"]].tolist() == ["ENSG03.1", "lncRNA"]

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expression_sections import expression_section
from subfuse.errors import DataError
from subfuse.expression.gdc.listing import read_gdc_metadata, read_gdc_sheet
from subfuse.expression.reading import read_expression

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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a JSON file is required. Found an empty file"),
        ("[]", "a GDC metadata JSON, a list of files with file_name, is required"),
        ("{}", "a list of files"),
        ('[{"file_name": "x", "associated_entities": [{"entity_submitter_id": "CPT1"}]}]', "Found only CPT1"),
    ],
)
def test_broken_metadata(tmp_path, content, message):
    (tmp_path / "metadata.json").write_text(content)
    with pytest.raises(DataError, match=f"metadata.json.*{message}"):
        read_gdc_metadata(tmp_path / "metadata.json")


def test_metadata_with_cases_names_patients_without_barcodes(tmp_path):
    case = {"submitter_id": "C3L-00016", "samples": [{"sample_type": "Solid Tissue Normal"}]}
    content = [{"file_name": "x", "cases": [case], "associated_entities": [{"entity_submitter_id": "CPT1"}]}]
    with gzip.open(tmp_path / "metadata.json.gz", "wt") as file:
        json.dump(content, file)
    listing = read_gdc_metadata(tmp_path / "metadata.json.gz")
    assert listing[["patient_id", "sample", "rank"]].to_numpy().tolist() == [["C3L-00016", "CPT1", 2]]


def test_a_sheet_of_pooled_samples_without_barcodes(tmp_path):
    """As of CPTAC: several samples in one cell; since 2023 two columns say what `Sample Type` said."""
    header = "File ID\tFile Name\tCase ID\tSample ID\tTissue Type\tTumor Descriptor\n"
    rows = [
        "1\ta\tC3L-00016, C3L-00016\tC3L-00016-01, C3L-00016-02\tTumor, Tumor\tPrimary, Primary\n",
        "2\tb\tC3L-00016\tC3L-00016-06\tNormal\tNot Applicable\n",
        "3\tc\tC3N-01334\tC3N-01334-03\tTumor\tRecurrence\n",
    ]
    (tmp_path / "sheet.tsv").write_text(header + "".join(rows))
    listing = read_gdc_sheet(tmp_path / "sheet.tsv")
    assert listing[["patient_id", "sample", "rank"]].to_numpy().tolist() == [
        ["C3L-00016", "C3L-00016-01", 0],
        ["C3L-00016", "C3L-00016-06", 2],
        ["C3N-01334", "C3N-01334-03", 1],
    ]


@pytest.mark.real_data
def test_real_sheet_and_metadata_name_the_same_patients(real_data):
    sheet = read_gdc_sheet(real_data / "gdc" / "gdc_sample_sheet.2019-07-05.tsv.gz").set_index("file_id")
    metadata = read_gdc_metadata(real_data / "gdc" / "metadata.cart.2019-07-05.json.gz").set_index("file_id")
    assert set(sheet.index) == set(metadata.index)
    assert len(sheet) > 100
    joined = sheet.join(metadata, rsuffix="_metadata")
    for column in ("file_name", "patient_id", "rank"):
        pd.testing.assert_series_equal(joined[column], joined[f"{column}_metadata"], check_names=False)
    assert all(a.startswith(s) for a, s in zip(joined["sample_metadata"], joined["sample"], strict=True))
    assert set(joined["rank"]) == {0, 1, 2}

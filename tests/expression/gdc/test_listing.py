"""Sample sheets and metadata of the GDC name the patient of every file."""

import gzip
import json

import pandas as pd
import pytest

from subfuse.errors import DataError
from subfuse.expression.gdc.listing import read_gdc_metadata, read_gdc_sheet


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

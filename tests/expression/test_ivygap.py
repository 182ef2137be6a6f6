from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expression_sections import expression_section
from subfuse.errors import DataError
from subfuse.expression.ivygap import patient_of_tumour
from subfuse.expression.reading import read_expression

WELLS = {101: "W1-1-1", 102: "W1-1-1", 103: "W1-2-1", 104: "W20-2-1"}
FPKM = np.array([[1.0, 2, 9, 4], [3, 2, 9, 4], [4, 12, 2, 2]])  # genes × wells


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = pd.DataFrame(FPKM, index=[11, 12, 13], columns=list(WELLS))
    table.to_csv(tmp_path / "fpkm_table.csv", index_label="gene_id \\ rna_well_id")
    genes = {"gene_id": [13, 12, 11], "gene_symbol": ["SEPT3", "TP53", "EGFR"], "gene_name": ["a, b", "c", "d"]}
    pd.DataFrame(genes).to_csv(tmp_path / "rows-genes.csv", index=False)
    samples = pd.DataFrame({"rna_well_id": list(WELLS), "tumor_name": list(WELLS.values()), "structure_id": 1})
    samples.to_csv(tmp_path / "columns-samples.csv", index=False)
    return tmp_path


def read(folder: Path):
    return read_expression(expression_section(folder=folder, format="ivygap"))


def test_samples_of_the_first_tumour_are_averaged_in_log2_tpm(folder):
    table = read(folder)
    logs = np.log2(FPKM / FPKM.sum(axis=0) * 1e6 + 1)
    expected = pd.DataFrame(
        [logs[:, :2].mean(axis=1), logs[:, 3]], index=["W1", "W20"], columns=["EGFR", "TP53", "SEPTIN3"]
    )
    pd.testing.assert_frame_equal(table.values, expected, check_names=False, check_dtype=False, rtol=1e-5)
    assert table.scale == "log2_tpm"
    assert table.samples["samples"].to_dict() == {"W1": "101;102", "W20": "104"}
    assert table.exclusions.to_numpy().tolist() == [["expression", "103", "an earlier tumour of W1 is used"]]


@pytest.mark.parametrize("name", ["fpkm_table.csv", "rows-genes.csv", "columns-samples.csv"])
def test_all_three_tables_are_required(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name} of the Allen Institute is required"):
        read(folder)


def test_every_column_needs_a_description(folder):
    path = folder / "columns-samples.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match=r"every rna_well_id of fpkm_table\.csv is required\. Missing: 104"):
        read(folder)


@pytest.mark.real_data
def test_real_tumour_names_lead_to_their_donors(real_data):
    labels = pd.read_csv(real_data / "ivygap" / "slide_labels_and_anatomic_areas.csv.gz").dropna(subset=["tumor_name"])
    assert labels["tumor_name"].map(patient_of_tumour).tolist() == labels["Patient ID"].tolist()

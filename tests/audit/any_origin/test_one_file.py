from pathlib import Path

import pandas as pd
import pytest

from subfuse.audit.any_origin.one_file import cleaned, read_renamed
from subfuse.audit.any_origin.prediction_files import read_prediction_files
from subfuse.errors import DataError

TABLE = pd.DataFrame(
    {
        "case": ["007", "8", "9"],
        "risk": [0.5, -1.25, 2.0],
        "OS": [10.5, 20.0, 31.25],
        "event": [1, 0, 1],
        "fold": [0, 1, 1],
    }
)
COLUMNS = {"case": "patient_id", "OS": "time_months"}


@pytest.mark.parametrize("first", ["", "sep=;\r\n"])
def test_semicolons_and_decimal_commas_are_read_as_commas_and_points_and_said(tmp_path: Path, first: str) -> None:
    usual, german = tmp_path / "usual.csv", tmp_path / "german.csv"
    TABLE.to_csv(usual, index=False)
    german.write_text(first + TABLE.to_csv(index=False, sep=";", decimal=","), encoding="utf-8-sig")
    pd.testing.assert_frame_equal(read_renamed(german, COLUMNS), read_renamed(usual, COLUMNS))
    (note,) = read_prediction_files([german], columns=COLUMNS).findings
    assert "german.csv: semicolons separate its columns; commas are read as decimal ones in risk, OS" in note.found


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("OS", "long", r"column OS, as time_months: a number is required .* 'long' for patient 8"),
        ("event", "perhaps", r"column event: true or false is required .* 'perhaps' for patient 8"),
        ("risk", "tensor(0.5)", r"given.csv: column risk: a number is required .* 'tensor\(0.5\)' for patient 8"),
    ],
)
def test_unclear_cells_are_named_by_file_and_the_column_that_the_file_has(
    tmp_path: Path, column: str, value: str, said: str
) -> None:
    path = tmp_path / "given.csv"
    TABLE.astype(object).assign(**{column: [1, value, 1]}).to_csv(path, index=False)
    with pytest.raises(DataError, match=said):
        cleaned(path, read_renamed(path, COLUMNS))


def test_a_file_of_slides_with_classes_as_clam_writes_them_is_told_which_columns_to_map(tmp_path: Path) -> None:
    path = tmp_path / "fold.csv"
    clam = {"slide_id": ["A", "B"], "Y": [0, 1], "Y_hat": [0, 1], "p_0": [0.7, 0.2], "p_1": [0.3, 0.8]}
    pd.DataFrame(clam).to_csv(path, index=False)
    with pytest.raises(DataError, match=r"""column patient_id .* --columns '{"slide_id": "patient_id"}'"""):
        read_prediction_files([path])
    with pytest.raises(DataError, match=r"""If Y holds them: --columns '{"Y": "label"}'"""):
        read_prediction_files([path], columns={"slide_id": "patient_id"})
    read = read_prediction_files([path], columns={"slide_id": "patient_id", "Y": "label"})
    assert read.predictions["label"].tolist() == ["0", "1"]

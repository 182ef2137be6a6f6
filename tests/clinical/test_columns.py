"""What clinical tables of every source share: mapped columns, times, empty rows, one row per patient."""

from pathlib import Path

import pandas as pd
import pytest
from clinical_tables import plain

from subfuse.clinical.columns import map_columns, parse_days
from subfuse.errors import ConfigurationError, DataError


def test_rows_that_are_wholly_empty_are_left_out_with_a_word(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("patient_id,kps\na,90\n,\nb,80\n")
    found = plain(tmp_path, "patient_id,grade\na,G2\n,\nb,G3\n , \nc,G2\n,\n", labels={"table": labels})
    assert found.patients["patient_id"].tolist() == ["a", "b", "c"]
    assert f"{tmp_path / 'patients.csv'}, row 3, 5: wholly empty, left out" in found.warnings
    assert f"{labels}, row 3: wholly empty, left out" in found.warnings
    with pytest.raises(DataError, match=r"row 4: a patient identifier is required\. Found none in 1 row\(s\) with val"):
        plain(tmp_path, "patient_id,grade\na,G2\n,\n,G3\n")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"patient_id": "case"}, "patients.columns.patient_id: column 'case' is not in .*It has patient_id"),
        ({"time_days": "time_days"}, "declared together. Found only time_days"),
        ({"cohort": "event"}, "cohort are names that subfuse gives"),
    ],
)
def test_bad_mappings(tmp_path, columns, message):
    with pytest.raises(ConfigurationError, match=message):
        plain(tmp_path, "patient_id,time_days,event\na,3,1\n", columns=columns)


def test_barcodes_are_matched_by_patient_and_give_the_site(tmp_path):
    table = plain(tmp_path, "patient_id,grade\nTCGA-02-0047-01A,G4\ntcga-dh-5140,G2\nP-9.x,G2\n")
    assert table.patients["patient_id"].tolist() == ["P-9.x", "TCGA-02-0047", "TCGA-DH-5140"]
    assert table.patients["site"].tolist() == [None, "02", "DH"]
    assert "2 patient identifiers" in table.warnings[0]
    with pytest.raises(DataError, match="TCGA-02-0047 again"):
        plain(tmp_path, "patient_id,grade\nTCGA-02-0047-01A,G4\nTCGA-02-0047-02A,G4\n")


@pytest.mark.parametrize(("unit", "days"), [("days", 2.0), ("weeks", 14.0), ("months", 60.875), ("years", 730.5)])
def test_declared_units_of_time(tmp_path, unit, days):
    columns = {"time_days": f"follow_up_{unit}", "event": "event"}
    table = plain(tmp_path, f"patient_id,follow_up_{unit},event\na,2,1\n", columns=columns, time_unit=unit)
    assert table.patients["time_days"].tolist() == [days]
    assert table.warnings == ()  # nothing is doubtful about what was declared


def test_repeated_patients_are_told_from_conflicting_ones(tmp_path):
    header = "patient_id,time_days,event,grade\na,3,1,G2\n"
    with pytest.raises(DataError, match=r"row 3: .* a again \(first: .*row 2\) with the same values; 1 repeated"):
        plain(tmp_path, header + "a,3,1,G2\n")
    with pytest.raises(DataError, match=r"row 3: .* with another time_days, grade; 2 repeated"):
        plain(tmp_path, header + "a,4,1,G3\na,4,1,G3\n")
    with pytest.raises(DataError, match=r"row 3: .*TCGA-02-0047 again .* with another grade"):
        plain(tmp_path, "patient_id,grade\nTCGA-02-0047-01A,G2\nTCGA-02-0047-02A,G4\n")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["14 months", "100", "900"], "Convert it to days, as the other cells are, and write the number alone"),
        (["1 yr 2 mo", "100", "900"], "Convert it to days, as the other cells are"),
        (["1.825", "2.345", "900"], r"'1\.825' \(2 such cells\) beside whole hundreds: .* Write 1825, or 1\.8250 if"),
        (["1.825", "2.345", "9"], None),
        (["1.825", "2500", "900"], None),
        (["1.5", "2.345", "900"], None),
    ],
)
def test_times_among_others_say_what_to_do(cells, words):
    places = pd.Series([f"p.csv, row {i + 2}" for i in range(len(cells))])
    if words is None:
        assert parse_days(pd.Series(cells), places, "time_days").tolist() == [float(cell) for cell in cells]
        return
    with pytest.raises(DataError, match=f"row 2: time_days must be a number of days.*{words}"):
        parse_days(pd.Series(cells), places, "time_days")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("05/2019", "This is a date"),
        ("423,5", "decimal point, as 423.5"),
        ("2012-05-03", "This is a date"),
        ("3.5.2012", "This is a date"),
        ("14 months", "Write the number alone, as 14, and declare its unit as `patients.time_unit`"),
        (">1825", "such as the limit 1825"),
    ],
)
def test_times_that_are_no_numbers_say_what_to_do(cell, words):
    with pytest.raises(DataError, match=f"row 2: time_days must be .*{words}"):
        parse_days(pd.Series([cell]), pd.Series(["p.csv, row 2"]), "time_days")


def test_a_header_below_a_title_is_pointed_at():
    raw = pd.DataFrame({"Patients of our hospital": ["", "case", "a"]})
    with pytest.raises(ConfigurationError, match=r"column 'case' is not in p\.xlsx.* Row 3 has it: remove what stands"):
        map_columns(raw, {"patient_id": "case"}, Path("p.xlsx"), section="patients")
    with pytest.raises(ConfigurationError, match=r"It has Patients of our hospital\.$"):
        map_columns(raw, {"patient_id": "pid"}, Path("p.xlsx"), section="patients")

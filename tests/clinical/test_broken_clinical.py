"""Broken clinical tables: each is one clear line with its error class, or read as what it plainly is."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from clinical_sections import patients_section
from subfuse.clinical.reading import read_clinical
from subfuse.errors import ConfigurationError, DataError

TEXT = "patient_id\ttime_days\tevent\tgrade\nA\t100\t1\tG4\nB\t200.5\t0\tG2\n"
ACCENTED = "patient_id\ttime_days\tevent\thospital\nA\t100\t1\tKöln\nB\t200.5\t0\tOrléans\n"


def read(path: Path, content: bytes, **section):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return read_clinical(patients_section(table=path, **section))


def archive(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        member = tarfile.TarInfo("clinical.tsv")
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.tsv", b"\xef\xbb\xbf" + TEXT.encode()),
        ("windows.tsv", TEXT.replace("\n", "\r\n").encode()),
        ("no_last_line_end.tsv", TEXT.rstrip("\n").encode()),
        ("empty_lines.tsv", TEXT.encode() + b"\n\n"),
        ("comma.csv", TEXT.replace("\t", ",").encode()),
        ("comma.tsv", TEXT.replace("\t", ",").encode()),  # the header decides, not the name
        ("spaces.tsv", TEXT.replace("\t", " \t ").encode()),
        ("quoted.csv", TEXT.replace("\t", ",").replace("G4", '"G4"').encode()),
        ("packed.tsv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("a folder with spaces/Größe – 表.tsv", TEXT.encode()),
    ],
)
def test_readable_in_any_of_its_usual_forms(tmp_path, name, content):
    patients = read(tmp_path / name, content).patients
    assert patients[["patient_id", "time_days", "event", "grade"]].to_numpy().tolist() == [
        ["A", 100.0, True, "G4"],
        ["B", 200.5, False, "G2"],
    ]


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("plain", "patient_id,time_days,event\n"),
        ("plain", "patient_id,grade\n,\n , \n"),
        ("gdc", "case_submitter_id,vital_status,days_to_death,days_to_last_follow_up\n"),
        ("cbioportal", "#\nPATIENT_ID,OS_MONTHS,OS_STATUS\n"),
        ("cbioportal", "#\nPATIENT_ID,SAMPLE_ID\n"),
    ],
)
def test_a_table_with_a_header_only_says_that_it_has_no_patient(tmp_path, format, content):
    with pytest.raises(DataError, match=r"p\.csv: at least one patient is required. Found no row below the header"):
        read(tmp_path / "p.csv", content.encode(), format=format)


def test_quoted_cells_may_hold_line_ends_and_separators(tmp_path):
    text = 'patient_id,time_days,event,note\nA,100,1,"seen, twice\nthen lost"\nB,200,0,"says ""well"""\n'
    patients = read(tmp_path / "p.csv", text.encode()).patients
    assert patients["note"].tolist() == ["seen, twice\nthen lost", 'says "well"']
    assert patients["time_days"].tolist() == [100, 200]


def test_other_letters_stay(tmp_path):
    section = {"columns": {"time_days": "time_days", "event": "event", "site": "hospital"}}
    assert read(tmp_path / "p.tsv", ACCENTED.encode(), **section).patients["site"].tolist() == ["Köln", "Orléans"]


@pytest.mark.parametrize("format", ["plain", "gdc", "cbioportal"])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("zero.tsv", b"", "empty"),
        ("blank.tsv", b"\n\n", "empty"),
        ("page.tsv", b"<!DOCTYPE html>\n<html><body>503\tService Unavailable</body></html>", "web page"),
        ("packed.tsv", gzip.compress(TEXT.encode(), mtime=0), r"gzip file\. Let its name end in \.gz"),
        ("plain.tsv.gz", TEXT.encode(), "readable table"),
        ("short.tsv.gz", gzip.compress(TEXT.encode() * 50, mtime=0)[:-12], "readable table"),
        ("zero.tar.gz", b"", "readable table"),
        ("book.csv", b"PK\x03\x04\x14\x00\x06\x00", "Excel workbook"),
        ("bars.csv", TEXT.replace("\t", "|").encode(), "semicolons are required.* Vertical bars"),
        ("spaced.txt", TEXT.replace("\t", "  ").encode(), "commas, tabs or semicolons are required"),
        ("utf16.tsv", TEXT.encode("utf-16"), "UTF-16. Save the table as UTF-8"),
        ("latin1.tsv", ACCENTED.encode("latin-1"), "perhaps Latin-1, in line 2"),
        ("latin1_header.tsv", "Größe\tb\nA\t1\n".encode("latin-1"), "UTF-8 text is required"),
        ("long_row.tsv", TEXT.encode() + b"C\t1\t1\tG2\tG3\tG4\n", "complete table"),
        ("open_quote.csv", b'patient_id,event\nA,"1\nB,0\n', "complete table"),
    ],
)  # fmt: skip
def test_not_a_table(tmp_path, format, name, content, message):
    with pytest.raises(DataError, match=rf"{name}.*{message}") as caught:
        read(tmp_path / name, content, format=format)
    assert len(str(caught.value).splitlines()) == 1


def test_archives(tmp_path):
    header = "case_submitter_id\tvital_status\tdays_to_death\tdays_to_last_follow_up\n"
    table = read(tmp_path / "c.tar.gz", archive((header + "A\tDead\t5\t'--\n").encode()), format="gdc")
    assert table.patients[["patient_id", "time_days", "event"]].to_numpy().tolist() == [["A", 5.0, True]]
    with pytest.raises(DataError, match=r"c\.tar\.gz.*empty"):
        read(tmp_path / "c.tar.gz", archive(b""), format="gdc")


@pytest.mark.parametrize(
    ("text", "section", "error", "message"),
    [
        (TEXT.replace("event", "dead"), {}, ConfigurationError, "declared together. Found only time_days"),
        (TEXT.replace("patient_id", "id"), {}, ConfigurationError, "patients.columns.patient_id: column 'patient_id'"),
        (
            TEXT.replace("\t1\t", "\tperhaps\t"),
            {},
            DataError,
            r"row 2 \(A\), column event: true, false, 1 or 0 .* Found 'perhaps' \(in the whole column: 0, perhaps",
        ),
        (
            TEXT.replace("\t1\t", "\tgone\t"),
            {"event_values": {1: True, 0: False}},
            DataError,
            "row 2 .*a declared value is required .* Found 'gone' .* Add it to patients",
        ),
        (TEXT.replace("100", "100 d"), {}, DataError, "row 2: time_days must be a number of days. Found '100 d'"),
        (TEXT.replace("100", "1e999"), {}, DataError, "row 2: time_days must be a number"),
        (TEXT.replace("200.5", "200,5"), {}, DataError, "row 3: time_days must be a number of days. Found '200,5'"),
        (TEXT.replace("\nB\t", "\nA\t"), {}, DataError, "row 3: one row per patient .* A again .* with another"),
        (TEXT.replace("\nB\t", "\n\t"), {}, DataError, "row 3: a patient identifier is required"),
        (TEXT, {"format": "gdc"}, DataError, "a column `case_submitter_id` .* is required. Found patient_id"),
        (TEXT, {"format": "cbioportal"}, DataError, "a column `PATIENT_ID` .* is required. Found patient_id"),
        (TEXT, {"include": ["C"]}, DataError, "patients.include: .* Not found: C"),
        (TEXT, {"derive": {"diagnosis": {"rule": "who2021"}}}, ConfigurationError, "a column `idh` is required"),
    ],
)
def test_wrong_content(tmp_path, text, section, error, message):
    with pytest.raises(error, match=message) as caught:
        read(tmp_path / "p.tsv", text.encode(), **section)
    assert len(str(caught.value).splitlines()) == 1


def test_sample_barcodes_among_patients_are_matched_or_told_to_be_the_same(tmp_path):
    text = "patient_id,grade\nTCGA-02-0047-01A-01R,G4\nTCGA-DH-5140,G2\nTCGA-HT-7468-01,G2\n"
    table = read(tmp_path / "p.csv", text.encode())
    assert table.patients["patient_id"].tolist() == ["TCGA-02-0047", "TCGA-DH-5140", "TCGA-HT-7468"]
    assert "2 patient identifiers are TCGA barcodes" in table.warnings[0]
    assert "the other 1 are used as they are" in table.warnings[0]
    with pytest.raises(DataError, match=r"row 5: .* TCGA-DH-5140 again \(first: .*row 3\) with another grade"):
        read(tmp_path / "p.csv", (text + "TCGA-DH-5140-01A,G3\n").encode())


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.tsv: a readable table is required. Found: No such file"):
        read_clinical(patients_section(table=tmp_path / "nothing.tsv"))

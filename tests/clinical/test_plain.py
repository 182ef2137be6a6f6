"""Plain tables: columns, what means an event, and the unit of times."""

import pandas as pd
import pytest
from clinical_tables import plain

from subfuse.clinical.plain import read_plain
from subfuse.errors import ConfigurationError, DataError


def test_plain_table_without_mapping(tmp_path):
    table = plain(tmp_path, "patient_id,time_days,event,grade\nb,20.5,0,G2\na,7,1,not reported\n").patients
    assert table["patient_id"].tolist() == ["a", "b"]
    assert table["time_days"].tolist() == [7, 20.5]
    assert table["event"].tolist() == [True, False]
    assert table["grade"].tolist() == [None, "G2"]
    assert table["site"].tolist() == [None, None]


def test_spaces_that_keep_words_together_are_spaces(tmp_path):
    table = plain(tmp_path, "patient_id,grade\na,WHO grade 2\nb,WHO\u00a0grade\u202f2\u00a0\n").patients
    assert table["grade"].tolist() == ["WHO grade 2", "WHO grade 2"]


@pytest.mark.parametrize("cell", ["#N/A", "#NV", "#DIV/0!", "?", ".", "n.a.", "k.A.", "Unbekannt", "missing"])
def test_what_spreadsheets_write_for_nothing_is_unknown(tmp_path, cell):
    table = plain(tmp_path, f"patient_id,grade,m\na,G2,-\nb,{cell},+\n").patients
    assert table["grade"].tolist() == ["G2", None]
    assert table["m"].tolist() == ["-", "+"]  # of markers


def test_decimal_commas_of_a_table_with_semicolons_are_read_and_said(tmp_path):
    text = "patient_id;time_days;event;age;doses;note\na;20,5;1;61,5;1,5 mg;x, y\nb;7;0;NA;;\n"
    read = plain(tmp_path, text)
    assert read.patients["time_days"].tolist() == [20.5, 7]
    assert read.patients["age"].tolist() == ["61.5", None]
    assert read.patients["doses"].tolist() == ["1,5 mg", None]
    said = "patients.csv: semicolons separate its columns; commas are read as decimal ones in time_days, age"
    assert said in read.warnings
    mapped = plain(tmp_path, text, columns={"patient_id": "patient_id", "age": "age"})
    assert said.replace("time_days, age", "age") in mapped.warnings
    with pytest.raises(DataError, match=r"row 2 \(a\).*Found '1\.020,5'|row 2: time_days .* Found '1\.020,5'"):
        plain(tmp_path, text.replace("20,5", "1.020,5"))
    longer = text.replace("b;7;", "b;1.604,0;").replace("NA", "1.020,5")
    with pytest.raises(DataError, match=r"row 3: time_days .* Found '1\.604,0'. Write it .* as 1604,0"):
        plain(tmp_path, longer)  # which keeps the commas of the others from being read
    with pytest.raises(DataError, match=r"row 2: time_days .* Found '20,5'. Write it with a decimal point, as 20\.5"):
        plain(tmp_path, text.replace("b;7;", "b;7.5;"))
    with pytest.raises(DataError, match=r"row 2: time_days .* Found '1\.020,5'. .* as 1020\.5"):
        plain(tmp_path, text.replace("20,5", "1.020,5").replace("b;7;", "b;7.5;"))


def test_mapping_renames_and_selects(tmp_path):
    text = "case\tdays\tdead\tgrade_2021\thospital\tsecret\na\t3\tTRUE\tG4\tX\t1\n"
    columns = {"patient_id": "case", "time_days": "days", "event": "dead", "grade": "grade_2021", "site": "hospital"}
    table = plain(tmp_path, text, columns=columns).patients
    assert list(table.columns) == ["patient_id", "site", "time_days", "event", "grade"]
    assert table.iloc[0].tolist() == ["a", "X", 3.0, True, "G4"]


@pytest.mark.parametrize("column", ["slide_id", "Sample ID", "sample"])
def test_rows_for_slides_or_samples_of_a_patient_are_one_where_they_agree(tmp_path, column):
    text = f"case,{column},age\na,s1,60\na,s2,60\nb,s3,50\n"
    columns = {"patient_id": "case", "age": "age"}
    read = plain(tmp_path, text, columns=columns)
    assert read.patients["patient_id"].tolist() == ["a", "b"]
    assert "patients.csv: a table of slides or samples, 3 rows for 2 patients" in read.warnings
    found = r"one row per patient is required\. Found a again .* with another age.* this one as `slides\.table`\."
    with pytest.raises(DataError, match=found):
        plain(tmp_path, text.replace("s2,60", "s2,61"), columns=columns)
    with pytest.raises(DataError, match=r"one row per patient is required.*with the same values.*Keep one row per pat"):
        plain(tmp_path, text.replace(column, "visit"), columns=columns)


def test_slides_of_a_patient_by_barcodes_of_several_samples_have_the_remedy_for_slides(tmp_path):
    text = "case,slide_id,age\nTCGA-02-0001-01A,s1,60\nTCGA-02-0001-01B,s2,60\n"
    with pytest.raises(DataError, match=r"Found TCGA-02-0001 again .* with the same values.* as `slides\.table`\."):
        plain(tmp_path, text, columns={"patient_id": "case", "age": "age"})


def test_table_without_outcome_has_unknown_outcome(tmp_path):
    table = plain(tmp_path, "patient_id,grade\na,G2\n").patients
    assert table[["time_days", "event"]].isna().all(axis=None)


@pytest.mark.parametrize("column", [
    "vital_status", "os_status", "censored", "Censorship", "cens", "Zensierung", "alive", "lebt", "lost", "c_os",
    "event_free", "noevent",
])  # fmt: skip
def test_ambiguous_event_columns_need_their_meaning(tmp_path, column):
    text = f"patient_id,t,{column}\na,3,1\nb,4,0\n"
    columns = {"time_days": "t", "event": column}
    with pytest.raises(ConfigurationError, match=f"{column}.*Found 0, 1.*event_values: {{0: "):
        plain(tmp_path, text, columns=columns)
    declared = plain(tmp_path, text, columns=columns, event_values={"1": False, "0": True})
    assert declared.patients["event"].tolist() == [False, True]


@pytest.mark.parametrize("column", ["event", "vital_status_date"])
def test_dates_are_no_events(tmp_path, column):
    text = f"patient_id,time_days,{column}\nP1,100,\nP2,200,03.05.2012\nP3,300,01.02.2013\n"
    columns = {"patient_id": "patient_id", "time_days": "time_days", "event": column}
    with pytest.raises(DataError, match=r"row 3 \(P2\).*date '03.05.2012' \(2 such cells\). Make a column of true and"):
        plain(tmp_path, text, columns=columns)


def test_event_values_ignore_case_and_decimals(tmp_path):
    text = "patient_id,time_days,event\na,3,dead\nb,4,ALIVE\nc,5,\nd,6,1.0\n"
    table = plain(tmp_path, text, event_values={"Dead": True, "Alive": False, "1": True}).patients
    assert table["event"].tolist() == [True, False, pd.NA, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "patient_id,time_days,event\na,3,2\nb,4,1\n",
            r"row 2 \(a\), column event: true, false, 1 or 0 are required. Found '2' \(in the whole column: 1, 2\)",
        ),
        ("patient_id,time_days,event\na,3,1\nb,soon,1\n", "row 3: time_days must be a number of days. Found 'soon'"),
        ("patient_id,time_days,event\na,inf,1\n", "row 2: time_days"),
        (
            "patient_id,time_days,event\na,3,1\nb,3,0\na,4,1\n",
            r"row 4: one row per patient .* Found a again \(first: .*row 2\)",
        ),
        ("patient_id,grade\n,G2\n", "row 2: a patient identifier is required"),
        ("patient_id|grade\na|G2\n", "commas, tabs or semicolons"),
        ("patient_id,site,site\na,S2,S3\n", "unique. Found twice: site"),
        ("patient_id,grade\na,G2,G3\n", "complete table"),
        ("<html>", "web page"),
        ("", "empty"),
    ],
)
def test_bad_plain_tables(tmp_path, text, message):
    with pytest.raises(DataError, match=f"patients.csv.*{message}"):
        plain(tmp_path, text)


@pytest.mark.parametrize("column", ["OS_MONTHS", "suivi_mois", "Überleben (Monate)"])
def test_columns_in_another_unit_need_their_unit(tmp_path, column):
    columns = {"time_days": column, "event": "event"}
    with pytest.raises(ConfigurationError, match=r"patients\.time_unit: the name of column .* does not say days"):
        plain(tmp_path, f"patient_id,{column},event\na,2,1\n", columns=columns)


def test_causes_of_events_stand_beside_them(tmp_path):
    text = "patient_id,time_days,event\na,10,1\nb,20,2.0\nc,30,0\nd,,1\ne,50,\nf,-1,2\n"
    values = {"1": "tumour", "2.0": "other", "0": False}
    table = plain(tmp_path, text, event_values=values).patients.set_index("patient_id")
    assert table["event"].tolist()[:3] == [True, True, False]
    assert table["event_cause"].tolist() == ["tumour", "other", "censored", None, None, None]
    with pytest.raises(DataError, match=r"a declared value is required \(1, 2\.0, 0\)\. Found '3'"):
        plain(tmp_path, text.replace("c,30,0", "c,30,3"), event_values=values)
    with pytest.raises(ConfigurationError, match="event_cause is the name of the causes"):
        plain(tmp_path, "patient_id,time_days,event,event_cause\na,10,1,x\n", event_values=values)


@pytest.mark.parametrize(("column", "example"), [("os_status", "0: false, 1: true"), ("lebt", "0: true, 1: false")])
def test_the_proposed_meaning_follows_the_name_of_the_column(tmp_path, column, example):
    (tmp_path / "p.csv").write_text(f"id,days,{column}\nA,9,0\nB,8,1\n")
    with pytest.raises(ConfigurationError, match=f"event_values: {{{example}}}"):
        read_plain([tmp_path / "p.csv"], {"patient_id": "id", "time_days": "days", "event": column})


@pytest.mark.parametrize("column", ["os_event", "dead", "death_observed", "relapse", "recurrence", "accident"])
def test_names_of_events_mean_what_they_say(tmp_path, column):
    (tmp_path / "p.csv").write_text(f"id,days,{column}\nA,9,0\nB,8,1\n")
    table, _ = read_plain([tmp_path / "p.csv"], {"patient_id": "id", "time_days": "days", "event": column})
    assert table["event"].tolist() == [False, True]


def test_a_column_that_may_tell_a_late_entry_is_named(tmp_path):
    (tmp_path / "p.csv").write_text("id,days,dead,Entry Days\nA,9,0,3\nB,8,1,0\n")
    columns = {"patient_id": "id", "time_days": "days", "event": "dead"}
    _, notes = read_plain([tmp_path / "p.csv"], columns)
    assert [note for note in notes if "p.csv: Entry Days may be the time from which on patients are watched" in note]


@pytest.mark.parametrize("column", ["alive", "vital_status", "lebt"])
def test_words_of_what_happened_are_proposed_as_they_mean(tmp_path, column):
    (tmp_path / "p.csv").write_text(f"id,days,{column}\nA,9,Alive\nB,8,Dead\n")
    with pytest.raises(ConfigurationError, match=r"event_values: \{Alive: false, Dead: true\}"):
        read_plain([tmp_path / "p.csv"], {"patient_id": "id", "time_days": "days", "event": column})

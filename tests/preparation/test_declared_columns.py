"""Covariates, strata and batch of a cohort file: which columns can be that, and what they are called."""

import pandas as pd
import pytest

from subfuse.cohort.cohort_file import CohortFile
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError
from subfuse.preparation.declared_columns import check_batch, check_strata, doubtful_words, resolve_covariates


def patients(**columns: list[str | None]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"patient_id": [f"P{i}" for i in range(n)], **columns})


def test_a_column_of_several_words_has_a_name_for_each():
    table = patients(idh=["mutant", "wildtype", "unknown", "mutant", "mutant", "Wildtype", None, "mutant"])
    assert resolve_covariates(["idh"], table, {}, develops=True) == (
        "idh=mutant",
        "idh=unknown",
        "idh=wildtype",
    )
    assert resolve_covariates(["idh=mutant"], table, {}, develops=True) == ("idh=mutant",)
    assert resolve_covariates(["idh"], table, {}, develops=False) == ("idh",)


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("project", None, "'project' must be a column of the patients"),
        ("grade", ["G2", "G4"] * 3, "and no outcome"),
        ("project", ["gbm"] * 6, "Found 1 for 6 patients"),
        ("project", [f"run {i}" for i in range(6)], "Found 6 for 6 patients"),
    ],
)
def test_a_batch_that_tells_nobody_apart_is_refused(column, values, found):
    table = patients(age=["1"] * 6) if values is None else patients(**{column: values})
    with pytest.raises(ConfigurationError, match=found):
        check_batch(column, table, {"grade": TaskSpec(column="grade")}, develops=True)


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        (
            "site",
            ["a", "b"] * 3,
            "site is read by the model `site` alone. To use it here too, map its column in patients",
        ),
        ("age", ["61 y", "52 y", "43y", "39 y", "70 y", "71 y"], "numbers without a unit. Found '61 y' of P0"),
        (
            "age",
            ["61", "52", "fifty", "39", "70", "71"],
            r"5 numbers, and fifty \(of P2\)\. Correct or empty the cells",
        ),
        ("code", ["1", "0", "x", "1", "0", "1"], "name the value that is coded 1, such as `code=x`"),
        (
            "age",
            ["61,5", "48,5", "70,5", "55"] * 3,
            r"Found '61,5' of P0 \(9 such cells\)\. .* decimal point, as 61\.5",
        ),
        ("age", [f"{50 + i},5" for i in range(6)], "decimal point, as 50.5"),
        ("dose", ["0,5", "1"] * 3, "decimal point, as 0.5"),
        ("kps", ["10%", "35 %", "80%"] * 3, r"Found '10%' of P0 \(9 such cells\)\. Write it without the sign, as 10"),
        ("ki67", ["none", "none", "none", "10%", "20%"] * 2, "4 numbers, and none"),
        ("ki67", ["10", "12,5 %", "<1%", "35"] * 3, "Found '12,5 %' of P1 .* as 12.5"),
        ("psa", ["4.1", "<0.1", "7.9", "3", "12", "8"], "Write one number in its place, such as the limit 0.1"),
        ("age", ["61", "70", "90+", "44"] * 2, "such as the limit 90"),
        ("cells", ["1.234.567", "2.345.678"] * 3, "without marks between thousands, as 1234567"),
        ("cells", ["1,234", "2,345", "0,5"] * 2, "Write 1.234 if the comma is a decimal one, or 1234 if it separates"),
        ("size", ["5 mm", "1,5 cm", "2 cm", "12 mm"], r"Bring all to one unit \(cm, mm\), and leave it out"),
        (
            "born",
            ["1950-02-01", None, "1961-12-24", "1950-02-01"],
            "the date '1950-02-01' of P0 .3 such cells.. Give an age",
        ),
        ("age", ["'61", "'48", "'70"] * 2, r"Found \"'61\" of P0 .* as 61"),
        ("age", ["６１", "４８", "７０"] * 2, "the digits 0 to 9 alone, as 61"),
        ("age", ["61 yr 3 mo", "48 y 6 m", "70y0m"] * 2, "one number of one unit, such as 61.25 for years"),
        ("age", ["3 m 2 y", "6 m 1 y", "0 m 3 y"] * 2, "such as 2.25 for years"),
        ("cost", ["$100", "$250", "$300"] * 2, "without the unit, as 100"),
        ("cost", ["100 €", "250 €", "300 €"] * 2, "without the unit, as 100"),
        ("wbc", ["4.1 x10^9/l", "5 x10^9/l", "7.2 x10^9/l"] * 2, "without the unit, as 4.1"),
        ("change", ["–1", "2", "3", "-4"] * 2, "a hyphen as minus .* as -1"),
        ("parity", ["0", "1", "3+"] * 2, r"all as numbers \(such as 3\) or all as words"),
        ("seen", ["05/2019", "06/2020", "01/2018"] * 2, "the date '05/2019' of P0"),
        ("seen", ["2019-05", "2020-06", "2018-01"] * 2, "the date '2019-05' of P0"),
        ("seen", ["Mai 2019", "Jun 2020", "janv. 2018"] * 2, "the date 'Mai 2019' of P0"),
        ("seen", ["5 févr. 2019", "none", "6 juin 2020", "02.05.19"], "the date '5 févr. 2019' of P0 .3 such cells"),
        ("relapse", ["none", "none", "none", "12.05.2020"], "the date '12.05.2020' of P3"),
        ("seen", ["20190502", "20200611", "20180101", "20190502"], "the date '20190502' of P0"),
    ],
)
def test_a_covariate_that_cannot_be_coded_says_which_cell_and_what_to_do(column, values, found):
    with pytest.raises(ConfigurationError, match=found):
        resolve_covariates([column], patients(**{column: values}), {}, develops=True)


@pytest.mark.parametrize(
    "groups",
    [
        ["3+4", "4+3", "3+3"],
        ["T1c", "T2", "T3"],
        ["II", "III", "IV"],
        ["60-69", "70-79", "<60"],
        ["<60", ">=60"],
        ["IDH-1", "IDH-2", "none"],
        ["<1%", "1-49%", "100%"],
        ["0%", "1 - 49 %", "≥ 50 %"],
        ["1A", "2B", "3C"],
        ["7q", "10q", "9p"],
        ["1st", "2nd", "3rd"],
        ["5FU", "FOLFOX", "none"],
        ["0", "1-3", "many"][1:],
        ["2001-05", "2006-10", "2011-15"],
        ["1p/19q", "1p", "none"],
        ["v1.2.3", "1.2.4"],
        ["10.1.20", "10.1.21", "10.2.0"],
        ["1E", "2E", "3S"],
        ["20x", "40x"],
        ["3m", "6m", "12m"],
        ["50mg", "100mg"],
        ["10 Janus", "11 Decoy", "12 Maria 03"],
        ["2010-11", "2011-12", "2012-13"],
        ["0%", "1-49%", "50%", "100%"],
    ],
)
def test_names_of_groups_are_no_numbers_in_another_writing(groups):
    found = resolve_covariates(["group"], patients(group=groups * 4), {}, develops=True)
    assert len(found) == (1 if len(groups) == 2 else len(groups))
    assert all("=" in name for name in found)


@pytest.mark.parametrize("cells", [["61,5", "48,5"], ["36 yrs", "52 yrs"], ["2.5.1961", None]])
def test_cells_of_an_external_cohort_are_refused_as_those_of_training(cells):
    with pytest.raises(ConfigurationError, match="covariates: age must hold numbers"):
        resolve_covariates(["age"], patients(age=cells), {}, develops=False)


def test_a_word_that_may_mean_unknown_is_told():
    table = patients(mgmt=["methylated", "not determined", "unmethylated"] * 2, kps=["90", None, "80"] * 2)
    (text,) = doubtful_words(["mgmt=methylated", "mgmt", "kps", "site"], table)
    assert text == "mgmt: 'not determined' (2 patients) is read as a value: where it means unknown, empty these cells"


def test_a_letter_beside_its_word_is_told():
    table = patients(gender=["M", "male", "female"] * 2, codel=["y", "n", "y"] * 2, smokes=["yes", "Y", "no"] * 2)
    assert doubtful_words(["gender=male", "codel", "smokes"], table) == [
        "gender: 'm' and 'male' are read as two groups: where they mean the same, write both alike",
        "smokes: 'y' and 'yes' are read as two groups: where they mean the same, write both alike",
    ]


def test_a_wrong_batch_is_not_offered_the_outcomes():
    with pytest.raises(ConfigurationError, match=r"They have cohort, age\. Name one"):
        check_batch(
            "center", patients(age=["1", "2"], grade=["a", "b"]), {"g": TaskSpec(column="grade")}, develops=True
        )
    with pytest.raises(ConfigurationError, match="batch: site is read by the model `site` alone"):
        check_batch("site", patients(site=["a", "b"] * 3), {}, develops=True)


def test_a_batch_of_shared_words_is_accepted():
    check_batch("project", patients(project=["gbm", "lgg"] * 3), {}, develops=True)
    check_batch("cohort", patients(cohort=["a"] * 6), {}, develops=False)


def test_batch_among_the_strata_is_the_column_it_names():
    def columns(*strata: str, batch: str | None) -> tuple[str, ...]:
        return CohortFile(name="c", patients={"table": "p.csv"}, strata=strata, batch=batch).strata_columns

    table = patients(scanner=["a", "b"] * 3)
    assert columns("batch", "site", batch="scanner") == ("scanner", "site")
    assert columns("site", batch="scanner") == ("site", "scanner")
    check_strata(columns("batch", "site", batch="scanner"), table.assign(site=["X", "Y"] * 3), {}, develops=True)
    with pytest.raises(ConfigurationError, match="strata: 'batch' must be a column"):
        check_strata(columns("batch", batch=None), table, {}, develops=True)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("name", "strata: name must have values that patients share"),
        ("IDH", "strata: 'IDH' must be a column .*; idh is, which differs only in case. Name one of these"),
        ("codel", "strata: codel must be known for some patients. Found none"),
        ("one", "strata: one must differ between patients. Found 'x' for all. Remove it"),
        ("event", "strata: event is the outcome"),
        ("grade", "strata: grade is the outcome"),
    ],
)
def test_strata_that_tell_nothing_are_refused_each_in_its_words(column, found):
    shared = ["a", "b"] * 3
    table = patients(name=[f"{i}" for i in range(6)], idh=shared, codel=[None] * 6, grade=shared, one=["x"] * 6)
    grade = {"grade": TaskSpec(column="grade")}
    with pytest.raises(ConfigurationError, match=found):
        check_strata([column], table, grade, develops=True)
    survival = {"survival": TaskSpec(time="time_days", event="event")}
    check_strata(["grade"], table, grade | survival, develops=True)  # of survival
    check_strata(["codel"], table, grade, develops=False)  # unknown in another hospital


@pytest.mark.parametrize(
    ("column", "values", "refused"),
    [
        ("mrnum", [f"{70031 + 113 * i}" for i in range(12)], "must be a measurement. Found another whole number for"),
        ("hospital_record", [f"{700031 + 1113 * i}" for i in range(12)], "it names patients"),
        ("row", [f"{i}" for i in range(12, 0, -1)], "each of 12 patients, such as 12: it names patients"),
        ("age", ["61"] * 12, "age must differ between patients to be learned from. Found '61' for all"),
        ("person", [f"{41 + i}" for i in range(12)], "it names patients"),
        ("person", [f"{1001 + 5 * i % 12}" for i in range(12)], "it names patients"),
        ("age_days", [f"{20031 + 113 * i}" for i in range(12)], None),
        ("age", [f"{40 + i}" for i in range(12)], None),
        ("karnofsky", [f"{40 + 5 * i % 24}" for i in range(24)], None),
        ("age", [f"{40.5 + i}" for i in range(12)], None),
        ("age", [f"{40 + i // 2}" for i in range(12)], None),
    ],
)
def test_numbers_that_name_patients_or_are_alike_are_refused_and_measurements_are_not(column, values, refused):
    table = patients(**{column: values})
    assert resolve_covariates([column], table, {}, develops=False) == (column,)
    if refused is None:
        assert resolve_covariates([column], table, {}, develops=True) == (column,)
        return
    with pytest.raises(ConfigurationError, match=refused):
        resolve_covariates([column], table, {}, develops=True)

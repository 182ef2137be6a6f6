"""Covariates, strata and batch of a cohort file: which columns can be that, and what they are called."""

import pandas as pd
import pytest

from subfuse.cohort.cohort_file import CohortFile
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError
from subfuse.preparation.declared_columns import check_batch, check_strata, resolve_covariates


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
    ],
)
def test_a_covariate_that_cannot_be_coded_says_which_cell_and_what_to_do(column, values, found):
    with pytest.raises(ConfigurationError, match=found):
        resolve_covariates([column], patients(**{column: values}), {}, develops=True)


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
    check_strata(columns("batch", "site", batch="scanner"), table.assign(site="X"), {}, develops=True)
    with pytest.raises(ConfigurationError, match="strata: 'batch' must be a column"):
        check_strata(columns("batch", batch=None), table, {}, develops=True)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        ("name", "strata: name must have values that patients share"),
        ("IDH", "strata: 'IDH' must be a column .*; idh is, which differs only in case. Name one of these"),
        ("codel", "strata: codel must be known for some patients. Found none"),
        ("event", "strata: event is the outcome"),
        ("grade", "strata: grade is the outcome"),
    ],
)
def test_strata_that_tell_nothing_are_refused_each_in_its_words(column, found):
    shared = ["a", "b"] * 3
    table = patients(name=[f"{i}" for i in range(6)], idh=shared, codel=[None] * 6, grade=shared)
    grade = {"grade": TaskSpec(column="grade")}
    with pytest.raises(ConfigurationError, match=found):
        check_strata([column], table, grade, develops=True)
    survival = {"survival": TaskSpec(time="time_days", event="event")}
    check_strata(["grade"], table, grade | survival, develops=True)  # of survival
    check_strata(["codel"], table, grade, develops=False)  # unknown in another hospital

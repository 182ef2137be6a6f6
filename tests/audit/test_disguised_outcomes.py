from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from subfuse.audit.disguised_outcomes import check_inputs, input_findings, suspicious_inputs
from subfuse.audit.findings import raise_for_failures
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError

TASKS = {"survival": TaskSpec(time="time_days", event="event"), "grade": TaskSpec(column="grade")}


def cohort_with(columns: dict[str, object], *, n: int = 70, n_genes: int = 30, seed: int = 0) -> Cohort:
    """Random genes, then columns that are values or functions of (time, event, grade index, generator)."""
    generator = np.random.default_rng(seed)
    time = generator.permutation(n) * 10.0 + 5
    event, grade = generator.random(n) < 0.6, generator.integers(3, size=n)
    extra = [column(time, event, grade, generator) for column in columns.values()]
    values = np.column_stack([generator.normal(size=(n, n_genes)), *extra]).astype(np.float32)
    patients = tuple(
        Patient(
            f"P{i:03d}",
            "small",
            expression=values[i],
            time_days=time[i],
            event=bool(event[i]),
            labels={"grade": f"G{grade[i] + 2}"},
        )
        for i in range(n)
    )
    genes = (*(f"GENE{i}" for i in range(n_genes)), *columns)
    return Cohort("small", patients, genes, "log2_tpm", {"tumour": genes}, TASKS)


def fold_of(cohort: Cohort) -> Fold:
    ids = [patient.patient_id for patient in cohort]
    return Fold(tuple(ids[10:]), tuple(ids[:5]), tuple(ids[5:10]))


def failing(cohort: Cohort, task: str, **options) -> list[str]:
    return [f.found.split(":")[0].split()[1] for f in check_inputs(cohort, fold_of(cohort), task, **options)
            if f.level == "failure"]  # fmt: skip


def noise(time, event, grade, generator):
    return generator.normal(size=len(time))


@pytest.mark.parametrize(
    ("task", "name", "column"),
    [
        ("survival", "hours", lambda time, *_: time * 24),
        ("survival", "prognosis", lambda time, *_: -np.log(time)),
        ("survival", "alive", lambda _, event, *__: 1.0 - event),
        ("survival", "OS.days", noise),
        ("survival", "Vital Status", noise),
        ("grade", "who", lambda _, __, grade, ___: grade * 1.5),
        ("grade", "is_G4", lambda _, __, grade, ___: (grade == 2) * 1.0),
        ("grade", "Grade", noise),
    ],
)
def test_outcome_in_disguise_is_named(task: str, name: str, column) -> None:
    cohort = cohort_with({name: column, "AGE": noise})

    assert failing(cohort, task) == [name.split()[0]]
    with pytest.raises(DataError, match="allow it with"):
        raise_for_failures(check_inputs(cohort, fold_of(cohort), task))
    allowed = check_inputs(cohort, fold_of(cohort), task, allow=[name])
    assert [(finding.level, finding.short) for finding in allowed] == [("note", name)]


def test_a_gene_that_the_table_names_otherwise_is_said_and_allowed_by_both_names() -> None:
    cohort = cohort_with({"TMT1B": lambda time, *_: -time})
    cohort = replace(cohort, names_in_table={"TMT1B": "METTL7B"})
    [finding] = check_inputs(cohort, fold_of(cohort), "survival")
    assert finding.found.startswith(
        f"input TMT1B (METTL7B in your table): it alone orders {len(fold_of(cohort).train)} training patients ("
    )
    levels = {n: check_inputs(cohort, fold_of(cohort), "survival", allow=[n])[0].level for n in ("METTL7B", "TMT1B")}
    assert levels == {"METTL7B": "note", "TMT1B": "note"}


def test_good_predictors_and_other_tasks_are_left_alone() -> None:
    cohort = cohort_with({"strong": lambda time, _, __, g: -time + 60 * g.normal(size=len(time))})

    assert check_inputs(cohort, fold_of(cohort), "survival") == []
    assert failing(cohort_with({"time_days": noise}), "grade") == []


def test_only_training_patients_are_looked_at() -> None:
    cohort = cohort_with({"copy": lambda time, *_: time})
    fold = fold_of(cohort)
    broken = tuple(
        replace(p, expression=np.zeros_like(p.expression)) if p.patient_id in fold.test + fold.validation else p
        for p in cohort
    )

    assert failing(replace(cohort, patients=broken), "survival") == ["copy"]


def test_unknown_values_are_left_out_column_by_column() -> None:
    cohort = cohort_with({"AGE": noise})
    half_known = tuple(
        replace(
            p, covariates={"copy": p.time_days} if index % 2 else {}, expression=None if index % 3 else p.expression
        )
        for index, p in enumerate(cohort)
    )

    cohort = replace(cohort, patients=half_known, covariates=("copy",))
    assert failing(cohort, "survival") == ["copy"]
    (finding,) = check_inputs(cohort, fold_of(cohort), "survival")
    assert finding.remedy.startswith("Remove copy from `covariates` of the cohort file, or allow it")


def test_a_gene_is_left_out_of_expression() -> None:
    cohort = cohort_with({"copy": lambda time, *_: time})
    (finding,) = check_inputs(cohort, fold_of(cohort), "survival")
    assert finding.remedy.startswith("Name copy in `expression.exclude` of the cohort file, or allow it")


def test_so_few_patients_that_chance_orders_them_are_only_noted() -> None:
    cohort = cohort_with({"copy": lambda _, __, grade, ___: grade * 1.0}, n=19, n_genes=400)

    findings = check_inputs(cohort, fold_of(cohort), "grade")

    assert [finding.level for finding in findings] == ["note"]
    assert "some columns do by chance" in findings[0].found


def test_many_columns_that_chance_orders_are_one_note_with_the_strongest_and_their_number() -> None:
    cohort = cohort_with({"AGE": noise}, n=14, n_genes=3000)  # four train
    table = suspicious_inputs(cohort, fold_of(cohort).train, "survival")
    twice = pd.concat([table, table.assign(share=table["share"] - 0.5)])  # as of another class

    [note] = input_findings(twice, cohort, "survival", allow=())

    n_inputs = table["input"].nunique()
    assert n_inputs > 100
    assert note.found.startswith(f"{n_inputs} inputs alone order the 4 training patients almost")
    assert note.found.count("it alone orders") == 3
    assert f"{n_inputs - 3} more" in note.found
    assert len(note.found) < 500
    strongest = table.sort_values("share", ascending=False, kind="stable")["input"].iloc[0]
    assert f"Strongest: {strongest} (" in note.found


def test_noise_alone_never_stops_a_run() -> None:
    for seed in range(5):
        for n in (16, 22, 40):
            cohort = cohort_with({"AGE": noise}, n=n, n_genes=3000, seed=seed)
            assert failing(cohort, "grade") == []
            assert failing(cohort, "survival") == []

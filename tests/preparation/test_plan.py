"""Who is in a cohort, with which modalities and outcomes, or why not, before anything is written."""

import pandas as pd
import pytest
from small_tables import COVARIATES, N, add_covariates, cohort_file_of, reasons, write_tables

from subfuse.errors import ConfigurationError, DataError
from subfuse.preparation.plan import plan_cohort


@pytest.fixture
def folder(tmp_path):
    return write_tables(tmp_path)


@pytest.fixture
def with_covariates(folder):
    return add_covariates(folder)


def test_exclusions_add_up_and_have_reasons(folder):
    plan = plan_cohort(cohort_file_of(folder))
    assert reasons(plan.exclusions, "patient") == {
        "p01": "no slide and no expression",
        "p02": "unknown outcome of survival, grade",
    }
    assert len(plan.patients) + 2 == N
    assert "p04" in set(plan.patients["patient_id"])  # its negative time costs one task of two
    assert reasons(plan.exclusions, "slide") == {
        "p02_a": "p02 is not in the cohort",
        "p99_a": "its name begins with no patient's identifier",
    }
    assert reasons(plan.exclusions, "expression") == {"p77": "its patient is not in the cohort"}


def test_modalities_and_labels_per_patient(folder):
    patients = plan_cohort(cohort_file_of(folder)).patients.set_index("patient_id")
    assert list(patients.columns) == ["cohort", "site", "time_days", "event", "grade", "n_slides", "has_expression"]
    assert patients.loc["p00", ["n_slides", "has_expression", "grade"]].tolist() == [2, True, "G2"]
    assert patients.loc["p05", ["n_slides", "has_expression"]].tolist() == [0, True]
    assert patients.loc["p08", ["n_slides", "has_expression"]].tolist() == [1, False]
    assert patients.loc["p06", "grade"] is None


def test_patients_are_joined_whatever_form_of_unicode_their_names_have(folder):
    together, apart = "M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller00", "Mu\N{COMBINING DIAERESIS}ller00"
    for name, patient in (("patients.csv", together), ("expression.csv", apart)):
        text = (folder / name).read_text(encoding="utf-8").replace("p00,", f"{patient},")
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "slides" / "p00_a.svs").rename(folder / "slides" / f"{apart}_a.svs")
    plan = plan_cohort(cohort_file_of(folder))
    row = plan.patients.set_index("patient_id").loc[together]
    assert (row["n_slides"], row["has_expression"]) == (1, True)


def test_gene_sets_follow_the_axis(folder):
    plan = plan_cohort(cohort_file_of(folder))
    assert plan.gene_sets == {"tumour": ("G1", "G2", "G3"), "microenvironment": ("G2", "G3")}
    assert plan.coverage.set_index("subspace").loc["tumour", ["n_genes", "n_found", "missing"]].tolist() == [4, 3, "G9"]


def test_default_tasks_and_class_order(folder):
    plan = plan_cohort(cohort_file_of(folder))
    assert list(plan.tasks) == ["survival", "grade"]
    assert plan.tasks["grade"].classes == ("G2", "G3", "G4")
    plan = plan_cohort(cohort_file_of(folder, tasks="tasks: {g: {column: grade, classes: [G4, G3, G2, G1]}}"))
    assert plan.tasks["g"].classes == ("G4", "G3", "G2", "G1")
    assert "tasks.g: no patient has G1" in plan.warnings


def test_summary_counts(folder):
    lines = plan_cohort(cohort_file_of(folder)).summary().splitlines()
    assert lines[0] == "small (develop): 18 of 20 patients (2 excluded)"
    assert "  slides: 10, of 9 patients" in lines
    assert "4 genes, unit tpm" in lines[2]
    assert lines[-1].startswith("  folds: 4, with ")
    assert "site" not in "".join(lines)


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        (["Ulm", "Bonn", "Bonn", None], "  sites: 2, of 13 patients, the largest Bonn with 8; `splits: {by: site}`"),
        (["Ulm"], "  sites: 1, of 18 patients"),
    ],
)
def test_the_summary_counts_hospitals(folder, sites, words):
    table = pd.read_csv(folder / "patients.csv")
    table.assign(site=[sites[i % len(sites)] for i in range(N)]).to_csv(folder / "patients.csv", index=False)
    (line,) = (line for line in plan_cohort(cohort_file_of(folder)).summary().splitlines() if "site" in line)
    assert line.startswith(words)
    (line,) = (
        line
        for line in plan_cohort(cohort_file_of(folder, name="name: small\nrole: external")).summary().splitlines()
        if "site" in line
    )
    assert "splits" not in line


def test_columns_of_one_declaration_are_tasks_for_those_who_have_them(folder):
    table = pd.read_csv(folder / "patients.csv")
    table["idh"] = [None, *(("WT", "mutant")[i % 2] for i in range(1, N))]
    table["mgmt"] = [i % 2 for i in range(N)]
    table.to_csv(folder / "patients.csv", index=False)
    plan = plan_cohort(cohort_file_of(folder, tasks="tasks: {m: {columns: [idh, mgmt]}}"))
    assert {name: task.classes for name, task in plan.tasks.items()} == {
        "m_idh": ("WT", "mutant"),
        "m_mgmt": ("0", "1"),
    }
    known = {name: task.cases(plan.patients).notna().sum() for name, task in plan.tasks.items()}
    assert known == {"m_idh": len(plan.patients) - 1, "m_mgmt": len(plan.patients)}


def test_the_summary_counts_tissue_source_sites_of_barcodes(folder):
    names = {f"p{i:02d}": f"TCGA-{('02', 'HT', 'HT')[i % 3]}-{i:04d}" for i in range(N)}
    for name in ("patients.csv", "expression.csv"):
        text = (folder / name).read_text()
        for ours, barcode in names.items():
            text = text.replace(f"{ours},", f"{barcode},")
        (folder / name).write_text(text)
    (line,) = (line for line in plan_cohort(cohort_file_of(folder, "slides")).summary().splitlines() if "site" in line)
    assert line.startswith("  tissue source sites of barcodes: 2, of 13 patients, the largest 02 with 7; `splits")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tasks": "tasks: {a: {column: gradee}}"}, ConfigurationError, "tasks.a.column: 'gradee' is not a column"),
        ({"tasks": "tasks: {a: {column: grade, classes: [G2, G3]}}"}, DataError, "one of G2, G3. Found G4"),
        ({"tasks": "tasks: {m: {columns: [gradee]}}"}, ConfigurationError, "tasks.m_gradee.column: 'gradee' is not a"),
        ({"tasks": "tasks: {m: {columns: [grade]}}"}, DataError, "tasks.m: two classes of .* Found 3 of grade: G2, G3"),
        ({"tasks": "tasks: {m: {columns: [grade], classes: [G2, G3]}}"}, DataError, "tasks.m_grade: .* Found G4"),
        ({"tasks": "tasks: {}"}, ConfigurationError, "tasks: at least one is required"),
        (
            {"patients": "patients: {table: patients.csv, columns: {grade: grade}}",
             "tasks": "tasks: {s: {time: time_days, event: event}}"},
            ConfigurationError,
            "tasks.s: time_days and event must be known",
        ),
        ({"gene_sets": "gene_sets: {tumour: builtin}"}, DataError, "gene_sets.tumour: at least one of its 733 genes"),
        ({"splits": "splits: {stratify: [age]}"}, ConfigurationError, "splits.stratify: age"),
    ],
)  # fmt: skip
def test_impossible_cohorts(folder, changes, error, message):
    with pytest.raises(error, match=message):
        plan_cohort(cohort_file_of(folder, **changes))


def test_cohort_needs_a_modality_and_a_patient(folder):
    with pytest.raises(ConfigurationError, match="slides or expression must be declared"):
        plan_cohort(cohort_file_of(folder, "slides", "expression"))
    for path in (folder / "slides").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"slides of the cohort's patients are required .* Found no slide"):
        plan_cohort(cohort_file_of(folder, "expression"))


def test_single_modality_cohorts(folder):
    only_slides = plan_cohort(cohort_file_of(folder, "expression"))
    assert only_slides.expression is None
    assert only_slides.gene_sets == {"tumour": (), "microenvironment": ()}
    assert not len(only_slides.coverage)
    only_expression = plan_cohort(cohort_file_of(folder, "slides"))
    assert only_expression.slides == ()
    assert only_expression.patients["has_expression"].all()


def test_external_cohort_has_no_folds_and_leaves_classes_to_the_model(folder):
    plan = plan_cohort(cohort_file_of(folder, role="role: external"))
    assert plan.folds == ()
    assert plan.tasks["grade"].classes is None
    everybody = plan_cohort(cohort_file_of(folder, role="role: external", tasks="tasks: {}"))
    assert "p02" in everybody.patients["patient_id"].tolist()


def test_outcome_is_judged_by_the_patients_that_are_used(folder):
    for path in (folder / "slides").iterdir():
        if path.name[:3] not in ("p06", "p10", "p14", "p18"):  # all censored
            path.unlink()
    plan = plan_cohort(cohort_file_of(folder, "expression", splits="splits: {folds: 2}"))
    assert sum("event is false for every patient" in warning for warning in plan.warnings) == 1


@pytest.mark.parametrize(
    ("column", "unit", "warned"), [("os", "", True), ("os_days", "", False), ("os", "days", False)]
)
def test_days_that_may_be_months_are_said_where_nothing_says_the_unit(folder, column, unit, warned):
    table = pd.read_csv(folder / "patients.csv", dtype=str, keep_default_na=False)
    table["time_days"] = [str(90 + 9 * row) for row in range(N)]
    table.rename(columns={"time_days": column}).to_csv(folder / "patients.csv", index=False)
    declared = f", time_unit: {unit}" if unit else ""
    columns = f"columns: {{time_days: {column}, event: event, grade: grade}}"
    plan = plan_cohort(cohort_file_of(folder, patients=f"patients: {{table: patients.csv, {columns}{declared}}}"))
    assert any("looks like months" in warning for warning in plan.warnings) == warned


def test_planning_writes_nothing(folder):
    cohort_file = cohort_file_of(folder)
    before = sorted(folder.rglob("*"))
    plan_cohort(cohort_file)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("declared", "error", "message"),
    [
        ("[bmi]", ConfigurationError, "covariates: 'bmi' must be a column of the patients. They have age, sex"),
        ("[time_days]", ConfigurationError, "time_days is an outcome"),
        ("[event=true]", ConfigurationError, "event is an outcome"),
        ("[age, age]", ConfigurationError, "age must be given once"),
        ("[names]", ConfigurationError, r"names must have words that patients share. Found \d+ for \d+ patients"),
        (
            "[one]",
            ConfigurationError,
            "one must differ between patients to be learned from. Found 'x' for all. Remove it, .* `role: external`",
        ),
        ("[mixed]", ConfigurationError, r"mixed must hold numbers or words, not both. .* 90\+"),
        ("[empty]", DataError, "empty must be known for some patients. .* `role: external`"),
        ("[sex=mael]", ConfigurationError, "'mael' must occur in sex. Found female, male"),
        ("[sex=male, sex=Male]", ConfigurationError, "sex=male must be given once"),
        ("[G1]", ConfigurationError, "G1 must not have the name of a gene"),
    ],
)
def test_impossible_covariates(with_covariates, declared, error, message):
    table = pd.read_csv(with_covariates / "patients.csv")
    table["names"] = [f"hospital {i}" for i in range(N)]
    table["one"], table["empty"], table["G1"] = "x", "", [i / 7 for i in range(N)]
    table["mixed"] = ["90+" if i == 9 else str(i) for i in range(N)]
    table.to_csv(with_covariates / "patients.csv", index=False)
    with pytest.raises(error, match=message):
        plan_cohort(cohort_file_of(with_covariates, covariates=f"covariates: {declared}"))


def test_an_external_cohort_needs_no_coding_and_keeps_one_that_is_declared(with_covariates):
    table = pd.read_csv(with_covariates / "patients.csv")
    table["sex"], table["age"] = "female", None
    table.to_csv(with_covariates / "patients.csv", index=False)
    external = {"patients": COVARIATES, "role": "role: external"}
    plan = plan_cohort(cohort_file_of(with_covariates, covariates="covariates: [age, sex=Male]", **external))
    assert plan.covariates == ("age", "sex=male")
    plan = plan_cohort(cohort_file_of(with_covariates, covariates="covariates: [sex]", **external))
    assert plan.covariates == ("sex",)  # the trained model knows which word is coded 1


def test_a_word_among_the_numbers_of_an_external_cohort_names_the_patient(with_covariates):
    table = pd.read_csv(with_covariates / "patients.csv", dtype=str)
    table.loc[8, "age"] = "61 years"
    table.to_csv(with_covariates / "patients.csv", index=False)
    external = {"patients": COVARIATES, "role": "role: external"}
    with pytest.raises(DataError, match=r"age must be a number\. Found '61 years' for p08"):
        plan_cohort(cohort_file_of(with_covariates, covariates="covariates: [sex, age]", **external))


def test_a_label_task_cannot_have_its_label_as_covariate(folder):
    with pytest.raises(ConfigurationError, match="grade is an outcome"):
        plan_cohort(cohort_file_of(folder, covariates="covariates: [grade=G4]"))


def test_a_covariate_that_is_the_label_and_columns_that_differ_in_case_are_said(folder):
    table = pd.read_csv(folder / "patients.csv")
    same = table["grade"].map({"G2": "none", "G3": "radiation", "G4": "chemotherapy"})
    table.assign(therapy=same, Grade="x").to_csv(folder / "patients.csv", index=False)
    plan = plan_cohort(cohort_file_of(folder, covariates="covariates: [therapy]"))
    said = [text for text in plan.warnings if "therapy" in text or "case" in text]
    assert said[0].startswith("patients.csv: grade and Grade differ only in case")
    assert "alone tells class G4 of grade for all" in said[1]
    assert len(said) == 2

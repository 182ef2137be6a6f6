from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from subfuse.cohort.cohort import read_cohort, read_patients
from subfuse.cohort.cohort_file import CohortFile, read_cohort_file
from subfuse.cohort.covariates import coded
from subfuse.cohort.fold_files import read_repeats
from subfuse.cohort.marker import mark_complete
from subfuse.errors import ConfigurationError, DataError
from subfuse.exclusions import NothingLeft, exclusion_table
from subfuse.expression import gene_names
from subfuse.expression.gene_names import read_aliases
from subfuse.files import write_table
from subfuse.preparation.plan import CohortPlan, plan_cohort
from subfuse.preparation.prepared import write_prepared
from subfuse.preparation.remaining import remaining

N = 20
SECTIONS = {
    "name": "name: small",
    "patients": "patients: {table: patients.csv}",
    "slides": "slides: {folder: slides}",
    "expression": "expression: {table: expression.csv, unit: tpm}",
    "gene_sets": "gene_sets: {tumour: sets.gmt, microenvironment: {gmt: sets.gmt, sets: [B]}}",
    "splits": "splits: {folds: 4, seed: 3}",
}


@pytest.fixture
def folder(tmp_path):
    """Patients p00 to p19: even ones have a slide, those divisible by 3 expression; p01 neither; p02 no outcome."""
    clinical = pd.DataFrame(
        {
            "patient_id": [f"p{i:02d}" for i in range(N)],
            "time_days": [100.0 + 50 * i for i in range(N)],
            "event": pd.array([i % 4 < 2 for i in range(N)], dtype="boolean"),
            "grade": [f"G{2 + i % 3}" for i in range(N)],
        }
    )
    clinical.loc[2, ["time_days", "event", "grade"]] = None
    clinical.loc[4, "time_days"] = -1.0
    clinical.loc[6, "grade"] = None
    clinical.to_csv(tmp_path / "patients.csv", index=False)
    slides = tmp_path / "slides"
    slides.mkdir()
    for i in [*range(0, N, 2), 99]:
        (slides / f"p{i:02d}_a.svs").touch()
    (slides / "p00_b.svs").touch()
    measured = [*range(0, N, 3), 5, 7, 11, 13, 17, 19, 77]
    values = np.random.default_rng(0).gamma(2.0, 3.0, size=(len(measured), 4)).round(3)
    table = pd.DataFrame(values, index=[f"p{i:02d}" for i in measured], columns=["G1", "G2", "G3", "G4"])
    table.to_csv(tmp_path / "expression.csv", index_label="case")
    (tmp_path / "sets.gmt").write_text("A\td\tG1\tG9\nB\td\tG3\tG2\n")
    return tmp_path


def cohort_file_of(folder: Path, *without: str, **changes: str) -> CohortFile:
    sections = {name: text for name, text in (SECTIONS | changes).items() if name not in without}
    path = folder / "cohort.yaml"
    path.write_text("\n".join(sections.values()) + "\n")
    return read_cohort_file(path)


def slide_table(plan: CohortPlan, out: Path, *failed: str) -> pd.DataFrame:
    rows = []
    for slide in plan.slides:
        if slide.slide_id not in failed:
            path = Path("wsi") / f"{slide.slide_id}.h5"
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).touch()
            rows.append({"slide_id": slide.slide_id, "patient_id": slide.patient_id, "features": str(path)})
    return pd.DataFrame(rows, columns=["slide_id", "patient_id", "features"])


def reasons(exclusions: pd.DataFrame, level: str) -> dict[str, str]:
    chosen = exclusions[exclusions["level"] == level]
    return dict(zip(chosen["id"], chosen["reason"], strict=True))


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


def test_planning_writes_nothing(folder):
    cohort_file = cohort_file_of(folder)
    before = sorted(folder.rglob("*"))
    plan_cohort(cohort_file)
    assert sorted(folder.rglob("*")) == before


def test_prepared_cohort_reads_back(folder):
    cohort_file, out = cohort_file_of(folder), folder / "prepared"
    plan = plan_cohort(cohort_file)
    failed = [("slide", "p00_b", "no tissue"), ("slide", "p08_a", "unreadable")]
    left = remaining(plan, exclusion_table(failed))
    write_prepared(out, cohort_file, left, slide_table(plan, out, "p00_b", "p08_a"))
    written = left.exclusions
    mark_complete(out, {"encoder": "e", "encoder_sha256": "00", "patch_dim": 7})
    cohort = read_cohort(out)

    assert reasons(written, "patient")["p08"] == "none of its slides could be prepared, and it has no expression"
    assert len(pd.read_csv(out / "exclusions.csv")) == len(written)
    assert [p.patient_id for p in cohort] == [p for p in plan.patients["patient_id"] if p != "p08"]
    assert (cohort.encoder, cohort.patch_dim, cohort.expression_unit) == ("e", 7, "log2_tpm")
    assert (cohort.gene_sets, dict(cohort.tasks)) == (plan.gene_sets, plan.tasks)
    by_id = {patient.patient_id: patient for patient in cohort}
    assert [path.name for path in by_id["p00"].slides] == ["p00_a.h5"]
    assert (by_id["p06"].labels, by_id["p06"].event, by_id["p06"].time_days) == ({}, False, 400.0)
    assert by_id["p10"].expression is None
    assert plan.expression is not None
    np.testing.assert_array_equal(by_id["p05"].expression, plan.expression.values.loc["p05"])
    assert np.shares_memory(by_id["p05"].expression.base, by_id["p07"].expression.base)
    assert read_patients(out).set_index("patient_id").loc["p00", "n_slides"] == 1


def test_declared_names_of_genes_are_read_once_and_come_along_while_their_table_is_there(folder, monkeypatch):
    read = []

    def counted(path):
        read.append(path.name)
        return read_aliases(path)

    monkeypatch.setattr(gene_names, "read_aliases", counted)
    (folder / "mine.tsv").write_text("previous\tapproved\nOLD\tG2\n")
    cohort_file = cohort_file_of(folder, expression="expression: {table: expression.csv, unit: tpm, aliases: mine.tsv}")
    plan, out = plan_cohort(cohort_file), folder / "prepared"
    assert read.count("mine.tsv") == 1
    write_prepared(out, cohort_file, plan, slide_table(plan, out))
    mark_complete(out, {})
    assert read_cohort(out).gene_aliases == {"OLD": "G2"}
    (folder / "mine.tsv").unlink()
    assert read_cohort(out).gene_aliases == {}


def test_lost_patients_leave_their_fold_and_the_others_stay(folder):
    cohort_file, out = cohort_file_of(folder), folder / "prepared"
    plan = plan_cohort(cohort_file)
    left = remaining(plan, exclusion_table([("slide", "p08_a", "unreadable")]))
    write_prepared(out, cohort_file, left, slide_table(plan, out, "p08_a"))
    for planned, read in zip(plan.folds, read_repeats(out / "splits" / "default")[0], strict=True):
        for side in ("train", "validation", "test"):
            assert getattr(read, side) == tuple(p for p in getattr(planned, side) if p != "p08")


COVARIATES = "patients: {table: patients.csv, columns: {time_days: time_days, event: event, age: age, sex: sex}}"


@pytest.fixture
def with_covariates(folder):
    """Ages 40 to 59, unknown for p03; sex Male or female, unknown for p05 and p06, for which nothing is known."""
    table = pd.read_csv(folder / "patients.csv").drop(columns="grade")
    table["age"] = [40.0 + i for i in range(N)]
    table["sex"] = ["Male" if i % 3 else " female" for i in range(N)]
    table.loc[[3, 6], "age"] = None
    table.loc[[5, 6], "sex"] = "not reported"
    table.to_csv(folder / "patients.csv", index=False)
    return folder


def test_covariates_are_no_genes(with_covariates):
    cohort_file = cohort_file_of(with_covariates, patients=COVARIATES, covariates="covariates: [age, sex]")
    out, plan = with_covariates / "prepared", plan_cohort(cohort_file)
    assert plan.covariates == ("age", "sex=male")
    assert f"covariates: age known for {len(plan.patients) - 2}, sex=male known for" in plan.summary()
    write_prepared(out, cohort_file, plan, slide_table(plan, out))
    mark_complete(out, {})
    cohort = read_cohort(out)
    by_id = {patient.patient_id: patient for patient in cohort}
    assert (cohort.genes, cohort.covariates) == (("G1", "G2", "G3", "G4"), ("age", "sex=male"))
    assert cohort.gene_sets == {"tumour": ("G1", "G2", "G3"), "microenvironment": ("G2", "G3")}
    assert cohort.pathways == {"A": ("G1",), "B": ("G2", "G3")}
    assert plan.expression is not None
    for name, covariates in {"p03": [np.nan, 0], "p05": [45, np.nan], "p06": [np.nan] * 2, "p07": [47, 1]}.items():
        np.testing.assert_array_equal(by_id[name].expression, plan.expression.values.loc[name])
        np.testing.assert_array_equal([coded(key, by_id[name].covariates) for key in plan.covariates], covariates)
    assert by_id["p08"].expression is None
    assert by_id["p08"].covariates == {"age": "48", "sex": "Male"}
    assert by_id["p07"].labels == {"age": "47", "sex": "Male"}
    again = plan_cohort(read_cohort_file(out / "cohort.yaml"))
    assert again.covariates == plan.covariates


def test_covariates_alone_where_there_is_no_expression(with_covariates):
    cohort_file = cohort_file_of(
        with_covariates, "expression", patients=COVARIATES, covariates="covariates: [sex=female, age]"
    )
    out, plan = with_covariates / "prepared", plan_cohort(cohort_file)
    write_prepared(out, cohort_file, plan, slide_table(plan, out))
    mark_complete(out, {})
    cohort = read_cohort(out)
    by_id = {patient.patient_id: patient for patient in cohort}
    assert cohort.gene_sets == dict.fromkeys(("tumour", "microenvironment"), ())
    assert (cohort.genes, cohort.expression_unit, cohort.pathways) == ((), None, {})
    assert [coded(name, by_id["p12"].covariates) for name in cohort.covariates] == [1, 52]
    assert by_id["p06"].covariates == {}
    assert not plan.patients["has_expression"].any()


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
    table["one"], table["empty"], table["G1"] = "x", "", 1.0
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


def test_resolved_copy_can_be_planned_again(folder):
    cohort_file, out = cohort_file_of(folder), folder / "prepared"
    plan = plan_cohort(cohort_file)
    write_prepared(out, cohort_file, plan, slide_table(plan, out))
    again = plan_cohort(read_cohort_file(out / "cohort.yaml"))
    pd.testing.assert_frame_equal(again.patients, plan.patients)
    assert again.folds == plan.folds
    assert again.tasks == plan.tasks


def test_cohort_without_expression_reads_back(folder):
    cohort_file, out = cohort_file_of(folder, "expression"), folder / "prepared"
    plan = plan_cohort(cohort_file)
    write_prepared(out, cohort_file, plan, slide_table(plan, out))
    mark_complete(out, {})
    cohort = read_cohort(out)
    assert (cohort.genes, cohort.expression_unit) == ((), None)
    assert cohort.gene_sets == {"tumour": (), "microenvironment": ()}


def test_nobody_left_after_preparing(folder):
    cohort_file = cohort_file_of(folder, "expression")
    plan = plan_cohort(cohort_file)
    failed = exclusion_table(("slide", slide.slide_id, f"{slide.path}: no tissue found") for slide in plan.slides)
    with pytest.raises(NothingLeft, match=r"none that can. Commonest reason: .* no tissue found") as caught:
        remaining(plan, failed)
    assert len(caught.value.exclusions) == len(plan.exclusions) + len(failed) + len(plan.patients)


def test_unfinished_and_damaged_folders(folder):
    cohort_file, out = cohort_file_of(folder), folder / "prepared"
    plan = plan_cohort(cohort_file)
    write_prepared(out, cohort_file, plan, slide_table(plan, out))
    with pytest.raises(DataError, match=r"completely prepared folder.*provenance\.json"):
        read_cohort(out)
    mark_complete(out, {})
    (out / "wsi" / "p00_a.h5").unlink()
    with pytest.raises(DataError, match=r"feature file wsi/p00_a\.h5"):
        read_cohort(out)


def test_select(folder):
    cohort_file, out = cohort_file_of(folder, "slides"), folder / "prepared"
    plan = plan_cohort(cohort_file)
    write_prepared(out, cohort_file, plan, slide_table(plan, out))
    mark_complete(out, {})
    cohort = read_cohort(out)
    assert [p.patient_id for p in cohort.select(["p09", "p03"])] == ["p03", "p09"]
    with pytest.raises(KeyError, match="p02"):
        cohort.select(["p02"])


@pytest.mark.real_data
def test_real_tables_join(real_data, tmp_path):
    tables = real_data / "tcga_gbmlgg"
    columns = (
        "{patient_id: case_id, time_days: os_days, event: os_event, grade: grade, diagnosis: who2021_cdkn2a_homozygous}"
    )
    (tmp_path / "cohort.yaml").write_text(
        f"name: tcga-gbmlgg\n"
        f"patients: {{table: {tables}/labels.csv, columns: {columns}}}\n"
        f"expression: {{table: {tables}/expression_zscores.csv.gz, unit: zscore}}\n"
        f"splits: {{folder: {tables}/splits}}\n"
    )
    cohort_file = read_cohort_file(tmp_path / "cohort.yaml")
    plan = plan_cohort(cohort_file)
    assert (len(plan.patients), len(plan.exclusions)) == (569, 0)
    few = [warning.partition(" genes are measured")[0] for warning in plan.warnings]
    assert few == ["gene_sets.tumour: 75 of 733", "gene_sets.microenvironment: 63 of 141"]
    assert plan.patients["diagnosis"].value_counts().tolist() == [219, 173, 159, 18]
    assert plan.coverage["n_found"].tolist() == [75, 63]
    assert [len(fold.test) for fold in plan.folds] == [114, 114, 114, 114, 113]
    write_prepared(tmp_path / "prepared", cohort_file, plan, slide_table(plan, tmp_path))
    mark_complete(tmp_path / "prepared", {})
    cohort = read_cohort(tmp_path / "prepared")
    assert (len(cohort), len(cohort.genes), cohort.patients[0].site) == (569, 1544, "02")


def test_a_cohort_prints_as_a_short_table(make_cohort):
    cohort = make_cohort(24)
    events = sum(bool(patient.event) for patient in cohort)
    lines = repr(cohort).splitlines()
    assert lines[0] == "Cohort small"
    assert lines[1].split(maxsplit=1) == ["patients", "24: 23 with slides, 23 with expression, 22 with both"]
    assert lines[2].endswith(f"24 patients, {events} events")
    assert "24 patients (G2: " in lines[3]
    assert (str(cohort), len(lines)) == (repr(cohort), 7)


def test_labels_that_a_spreadsheet_would_execute_are_read_back(tmp_path):
    known = {"patient_id": ["p0", "p1"], "cohort": "a", "site": ["-", None], "time_days": [1.0, None]}
    known |= {"event": [True, None], "n_slides": [1, 0], "has_expression": [True, False], "who": ["=1+1", "'@x"]}
    write_table(tmp_path / "patients.csv", pd.DataFrame(known))
    table = read_patients(tmp_path)
    assert (table["who"].tolist(), table["site"].tolist()) == (["=1+1", "'@x"], ["-", None])

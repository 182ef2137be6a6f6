import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_tables import COVARIATES, add_covariates, cohort_file_of, reasons, slide_table, write_tables

from subfuse.cohort.cohort import read_cohort, read_patients
from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.cohort.covariates import coded
from subfuse.cohort.fold_files import read_repeats
from subfuse.cohort.marker import mark_complete
from subfuse.errors import DataError
from subfuse.exclusions import NothingLeft, exclusion_table
from subfuse.expression import gene_names
from subfuse.expression.gene_names import read_aliases
from subfuse.files import write_table
from subfuse.preparation.plan import plan_cohort
from subfuse.preparation.prepared import write_prepared
from subfuse.preparation.remaining import remaining


@pytest.fixture
def folder(tmp_path):
    return write_tables(tmp_path)


@pytest.fixture
def with_covariates(folder):
    return add_covariates(folder)


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


@pytest.fixture
def prepared(folder):
    cohort_file, out = cohort_file_of(folder), folder / "prepared"
    plan = plan_cohort(cohort_file)
    write_prepared(out, cohort_file, plan, slide_table(plan, out))
    mark_complete(out, {"encoder": "e", "encoder_sha256": "00", "patch_dim": 7})
    return out


def test_a_prepared_cohort_is_sent_by_its_place_and_read_once(prepared):
    cohort = read_cohort(prepared)
    sent = pickle.dumps(cohort)
    assert len(sent) < 1000
    first, second = pickle.loads(sent), pickle.loads(pickle.dumps(cohort))
    assert first is second
    assert [patient.patient_id for patient in first] == [patient.patient_id for patient in cohort]
    np.testing.assert_array_equal(first.patients[5].expression, cohort.patients[5].expression)
    assert {name: getattr(first, name) for name in ("genes", "gene_sets", "tasks", "patch_um")} == {
        name: getattr(cohort, name) for name in ("genes", "gene_sets", "tasks", "patch_um")
    }


def test_a_cohort_that_was_changed_is_sent_with_all_it_holds(prepared):
    cohort = read_cohort(prepared)
    for changed in (cohort.select(["p05"]), replace(cohort, name="another")):
        came = pickle.loads(pickle.dumps(changed))
        assert (came.name, len(came)) == (changed.name, len(changed))
        np.testing.assert_array_equal(came.patients[0].expression, changed.patients[0].expression)


def test_a_cohort_that_was_prepared_again_is_not_taken_for_the_one_that_was_sent(prepared):
    sent = pickle.dumps(read_cohort(prepared))
    mark_complete(prepared, {"encoder": "another", "encoder_sha256": "00", "patch_dim": 7})
    with pytest.raises(DataError, match="prepared: the cohort with which the run began is required"):
        pickle.loads(sent)


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

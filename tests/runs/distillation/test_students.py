"""A run of students: whom they learn from, that they are used like any run, and what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from brief_run import BRIEF

from command_run import evaluate_roughly
from small_cohort import deal_folds, make_cohort
from subfuse.cohort.fold_files import SPLITS, write_repeats
from subfuse.errors import ConfigurationError, DataError
from subfuse.report import write_report
from subfuse.run_folder.names import TEACHER
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.distillation.students import distil_run, plan_of
from subfuse.runs.new_patient import predict_new_patient
from subfuse.runs.run import load_run
from subfuse.sharing import load_models
from subfuse.sharing.export import export_run

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cohort with folds of its own, its run, and the run of students."""
    root = tmp_path_factory.mktemp("students")
    drawn = make_cohort.__wrapped__(root)(24)
    write_repeats(root / "prepared" / SPLITS, [deal_folds(drawn)])
    cohort = replace(drawn, root=root / "prepared")
    with pytest.MonkeyPatch.context() as patch:
        evaluate_roughly(patch)
        cross_validate(cohort, task="grade", models=["subspace"], out=root / "run", seed=3, **BRIEF)
        run = load_run(root / "run", device="cpu")
        distil_run(run, root / "students", cohort=cohort)
    return cohort, run, load_run(root / "students", device="cpu")


def test_every_fold_has_a_student_of_its_teacher(made):
    _, run, students = made
    assert [job.model for job in students.jobs()] == ["distilled"] * 2
    for job in students.jobs():
        found = students.fitted(job).details
        assert found["teacher_sha256"] == run.fitted(replace(job, model="subspace")).arrays_sha256()
        assert found["seed"] == 3 + 1000 * job.fold_index
    assert not list(students.folder.rglob(TEACHER))
    assert plan_of(students) == plan_of(run) == BRIEF["plan"].with_seed(3).model_copy(update={"device": "cpu"})
    tested = run.predictions.query("split == 'test'").set_index("patient_id")["fold"]
    of_students = students.predictions.query("split == 'test'").set_index("patient_id")["fold"]
    assert set(tested.index) - set(of_students.index) == {"P000"}  # who has no slide
    assert of_students.eq(tested.reindex(of_students.index)).all()


def test_the_run_says_what_students_keep_of_their_teachers(made):
    _, run, students = made
    found = pd.read_csv(students.folder / "students.csv").set_index("model")
    assert list(found.index) == ["subspace", "distilled", "subspace-without-expression"]
    said = pd.concat(pd.read_csv(path) for path in students.folder.rglob("teacher_predictions.csv"))
    whole = said[said["model"] == "subspace"].set_index("patient_id")["p_G4"]
    expected = run.predictions.query("split == 'test'").set_index("patient_id")["p_G4"]
    np.testing.assert_allclose(whole, expected.loc[whole.index], rtol=1e-5)
    hidden = said[said["model"] == "subspace-without-expression"].set_index("patient_id")["p_G4"]
    assert hidden["P001"] == pytest.approx(whole["P001"])  # who has no expression
    assert (hidden.drop("P001") - whole.drop("P001")).abs().min() > 0
    assert "Teacher, expression hidden" in write_report(students.folder).read_text(encoding="utf-8")


def test_repeating_the_call_trains_nothing(made, monkeypatch):
    evaluate_roughly(monkeypatch)
    cohort, run, students = made
    weights = sorted(students.folder.rglob("model.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    assert weights
    again = distil_run(run, students.folder, cohort=cohort)
    assert [path.stat().st_mtime_ns for path in weights] == before
    pd.testing.assert_series_equal(again.predictions["p_G4"], students.predictions["p_G4"])


def test_students_predict_explain_and_are_shared(made, tmp_path):
    cohort, _, students = made
    new = replace(cohort, patients=tuple(replace(p, patient_id=f"N{p.patient_id}", expression=None) for p in cohort))
    without_genes = replace(new, genes=(), expression_unit=None)
    predicted = students.predict(without_genes)
    assert predicted["p_G4"].notna().all()
    assert predicted["patient_id"].nunique() == 23
    export_run(students.folder, tmp_path / "shared")
    shared = load_models(tmp_path / "shared").predict(without_genes)
    pd.testing.assert_series_equal(shared["p_G4"], predicted["p_G4"])
    folder = students.explain(cohort, "P004", tmp_path / "explained", model="distilled")
    genes = pd.read_csv(folder / "grade" / "genes.csv")
    patches = pd.read_csv(folder / "grade" / "patches.csv")
    assert genes.empty
    assert patches[["tumour", "microenvironment", "total"]].notna().all(axis=None)


def test_a_student_that_is_given_expression_alone_says_so(made, tmp_path):
    _, _, students = made
    table = tmp_path / "new.tsv"
    table.write_text("gene\tvalue\nGENE0\t1.0\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"distilled reads slides\. Found only expression\. Give --slide"):
        predict_new_patient(students, expression=table)


def test_what_has_no_teacher_or_another_one_is_refused_in_one_line(made, tmp_path):
    cohort, run, students = made
    with pytest.raises(ConfigurationError, match=r"needs the model subspace, which teaches\. Found distilled\. Run"):
        distil_run(students, tmp_path / "out", cohort=cohort)
    with pytest.raises(ConfigurationError, match="holds results of another configuration"):
        distil_run(run, run.folder, cohort=cohort)
    patients = tuple(p if p.expression is None else replace(p, expression=p.expression + 1) for p in cohort.patients)
    with pytest.raises(DataError, match=r"Changed since: expression\. Run `subfuse crossval` again"):
        distil_run(run, tmp_path / "out", cohort=replace(cohort, patients=patients))
    assert not (tmp_path / "out").exists()
    without = cohort.select([p.patient_id for p in cohort if p.patient_id != "P005"])
    write_repeats(tmp_path / "other" / SPLITS, [deal_folds(without)])
    with pytest.raises(DataError, match=r"the folds of its models are required\. Found others"):
        distil_run(run, tmp_path / "out", cohort=replace(without, root=tmp_path / "other"))

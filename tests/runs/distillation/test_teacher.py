"""Whose teacher a student of a run has."""

from dataclasses import replace

import numpy as np
import pytest
from brief_run import BRIEF, run
from safetensors.torch import load_file

from small_cohort import deal_folds
from subfuse.errors import DataError
from subfuse.run_folder.job import Job
from subfuse.run_folder.names import MODEL, TEACHER, WEIGHTS
from subfuse.runs.cross_validation import train_job
from subfuse.runs.distillation.teacher import find_teacher
from subfuse.runs.job_inputs import job_inputs

pytestmark = pytest.mark.walk
STUDENT = Job("grade", "distilled", 0)


def test_the_teacher_of_a_run_is_taken_and_another_trained_to_the_same_student(make_cohort, tmp_path):
    cohort, together, alone = make_cohort(24), tmp_path / "together", tmp_path / "alone"
    result = run(cohort, together, models=("distilled", "subspace"), task="grade")
    assert result.failures.empty
    assert not list(together.rglob(TEACHER))
    fold, plan = deal_folds(cohort)[0], BRIEF["plan"].with_seed(STUDENT.seed(0))
    teacher = find_teacher(cohort, fold, STUDENT, alone, plan)
    train_job(cohort, fold, STUDENT, alone, plan, teacher=teacher)
    assert find_teacher(cohort, fold, replace(STUDENT, model="subspace"), alone, plan) is None
    for first, second in (
        (STUDENT.folder(together), STUDENT.folder(alone)),
        (replace(STUDENT, model="subspace").folder(together), STUDENT.folder(alone) / TEACHER),
    ):
        ours, theirs = load_file(first / WEIGHTS), load_file(second / WEIGHTS)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    (STUDENT.folder(alone) / WEIGHTS).unlink()
    kept = (STUDENT.folder(alone) / TEACHER / MODEL).stat().st_mtime_ns
    again = find_teacher(cohort, fold, STUDENT, alone, plan)
    assert again.fitted.arrays_sha256() == teacher.fitted.arrays_sha256()
    assert (STUDENT.folder(alone) / TEACHER / MODEL).stat().st_mtime_ns == kept


def test_a_student_is_trained_again_where_what_its_teacher_reads_has_changed(make_cohort):
    cohort = make_cohort(6)
    changed = replace(cohort.patients[4], expression=cohort.patients[4].expression + 1)
    other = replace(cohort, patients=(*cohort.patients[:4], changed, *cohort.patients[5:]))
    fold, plan = deal_folds(cohort)[0], BRIEF["plan"]

    def differing(model):
        job = replace(STUDENT, model=model)
        before, after = (job_inputs(of, fold, job, plan) for of in (cohort, other))
        return {name for name in before if before[name] != after[name]}

    assert differing("distilled") == {"expression"}
    assert differing("subspace-slides") == set()


def test_a_cohort_without_expression_has_no_teacher(make_cohort, tmp_path):
    cohort = make_cohort(24)
    without = replace(cohort, patients=tuple(replace(p, expression=None) for p in cohort), genes=())
    with pytest.raises(DataError, match=r"subspace needs expression\. The cohort has none"):
        run(without, tmp_path / "run", models=("distilled",), task="grade", allow_inputs=())

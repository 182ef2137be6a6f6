from dataclasses import replace

from small_cohort import deal_folds
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.run_folder.job import Job
from subfuse.runs.job_warnings import concerned, fold_warnings


def test_jobs_are_named_in_few_words():
    jobs = [Job(task, model, fold) for task in ("grade", "survival") for model in ("abmil", "snn") for fold in (0, 2)]
    assert concerned(jobs) == "grade, survival · abmil, snn · folds 0, 2"
    assert concerned([Job("grade", "snn", 1, repeat=3)]) == "grade · snn · fold 3.1"


def test_folds_that_say_nothing_to_a_model_are_named_once_before_training(make_cohort):
    cohort = make_cohort()
    rare = cohort.patients[5].patient_id
    patients = tuple(replace(p, labels={"grade": "rare" if p.patient_id == rare else "G2"}) for p in cohort)
    cohort = replace(cohort, patients=patients, tasks={**cohort.tasks, "grade": TaskSpec(column="grade")})
    first, second = deal_folds(cohort)
    alone = Fold((*second.train, *second.validation[:-1]), second.validation[-1:], second.test)
    jobs = [Job(task, model, fold) for task in cohort.tasks for model in ("abmil", "snn") for fold in (0, 1)]
    lines = fold_warnings(cohort, {job: (first, alone)[job.fold_index] for job in jobs}, selection="ranking")

    untrained = next(line for line in lines if "has class rare" in line)
    fold = next(k for k, each in enumerate((first, alone)) if rare not in each.train)
    assert untrained.startswith(f"grade · abmil, snn · fold {fold}: no training patient has class rare")
    assert "`splits.stratify: [grade]`" in untrained
    assert "survival · abmil, snn · fold 1: the validation patients cannot be ranked" in "\n".join(lines)
    assert len(lines) == 3  # that grades of one class cannot be ranked either

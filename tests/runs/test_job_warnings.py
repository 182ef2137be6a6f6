from dataclasses import replace

from small_cohort import deal_folds
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.run_folder.job import Job
from subfuse.runs.job_warnings import concerned, fold_warnings
from subfuse.training.settings import TrainingSettings


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
    settings = TrainingSettings(linear_path=False)
    lines = fold_warnings(cohort, {job: (first, alone)[job.fold_index] for job in jobs}, settings)

    untrained = next(line for line in lines if "has class rare" in line)
    fold = next(k for k, each in enumerate((first, alone)) if rare not in each.train)
    assert untrained.startswith(f"grade · abmil, snn · fold {fold}: no training patient has class rare")
    assert "`splits.stratify: [grade]`" in untrained
    assert "survival · abmil, snn · fold 1: the validation patients cannot be ranked" in "\n".join(lines)
    assert len(lines) == 3  # that grades of one class cannot be ranked either


def test_a_fold_with_too_few_events_for_a_linear_path_is_named_before_training(make_cohort):
    cohort = make_cohort()
    fold = deal_folds(cohort)[0]
    known = [p for p in cohort if p.patient_id in fold.development and p.expression is not None]
    had_event = {p.patient_id for p in known[:9]}
    patients = tuple(replace(p, event=p.patient_id in had_event) for p in cohort)
    job = {Job("survival", "snn", 0): fold, Job("survival", "cox", 0): fold}
    lines = fold_warnings(replace(cohort, patients=patients), job, TrainingSettings())
    assert [line for line in lines if "linear path" in line] == [
        "survival · snn · fold 0: fewer than 10 patients with an event are not tested: there is no linear path, "
        "the network is trained alone"
    ]
    one_more = tuple(replace(p, event=p.event or p.patient_id == known[9].patient_id) for p in patients)
    for changed, settings in ((one_more, {}), (patients, {"linear_path": False})):
        lines = fold_warnings(replace(cohort, patients=changed), job, TrainingSettings(**settings))
        assert not any("linear path" in line for line in lines)


def test_words_of_tested_patients_that_training_never_saw_are_named(make_cohort):
    cohort = make_cohort()
    fold = deal_folds(cohort)[0]
    stranger, *others = fold.test
    names = ("stage=i", "stage=ii", "stage=iii", "age")
    stages = dict.fromkeys(others, "I") | {stranger: "III", fold.train[0]: "II"}
    patients = tuple(replace(p, covariates={"stage": stages.get(p.patient_id, "i"), "age": "60"}) for p in cohort)
    cohort = replace(cohort, patients=patients, covariates=names)
    lines = fold_warnings(cohort, {Job("grade", "clinical", 0): fold}, TrainingSettings())
    said = [line for line in lines if "never occurs" in line]
    assert said == [
        "grade · clinical · fold 0: stage iii never occurs in training: taken as unknown for 1 test patient"
    ]

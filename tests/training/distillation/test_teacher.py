"""Who is taught what, and that a student learns it and reads slides alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from brief_training import BRIEF, change_patient, read_log, train, weights_of

from small_cohort import deal_folds
from subfuse.errors import DataError
from subfuse.model.linear_path import networks_of
from subfuse.training.distillation.lessons import TermWeights
from subfuse.training.distillation.teacher import Teacher
from subfuse.training.problem import pose
from subfuse.training.settings import ArchitectureSettings, TrainingPlan

TERMS = ("prediction", "embedding", "positions")


pytestmark = pytest.mark.walk


@pytest.fixture
def cohort(make_cohort):
    """Of a training patient there is no expression."""
    return change_patient(make_cohort(24), "P003", expression=None)


def student_of(cohort, fitted, **changes):
    """The problem of a student in the fold of its teacher."""
    architecture = ArchitectureSettings(embed_dim=32, max_grid=8, dropout=0.0, table_size=32)
    plan = TrainingPlan(training=BRIEF, architecture=architecture.model_copy(update=changes), seed=1)
    spec = cohort.tasks[fitted.task]
    return pose(cohort, deal_folds(cohort)[0], spec, "distilled", plan, objective=fitted.objective)


def test_taught_are_training_patients_with_both_what_the_teacher_says_of_them(cohort):
    fitted = train(cohort)
    problem = student_of(cohort, fitted)
    (lessons,) = Teacher(fitted).teach(problem).lessons
    train_ids = {patient.patient_id for patient in problem.parts.train}
    assert set(lessons.of_patient) == train_ids - {"P003"}
    assert "P003" in train_ids
    name = next(iter(lessons.of_patient))
    (batch,) = fitted.batches([patient for patient in cohort if patient.patient_id == name])
    with torch.no_grad():
        whole, network = fitted.model(**batch.inputs()), networks_of(fitted.model)[0](**batch.inputs())
    found = lessons.of_patient[name]
    torch.testing.assert_close(found.logits, whole.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.embedding, network.embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.sampling_grid, network.sampling_grid, rtol=1e-4, atol=1e-4)
    embeddings = np.concatenate([lesson.embedding.numpy() for lesson in lessons.of_patient.values()])
    np.testing.assert_allclose(found.spread[0], np.sqrt(embeddings.var(axis=0).mean(axis=1)), rtol=1e-4)


def test_a_student_is_the_same_whether_its_teacher_is_given_or_trained_first_and_reads_slides_alone(cohort, tmp_path):
    teacher = train(cohort)
    given = train(cohort, "distilled", teacher=Teacher(teacher), log_path=tmp_path / "log.csv")
    assert torch.equal(weights_of(given), weights_of(train(cohort, "distilled")))
    assert given.details["teacher_sha256"] == teacher.arrays_sha256()
    assert given.details["n_taught"] == given.details["n_train"] - 1
    assert all(float(row[f"train_teacher_{term}"]) > 0 for row in read_log(tmp_path) for term in TERMS)
    assert given.genes == ()
    assert not any("expression_encoder" in name for name in given.model.state_dict())
    patients = [patient for patient in cohort if patient.slides]
    without = [replace(patient, expression=None) for patient in patients]
    columns = given.prediction_columns()
    np.testing.assert_array_equal(given.predict(patients)[columns], given.predict(without)[columns])
    assert given.predict([cohort.patients[0]])[columns].isna().all().all()  # no slide


def test_what_a_teacher_knows_of_expression_reaches_the_student(cohort):
    """Weights of zero leave what `subspace-slides` is; others change it, and bring it nearer to the teacher."""
    teacher = train(cohort)
    alone = train(cohort, "distilled", teacher=Teacher(teacher, TermWeights(0.0, 0.0, 0.0)))
    assert torch.equal(weights_of(alone), weights_of(train(cohort, "subspace-slides")))
    near = train(cohort, "distilled", teacher=Teacher(teacher, TermWeights(0.0, 10.0, 10.0)))
    problem = student_of(cohort, teacher)
    (lessons,) = Teacher(teacher).teach(problem).lessons
    patients = [patient for patient in cohort if patient.patient_id in lessons.of_patient]
    lesson = lessons.of([patient.patient_id for patient in patients])

    def distance(fitted):
        (network,) = networks_of(fitted.model)
        with torch.no_grad():
            (output,) = [network(**batch.inputs()) for batch in fitted.batches(patients, batch_size=99)]
        found = lesson.distances(teacher.objective, output)
        return found["embedding"].mean(), found["positions"].mean()

    assert all(of_near < of_alone for of_near, of_alone in zip(distance(near), distance(alone), strict=True))


def test_every_network_of_an_ensemble_has_a_teacher_of_its_own_and_the_prediction_of_all(cohort):
    settings = BRIEF.model_copy(update={"members": 2, "epochs": 1})
    fitted = train(cohort, task="grade", settings=settings)
    problem = student_of(cohort, fitted)
    problem = replace(problem, recipe=problem.recipe.model_copy(update={"members": 2}))
    first, second = Teacher(fitted).teach(problem).lessons
    for name, lesson in first.of_patient.items():
        assert torch.equal(lesson.logits, second.of_patient[name].logits)
        assert not torch.equal(lesson.embedding, second.of_patient[name].embedding)


def test_a_teacher_of_other_sizes_or_without_expression_is_refused_in_one_line(cohort):
    fitted = train(cohort, settings=BRIEF.model_copy(update={"epochs": 1}))
    with pytest.raises(DataError, match=r"distilled needs a teacher like itself\. Found one that differs in embed_dim"):
        Teacher(fitted).teach(student_of(cohort, fitted, embed_dim=16))
    apart = tuple(replace(p, slides=()) if p.expression is not None and i % 2 else p for i, p in enumerate(cohort))
    apart = tuple(replace(p, expression=None) if p.slides else p for p in apart)
    with pytest.raises(DataError, match=r"slides and expression, whom its teacher saw\. Found none of \d+\."):
        train(replace(cohort, patients=apart), "distilled", "grade", BRIEF.model_copy(update={"epochs": 1}))

"""Each kind of input has a hash of its own, which changes with that input alone."""

from dataclasses import replace

import numpy as np
import pytest

from small_cohort import with_covariates
from subfuse.cohort.fingerprint import fingerprint_of
from subfuse.errors import DataError
from subfuse.features.store import read_features, write_features

ALL = ("slides", "expression", "covariates")


@pytest.fixture
def cohort(make_cohort):
    return with_covariates(make_cohort(6))


def changed_kinds(everybody, /, **changes):
    """Kinds of input whose hash differs once the third patient is changed."""
    patients = list(everybody.patients)
    task = everybody.tasks["grade"]
    before = fingerprint_of(patients, modalities=ALL, task=task, column="site")
    patients[2] = replace(patients[2], **changes)
    after = fingerprint_of(patients, modalities=ALL, task=task, column="site")
    assert before.keys() == after.keys()
    return {kind for kind in before if before[kind] != after[kind]}


def test_a_change_of_one_kind_of_input_changes_its_hash_alone(cohort):
    third = cohort.patients[2]
    assert changed_kinds(cohort) == set()
    assert changed_kinds(cohort, patient_id="other") == {"patients"}
    assert changed_kinds(cohort, cohort="other") == {"patients"}
    assert changed_kinds(cohort, labels={"grade": "G9"}) == {"outcomes"}
    assert changed_kinds(cohort, time_days=third.time_days + 1) == set()  # of another task
    assert changed_kinds(cohort, expression=np.nextafter(third.expression, np.float32(9))) == {"expression"}
    assert changed_kinds(cohort, expression=None) == {"expression"}
    assert changed_kinds(cohort, slides=third.slides[::-1]) == {"slides"}


def test_what_a_model_reads_says_which_hashes_there_are(cohort):
    kinds = {
        modalities: set(fingerprint_of(cohort, modalities=modalities)) for modalities in (("slides",), ("expression",))
    }
    assert kinds == {("slides",): {"patients", "slides"}, ("expression",): {"patients", "expression", "covariates"}}
    assert set(fingerprint_of(cohort, modalities=())) == {"patients", "covariates"}
    older = [replace(p, covariates={**p.covariates, "age": "99"}) for p in cohort]
    first, second = (fingerprint_of(patients, modalities=ALL) for patients in (cohort, older))
    assert {kind for kind in first if first[kind] != second[kind]} == {"covariates"}


def test_patients_in_another_order_are_others(cohort):
    ahead, back = (fingerprint_of(patients, modalities=ALL) for patients in (cohort.patients, cohort.patients[::-1]))
    assert all(ahead[kind] != back[kind] for kind in ahead)


def test_features_that_are_written_anew_are_others_and_lost_ones_are_an_error(cohort):
    path = cohort.patients[2].slides[0]
    before = fingerprint_of(cohort, modalities=["slides"])
    slide = read_features(path)
    write_features(path, replace(slide, features=slide.features + np.float16(1)), tile_px=256)
    after = fingerprint_of(cohort, modalities=["slides"])
    assert before["patients"] == after["patients"]
    assert before["slides"] != after["slides"]
    path.write_bytes(b"no features")
    with pytest.raises(DataError, match=path.name):
        fingerprint_of(cohort, modalities=["slides"])

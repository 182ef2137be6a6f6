from dataclasses import replace

import h5py
import numpy as np
import pytest

from small_cohort import with_covariates
from subfuse.cohort.bags import BagReader, FeatureCache, InputStandardiser
from subfuse.cohort.covariates import WEIGHT
from subfuse.errors import DataError
from subfuse.features import store
from subfuse.features.store import write_features


@pytest.fixture
def cohort(make_cohort):
    return make_cohort(8)


def reader_of(cohort, patients=None):
    return BagReader(InputStandardiser.fit(patients or cohort.patients, cohort.genes, FeatureCache()))


def test_training_patches_and_genes_have_mean_zero_and_deviation_one(cohort):
    reader = reader_of(cohort)
    bags = [reader.read(patient) for patient in cohort]
    for values in (
        np.concatenate([b.patches for b in bags]),
        np.stack([b.expression for b in bags if b.expression is not None]),
    ):
        np.testing.assert_allclose(values.mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(axis=0), 1, atol=1e-5)


def test_the_standardiser_ignores_patients_it_is_not_given(cohort):
    some = cohort.patients[2:6]
    fitted = InputStandardiser.fit(some, cohort.genes, FeatureCache())
    np.testing.assert_array_equal(fitted.patches.mean, reader_of(cohort, some).standardiser.patches.mean)
    assert not np.allclose(fitted.patches.mean, reader_of(cohort).standardiser.patches.mean)


def test_slides_of_a_patient_stand_apart_and_keep_their_inner_distances(cohort):
    patient = cohort.patients[2]
    bag = reader_of(cohort).read(patient)
    first, second = (FeatureCache().read(path) for path in patient.slides)
    n = len(first.coords)
    left, right = bag.coords[:n], bag.coords[n:]
    pitch = 256 * 0.5
    assert right[:, 0].min() - left[:, 0].max() == pytest.approx(5 * pitch)
    np.testing.assert_allclose(np.diff(right, axis=0), np.diff(second.centres_um, axis=0), atol=1e-3)


def test_slides_are_left_out_when_training_had_none(cohort):
    without = [cohort.patients[0]]
    bag = reader_of(cohort, without).read(cohort.patients[3])
    assert len(bag.patches) == 0
    assert bag.expression is not None


def test_the_cache_stops_at_its_limit_but_still_reads(cohort):
    cache = FeatureCache(limit_bytes=1)
    path = cohort.patients[3].slides[0]
    assert cache.read(path) is not cache.read(path)
    unlimited = FeatureCache()
    assert unlimited.read(path) is unlimited.read(path)


def test_covariates_follow_the_genes_with_their_own_spread(make_cohort):
    cohort = with_covariates(make_cohort())
    fitted = InputStandardiser.fit(cohort.patients, cohort.genes, FeatureCache(), cohort.covariates)
    measured = [patient for patient in cohort if patient.expression is not None]
    profiles = np.stack([fitted.profile(patient) for patient in measured])

    ages = np.array([float(p.covariates["age"]) if "age" in p.covariates else np.nan for p in measured])
    expected = WEIGHT * (ages - np.nanmean(ages)) / np.nanstd(ages)
    np.testing.assert_allclose(profiles[:, 10], np.nan_to_num(expected), atol=1e-5)
    expression = np.stack([patient.expression for patient in measured])
    np.testing.assert_array_equal(profiles[:, :10], fitted.expression.transform(expression))
    assert fitted.profile(cohort.patients[1]) is None  # covariates are read beside expression only


def test_without_genes_the_covariates_are_read_where_any_is_known(make_cohort):
    cohort = with_covariates(make_cohort())
    fitted = InputStandardiser.fit(cohort.patients, (), FeatureCache(), cohort.covariates)
    assert [fitted.has_profile(patient) for patient in cohort.patients[:5]] == [True, True, True, False, True]
    assert fitted.profile(cohort.patients[4])[0] == 0  # unknown: that of the average patient


def test_features_that_changed_are_named_and_each_file_is_verified_once(make_cohort, monkeypatch):
    cohort = make_cohort(4)
    first, second = cohort.patients[1].slides[0], cohort.patients[3].slides[0]
    cache = FeatureCache(limit_bytes=0)
    cache.read(first)
    cache.read(second)
    monkeypatch.setattr(store, "require_content", None)  # would be called
    cache.read(first)
    monkeypatch.undo()
    with h5py.File(second, "a") as file:
        file["features"][0, 0] += 1
    with pytest.raises(DataError, match=rf"{second.name}.*Run `subfuse prepare` again"):
        FeatureCache().read(second)


def test_another_number_of_features_is_named(make_cohort, tmp_path):
    cache = FeatureCache()
    first = cache.read(make_cohort(4).patients[1].slides[0])
    write_features(
        tmp_path / "wide.h5", replace(first, features=np.zeros((len(first.coords), 9), np.float16)), tile_px=8
    )
    with pytest.raises(DataError, match=r"wide\.h5: 6 features per patch are required.*Found 9"):
        cache.read(tmp_path / "wide.h5")

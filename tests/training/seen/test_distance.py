"""Distances are those of the definition, and rank unseen patients as training patients were ranked."""

import numpy as np
import pytest

from subfuse.training.seen.distance import SeenRange


def drawn(n: int, *, seed: int = 0, n_inputs: int = 60, factors: int = 4) -> np.ndarray:
    loadings = np.random.default_rng(99).normal(size=(factors, n_inputs))
    random = np.random.default_rng(seed)
    return (random.normal(size=(n, factors)) @ loadings + random.normal(size=(n, n_inputs)) + 5).astype(np.float32)


def test_distances_are_those_of_principal_components():
    from sklearn.decomposition import TruncatedSVD

    trained, new = drawn(80), drawn(9, seed=1)
    found, _ = SeenRange.fit(trained)
    mean, scale = trained.mean(axis=0), trained.std(axis=0)
    known, values = (np.clip((x - mean) / scale, -3, 3) for x in (trained, new))
    svd = TruncatedSVD(len(found.directions), algorithm="arpack", random_state=0).fit(known)
    along = svd.transform(values)
    within = np.square(along) / (svd.singular_values_**2 / len(known))
    rest = np.square(values - svd.inverse_transform(along)).sum(axis=1)
    logs = np.log(np.stack([within.sum(axis=1), rest], axis=1) + 1e-3)
    np.testing.assert_allclose(found.excess(new), ((logs - found.centre) / found.spread).max(axis=1), rtol=1e-3)


def test_training_patients_lie_as_far_as_unseen_ones():
    trained, new = drawn(300), drawn(2000, seed=1)
    found, own = SeenRange.fit(trained)
    for share in (0.5, 0.8, 0.95):
        assert np.mean(found.excess(new) > np.quantile(own, share)) == pytest.approx(1 - share, abs=0.04)


def test_both_kinds_of_strangers_are_far():
    trained, new = drawn(300), drawn(50, seed=1)
    found, own = SeenRange.fit(trained)
    limit = np.quantile(own, 0.95)
    loadings = np.random.default_rng(99).normal(size=(4, 60))
    beside = np.random.default_rng(5).normal(size=60)
    assert np.mean(found.excess(new + 4 * loadings[0]) > limit) > 0.6  # extreme in what patients differ by
    assert np.mean(found.excess(new + 1.5 * beside) > limit) > 0.9  # in what they do not
    one, _ = SeenRange.fit(np.random.default_rng(0).normal(size=(200, 1)))
    assert (np.diff(one.excess(np.array([[0.5], [2.0], [4.0], [40.0]]))) > 0).all()


def test_it_is_of_no_single_patient_and_the_same_from_arrays():
    trained = drawn(40)
    found, _ = SeenRange.fit(trained)
    again = SeenRange.from_arrays(found.arrays())
    np.testing.assert_array_equal(again.excess(drawn(5, seed=2)), found.excess(drawn(5, seed=2)))
    assert len(found.directions) <= 40 / 5
    values = np.concatenate([part.ravel() for part in found.arrays().values()])
    assert not np.isin(trained.ravel(), values).any()
    arrays = found.arrays()
    for wrong in ({"scale": np.zeros(60, np.float32)}, {"mean": np.zeros(3, np.float32)}, {"centre": np.zeros(1)}):
        with pytest.raises(ValueError, match="what training saw must have"):
            SeenRange.from_arrays(arrays | wrong)
    with pytest.raises(ValueError, match="what training saw must be"):
        SeenRange.from_arrays({"mean": arrays["mean"]})

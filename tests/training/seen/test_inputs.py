"""Who is unlike the patients of training: shifts are seen, and held-out patients seldom called so."""

from dataclasses import replace

import numpy as np
import pytest

from subfuse.cohort.bags import FeatureCache, InputStandardiser
from subfuse.cohort.cohort import Patient
from subfuse.features.store import SlideFeatures, write_features
from subfuse.training.seen.inputs import EXPRESSION, FALSE_ALARMS, NUMBER, PATCHES, SeenInputs

BOTH = frozenset({"slides", "expression"})
N_GENES, N_FEATURES, N_TRAINED = 30, 12, 120


def drawn(folder, n: int, *, seed: int, offset: float = 0.0, n_patches: int = 1) -> list[Patient]:
    """Patients of log2 TPM and slides whose features follow a patient's own tissue; every tenth has no slide."""
    random, patients = np.random.default_rng(seed), []
    of_gene, of_feature = (np.random.default_rng(7).normal(size=size) for size in ((3, N_GENES), (2, N_FEATURES)))
    for i in range(n):
        paths = (folder / f"slide-{seed}-{i}.h5",)
        size = int(np.exp(random.normal(2.5, 0.4))) * n_patches + 2
        features = random.normal(size=(size, N_FEATURES)) + random.normal(size=2) @ of_feature + offset
        slide = SlideFeatures(
            features=features.astype(np.float32), coords=np.zeros((size, 2), np.int32), patch_size_level0=256,
            level0_mpp=0.5, target_mpp=0.5, encoder="fake", encoder_sha256="0" * 64, slide_width_px=9,
            slide_height_px=9,
        )  # fmt: skip
        write_features(paths[0], slide, tile_px=256)
        expression = 5 + random.normal(size=3) @ of_gene + 0.5 * random.normal(size=N_GENES)
        patients.append(
            Patient(f"P{i}", "c", slides=() if i % 10 == 0 else paths, expression=expression.astype(np.float32))
        )
    return patients


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    patients = drawn(folder, N_TRAINED, seed=0)
    standardiser = InputStandardiser.fit(patients, [f"G{i}" for i in range(N_GENES)], FeatureCache())
    return folder, patients, standardiser, SeenInputs.fit(patients, standardiser, BOTH)


def share(trained, patients, name: str | None = None) -> float:
    _, _, standardiser, seen = trained
    return float(np.mean([bool(found) if name is None else name in found
                          for found in seen.unlike(patients, standardiser)]))  # fmt: skip


def test_held_out_patients_are_called_unlike_about_as_often_as_stated(trained):
    assert 0 < share(trained, drawn(trained[0], 200, seed=1)) < FALSE_ALARMS + 3 * (FALSE_ALARMS / 120) ** 0.5


def test_another_scanner_shifts_all_features(trained):
    assert share(trained, drawn(trained[0], 20, seed=2, offset=1.5), PATCHES) >= 0.85  # of those with slides


def test_many_more_patches_are_seen(trained):
    found = share(trained, drawn(trained[0], 20, seed=3, n_patches=40), NUMBER)
    assert found >= 0.85


def changed(trained, how) -> float:
    new = [replace(p, expression=how(p.expression.astype(float)).astype(np.float32), slides=())
           for p in drawn(trained[0], 20, seed=4)]  # fmt: skip
    return share(trained, new, EXPRESSION)


def test_another_unit_is_seen(trained):
    assert changed(trained, lambda log: np.exp2(log) - 1) > 0.9  # TPM
    assert changed(trained, lambda log: (np.exp2(log) - 1) * 37) == 1.0  # counts
    assert changed(trained, lambda log: (log - 5) / 2) == 1.0  # z-scores


def test_another_population_is_seen(trained):
    other = np.random.default_rng(11).normal(size=N_GENES)
    assert changed(trained, lambda log: log + 2 * other) > 0.9
    assert changed(trained, lambda log: log + 0.01 * other) < 0.2


def test_it_is_the_same_from_arrays_and_names_no_patient(trained):
    folder, patients, standardiser, seen = trained
    again = SeenInputs.from_arrays(seen.arrays())
    new = drawn(folder, 30, seed=5, offset=0.5)
    assert again.unlike(new, standardiser) == seen.unlike(new, standardiser)
    values = np.concatenate([part.ravel() for part in seen.arrays().values()])
    assert not np.isin(np.concatenate([p.expression for p in patients]), values).any()
    assert SeenInputs.from_arrays({}) is None
    with pytest.raises(ValueError, match="what training saw must have a limit"):
        SeenInputs.from_arrays({"limit": np.zeros(2)})


def test_too_few_patients_are_no_range(trained):
    _, patients, standardiser, _ = trained
    assert SeenInputs.fit(patients[:19], standardiser, BOTH) is None
    few_slides = [replace(p, slides=p.slides if i < 15 else ()) for i, p in enumerate(patients)]
    assert set(SeenInputs.fit(few_slides, standardiser, BOTH).ranges) == {EXPRESSION}
    assert set(SeenInputs.fit(patients, standardiser, {"slides"}).ranges) == {PATCHES, NUMBER}

"""Simulated patients: shares of outcomes, and what an ideal model could know of them."""

import numpy as np
import pytest
from lifelines.utils import concordance_index
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from subfuse.simulation.patients import DIAGNOSES, draw_patients, view_strength


@pytest.mark.parametrize("seed", range(5))
def test_small_cohorts_can_be_stratified(seed):
    patients = draw_patients(40, visibility=0.6, generator=np.random.default_rng(seed))

    assert np.bincount(patients.diagnosis, minlength=3).min() >= 8
    assert np.bincount(patients.grade)[2:].min() >= 8
    assert (~patients.event).mean() == pytest.approx(0.40, abs=0.03)
    assert patients.time_days.min() >= 1
    assert (patients.grade[patients.diagnosis == DIAGNOSES.index("Glioblastoma")] == 4).all()
    assert (patients.grade[patients.diagnosis == DIAGNOSES.index("Oligodendroglioma")] < 4).all()


def posterior_terms(patients, visibility: float, modalities: list[int]) -> np.ndarray:
    """Expected t, m and tm given what some modalities show: what an ideal model could know."""
    share = view_strength(visibility)[modalities].ravel()
    design = np.sqrt(share)[:, None] * np.tile(np.eye(2), (len(modalities), 1))
    prior = np.array([[1.0, 0.1], [0.1, 1.0]])
    gain = prior @ design.T @ np.linalg.pinv(design @ prior @ design.T + np.diag(1.0 - share))
    mean = patients.views[:, modalities].reshape(len(patients.latents), -1) @ gain.T
    return np.column_stack([mean, mean[:, 0] * mean[:, 1]])


def oracle_gap(visibility: float) -> tuple[float, float, float]:
    """Gain of both modalities over the better one: AUC of diagnosis and of grade, concordance of survival."""
    patients = draw_patients(3000, visibility=visibility, generator=np.random.default_rng(0))
    scores = []
    for modalities in ([0], [1], [0, 1]):
        terms = posterior_terms(patients, visibility, modalities)
        row = []
        for label in (patients.diagnosis, patients.grade):
            model = LogisticRegression().fit(terms[:1500], label[:1500])
            row.append(roc_auc_score(label[1500:], model.predict_proba(terms[1500:]), multi_class="ovr"))
        severity = terms @ np.array([1.0, 1.0, 0.5])
        scores.append([*row, concordance_index(patients.time_days, -severity, patients.event)])
    slide, expression, both = scores
    return tuple(b - max(s, e) for s, e, b in zip(slide, expression, both, strict=True))


def test_two_modalities_know_more_than_either_between_the_extremes():
    nothing, default, everything = (oracle_gap(visibility) for visibility in (0.0, 0.6, 1.0))

    assert max(np.abs(nothing)) < 0.03
    assert min(default) >= 0.055
    assert max(np.abs(everything)) < 0.005

"""Drawn outcomes with predictions of them: survival with ties, and classes."""

import numpy as np

EVENT, CENSORED = True, False


def survival_cohort(n: int, seed: int, *, grid: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times in days, events and informative risks; a coarser grid (days) gives more tied times and risks."""
    generator = np.random.default_rng(seed)
    risk = np.round(generator.normal(size=n), 1)
    survival_time, censoring_time = generator.exponential(1200 * np.exp(-risk)), generator.uniform(0, 4000, n)
    time_days = np.ceil(np.minimum(survival_time, censoring_time) / grid) * grid
    return time_days, survival_time <= censoring_time, risk


def class_cohort(n: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    label = generator.integers(n_classes, size=n)
    logits = generator.normal(size=(n, n_classes)) + np.eye(n_classes)[label]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return label, np.round(probabilities, 3) / np.round(probabilities, 3).sum(axis=1, keepdims=True)

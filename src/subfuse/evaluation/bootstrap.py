"""Bootstrap over patients: the same draws for every model, metric and repeat; intervals and p-values from them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.evaluation.predictions import FOLD, PATIENT
from subfuse.evaluation.ranked_patients import RankedPatients

_PAIRS_AT_ONCE = 5  # tests that a number of replicates is meant for; larger families take more
_NOTABLE_SHARE = 0.05  # of resampled folds that are undefined: then the reason says so


@dataclass(frozen=True)
class BootstrapWeights:
    """How often each patient is drawn in each replicate; the same draws serve every model, metric and repeat."""

    patients: pd.MultiIndex  # cohort, patient_id
    weights: Float[np.ndarray, "replicate patient"]

    @classmethod
    def draw(cls, tested: pd.DataFrame, n_bootstrap: int, generator: np.random.Generator) -> "BootstrapWeights":
        """Draws patients with replacement within the fold that tests them first.

        A patient who is tested by several folds or repeats is drawn equally often in each, so repeating the
        cross-validation does not pretend to more patients.

        Raises:
            ValueError: Fewer than one replicate.
        """
        if n_bootstrap < 1:
            raise ValueError(f"n_bootstrap must be one or more. Found {n_bootstrap}.")
        first = tested.sort_values(FOLD, kind="stable").drop_duplicates(PATIENT)
        sizes = first.groupby(FOLD).size()
        drawn = [generator.multinomial(size, np.full(size, 1 / size), size=n_bootstrap) for size in sizes]
        return cls(pd.MultiIndex.from_frame(first[PATIENT]), np.concatenate(drawn, axis=1).astype(np.float64))

    def of(self, group: RankedPatients) -> Float[np.ndarray, "replicate patient"]:
        """Returns the weights of a group's patients in its order."""
        return self.weights[:, self.patients.get_indexer(group.patients)]

    def after_ones(self, patients: pd.MultiIndex) -> Float[np.ndarray, "weighting patient"]:
        """Returns weights of one, for the value itself, then those of the replicates, in the order of the patients."""
        return np.vstack([np.ones(len(patients)), self.weights[:, self.patients.get_indexer(patients)]])


def percentile_interval(
    replicates: Sequence[Float[np.ndarray, " replicate"]], *, centre: float | None = None
) -> tuple[float, float, str | None]:
    """Returns the 95 % percentile interval of the mean over folds, and a note on undefined replicates.

    With a centre, the interval is moved by the difference between it and the replicates' mean, but not below zero.
    """
    if not replicates:
        return np.nan, np.nan, None
    mean, share_undefined = mean_over_folds(replicates)
    if np.isnan(mean).mean() > 0.5:
        return np.nan, np.nan, "no interval: undefined in most bootstrap replicates"
    lower, upper = np.nanquantile(mean, [0.025, 0.975])
    if centre is not None:
        lower, upper = np.maximum(np.array([lower, upper]) + centre - np.nanmean(mean), 0.0)
    note = f"{share_undefined:.0%} of the resamples are undefined and left out of the interval"
    return float(lower), float(upper), note if share_undefined >= _NOTABLE_SHARE else None


def mean_over_folds(
    replicates: Sequence[Float[np.ndarray, " replicate"]],
) -> tuple[Float[np.ndarray, " replicate"], float]:
    """Returns each replicate's mean over its defined folds, NaN if there is none, and the share that is undefined."""
    values = np.stack(replicates)  # (fold, replicate)
    undefined = np.isnan(values)
    n_defined = (~undefined).sum(axis=0)
    mean = np.divide(np.nansum(values, axis=0), n_defined, out=np.full(len(n_defined), np.nan), where=n_defined > 0)
    return mean, float(undefined.mean())


def bootstrap_p_value(difference: Float[np.ndarray, " replicate"]) -> float:
    """Returns twice the smaller share of replicates on either side of zero, each counted with one added."""
    difference = difference[~np.isnan(difference)]
    smaller = min((difference <= 0).sum(), (difference >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(difference) + 1)))


def replicates_of_family(n_tests: int, n_bootstrap: int) -> int:
    """Returns how many replicates a family of tests takes, in proportion to its size beyond five.

    The smallest p-value of a bootstrap is 2 / (replicates + 1), and the first step of Holm multiplies it by the number
    of tests. So the smallest adjusted p-value of a large family stays that of five: below 0.01 with 1000 replicates.

    Example:
        >>> replicates_of_family(3, 1000), replicates_of_family(45, 1000)
        (1000, 9000)
    """
    return -(-n_bootstrap * max(n_tests, _PAIRS_AT_ONCE) // _PAIRS_AT_ONCE)

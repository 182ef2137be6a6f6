"""Normal scores of expression: an idea that `small_cohorts.py` measures, and that is no default."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from subfuse.expression.table import ExpressionStandardiser

_MOST, _FEW, _PATIENTS = 32, 8, 3  # knots of a gene: at most, and of a few patients; else so many patients for each
_CONSTANT = 1e-6  # spread within rounding, in units of the value


@dataclass(frozen=True)
class NormalScores(ExpressionStandardiser):
    """Where a value lies among those of the training patients, as a quantile of the normal distribution.

    Sorted training values of a gene are divided into up to 32 equal parts; the mean of each part is a knot, whose score
    is the normal quantile of the middle of the part (van der Waerden 1952). Scores are linear between knots and
    constant beyond them.
    """

    knots: np.ndarray = field(default_factory=lambda: np.zeros((1, 1)))

    @classmethod
    def fit(cls, values: np.ndarray, genes: Sequence[str]) -> "NormalScores":
        """Fits on training patients."""
        plain = ExpressionStandardiser.fit(values, genes)
        parts = np.array_split(np.sort(values, axis=0), min(len(values), _MOST, max(_FEW, len(values) // _PATIENTS)))
        knots = np.stack([part.mean(axis=0, dtype=np.float64) for part in parts]).astype(np.float32)
        return cls(plain.genes, plain.mean, plain.scale, knots)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Returns scores; a value that several knots share, such as 0, has the score of their middle."""
        n_knots = len(self.knots)
        scores = ndtri((np.arange(n_knots) + 0.5) / n_knots)
        x = np.asarray(values, dtype=np.float32)
        below, up_to = (compare(self.knots, x[..., None, :]).sum(axis=-2) for compare in (np.less, np.less_equal))
        lower, upper = np.maximum(up_to - 1, 0), np.minimum(below, n_knots - 1)
        gene = np.arange(self.knots.shape[1])
        low, high = self.knots[lower, gene], self.knots[upper, gene]
        share = np.divide(x - low, high - low, out=np.zeros_like(x), where=high > low)
        between = scores[lower] + share * (scores[upper] - scores[lower])
        shared = ndtri((below + up_to) / 2 / n_knots)  # of a value that is a knot
        found = np.where(up_to > below, shared, between)
        spread, size = self.knots[-1] - self.knots[0], np.abs(self.knots).mean(axis=0)
        return np.where(spread <= _CONSTANT * np.maximum(size, _CONSTANT), 0.0, found).astype(np.float32)

"""DeLong's variance of the AUC of two classes, for folds, repeats and paired models alike.

DeLong's variance is a sum over patients of squared influences. Kept per patient, the influences of several folds and
repeats add up patient by patient, so a patient who is tested ten times still counts as one patient, and two models'
influences subtract, which is the covariance of the paired test.

References:
    DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44: 837-845.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.evaluation.weighted_metrics import wins

_Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True)
class BinaryAuc:
    """An AUC, or a difference of two, with the influence of every patient; their squares sum to its variance."""

    value: float
    influence: pd.Series  # index: patient

    @property
    def variance(self) -> float:
        """DeLong's variance."""
        return float(np.square(self.influence).sum())

    @property
    def interval(self) -> tuple[float, float]:
        """The normal 95 % interval; that of one AUC is cut at 0 and 1 by the caller."""
        half = _Z_95 * self.variance**0.5
        return self.value - half, self.value + half

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the value being 0; NaN without any variance."""
        from scipy.special import ndtr

        return float(2 * ndtr(-abs(self.value) / self.variance**0.5)) if self.variance > 0 else np.nan

    def minus(self, other: "BinaryAuc") -> "BinaryAuc":
        """Returns the difference to another model's AUC on the same patients."""
        return BinaryAuc(self.value - other.value, self.influence.sub(other.influence, fill_value=0.0))


def binary_auc(
    is_case: Bool[np.ndarray, " patient"], score: Float[np.ndarray, " patient"], patients: pd.Index
) -> BinaryAuc:
    r"""Returns the AUC of one group of patients; tied scores count one half.

    With :math:`m` cases and :math:`n` controls, a case's component :math:`V_{10}` is the share of controls below it,
    and :math:`\mathrm{Var} = S_{10}/m + S_{01}/n` with the components' sample variances. A case's influence is thus
    :math:`(V_{10} - \mathrm{AUC}) / \sqrt{m (m - 1)}`, a control's likewise with the opposite sign.

    Args:
        is_case: True for patients of the class that high scores stand for.
        score: Predicted score.
        patients: Names of the patients.

    Raises:
        ValueError: Fewer than two cases or controls: the variance is undefined.
    """
    if min(is_case.sum(), (~is_case).sum()) < 2:
        raise ValueError(
            f"DeLong's variance needs two cases and two controls. Found {is_case.sum()} and {(~is_case).sum()}."
        )
    won = wins(score[is_case, None] - score[~is_case])  # (case, control)
    value = float(won.mean())
    n_cases, n_controls = won.shape
    influence = np.empty(len(score))
    influence[is_case] = (won.mean(axis=1) - value) / (n_cases * (n_cases - 1)) ** 0.5
    influence[~is_case] = (won.mean(axis=0) - value) / (n_controls * (n_controls - 1)) ** 0.5
    return BinaryAuc(value, pd.Series(influence, index=patients))


def mean_auc(aucs: Sequence[BinaryAuc]) -> BinaryAuc:
    """Returns the mean over folds and repeats; a patient's influences are added before they are squared."""
    influence = pd.concat([auc.influence for auc in aucs])
    levels = list(range(influence.index.nlevels))
    return BinaryAuc(
        float(np.mean([auc.value for auc in aucs])), influence.groupby(level=levels, sort=False).sum() / len(aucs)
    )

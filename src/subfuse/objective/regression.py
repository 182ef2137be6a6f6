"""Regression: squared or Huber error of a standardised number."""

from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from subfuse.cohort.batches import NumberTarget, SurvivalTarget, Target
from subfuse.evaluation.regression.columns import PREDICTED_VALUE
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.losses import DEFAULT_CONSISTENCY, Consistency
from subfuse.objective.objective import Objective, Prediction, UnfittableObjectiveError, Values
from subfuse.objective.ranking import concordance, rank_correlation

HUBER = 1.345  # standard deviations: 95 % efficient where errors are normal (Huber 1964; Holland and Welsch 1977)
Error = Literal["squared", "huber"]


class RegressionObjective(Objective):
    r"""A number: the single logit is its distance from the training patients' mean, in their standard deviations.

    The loss is :math:`\frac12 r^2` of the residual :math:`r`, or Huber's, which grows linearly beyond 1.345. A
    subspace's confidence is the concordance of its own share with the number within the batch: of two patients, how
    often the one with the higher number has the higher share.

    Relative to the paper: it has no regression; confidence is what it is for survival, where everybody has an event.

    Args:
        mean: Of the training patients.
        scale: Their standard deviation, above 0.
        error: Which loss.
        consistency: The gene-guided consistency loss.
    """

    name = "regression"
    predicts = "regression"
    ranking_metric = "spearman"
    mean: Float[Tensor, ""]  # fitted
    scale: Float[Tensor, ""]  # fitted

    def __init__(
        self,
        mean: float,
        scale: float,
        *,
        error: Error = "squared",
        consistency: Consistency = DEFAULT_CONSISTENCY,
    ) -> None:
        super().__init__(consistency)
        if not np.isfinite([mean, scale]).all() or scale <= 0 or error not in get_args(Error):
            raise ValueError(
                f"mean must be a number, scale one above 0, error squared or huber. Found {mean}, {scale}, {error!r}."
            )
        self.error = error
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    @classmethod
    def fit(
        cls, values: Values, *, error: Error = "squared", consistency: Consistency = DEFAULT_CONSISTENCY
    ) -> "RegressionObjective":
        """Returns the objective with mean and standard deviation of the training patients' numbers.

        Raises:
            UnfittableObjectiveError: All have the same number.
        """
        known = np.asarray(values, dtype=np.float64)
        if len(known) == 0 or np.ptp(known) == 0:
            raise UnfittableObjectiveError(
                f"training patients must differ in the number that is learnt. Found "
                f"{f'{known[0]:g} for all {len(known)}' if len(known) else 'none'}. Use fewer folds, or leave the task "
                "out."
            )
        return cls(float(known.mean()), float(known.std()), error=error, consistency=consistency)

    @property
    def n_outputs(self) -> int:
        """One: the standardised number."""
        return 1

    @property
    def columns(self) -> list[str]:
        """The predicted number, in its own unit."""
        return [PREDICTED_VALUE]

    def as_logits(self, target: Target) -> NumberTarget:
        """Returns the numbers as distances from the training mean in standard deviations, as logits are."""
        assert isinstance(target, NumberTarget)
        return NumberTarget((target.value - self.mean) / self.scale)

    def task_loss(self, logits: Float[Tensor, "batch output"], target: Target) -> Float[Tensor, ""]:
        """Returns the mean over the patients."""
        wanted = self.as_logits(target).value.to(logits)
        if self.error == "huber":
            return functional.huber_loss(logits[:, 0], wanted, delta=HUBER)
        return functional.mse_loss(logits[:, 0], wanted) / 2

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns the number in its own unit."""
        return Prediction(value=self.mean + self.scale * logits[:, 0])

    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns the concordance of each subspace's share with the number; see `Objective.confidence`."""
        assert isinstance(target, NumberTarget)
        # high numbers first: like early events, which everybody has
        in_order = SurvivalTarget(-target.value, torch.ones_like(target.value, dtype=torch.bool))
        return concordance(output.subspace_logits.detach()[..., 0], in_order)

    def ranking(self, logits: Float[Tensor, "batch output"], target: Target) -> float:
        """Returns Spearman's correlation of predicted and measured numbers."""
        assert isinstance(target, NumberTarget)
        return rank_correlation(logits[:, 0], target.value)

    def distance(
        self,
        logits: Float[Tensor, "batch output"],
        taught: Float[Tensor, "batch output"],
        *,
        temperature: float = 1.0,
    ) -> Float[Tensor, " batch"]:
        """Returns half the squared difference in standard deviations; there is no temperature."""
        return (logits - taught)[:, 0].square() / 2

    def score_weights(self, logits: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
        """Returns the scale: contributions have the unit of the number, and add up to its distance from the mean."""
        return torch.full_like(logits, float(self.scale))

    def explained(self, logits: Float[Tensor, " output"]) -> str:
        """Returns `predicted_value`."""
        return PREDICTED_VALUE

    def _fitted(self) -> dict[str, Any]:
        return {"mean": self.mean.item(), "scale": self.scale.item(), "error": self.error}

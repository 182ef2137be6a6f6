"""What is explained of a prediction: one number per patient, shared between the subspaces."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from subfuse.cohort.batches import BagBatch
from subfuse.evaluation.regression.columns import PREDICTED_VALUE
from subfuse.explanation.attribution import TOLERANCE, Attribution, Score, contribution_ledger, converged_gradients
from subfuse.explanation.projection import ProjectedModel, project_patches
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.survival import RISK
from subfuse.training.fitted_model import FittedModel

_SAME_FOR_ALL = {(RISK,): "the hazard", (PREDICTED_VALUE,): "the predicted value"}
_PATCHES_AT_ONCE = 4096  # patches in a pass through the model: bounds memory, and keeps small bags quick


@dataclass(frozen=True)
class ExplainedScore:
    """A fixed linear function of one patient's logits; see `Objective.score_weights`.

    The weights are those of the patient's own prediction and stay while the input changes, so that the class that is
    explained does not switch along a path from a baseline.
    """

    explained: str  # `risk`, `predicted_value`, or a class
    weights: Float[Tensor, " output"]

    @property
    def name(self) -> str:
        """What is explained, in words."""
        return score_name(self.explained)

    def of_logits(self, logits: Float[Tensor, "batch output"]) -> Float[Tensor, " batch"]:
        """Returns the score."""
        return logits @ self.weights

    def of_subspaces(self, output: SubspaceFusionOutput) -> Float[Tensor, "batch subspace"]:
        """Returns each subspace's share; they add up to the score."""
        return output.subspace_logits @ self.weights

    def share_of(self, subspace: int) -> Score:
        """Returns the function that gives one subspace's share."""
        return lambda output: output.subspace_logits[:, subspace] @ self.weights


def score_name(*explained: str) -> str:
    """Returns in words what contributions add up to, given what is explained of one or several patients.

    Example:
        >>> score_name("risk"), score_name("predicted_value"), score_name("G4"), score_name("G4", "G2")
        ('the hazard', 'the predicted value', 'the score of G4', 'the score of the predicted class')
    """
    if explained in _SAME_FOR_ALL:
        return _SAME_FOR_ALL[explained]
    return f"the score of {explained[0]}" if len(explained) == 1 else "the score of the predicted class"


def explained_score(fitted: FittedModel, batch: BagBatch) -> ExplainedScore:
    """Returns what is explained of the one patient of a batch; see `Objective.explained`."""
    if len(batch.patient_id) != 1:
        raise ValueError(f"batch must hold one patient. Found {len(batch.patient_id)}.")
    with torch.inference_mode():
        logits = fitted.model(**batch.inputs()).logits.cpu()
    weights = fitted.objective.score_weights(logits)[0].clone()
    return ExplainedScore(fitted.objective.explained(logits[0]), weights.to(fitted.device))


def attribute_subspaces(
    fitted: FittedModel,
    batch: BagBatch,
    score: ExplainedScore,
    *,
    tolerance: float = TOLERANCE,
    parts: Sequence[ProjectedModel] | None = None,
) -> dict[str, Attribution]:
    """Returns what each patch and gene adds to every subspace's share of the score of one patient.

    Args:
        fitted: The trained model.
        batch: One patient.
        score: What is explained.
        tolerance: Largest relative gap; see `converged_gradients`.
        parts: From `subspace_parts`; those of the trained model by default.
    """
    parts, chunk = subspace_parts(fitted) if parts is None else parts, points_at_once(batch)
    return {
        name: converged_gradients(
            part.model, part.project(batch), score.share_of(part.place_of(index)), tolerance=tolerance, chunk=chunk
        )
        for (index, name), part in zip(enumerate(fitted.subspaces), parts, strict=True)
    }


def ledger_of(fitted: FittedModel, model: nn.Module, batch: BagBatch, score: ExplainedScore) -> pd.DataFrame:
    """Returns the `contribution_ledger` of a score; the model is the fitted one, or what is evaluated in its stead."""
    return contribution_ledger(
        model,
        batch,
        score.of_logits,
        baseline=fitted.baseline_logits.to(fitted.device),
        subspaces=fitted.subspaces,
        modalities=fitted.recipe.modalities,
    )


def subspace_parts(fitted: FittedModel, model: nn.Module | None = None) -> list[ProjectedModel]:
    """Returns what is evaluated to explain each subspace's share, for all patients of a model."""
    model = fitted.model if model is None else model
    return [project_patches(model, [index]) for index in range(len(fitted.subspaces))]


def points_at_once(batch: BagBatch) -> int:
    """Returns how many copies of a batch go through the model together, 1 to 32."""
    return min(32, max(1, _PATCHES_AT_ONCE // max(1, batch.patch_mask.numel())))

"""Classification: cross-entropy of classes, ordered or not."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from subfuse.cohort.batches import ClassTarget, Target
from subfuse.errors import preview
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.losses import DEFAULT_CONSISTENCY, Consistency, class_divergence
from subfuse.objective.objective import Objective, Prediction, UnfittableObjectiveError, Values, mean_weights
from subfuse.objective.ranking import macro_auc


class ClassificationObjective(Objective):
    """Cross-entropy with class weights; also for ordered classes such as grade, which have no risk here.

    The loss of a batch is the mean weighted by the patients' class weights. A subspace's confidence is the sum over
    patients of the probability it gives to the true class.

    Relative to the paper: class weights are fitted on training patients instead of being constants.

    Args:
        classes: Names of the classes in the order of the logits.
        class_weights: One positive number per class; equal if None.
        consistency: The gene-guided consistency loss.
    """

    name = "classification"
    predicts = "classes"
    ranking_metric = "auc"
    class_weights: Float[Tensor, " output"]  # fitted

    def __init__(
        self,
        classes: Sequence[str],
        class_weights: Values | None = None,
        *,
        consistency: Consistency = DEFAULT_CONSISTENCY,
    ) -> None:
        super().__init__(consistency)
        weights = np.asarray(np.ones(len(classes)) if class_weights is None else class_weights, dtype=np.float32)
        if len(classes) < 2 or weights.shape != (len(classes),) or not (weights > 0).all():
            raise ValueError(
                "classes must name at least two classes with one positive class weight each. "
                f"Found {len(classes)} classes ({preview(classes)}) with weights {weights.tolist()}."
            )
        self.classes = tuple(classes)
        self.register_buffer("class_weights", torch.from_numpy(weights))

    @classmethod
    def fit(
        cls,
        labels: Values,
        *,
        classes: Sequence[str],
        consistency: Consistency = DEFAULT_CONSISTENCY,
    ) -> "ClassificationObjective":
        """Returns the objective with weights inversely proportional to class frequency.

        Weights are patients / (classes × patients of the class): their mean over the training patients is 1. A class
        without a training patient is weighted as if it had one: it cannot be learnt.

        Args:
            labels: Class index of every training patient.
            classes: Names of the classes.
            consistency: The gene-guided consistency loss.
        """
        count = np.bincount(np.asarray(labels, dtype=int), minlength=len(classes))
        if len(count) > len(classes) or count.sum() == 0:
            raise UnfittableObjectiveError(
                f"labels must be indices of the {len(classes)} classes {preview(classes)} of at least one training "
                f"patient. Found {count.sum()} labels up to {len(count) - 1}. Check the classes of the task."
            )
        weights = count.sum() / (len(classes) * np.maximum(count, 1))
        return cls(classes, weights, consistency=consistency)

    @property
    def n_outputs(self) -> int:
        """One logit per class."""
        return len(self.classes)

    @property
    def columns(self) -> list[str]:
        """One probability per class."""
        return [f"p_{name}" for name in self.classes]

    def task_loss(self, logits: Float[Tensor, "batch output"], target: Target) -> Float[Tensor, ""]:
        """Returns the weighted cross-entropy."""
        assert isinstance(target, ClassTarget)
        return functional.cross_entropy(logits, target.label.long(), weight=self.class_weights)

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns class probabilities."""
        return Prediction(probabilities=logits.softmax(dim=-1))

    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns the summed probability of the true classes; see `Objective.confidence`."""
        assert isinstance(target, ClassTarget)
        probabilities = output.subspace_logits.detach().softmax(dim=-1)  # batch subspace output
        patients = torch.arange(len(target.label), device=target.label.device)
        return probabilities[patients, :, target.label.long()].sum(dim=0)

    def ranking(self, logits: Float[Tensor, "batch output"], target: Target) -> float:
        """Returns the macro AUC; see `macro_auc`."""
        assert isinstance(target, ClassTarget)
        return macro_auc(logits.softmax(dim=-1).double().cpu().numpy(), target.label.cpu().numpy())

    def distance(
        self,
        logits: Float[Tensor, "batch output"],
        taught: Float[Tensor, "batch output"],
        *,
        temperature: float = 1.0,
    ) -> Float[Tensor, " batch"]:
        """Returns the divergence of the softened class probabilities, see `class_divergence`."""
        return class_divergence(logits, taught, temperature=temperature)

    def score_weights(self, logits: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
        """Returns the weights of the predicted class's logit minus the mean logit."""
        return functional.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits) - mean_weights(logits)

    def explained(self, logits: Float[Tensor, " output"]) -> str:
        """Returns the predicted class."""
        return self.classes[int(logits.argmax())]

    def _fitted(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "class_weights": self.class_weights.tolist()}

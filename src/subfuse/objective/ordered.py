"""Ordered classes by cumulative logits: proportional odds, where distances between classes are alike for all."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from subfuse.cohort.batches import ClassTarget, Target
from subfuse.model.fixed_order import running_sum
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.classification import ClassificationObjective
from subfuse.objective.losses import class_divergence
from subfuse.objective.objective import Prediction
from subfuse.objective.ranking import macro_auc


class CumulativeLogitObjective(ClassificationObjective):
    r"""Likelihood of cumulative logits (McCullagh 1980), with class weights as for classes without an order.

    Of :math:`K` classes, logit 1 is the log odds of a class above the lowest, :math:`\ell_1`; every further one,
    :math:`o_k`, says by how much those of a class above the next are lower,
    :math:`\ell_k = \ell_{k-1} - \log(1 + e^{o_k})`. So no class has a negative probability. Where only logit 1 differs
    between patients, these are proportional odds. A subspace's confidence is the sum over patients of the probability
    that its share of the logits gives to the true class.

    Relative to the paper: an alternative to its cross-entropy, which knows no order.
    """

    name = "cumulative_logits"

    @property
    def n_outputs(self) -> int:
        """One less than classes."""
        return len(self.classes) - 1

    def task_loss(self, logits: Float[Tensor, "batch output"], target: Target) -> Float[Tensor, ""]:
        """Returns the negative log-likelihood, the mean weighted by the class weights."""
        assert isinstance(target, ClassTarget)
        return functional.nll_loss(log_probabilities(logits), target.label.long(), weight=self.class_weights.to(logits))

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns class probabilities."""
        return Prediction(probabilities=log_probabilities(logits).softmax(dim=-1))

    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns the summed probability of the true classes; see `Objective.confidence`."""
        assert isinstance(target, ClassTarget)
        probabilities = log_probabilities(output.subspace_logits.detach()).exp()  # batch subspace class
        patients = torch.arange(len(target.label), device=target.label.device)
        return probabilities[patients, :, target.label.long()].sum(dim=0)

    def ranking(self, logits: Float[Tensor, "batch output"], target: Target) -> float:
        """Returns the macro AUC; see `macro_auc`."""
        assert isinstance(target, ClassTarget)
        probabilities = log_probabilities(logits.double()).softmax(dim=-1)
        return macro_auc(probabilities.cpu().numpy(), target.label.cpu().numpy())

    def distance(
        self,
        logits: Float[Tensor, "batch output"],
        taught: Float[Tensor, "batch output"],
        *,
        temperature: float = 1.0,
    ) -> Float[Tensor, " batch"]:
        """Returns the divergence of the softened class probabilities, see `class_divergence`."""
        return class_divergence(log_probabilities(logits), log_probabilities(taught), temperature=temperature)

    def score_weights(self, logits: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
        """Returns the weights of logit 1, which grows with the class."""
        return functional.one_hot(torch.zeros(len(logits), dtype=torch.long), logits.shape[1]).to(logits)

    def explained(self, logits: Float[Tensor, " output"]) -> str:
        """Returns the highest class, which a higher score speaks for, whichever is predicted."""
        return self.classes[-1]


def log_probabilities(logits: Float[Tensor, "*axes output"]) -> Float[Tensor, "*axes class"]:
    r"""Returns log probabilities of the classes, one more than logits; see `CumulativeLogitObjective`.

    They are exact also where a class is very improbable, since
    :math:`\sigma(a) - \sigma(b) = \sigma(a)\,\sigma(-b)\,(1 - e^{b - a})`, and :math:`1 - e^{b - a} = \sigma(o)` where
    :math:`a - b = \log(1 + e^o)`.
    """
    lowered = torch.cat([torch.zeros_like(logits[..., :1]), functional.softplus(logits[..., 1:])], dim=-1)
    above = logits[..., :1] - running_sum(lowered)  # log odds of a class above each but the highest
    nothing = torch.zeros_like(logits[..., :1])  # everybody is above none, and nobody above all
    return (
        torch.cat([nothing, functional.logsigmoid(above)], dim=-1)
        + torch.cat([functional.logsigmoid(-above), nothing], dim=-1)
        + torch.cat([nothing, functional.logsigmoid(logits[..., 1:]), nothing], dim=-1)
    )

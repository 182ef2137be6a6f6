"""Losses as functions of tensors: survival likelihoods and the gene-guided consistency of sampling positions."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from subfuse.model.fixed_order import running_sum

# Squared grid units: centred positions below this differ by rounding only and must not be scaled up to length 1
_SAME_POSITIONS = 1e-6


def discrete_hazard_nll(
    logits: Float[Tensor, "batch bin"],
    bin_index: Int[Tensor, " batch"],
    event: Bool[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    r"""Returns the negative log-likelihood of right-censored times under discrete hazards.

    With hazard :math:`h_k = \sigma(\text{logits}_k)`, a patient with an event in bin :math:`k` contributes
    :math:`-\log h_k - \sum_{j<k} \log(1 - h_j)`; a censored patient is taken to have survived bin :math:`k`
    and contributes :math:`-\sum_{j \le k} \log(1 - h_j)`.

    Computed from log-sigmoids, so extreme logits do not overflow.

    Args:
        logits: Unnormalised hazards per time bin.
        bin_index: Bin of the event or of last contact, from edges fitted on training patients.
        event: True where the event was observed.

    Returns:
        One value per patient; the caller chooses the reduction.

    Relative to Zadeh and Schmid (2020), "Bias in cross-entropy-based training of deep survival networks": their
    weight on uncensored patients is not applied. Relative to the released code of the paper: hazards are not clamped.

    Example:
        >>> discrete_hazard_nll(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([True]))
        tensor([1.3863])
    """
    bins = torch.arange(logits.shape[1], device=logits.device)
    in_bin = bins == bin_index[:, None]
    has_event = event[:, None]
    survived = (bins < bin_index[:, None]) | (in_bin & ~has_event)
    # log(1 - sigmoid(x)) = logsigmoid(-x)
    log_likelihood = torch.where(survived, functional.logsigmoid(-logits), 0.0)
    log_likelihood = log_likelihood + torch.where(in_bin & has_event, functional.logsigmoid(logits), 0.0)
    return -log_likelihood.sum(dim=1)


def class_divergence(
    log_probabilities: Float[Tensor, "batch output"], taught: Float[Tensor, "batch output"], *, temperature: float
) -> Float[Tensor, " batch"]:
    r"""Returns :math:`T^2\,\mathrm{KL}(q \Vert p)` of class probabilities softened by a temperature.

    :math:`p \propto e^{\ell / T}`, and :math:`q` alike of the teacher. The factor keeps the size of the gradients.

    Args:
        log_probabilities: Of the classes up to a constant per patient, such as logits; of the student.
        taught: The same of the teacher.
        temperature: 1 leaves probabilities as they are.

    Source: Hinton, Vinyals and Dean, Distilling the knowledge in a neural network, 2015.

    Example:
        >>> class_divergence(torch.zeros(1, 2), torch.zeros(1, 2), temperature=2.0)
        tensor([0.])
    """
    ours = (log_probabilities / temperature).log_softmax(dim=-1)
    theirs = (taught / temperature).log_softmax(dim=-1)
    return temperature**2 * functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(dim=-1)


def hazard_divergence(
    logits: Float[Tensor, "batch bin"], taught: Float[Tensor, "batch bin"]
) -> Float[Tensor, " batch"]:
    r"""Returns the divergence :math:`\mathrm{KL}(q \Vert p)` of the bin in which the event comes, or later than all.

    With hazards :math:`h` of the student and :math:`g` of the teacher, and the teacher's survival :math:`S` to the
    start of a bin, that is :math:`\sum_k S_k\,(g_k \log\frac{g_k}{h_k} + (1 - g_k) \log\frac{1 - g_k}{1 - h_k})`:
    hazards count by how many patients reach them.

    Args:
        logits: Unnormalised hazards of the student.
        taught: Those of the teacher.

    Example:
        >>> hazard_divergence(torch.zeros(1, 2), torch.zeros(1, 2))
        tensor([0.])
    """
    log_survived = functional.logsigmoid(-taught)
    reached = (running_sum(log_survived) - log_survived).exp()
    of_event = taught.sigmoid() * (functional.logsigmoid(taught) - functional.logsigmoid(logits))
    of_none = (-taught).sigmoid() * (log_survived - functional.logsigmoid(-logits))
    return (reached * (of_event + of_none)).sum(dim=1)


def cox_nll(
    log_risk: Float[Tensor, " batch"],
    time_days: Float[Tensor, " batch"],
    event: Bool[Tensor, " batch"],
) -> Float[Tensor, ""]:
    r"""Returns the negative partial log-likelihood of Cox's model per event, ties handled as by Efron (1977).

    With :math:`\theta` = `log_risk`, the :math:`d` events at one time are numbered :math:`l = 0 \dots d-1`; the
    :math:`l`-th contributes :math:`\theta - \log(\sum_{j\,\text{at risk}} e^{\theta_j} - \frac{l}{d}
    \sum_{j\,\text{tied}} e^{\theta_j})`. Patients censored at a time are at risk at that time.

    A batch without events carries no information: its loss is 0, connected to `log_risk` with a zero gradient, so a
    training step does not need a special case. Adding a constant to `log_risk` changes nothing. Memory grows with
    the square of the batch.

    Args:
        log_risk: Log hazard ratio, higher is worse.
        time_days: Days to the event or to last contact.
        event: True where the event was observed.

    Returns:
        The mean over the events of the batch.

    Example:
        >>> cox_nll(torch.zeros(2), torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
        tensor(0.3466)
    """
    tied = (time_days[:, None] == time_days[None, :]) & event[:, None] & event[None, :]
    earlier_in_tie = tied.tril(diagonal=-1).sum(dim=1).to(log_risk.dtype)
    n_tied = tied.sum(dim=1).clamp(min=1)
    # Each row's weights of exp(log_risk); a patient keeps at least 1/d of its own, so no row is all zero
    at_risk = (time_days[None, :] >= time_days[:, None]).to(log_risk.dtype)
    weight = at_risk - tied * (earlier_in_tie / n_tied)[:, None]
    log_at_risk = torch.logsumexp(log_risk[None, :] + weight.log(), dim=1)
    log_likelihood = torch.where(event, log_risk - log_at_risk, torch.zeros_like(log_risk))
    return -log_likelihood.sum() / event.sum().clamp(min=1)


def consistency_loss(
    expression_embedding: Float[Tensor, "batch embed"],
    sampling_grid: Float[Tensor, "batch group point 2"],
    *,
    of: Literal["positions", "offsets"] = "positions",
) -> Float[Tensor, ""]:
    r"""Returns how far patients' similarity in sampling positions is from their similarity in expression.

    For one subspace. With :math:`O` the expression embeddings and :math:`V_g` the flattened positions of group
    :math:`g`, one row per patient, :math:`A = O O^T` and :math:`D_g = V_g V_g^T`, every row divided by its L2 norm;
    the loss is :math:`\sum_{ij} (A_{ij} - \text{mean}_g D_{g,ij})^2 / \text{batch}`.

    The constant base grid dominates the norm of the positions (with a 12 × 12 grid and offsets up to 2, entries of D
    stay within 5 % of :math:`1/\sqrt{\text{batch}}`), so `of="offsets"` compares what the model can change: positions
    minus their mean over the batch. The base grid is the same for every patient and cancels in that difference, so
    positions and offsets may be passed alike.

    Any batch size works; one patient has nothing to agree with (0 for positions). A patient whose embedding or offsets
    are all zero has similarity 0 to everybody, with a finite gradient.

    Args:
        expression_embedding: Embedding of the subspace's genes.
        sampling_grid: Sampling positions of the subspace in grid units, (x, y).
        of: What of the sampling positions is compared.

    Returns:
        A scalar with gradients to both arguments.

    Relative to the paper: equation as published. Its released code lays patients and groups out in the wrong order and
    compares the groups of one patient; here patients are compared with patients.

    Example:
        >>> consistency_loss(torch.eye(2), torch.ones(2, 1, 1, 2))  # unrelated genes, equal positions
        tensor(0.5858)
    """
    if of not in ("positions", "offsets"):
        raise ValueError(f"of must be 'positions' or 'offsets'. Found {of!r}.")
    points = sampling_grid.flatten(start_dim=2)  # batch group (point·2)
    if of == "offsets":
        points = points - points.mean(dim=0)
    expression_similarity = torch.einsum("ie,je->ij", expression_embedding, expression_embedding)
    position_similarity = torch.einsum("igv,jgv->gij", points, points)
    # normalize divides by max(norm, eps) and has a zero subgradient at zero: rows of zeros stay finite
    expression_similarity = functional.normalize(expression_similarity, dim=-1)
    position_similarity = functional.normalize(position_similarity, dim=-1, eps=_SAME_POSITIONS).mean(dim=0)
    difference = expression_similarity - position_similarity
    return difference.square().sum() / expression_embedding.shape[0]


@dataclass(frozen=True)
class Consistency:
    """The gene-guided consistency loss as a part of an objective: its weight, and what of the positions is compared."""

    weight: float = 0.5
    of: Literal["positions", "offsets"] = "positions"  # see `consistency_loss`

    def __call__(
        self,
        expression_embedding: Float[Tensor, "batch subspace embed"],
        sampling_grid: Float[Tensor, "batch subspace group point 2"],
    ) -> Float[Tensor, ""]:
        """Returns the unweighted sum over the subspaces; 0 for fewer than two patients."""
        total = torch.zeros((), device=expression_embedding.device)
        if len(sampling_grid) < 2:
            return total
        for embedding, grid in zip(expression_embedding.unbind(1), sampling_grid.unbind(1), strict=True):
            total = total + consistency_loss(embedding, grid, of=self.of)
        return total


DEFAULT_CONSISTENCY = Consistency()

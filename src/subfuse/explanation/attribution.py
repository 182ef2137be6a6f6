"""Attributions: which patches and genes a score comes from, and which subspace and modality."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise, product
from math import factorial

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from subfuse.cohort.batches import BagBatch
from subfuse.explanation.integration import Integral, Interval, Score, StraightPath
from subfuse.model.output import SubspaceFusionOutput

_LogitScore = Callable[[Float[Tensor, "batch output"]], Float[Tensor, " batch"]]

MODALITIES = ("slides", "expression")
_MAX_PLAYERS = 14  # 16384 coalitions, six subspaces and a linear path; every player doubles the cost
TOLERANCE = 0.02  # of the sum of absolute attributions: the completeness gap that is small enough
_MAX_STEPS = 256
POINTS = 4  # of an interval: intervals are halved where that is too few


@dataclass(frozen=True)
class Attribution:
    """What each patch and gene adds to a score, relative to the baseline bag."""

    patch: Float[Tensor, "batch patch"]  # zero on padding
    gene: Float[Tensor, "batch gene"]  # genes, then covariates; zero where expression was not measured
    gap: Float[Tensor, " batch"]  # score(input) - score(baseline) - sum of the attributions
    steps: int  # integration points

    @property
    def relative_gap(self) -> Float[Tensor, " batch"]:
        """Absolute gap as a share of the sum of absolute attributions; 0 where nothing is attributed and no gap."""
        total = self.patch.abs().sum(dim=1) + self.gene.abs().sum(dim=1)
        return torch.where(self.gap == 0, 0, self.gap.abs() / total)


def integrated_gradients(
    model: nn.Module,
    batch: BagBatch,
    score: Score,
    *,
    steps: int = 32,
    baseline_patches: Float[Tensor, "batch patch feature"] | None = None,
    baseline_expression: Float[Tensor, "batch gene"] | None = None,
    chunk: int = 4,
) -> Attribution:
    """Integrated gradients of a score from a baseline bag to the patient's bag, summed over patch features.

    Patches and genes move together along the straight line from the baseline, so their attributions share one scale
    and, with the gap, add up to the change of the score. Coordinates and masks stay those of the patient. Missing
    modalities and padding have attribution zero. Nothing is random: dropout is off and the integration points
    (Gauss-Legendre) are fixed.

    Args:
        model: Anything with the forward signature of `SubspaceFusion`. Its parameters get no gradient and its training
            mode is restored.
        batch: The patients to explain.
        score: What is explained, for example the risk of the output, or one subspace's share of a class logit. Must not
            mix patients.
        steps: Integration points; raise it if `gap` is not small next to the score.
        baseline_patches: Where the path starts; zeros if None. Patch features are standardised on training patients, so
            zero is the average training patch.
        baseline_expression: The same for genes; zero is the average training expression.
        chunk: Integration points evaluated at once: memory is that of `chunk` times the batch.

    Returns:
        Attributions and the completeness gap of each patient.

    Source: Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017.
    """
    if steps < 1 or chunk < 1:
        raise ValueError(f"steps and chunk must be at least 1. Found steps={steps}, chunk={chunk}.")
    path = StraightPath.from_baseline(model, batch, score, patches=baseline_patches, expression=baseline_expression)
    with _evaluation_mode(model):
        (whole,) = path.integrate([Interval(0.0, 1.0)], points=steps, chunk=chunk)
    return Attribution(whole.patch, whole.gene, whole.gap, steps)


def converged_gradients(
    model: nn.Module,
    batch: BagBatch,
    score: Score,
    *,
    tolerance: float = TOLERANCE,
    steps: int = 8,
    max_steps: int = _MAX_STEPS,
    chunk: int = 4,
) -> Attribution:
    """Integrated gradients with as many integration points as completeness needs.

    Kinks of the network along the path (rectifiers, corners of interpolation) make the integral converge slowly for
    some patients. The path is divided into intervals that each have a few points and a gap of their own; those with a
    large gap are halved until the absolute gaps add up to at most `tolerance` of the sum of absolute attributions for
    every patient, so that errors of one interval cannot hide in those of another, or until `max_steps` is reached.
    `relative_gap` says how good the result is.

    Args:
        model: As for `integrated_gradients`, whose baseline is zero.
        batch: The patients to explain.
        score: What is explained.
        tolerance: Largest relative gap.
        steps: Integration points of the first attempt.
        max_steps: No more points are evaluated.
        chunk: Integration points evaluated at once.
    """
    points = min(steps, POINTS)
    edges = [place / (steps // points) for place in range(steps // points + 1)]
    path = StraightPath.from_baseline(model, batch, score)
    with _evaluation_mode(model):
        integrals = path.integrate([Interval(*ends) for ends in pairwise(edges)], points=points, chunk=chunk)
        steps = points * len(integrals)
        while True:
            coarse = _too_coarse(integrals, tolerance)[: (max_steps - steps) // (2 * points)]
            if not coarse:
                break
            halves = [half for integral in coarse for half in integral.interval.halves()]
            integrals = [integral for integral in integrals if all(integral is not other for other in coarse)]
            integrals += path.integrate(halves, points=points, chunk=chunk)
            steps += points * len(halves)
    return Attribution(
        patch=torch.stack([part.patch for part in integrals]).sum(dim=0),
        gene=torch.stack([part.gene for part in integrals]).sum(dim=0),
        gap=torch.stack([part.gap for part in integrals]).sum(dim=0),
        steps=steps,
    )


def _too_coarse(integrals: Sequence[Integral], tolerance: float) -> list[Integral]:
    """Returns the intervals with more than their share of the allowed gap, worst first; none if all patients' is small.

    An interval's share is its length: if the gaps add up to too much, at least one interval has more than its share.
    """
    total = sum(
        torch.stack([getattr(part, of) for part in integrals]).sum(dim=0).abs().sum(dim=1) for of in ("patch", "gene")
    )
    gaps = torch.stack([part.gap.abs() for part in integrals])  # interval, patient
    is_open = gaps.sum(dim=0) > tolerance * total
    length = gaps.new_tensor([part.interval.length for part in integrals])[:, None]
    excess = ((gaps - tolerance * total * length) * is_open).amax(dim=1)
    order = excess.argsort(descending=True, stable=True).tolist()
    return [integrals[place] for place in order if excess[place] > 0]


def subspace_contributions(output: SubspaceFusionOutput) -> Float[Tensor, "batch subspace output"]:
    """Returns what each subspace adds to every logit; the sum over subspaces is the logit.

    This is exact, not an approximation: the head is linear in the subspace embeddings, and its bias is shared equally
    between the subspaces.
    """
    return output.subspace_logits.detach()


def contribution_ledger(
    model: nn.Module,
    batch: BagBatch,
    score: _LogitScore,
    *,
    baseline: Float[Tensor, "subspace output"],
    subspaces: Sequence[str],
    modalities: Collection[str] = MODALITIES,
) -> pd.DataFrame:
    """Splits each patient's score between subspaces and modalities, so that the rows add up to the score.

    The players are the pairs (subspace, modality). A subspace that sees none of its modalities contributes its
    `baseline` logits; otherwise the model is evaluated on the bag with the other modality masked. The contribution of a
    player is its Shapley value: its marginal change of the score, averaged over all orders of arrival. For a score that
    is linear in the logits this is half the sum of the change when the modality arrives first and when it arrives last;
    for a risk or a probability the interaction between subspaces is shared fairly too. A modality that the patient
    lacks gets exactly zero.

    Args:
        model: Anything with the forward signature of `SubspaceFusion`.
        batch: The patients to explain.
        score: The explained quantity from the logits, for example `lambda logits: logits[:, 2]` or
            `lambda logits: objective.predict(logits).risk`.
        baseline: The prediction when nothing is known about a patient: the mean `subspace_logits` over the *training*
            patients of the same model.
        subspaces: Names, in the order of the model's subspace axis.
        modalities: What the model reads: a model without expression never credits it.

    Returns:
        Columns patient_id, subspace, modality, contribution. One row per subspace and modality (`slides`,
        `expression`), and one row with subspace `all` and modality `baseline`: the score of the baseline logits.
    """
    players = [(subspace, modality) for subspace in range(len(subspaces)) for modality in MODALITIES]
    if not 1 <= len(players) <= _MAX_PLAYERS:
        raise ValueError(f"subspaces must be between 1 and {_MAX_PLAYERS // 2}. Found {len(subspaces)}.")
    logits = _logits_by_modality(model, batch, baseline, modalities)
    values = {
        coalition: score(_coalition_logits(logits, coalition).sum(dim=1))
        for coalition in product((False, True), repeat=len(players))
    }
    empty = (False,) * len(players)
    rows = [
        {"patient_id": patient, "subspace": "all", "modality": "baseline", "contribution": float(value)}
        for patient, value in zip(batch.patient_id, values[empty], strict=True)
    ]
    for index, (subspace, modality) in enumerate(players):
        rows += [
            {
                "patient_id": patient,
                "subspace": subspaces[subspace],
                "modality": modality,
                "contribution": float(value),
            }
            for patient, value in zip(batch.patient_id, _shapley_value(values, index), strict=True)
        ]
    ledger = pd.DataFrame(rows)
    order = {patient: place for place, patient in enumerate(batch.patient_id)}
    return ledger.sort_values("patient_id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)


def _logits_by_modality(
    model: nn.Module, batch: BagBatch, baseline: Tensor, modalities: Collection[str]
) -> dict[tuple[bool, bool], Float[Tensor, "batch subspace output"]]:
    """Returns the subspace logits with (slides, expression) present or hidden; absent altogether is the baseline."""
    inputs = batch.inputs()
    has_slides = batch.patch_mask.any(dim=1) & ("slides" in modalities)
    has_expression = batch.expression_mask & bool(set(modalities) - {"slides"})
    paired = has_slides & has_expression  # only they have something to hide; models refuse a patient without any data
    without_expression = {"expression_mask": batch.expression_mask & ~paired}
    without_slides = {"patch_mask": batch.patch_mask & ~paired[:, None]}
    with _evaluation_mode(model), torch.no_grad():
        both = model(**inputs).subspace_logits
        if baseline.shape != both.shape[1:]:
            raise ValueError(
                f"baseline must have one row per subspace and one column per output, {tuple(both.shape[1:])}. "
                f"Found {tuple(baseline.shape)}: pass the mean of subspace_logits over the training patients."
            )
        slides = model(**inputs | without_expression).subspace_logits
        expression = model(**inputs | without_slides).subspace_logits
    nothing = baseline.to(both).expand_as(both)
    # a modality that is not there must not change anything when it "arrives"
    slides = torch.where(has_slides[:, None, None], slides, nothing)
    expression = torch.where(has_expression[:, None, None], expression, nothing)
    both = torch.where((has_slides | has_expression)[:, None, None], both, nothing)
    return {(False, False): nothing, (True, False): slides, (False, True): expression, (True, True): both}


def _coalition_logits(
    logits: dict[tuple[bool, bool], Tensor], coalition: tuple[bool, ...]
) -> Float[Tensor, "batch subspace output"]:
    """Returns each subspace's logits under its own present modalities."""
    seen = zip(coalition[0::2], coalition[1::2], strict=True)  # players alternate slides, expression
    return torch.stack([logits[pair][:, subspace] for subspace, pair in enumerate(seen)], dim=1)


def _shapley_value(values: dict[tuple[bool, ...], Tensor], player: int) -> Float[Tensor, " batch"]:
    """Returns one player's Shapley value from the score of every coalition."""
    n_players = len(next(iter(values)))
    total = torch.zeros_like(next(iter(values.values())))
    for coalition, value in values.items():
        if coalition[player]:
            continue
        joined = (*coalition[:player], True, *coalition[player + 1 :])
        size = sum(coalition)
        weight = factorial(size) * factorial(n_players - size - 1) / factorial(n_players)
        total = total + weight * (values[joined] - value)
    return total


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switches dropout off inside the block and restores the mode of every module afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training

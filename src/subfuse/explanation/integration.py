"""Integrals of a score's gradient along the straight line from one bag to another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from subfuse.cohort.batches import BagBatch
from subfuse.model.output import SubspaceFusionOutput

Score = Callable[[SubspaceFusionOutput], Float[Tensor, " batch"]]


@dataclass(frozen=True)
class Interval:
    """A part of the path; 0 is the baseline bag, 1 the patient's."""

    start: float
    stop: float

    @property
    def length(self) -> float:
        """Its share of the path."""
        return self.stop - self.start

    def halves(self) -> tuple["Interval", "Interval"]:
        """Returns its two halves."""
        middle = (self.start + self.stop) / 2
        return Interval(self.start, middle), Interval(middle, self.stop)


@dataclass(frozen=True)
class Integral:
    """What each patch and gene adds to the score along an interval."""

    interval: Interval
    patch: Float[Tensor, "batch patch"]
    gene: Float[Tensor, "batch gene"]
    gap: Float[Tensor, " batch"]  # the change of the score along the interval that is not attributed


@dataclass(frozen=True)
class StraightPath:
    """The line from a baseline bag to the bags of some patients, and a score along it.

    The move from baseline to patient is a factor per patch and per gene, so that the derivative with respect to the
    factor is what the element adds, summed over features: no gradient of single features is kept.
    """

    model: nn.Module
    batch: BagBatch
    score: Score
    start: dict[str, Tensor]  # patches and expression of the baseline

    @classmethod
    def from_baseline(
        cls,
        model: nn.Module,
        batch: BagBatch,
        score: Score,
        *,
        patches: Float[Tensor, "batch patch feature"] | None = None,
        expression: Float[Tensor, "batch gene"] | None = None,
    ) -> "StraightPath":
        """Returns the path from a baseline, zeros if None; where nothing is present it equals the input.

        Raises:
            ValueError: A baseline has not the shape of its input.
        """
        start = {
            "patches": _masked_baseline(batch.patches, patches, batch.patch_mask[..., None]),
            "expression": _masked_baseline(batch.expression, expression, batch.expression_mask[:, None]),
        }
        return cls(model, batch, score, start)

    def integrate(self, intervals: Sequence[Interval], *, points: int, chunk: int) -> list[Integral]:
        """Returns the integral over each interval.

        Args:
            intervals: Parts of the path.
            points: Gauss-Legendre points of each.
            chunk: Points evaluated at once.
        """
        node, weight = np.polynomial.legendre.leggauss(points)
        places = [i.start + i.length * (1 + x) / 2 for i in intervals for x in node]
        patch, gene = self._slopes(places, chunk=chunk)
        share = patch.new_tensor(np.array([i.length * weight / 2 for i in intervals]))  # interval, point
        patch = torch.einsum("ip,ipbn->ibn", share, patch.unflatten(0, share.shape))
        gene = torch.einsum("ip,ipbg->ibg", share, gene.unflatten(0, share.shape))
        ends = sorted({end for interval in intervals for end in (interval.start, interval.stop)})
        value = dict(zip(ends, self._values(ends, chunk=chunk), strict=True))
        return [
            Integral(i, of_patch, of_gene, value[i.stop] - value[i.start] - of_patch.sum(dim=1) - of_gene.sum(dim=1))
            for i, of_patch, of_gene in zip(intervals, patch, gene, strict=True)
        ]

    def _slopes(
        self, places: Sequence[float], *, chunk: int
    ) -> tuple[Float[Tensor, "place batch patch"], Float[Tensor, "place batch gene"]]:
        """Returns the derivative of the score along the path, by patch and by gene."""
        patches, genes = [], []
        for first in range(0, len(places), chunk):
            some = places[first : first + chunk]
            factors = self._factors(some)
            for factor in factors:
                factor.requires_grad_()
            with torch.enable_grad():
                value = self._score(len(some), *factors).sum()
                # a slide-only model never uses the expression: without this, autograd refuses its gradient
                value = value + sum(0.0 * factor.sum() for factor in factors)
                patch, gene = torch.autograd.grad(value, factors)
            patches.append(patch.unflatten(0, (len(some), -1)))
            genes.append(gene.unflatten(0, (len(some), -1)))
        return torch.cat(patches), torch.cat(genes)

    def _values(self, places: Sequence[float], *, chunk: int) -> Float[Tensor, "place batch"]:
        with torch.no_grad():
            values = [
                self._score(len(some), *self._factors(some)).unflatten(0, (len(some), -1))
                for some in (places[first : first + chunk] for first in range(0, len(places), chunk))
            ]
        return torch.cat(values)

    def _factors(self, places: Sequence[float]) -> tuple[Float[Tensor, "copy patch"], Float[Tensor, "copy gene"]]:
        """Returns how far every patch and gene of every copy of the batch is on its way; all equally."""
        n_patients, n_patches = self.batch.patch_mask.shape
        place = self.batch.expression.new_tensor(places).repeat_interleave(n_patients)[:, None]
        return place.repeat(1, n_patches), place.repeat(1, self.batch.expression.shape[1])

    def _score(
        self, n_copies: int, of_patches: Float[Tensor, "copy patch"], of_genes: Float[Tensor, "copy gene"]
    ) -> Float[Tensor, " copy"]:
        inputs = self.batch.inputs()
        copies = {name: value.repeat(n_copies, *[1] * (value.ndim - 1)) for name, value in inputs.items()}
        for name, factor in (("patches", of_patches[..., None]), ("expression", of_genes)):
            start = self.start[name].repeat(n_copies, *[1] * (self.start[name].ndim - 1))
            copies[name] = start + factor * (copies[name] - start)
        return self.score(self.model(**copies))


def _masked_baseline(values: Tensor, baseline: Tensor | None, present: Tensor) -> Tensor:
    """Returns the start of the path; where nothing is present it equals the input, so nothing is attributed there."""
    if baseline is None:
        baseline = torch.zeros_like(values)
    if baseline.shape != values.shape:
        raise ValueError(f"A baseline must have the shape of its input {tuple(values.shape)}. Found {baseline.shape}.")
    return torch.where(present, baseline, values)

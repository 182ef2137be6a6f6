"""The same model on patches that were projected once.

Explaining a patient evaluates the model some hundred times on inputs that differ by a factor or by some patches left
out. The first layer of subspace fusion is linear in the patches, so their projections differ in the same way: a model
that starts there gives the same logits from an eighth of the numbers, and one subspace alone from half the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from subfuse.cohort.batches import BagBatch
from subfuse.model.linear_path import WithLinearPath, networks_of
from subfuse.model.output import Ensemble, SubspaceFusionOutput
from subfuse.model.subspace_fusion import SubspaceFusion


@dataclass(frozen=True)
class ProjectedModel:
    """A model and what its patches are multiplied by before it reads them.

    Args:
        model: Its logits for `project(batch)` are those of the whole model for the batch, or the chosen subspaces'
            shares of them. Has no parameter that gradients are kept for, where it could be projected.
        weight: None if the model reads patches as they are.
        subspaces: Subspaces of the whole model along this model's subspace axis; None: all, as they were.
    """

    model: nn.Module
    weight: Float[Tensor, "projected feature"] | None
    subspaces: tuple[int, ...] | None

    def place_of(self, subspace: int) -> int:
        """Returns where a subspace of the whole model is on this model's subspace axis."""
        return subspace if self.subspaces is None else self.subspaces.index(subspace)

    def project(self, batch: BagBatch) -> BagBatch:
        """Returns the batch that the model reads."""
        return batch if self.weight is None else replace(batch, patches=batch.patches @ self.weight.mT)


class _Shrunk(nn.Module):
    """A network or a line whose logits are multiplied by its share."""

    share: Tensor

    def __init__(self, network: nn.Module, share: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("share", share)

    def forward(self, *bags: Tensor, **named: Any) -> SubspaceFusionOutput:
        output = self.network(*bags, **named)
        return replace(output, logits=self.share * output.logits, subspace_logits=self.share * output.subspace_logits)


def project_patches(model: nn.Module, subspaces: Sequence[int]) -> ProjectedModel:
    """Returns a model of some subspaces that reads projected patches.

    Only subspace fusion, alone or as an ensemble, can be divided: any other model is returned as it is. A linear path
    reads patches as they are, and so does a model whose subspaces and linear path are asked for together.

    Args:
        model: Anything with the forward signature of `SubspaceFusion`.
        subspaces: Which ones; all of them for the whole model.
    """
    if isinstance(model, WithLinearPath):
        return _beside_line(model, subspaces)
    networks = networks_of(model)
    fusions = [network for network in networks if isinstance(network, SubspaceFusion)]
    if len(fusions) < len(networks):
        return ProjectedModel(model, None, None)
    weights = [_projection(network, name) for network in fusions for name in _names(network, subspaces)]
    weight = torch.cat(weights)
    blocks = torch.eye(len(weight), dtype=weight.dtype, device=weight.device).split([len(part) for part in weights])
    is_narrower = len(weight) < weight.shape[1]
    alone = []
    with torch.random.fork_rng(devices=[]):
        for place, network in enumerate(fusions):
            first = place * len(subspaces)
            own = (blocks if is_narrower else weights)[first : first + len(subspaces)]
            alone.append(_of_subspaces(network, subspaces, own))
    only = alone[0] if len(alone) == 1 else Ensemble(alone)
    return ProjectedModel(only.requires_grad_(False).eval(), weight if is_narrower else None, tuple(subspaces))


def _beside_line(model: WithLinearPath, subspaces: Sequence[int]) -> ProjectedModel:
    network = networks_of(model)[0]
    place_of_line = len(network.gene_sets) if isinstance(network, SubspaceFusion) else None
    if tuple(subspaces) == (place_of_line,):
        return ProjectedModel(_Shrunk(model.line, model.line_share), None, tuple(subspaces))
    if place_of_line is None or place_of_line in subspaces:
        return ProjectedModel(model, None, None)
    part = project_patches(model.network, subspaces)
    return replace(part, model=_Shrunk(part.model, model.network_share))


def _names(network: SubspaceFusion, subspaces: Sequence[int]) -> list[str]:
    names = list(network.gene_sets)
    return [names[index] for index in subspaces]


def _projection(network: SubspaceFusion, name: str) -> Float[Tensor, "embed feature"]:
    return network.get_parameter(f"subspaces.{name}.patch_projection.weight").detach()


def _of_subspaces(
    network: SubspaceFusion, subspaces: Sequence[int], projections: Sequence[Float[Tensor, "embed _"]]
) -> SubspaceFusion:
    """Returns the network of some subspaces with other projections of the patches; shares the other weights."""
    names = _names(network, subspaces)
    config = replace(network.config, patch_dim=projections[0].shape[1])
    part = SubspaceFusion(config, {name: network.gene_sets[name] for name in names}, n_genes=network.n_genes)
    state = {key: value for key, value in network.state_dict().items() if key in part.state_dict()}
    state |= {f"subspaces.{name}.patch_projection.weight": w for name, w in zip(names, projections, strict=True)}
    state["head.weight"] = state["head.weight"][list(subspaces)]
    state["head.bias"] = state["head.bias"] * (len(subspaces) / len(network.gene_sets))
    part.to(state["head.bias"]).load_state_dict(state)
    return part

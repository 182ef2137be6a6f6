"""A linear model beside a network: how much of what is said of a patient is the line's, and how much the network's."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.model.baselines.linear import LinearModel
from subfuse.model.output import Ensemble, SubspaceFusionOutput


class WithLinearPath(nn.Module):
    """The weighted sum of a network's logits and of those of a linear model.

    On the subspace axis the linear model is one more, the last; logits remain the sum over subspaces.

    Relative to the paper: there is no linear path.

    Args:
        line: The linear model, of the same inputs.
        network: One network or an ensemble, with as many logits.
    """

    network_share: Float[Tensor, ""]
    line_share: Float[Tensor, ""]

    def __init__(self, line: LinearModel, network: nn.Module) -> None:
        super().__init__()
        self.line = line
        self.network = network
        self.register_buffer("network_share", torch.ones(()))
        self.register_buffer("line_share", torch.ones(()))

    def forward(
        self,
        patches: Float[Tensor, "batch patch feature"],
        coords: Float[Tensor, "batch patch 2"],
        patch_mask: Bool[Tensor, "batch patch"],
        expression: Float[Tensor, "batch gene"],
        expression_mask: Bool[Tensor, " batch"],
        *,
        need_attention: bool = False,
        **known: Any,
    ) -> SubspaceFusionOutput:
        """Returns the network's output with its logits and the linear model's, each times its share."""
        bags = (patches, coords, patch_mask, expression, expression_mask)
        output = self.network(*bags, need_attention=need_attention, **known)
        of_line = self.line(*bags, **known).subspace_logits
        parts = [self.network_share * output.subspace_logits, self.line_share * of_line]
        return _with_parts(output, parts)


def with_line(output: SubspaceFusionOutput, line: Float[Tensor, "batch output"]) -> SubspaceFusionOutput:
    """Returns the output of a model beside a linear path, had the path's part been this."""
    return _with_parts(output, [output.subspace_logits[:, :-1], line[:, None]])


def _with_parts(output: SubspaceFusionOutput, parts: list[Float[Tensor, "batch _ output"]]) -> SubspaceFusionOutput:
    subspaces = torch.cat(parts, dim=1)
    return replace(output, logits=subspaces.sum(dim=1), subspace_logits=subspaces)


def networks_of(model: nn.Module) -> list[nn.Module]:
    """Returns the networks that a model consists of, beside a linear path: one, or the members of an ensemble."""
    network = model.network if isinstance(model, WithLinearPath) else model
    return list(network.members) if isinstance(network, Ensemble) else [network]


def with_network(model: nn.Module, network: nn.Module) -> nn.Module:
    """Returns the model with another network, which shares everything else with it."""
    if not isinstance(model, WithLinearPath):
        return network
    other = WithLinearPath(model.line, network)
    other.network_share, other.line_share = model.network_share, model.line_share
    return other

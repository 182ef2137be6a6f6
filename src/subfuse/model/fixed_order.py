"""Operations whose gradients torch adds up on CUDA in any order, with a slower form of each that keeps to one.

The slower form computes where deterministic algorithms are asked for (`torch.use_deterministic_algorithms`), which
refuse the others on CUDA.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def sample(
    maps: Float[Tensor, "batch channel height width"],
    position: Float[Tensor, "batch point 2"],
    *,
    align_corners: bool,
) -> Float[Tensor, "batch channel point"]:
    """Returns maps at positions (x, y) in [-1, 1], interpolated linearly, 0 outside; see `functional.grid_sample`."""
    if not _is_asked_for(maps):
        sampled = functional.grid_sample(maps, position[:, None], mode="bilinear", align_corners=align_corners)
        return sampled[:, :, 0]
    height, width = maps.shape[2:]
    x, y = position.unbind(dim=2)
    total = maps.new_zeros(())
    for row, in_row in _neighbours(y, height, align_corners):
        for column, in_column in _neighbours(x, width, align_corners):
            index = (row * width + column)[:, None].expand(-1, maps.shape[1], -1)
            total = total + maps.flatten(2).gather(2, index) * (in_row * in_column)[:, None]
    return total


def average_pool(tokens: Float[Tensor, "head token dim"], n_parts: int) -> Float[Tensor, "head part dim"]:
    """Returns the means of parts of equal length, which overlap where they do not divide the tokens."""
    if not _is_asked_for(tokens):
        return functional.adaptive_avg_pool1d(tokens.transpose(1, 2), n_parts).transpose(1, 2)
    n_tokens = tokens.shape[1]
    part = torch.arange(n_parts, device=tokens.device)[:, None]
    start, end = part * n_tokens // n_parts, ((part + 1) * n_tokens + n_parts - 1) // n_parts
    index = start + torch.arange(-(-n_tokens // n_parts) + 1, device=tokens.device)
    weight = (index < end) / (end - start).to(tokens.dtype)
    picked = tokens.index_select(1, index.clamp(max=n_tokens - 1).flatten()).unflatten(1, index.shape)
    return (picked * weight[..., None]).sum(dim=2)


def running_sum(values: Float[Tensor, "*axes last"]) -> Float[Tensor, "*axes last"]:
    """Returns the sums along a short last axis up to each place, as `cumsum` does."""
    if not _is_asked_for(values):
        return values.cumsum(dim=-1)
    return torch.stack(list(itertools.accumulate(values.unbind(dim=-1))), dim=-1)


def _neighbours(along: Tensor, size: int, align_corners: bool) -> list[tuple[Tensor, Tensor]]:
    """Returns the cells before and after positions in [-1, 1] along an axis, and their weights, 0 off the axis."""
    place = (along + 1) / 2 * (size - 1) if align_corners else ((along + 1) * size - 1) / 2
    before = place.detach().floor()
    share = place - before
    return [
        (cell.clamp(0, size - 1).long(), torch.where((cell >= 0) & (cell < size), weight, 0.0))
        for cell, weight in ((before, 1 - share), (before + 1, share))
    ]


def _is_asked_for(values: Tensor) -> bool:
    return values.device.type == "cuda" and torch.are_deterministic_algorithms_enabled()

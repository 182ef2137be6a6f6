"""Where the patches of a bag lie on the grid of cells that the attention works on.

Cells are numbered row by row: cell = row · width + column. Axis order is (height, width) for shapes and (x, y) for
coordinates. A *token* is a cell as the network sees it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

DENSE_OCCUPANCY = 0.7  # above this share of occupied cells, computing every cell is cheaper than choosing
_ROW_TOLERANCE = 0.02  # of the spacing expected from the density: patches closer than this in y are in one row
_PITCH_QUANTILE = 0.05  # of the gaps within rows: the smallest spacing, robust to a few stray patches


@dataclass(frozen=True)
class RasterCells:
    """Patches in list order, row by row, repeated cyclically or thinned evenly to fill the grid.

    This is what the released code feeds its network; cells that are neighbours need not be neighbours in the slide.
    """

    cell: Int[Tensor, "batch token"]  # every cell in order
    token_mask: Bool[Tensor, "batch token"]  # False for all tokens of a patient without patches
    patch: Int[Tensor, "batch token"]  # patch in each cell
    n_patches: int
    is_dense: bool = True  # token i is cell i

    def gather(self, values: Float[Tensor, "batch patch feature"]) -> Float[Tensor, "batch token feature"]:
        """Returns the values of each token's patch."""
        return values.gather(1, self.patch[..., None].expand(-1, -1, values.shape[-1]))

    def spread(self, values: Float[Tensor, "*axes token"]) -> Float[Tensor, "*axes patch"]:
        """Returns, per patch, the sum over the cells that it fills."""
        index = self.patch.view(len(self.patch), *[1] * (values.ndim - 2), -1).expand_as(values)
        return values.new_zeros(*values.shape[:-1], self.n_patches).scatter_add(-1, index, values)


@dataclass(frozen=True)
class SpatialCells:
    """Patches binned by their coordinates; the patches of one cell are averaged."""

    cell: Int[Tensor, "batch token"]  # height · width where the token is padding
    token_mask: Bool[Tensor, "batch token"]  # False where the cell holds no patch
    token: Int[Tensor, "batch patch"]  # token of each patch; number of tokens where the patch is padding
    is_dense: bool  # token i is cell i

    def gather(self, values: Float[Tensor, "batch patch feature"]) -> Float[Tensor, "batch token feature"]:
        """Returns the mean over the patches of each token, zeros where there is none."""
        batch, n_tokens = self.token_mask.shape
        # One more token per patient takes the padding.
        offset = torch.arange(batch, device=values.device)[:, None] * (n_tokens + 1)
        total = values.new_zeros(batch * (n_tokens + 1), values.shape[-1])
        total = total.index_add(0, (self.token + offset).flatten(), values.flatten(0, 1))
        share = 1 / self._patches_per_token().clamp(min=1).to(values.dtype)
        return total.view(batch, n_tokens + 1, -1)[:, :-1] * share[..., None]

    def spread(self, values: Float[Tensor, "*axes token"]) -> Float[Tensor, "*axes patch"]:
        """Returns each token's value in equal parts to its patches."""
        per_token = self._patches_per_token().clamp(min=1).view(len(values), *[1] * (values.ndim - 2), -1)
        padded = torch.nn.functional.pad(values / per_token, (0, 1))
        index = self.token.view(len(values), *[1] * (values.ndim - 2), -1)
        return padded.gather(-1, index.expand(*values.shape[:-1], -1))

    def _patches_per_token(self) -> Int[Tensor, "batch token"]:
        count = self.token.new_zeros(len(self.token), self.token_mask.shape[1] + 1)
        return count.scatter_add(1, self.token, torch.ones_like(self.token))[:, :-1]


PatchCells = RasterCells | SpatialCells


@dataclass(frozen=True)
class BinnedBags:
    """What remains to be known of bags whose patches were replaced by the means of their cells, see `bin_patches`."""

    cell: Int[Tensor, "batch patch"]  # of each mean; anything where there is none
    summary: Float[Tensor, "batch summary"]  # of the patches themselves, see `patch_summary`


def bin_patches(
    patches: Float[Tensor, "patch feature"], coords: Float[Tensor, "patch 2"], grid: tuple[int, int]
) -> tuple[Float[Tensor, "cell feature"], Float[Tensor, "cell 2"], Int[Tensor, " cell"]]:
    """Returns mean features, mean places and numbers of the cells that hold patches of one bag.

    A network of the spatial layout sees nothing else of a bag: given these as `BinnedBags`, its output is the same.

    Args:
        patches: All of a bag.
        coords: Their centres in µm, (x, y).
        grid: Height and width in cells.
    """
    cells = spatial_cells(coords[None], torch.ones(1, len(patches), dtype=torch.bool, device=coords.device), grid)
    is_token = cells.token_mask[0]
    means, places = (cells.gather(values[None])[0, is_token] for values in (patches, coords))
    return means, places, cells.cell[0, is_token]


def no_cells(patch_mask: Bool[Tensor, "batch patch"]) -> SpatialCells:
    """Returns the layout of bags without patches: no token."""
    none = patch_mask.new_zeros(len(patch_mask), 0)
    return SpatialCells(cell=none.long(), token_mask=none, token=torch.zeros_like(patch_mask).long(), is_dense=False)


def raster_cells(patch_mask: Bool[Tensor, "batch patch"], grid: tuple[int, int]) -> RasterCells:
    """Returns the released code's layout: list order, repeated cyclically or thinned evenly to fill the grid."""
    n_cells = grid[0] * grid[1]
    position = torch.arange(n_cells, device=patch_mask.device)
    n_real = patch_mask.sum(1, keepdim=True).clamp(min=1)
    rank = torch.where(n_real < n_cells, position % n_real, position * n_real // n_cells)
    order = (~patch_mask).to(torch.uint8).argsort(dim=1, stable=True)  # real patches first, in list order
    return RasterCells(
        cell=position.expand(len(patch_mask), -1),
        token_mask=patch_mask.any(1, keepdim=True).expand(-1, n_cells),
        patch=order.gather(1, rank),
        n_patches=patch_mask.shape[1],
    )


def spatial_cells(
    coords: Float[Tensor, "batch patch 2"],
    patch_mask: Bool[Tensor, "batch patch"],
    grid: tuple[int, int],
    *,
    every_cell: bool = False,
    cell: Int[Tensor, "batch patch"] | None = None,
) -> SpatialCells:
    """Returns the patches binned on a grid of square cells over the tissue, which is centred in the grid.

    The side of a cell is the spacing of the patches, or more where the tissue would not fit the grid.

    Args:
        coords: Patch centres in µm, (x, y).
        patch_mask: True where a patch is real.
        grid: Height and width in cells.
        every_cell: Whether empty cells become tokens as well; otherwise only where most cells are occupied.
        cell: Of each patch where it is known (`BinnedBags`); then `coords` are ignored.
    """
    n_cells, is_known = grid[0] * grid[1], cell is not None
    cell = torch.where(patch_mask, _cell_of_patch(coords, patch_mask, grid) if cell is None else cell, n_cells)
    occupied = torch.zeros(len(cell), n_cells + 1, dtype=torch.bool, device=cell.device).scatter(1, cell, True)[:, :-1]
    n_tokens = patch_mask.shape[1] if is_known else int(occupied.sum(1).max())  # this waits for the device
    if every_cell or n_tokens > DENSE_OCCUPANCY * n_cells:
        position = torch.arange(n_cells, device=cell.device).expand(len(cell), -1)
        return SpatialCells(cell=position, token_mask=occupied, token=cell, is_dense=True)
    token_of_cell = torch.where(occupied, occupied.cumsum(1) - 1, n_tokens)
    token_of_cell = torch.nn.functional.pad(token_of_cell, (0, 1), value=n_tokens)
    cell_of_token = (~occupied).to(torch.uint8).argsort(dim=1, stable=True)[:, :n_tokens]
    token_mask = occupied.gather(1, cell_of_token)
    return SpatialCells(
        cell=cell_of_token.where(token_mask, n_cells),
        token_mask=token_mask,
        token=token_of_cell.gather(1, cell),
        is_dense=False,
    )


def patch_pitch(
    coords: Float[Tensor, "batch patch 2"], patch_mask: Bool[Tensor, "batch patch"]
) -> Float[Tensor, " batch"]:
    """Returns the spacing of each bag's patches in µm: the smallest clear gap between neighbours of one row.

    Rows of slides that stand side by side need not line up, so gaps are only taken within rows. Where no row holds
    two patches, the spacing that the same number of patches would have on a filled rectangle; 0 for a single patch.
    """
    low, high = _bounds(coords, patch_mask)
    n_real = patch_mask.sum(1).clamp(min=1)
    extent = high - low
    expected = (extent + extent.amax(1, keepdim=True) / n_real[:, None]).prod(1).div(n_real).sqrt()
    tolerance = (_ROW_TOLERANCE * expected).clamp(min=torch.finfo(coords.dtype).tiny)[:, None]
    x = torch.where(patch_mask, coords[..., 0], torch.inf)
    row = torch.where(patch_mask, ((coords[..., 1] - low[:, None, 1]) / tolerance).round(), torch.inf)
    order = x.argsort(dim=1)
    order = order.gather(1, row.gather(1, order).argsort(dim=1, stable=True))
    x, row = x.gather(1, order), row.gather(1, order)
    gap = x[:, 1:] - x[:, :-1]
    is_neighbour = (row[:, 1:] == row[:, :-1]) & (gap > tolerance)  # padding: inf - inf is never greater
    gap = torch.where(is_neighbour, gap, torch.inf).sort(dim=1).values
    n_gaps = is_neighbour.sum(1, keepdim=True)
    gap = torch.nn.functional.pad(gap, (0, 1), value=torch.inf)
    smallest = gap.gather(1, (_PITCH_QUANTILE * n_gaps).long()).squeeze(1)
    return torch.where(smallest.isfinite(), smallest, expected)


def _bounds(
    coords: Float[Tensor, "batch patch 2"], patch_mask: Bool[Tensor, "batch patch"]
) -> tuple[Float[Tensor, "batch 2"], Float[Tensor, "batch 2"]]:
    low = coords.masked_fill(~patch_mask[..., None], torch.inf).amin(1)
    high = coords.masked_fill(~patch_mask[..., None], -torch.inf).amax(1)
    has_patch = patch_mask.any(1, keepdim=True)
    return low.where(has_patch, 0), high.where(has_patch, 0)


def _cell_of_patch(
    coords: Float[Tensor, "batch patch 2"], patch_mask: Bool[Tensor, "batch patch"], grid: tuple[int, int]
) -> Int[Tensor, "batch patch"]:
    """Cell of every patch; arbitrary but valid where the patch is padding."""
    height, width = grid
    low, high = _bounds(coords, patch_mask)
    pitch = patch_pitch(coords, patch_mask)[:, None]
    extent = high - low + pitch  # patches are squares of about one pitch around their centres
    size = extent.new_tensor([width, height])
    side = torch.maximum(pitch, (extent / size).amax(1, keepdim=True))
    side = side.where(side > 0, 1)
    used = (extent / side - 1e-3).ceil().clamp(min=1).minimum(size)
    margin = ((size - used) / 2).floor()
    column_row = ((coords - low[:, None] + pitch[:, None] / 2) / side[:, None]).nan_to_num().floor() + margin[:, None]
    column_row = column_row.clamp(min=0).minimum(size - 1).long()
    return column_row[..., 1] * width + column_row[..., 0]

"""Knowledge-driven subspace fusion of a bag of patches and an expression vector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from subfuse.errors import preview
from subfuse.model.deformable_attention import DeformableAttention
from subfuse.model.gene_encoders import GeneEncoder, encode_measured
from subfuse.model.inputs import check_finite, check_modalities, check_shapes
from subfuse.model.output import SubspaceFusionOutput, SubspaceHead
from subfuse.model.patch_grid import BinnedBags, PatchCells, no_cells, raster_cells, spatial_cells


@dataclass(frozen=True)
class SubspaceFusionConfig:
    """Sizes of a `SubspaceFusion`; the defaults are the paper's, but for the layout.

    Raises:
        ValueError: If the sizes do not fit each other.
    """

    n_outputs: int  # classes, time bins, or 1 for a risk
    patch_dim: int = 1024  # width of a patch's features
    embed_dim: int = 128  # width of all embeddings
    grid: tuple[int, int] = (50, 50)  # cells, (height, width)
    layout: Literal["spatial", "raster"] = "spatial"  # patches by coordinates, or in list order as released
    position_bias: Literal["table", "exact"] = "table"  # interpolated, or evaluated at every pair
    table_size: int = 256  # least number of table nodes per axis
    heads: int = 8
    head_dim: int = 64
    offset_groups: int = 8  # channel groups with sampling positions of their own
    downsample: int = 4  # cells per sampling point, along each axis
    offset_scale: float = 4.0  # largest movement of a sampling point, in points
    offset_kernel: int = 6  # cells along each axis that a point's movement depends on
    dropout: float = 0.1
    gene_hidden: tuple[int, ...] = (64, 48, 32)  # hidden widths of the gene encoder

    def __post_init__(self) -> None:
        object.__setattr__(self, "grid", tuple(self.grid))
        object.__setattr__(self, "gene_hidden", tuple(self.gene_hidden))
        sizes = (
            "n_outputs",
            "patch_dim",
            "embed_dim",
            "table_size",
            "heads",
            "head_dim",
            "offset_groups",
            "downsample",
        )
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1. Found {getattr(self, name)}.")
        if self.layout not in ("spatial", "raster"):
            raise ValueError(f'layout must be "spatial" or "raster". Found {self.layout!r}.')
        if self.position_bias not in ("table", "exact"):
            raise ValueError(f'position_bias must be "table" or "exact". Found {self.position_bias!r}.')
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1). Found {self.dropout}.")
        if self.heads % self.offset_groups or self.embed_dim % self.offset_groups:
            raise ValueError(
                f"heads and embed_dim must be multiples of offset_groups ({self.offset_groups}). "
                f"Found heads={self.heads}, embed_dim={self.embed_dim}."
            )
        padding, odd = divmod(self.offset_kernel - self.downsample, 2)
        if padding < 0 or odd:
            raise ValueError(
                f"offset_kernel must exceed downsample ({self.downsample}) by an even number. "
                f"Found {self.offset_kernel}."
            )
        if len(self.grid) != 2 or min(self.grid) < self.downsample:
            raise ValueError(
                f"grid must be (height, width), each at least downsample ({self.downsample}). Found {self.grid}."
            )


class Subspace(nn.Module):
    """One subspace: encodes its genes, fuses them with the patches, attends, pools.

    Args:
        n_genes: Number of genes of the subspace; 0: it reads slides alone.
        config: Sizes.
    """

    def __init__(self, n_genes: int, config: SubspaceFusionConfig) -> None:
        super().__init__()
        embed_dim = config.embed_dim
        if n_genes:
            self.expression_encoder = GeneEncoder(n_genes, embed_dim, hidden=config.gene_hidden, dropout=config.dropout)
        self.patch_projection = nn.Linear(config.patch_dim, embed_dim)
        self.fusion = nn.Linear((2 if n_genes else 1) * embed_dim, embed_dim)
        self.attention = DeformableAttention(
            embed_dim,
            grid=config.grid,
            heads=config.heads,
            head_dim=config.head_dim,
            offset_groups=config.offset_groups,
            downsample=config.downsample,
            offset_scale=config.offset_scale,
            offset_kernel=config.offset_kernel,
            dropout=config.dropout,
            align_corners=config.layout == "spatial",
            table_size=config.table_size if config.position_bias == "table" else None,
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.pooler = nn.Linear(embed_dim, embed_dim)
        self.projection = nn.Linear(embed_dim, embed_dim)

    def forward(
        self,
        tokens: Float[Tensor, "batch token embed"],
        cells: PatchCells,
        expression: Float[Tensor, "batch gene"],
        expression_mask: Bool[Tensor, " batch"],
        *,
        need_attention: bool,
    ) -> "SubspacePart":
        """Returns the subspace's part of the model's output.

        Args:
            tokens: Projected patches per cell, 0 where there is none.
            cells: Where they lie.
            expression: The subspace's genes; ignored where `expression_mask` is False.
            expression_mask: False where expression was not measured.
            need_attention: Whether to return the attention that each patch receives.
        """
        encoded, of_patch, gene_half = self._gene_half(expression, expression_mask)
        attention = gene_half.new_zeros(len(gene_half), self.attention.heads, tokens.shape[1])
        pooled = self.norm(gene_half)  # without patches the fused map is this one vector
        grid = self.attention.base_grid(gene_half).expand(len(gene_half), self.attention.groups, -1, -1)
        if tokens.shape[1] > 0:
            fused = functional.linear(tokens, of_patch) + gene_half[:, None]
            attended = self.attention(fused, tokens, cells, need_attention=need_attention)
            has_patches = cells.token_mask.any(1)
            weight = cells.token_mask.to(grid.dtype) / cells.token_mask.sum(1, keepdim=True).clamp(min=1)
            mean = (weight[:, None] @ self.norm(fused + attended.output).to(grid.dtype)).squeeze(1)
            pooled = torch.where(has_patches[:, None], mean, pooled)
            grid = torch.where(has_patches[:, None, None, None], attended.sampling_grid, grid)
            attention = attention if attended.received is None else attended.received
        return SubspacePart(
            embedding=self.projection(self.pooler(pooled).tanh()),
            expression_embedding=encoded,
            sampling_grid=grid,
            attention=cells.spread(attention),
        )

    def _gene_half(
        self, expression: Float[Tensor, "batch gene"], expression_mask: Bool[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch embed"], Float[Tensor, "embed embed"], Float[Tensor, "batch embed"]]:
        """Returns the encoded genes, the weights of patches in the fusion, and what the fusion makes of the genes."""
        if not expression.shape[1]:
            nothing = expression.new_zeros(len(expression), len(self.fusion.bias))
            return nothing, self.fusion.weight, nothing + self.fusion.bias
        encoded = encode_measured(self.expression_encoder, expression, expression_mask)
        of_patch, of_expression = self.fusion.weight.chunk(2, dim=1)
        return encoded, of_patch, functional.linear(encoded, of_expression, self.fusion.bias)


@dataclass(frozen=True)
class SubspacePart:
    """What one subspace contributes to a `SubspaceFusionOutput`."""

    embedding: Float[Tensor, "batch embed"]
    expression_embedding: Float[Tensor, "batch embed"]
    sampling_grid: Float[Tensor, "batch group point 2"]
    attention: Float[Tensor, "batch head patch"]  # zeros where it was not asked for


class SubspaceFusion(nn.Module):
    """Knowledge-driven subspace fusion (Zhang et al., MICCAI 2024).

    Genes are divided into subspaces by knowledge. In each one, an encoding of its genes is joined to every patch, the
    patches attend to positions that the joined map chooses, and the result is pooled. A linear head adds up the
    subspaces' logits.

    Relative to the paper: any number of subspaces; patches lie where their coordinates say (`layout="spatial"`);
    either modality may be missing; only used parameters exist. Converted released weights (`convert_released`)
    reproduce the released logits. With `n_genes=0` it is a model of slides alone, which ignores `expression`.

    Args:
        config: Sizes.
        gene_sets: Columns of `expression` of each subspace, by name; none of a model of slides alone.
        n_genes: Columns that `expression` must have, for gene sets that do not use the last one; None: at least as
            many as the gene sets name.

    Raises:
        ValueError: If there is no subspace, a gene set is empty, or a column is negative or not below `n_genes`.

    Example:
        >>> config = SubspaceFusionConfig(n_outputs=3, patch_dim=16, grid=(8, 8))
        >>> model = SubspaceFusion(config, {"tumour": [0, 1], "microenvironment": [2, 3, 4]})
        >>> patches, coords = torch.randn(1, 20, 16), 128.0 * torch.randint(8, (1, 20, 2))
        >>> patch_mask, expression_mask = torch.ones(1, 20, dtype=torch.bool), torch.tensor([True])
        >>> output = model(patches, coords, patch_mask, torch.randn(1, 5), expression_mask)
        >>> output.logits.shape
        torch.Size([1, 3])
    """

    def __init__(
        self, config: SubspaceFusionConfig, gene_sets: Mapping[str, Sequence[int]], *, n_genes: int | None = None
    ) -> None:
        super().__init__()
        _check_gene_sets(gene_sets, n_genes)
        self.config = config
        self.n_genes = n_genes
        self.gene_sets = {name: tuple(int(column) for column in columns) for name, columns in gene_sets.items()}
        self.subspaces = nn.ModuleDict(
            {name: Subspace(len(columns), config) for name, columns in self.gene_sets.items()}
        )
        self.head = SubspaceHead(len(self.gene_sets), config.n_outputs, config.embed_dim)
        for index, columns in enumerate(self.gene_sets.values()):
            self.register_buffer(f"_columns_{index}", torch.tensor(columns, dtype=torch.long), persistent=False)

    def forward(
        self,
        patches: Float[Tensor, "batch patch feature"],
        coords: Float[Tensor, "batch patch 2"],
        patch_mask: Bool[Tensor, "batch patch"],
        expression: Float[Tensor, "batch gene"],
        expression_mask: Bool[Tensor, " batch"],
        *,
        binned: BinnedBags | None = None,
        need_attention: bool = False,
    ) -> SubspaceFusionOutput:
        """Returns logits and what they are made of.

        Args:
            patches: Patch features; values are ignored where `patch_mask` is False.
            coords: Patch centres in µm, (x, y).
            patch_mask: True where a patch is real; all False for a patient without slides.
            expression: Standardised expression; values are ignored where `expression_mask` is False.
            expression_mask: False where expression was not measured.
            binned: Given where patches are the means of cells; the layout must be spatial.
            need_attention: Whether to return the attention that each patch receives.

        Raises:
            ValueError: If shapes do not fit the model or each other, a patient has neither modality, or a feature is
                not finite.
        """
        self._check_widths(patches, expression)
        check_shapes(patches, coords, patch_mask, expression, expression_mask)
        genes = [expression[:, getattr(self, f"_columns_{index}")] for index in range(len(self.subspaces))]
        check_modalities(patch_mask, expression_mask, genes)
        cells = self._cells(coords, patch_mask, None if binned is None else binned.cell)
        tokens = self._tokens(patches, patch_mask, cells).chunk(len(self.subspaces), dim=2)
        parts = [
            subspace(part, cells, part_genes, expression_mask, need_attention=need_attention)
            for subspace, part, part_genes in zip(self.subspaces.values(), tokens, genes, strict=True)
        ]
        embedding = torch.stack([part.embedding for part in parts], 1)
        subspace_logits = self.head(embedding)
        return SubspaceFusionOutput(
            logits=subspace_logits.sum(1),
            subspace_logits=subspace_logits,
            embedding=embedding,
            expression_embedding=torch.stack([part.expression_embedding for part in parts], 1),
            sampling_grid=torch.stack([part.sampling_grid for part in parts], 1),
            attention=torch.stack([part.attention for part in parts], 1) if need_attention else None,
        )

    def _tokens(
        self,
        patches: Float[Tensor, "batch patch feature"],
        patch_mask: Bool[Tensor, "batch patch"],
        cells: PatchCells,
    ) -> Float[Tensor, "batch token embed_of_all"]:
        """Patches of each cell, averaged and projected for all subspaces at once."""
        subspaces = self.subspaces.values()
        weight = torch.cat([subspace.get_parameter("patch_projection.weight") for subspace in subspaces])
        bias = torch.cat([subspace.get_parameter("patch_projection.bias") for subspace in subspaces])

        # Averaging and projection are linear and commute: the one that leaves less to the other goes first.
        project_first = patches.shape[1] <= cells.token_mask.shape[1]
        reduce = partial(functional.linear, weight=weight) if project_first else cells.gather
        reduced = reduce(patches)
        # A feature that is not finite makes the sum so. Values of padding may be anything and are cleared then.
        if not reduced.detach().sum().isfinite():
            cleared = torch.where(patch_mask[..., None], patches, 0)
            check_finite(cleared)
            reduced = reduce(cleared)
        projected = cells.gather(reduced) if project_first else functional.linear(reduced, weight)
        return (projected + bias).relu()

    def _check_widths(
        self, patches: Float[Tensor, "batch patch feature"], expression: Float[Tensor, "batch gene"]
    ) -> None:
        if patches.shape[2] != self.config.patch_dim:
            raise ValueError(
                f"patches must have the {self.config.patch_dim} features of patch_dim. Found {patches.shape[2]}."
            )
        if self.n_genes == 0:
            return
        if self.n_genes is not None and expression.shape[1] != self.n_genes:
            raise ValueError(
                f"expression must have the {self.n_genes} columns of n_genes. Found {expression.shape[1]}."
            )
        least = 1 + max(max(columns) for columns in self.gene_sets.values())
        if expression.shape[1] < least:
            raise ValueError(
                f"expression must have a column for every gene of gene_sets, at least {least}. "
                f"Found {expression.shape[1]}."
            )

    def _cells(
        self,
        coords: Float[Tensor, "batch patch 2"],
        patch_mask: Bool[Tensor, "batch patch"],
        cell: Int[Tensor, "batch patch"] | None,
    ) -> PatchCells:
        if patch_mask.shape[1] == 0:
            return no_cells(patch_mask)
        if self.config.layout == "raster":
            if cell is not None:
                raise ValueError('layout must be "spatial" where patches are the means of cells. Found "raster".')
            return raster_cells(patch_mask, self.config.grid)
        every_cell = self.config.position_bias == "exact"
        return spatial_cells(coords, patch_mask, self.config.grid, every_cell=every_cell, cell=cell)


def _check_gene_sets(gene_sets: Mapping[str, Sequence[int]], n_genes: int | None) -> None:
    if not gene_sets:
        raise ValueError("gene_sets must name at least one subspace. Found none.")
    for name, columns in gene_sets.items():
        if not name or "." in name:
            raise ValueError(f'names in gene_sets become parts of weight names and must not hold ".". Found {name!r}.')
        if len(columns) == 0 and n_genes != 0:
            raise ValueError(f"gene_sets[{name!r}] must hold at least one gene. Found none.")
        outside = [column for column in columns if column < 0 or (n_genes is not None and column >= n_genes)]
        if outside:
            limit = "" if not n_genes else f" to {n_genes - 1} (n_genes - 1)"
            raise ValueError(
                f"gene_sets[{name!r}] must hold column numbers of expression, from 0{limit}. Found {preview(outside)}."
            )

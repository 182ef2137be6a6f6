"""A slow, direct transcription of the released model from its formulas, under the released weight names.

The oracle of the parity tests and the reference of `benchmarks/model_speed.py`. Single letters are those of the
formulas: B patients, N = 50 · 50 patches, E = 128, H = G = 8 heads and groups, K = 12 · 12 sampled points. Any
square number of patches is taken as a grid, so that tests can be quick.
"""

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

EMBED = 128
HEADS = 8
HEAD_DIM = 64
OFFSET_SCALE = 4.0
SUBSPACES = ("tumor", "immune")


def _block(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(*modules)


class _GeneNet(nn.Module):
    def __init__(self, n_genes: int, dropout: float) -> None:
        super().__init__()
        widths = [n_genes, 64, 48, 32, EMBED]
        self.encoder = nn.Sequential(
            *(_block(nn.Linear(a, b), nn.ELU(), nn.AlphaDropout(dropout)) for a, b in itertools.pairwise(widths))
        )
        for block in self.encoder:
            nn.init.normal_(block[0].weight, std=block[0].in_features ** -0.5)
            nn.init.zeros_(block[0].bias)

    def forward(self, genes: Tensor) -> Tensor:
        return self.encoder(genes).relu()


class _PositionMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            _block(nn.Linear(2, 32), nn.ReLU()), _block(nn.Linear(32, 32), nn.ReLU()), nn.Linear(32, 1)
        )

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """(N, 2) and (B·G, K, 2) to (B·G, N, K)."""
        difference = query[None, :, None, :] - key[:, None, :, :]
        return self.mlp(difference.sign() * torch.log(1 + difference.abs()))[..., 0]


class _Attention2d(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        inner = HEADS * HEAD_DIM
        self.to_q = nn.Conv2d(EMBED, inner, 1, groups=HEADS, bias=False)
        self.to_k = nn.Conv2d(EMBED, inner, 1, groups=HEADS, bias=False)
        self.to_v = nn.Conv2d(EMBED, inner, 1, groups=HEADS, bias=False)
        self.to_offsets = nn.Sequential(
            nn.Conv2d(HEAD_DIM, HEAD_DIM, 6, stride=4, padding=1, groups=HEAD_DIM),
            nn.GELU(),
            nn.Conv2d(HEAD_DIM, 2, 1, bias=False),
        )
        self.rel_pos_bias = _PositionMLP()
        self.to_out = nn.Conv2d(inner, EMBED, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, m: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """(B, E, 50, 50) twice to the output (B, E, 50, 50) and vgrid (B·G, 2, 12, 12)."""
        batch, _, size, _ = m.shape
        q = self.to_q(m)
        offsets = self.to_offsets(q.reshape(batch * HEADS, HEAD_DIM, size, size)).tanh() * OFFSET_SCALE
        n_points = offsets.shape[-1]
        steps = torch.arange(n_points, dtype=m.dtype, device=m.device)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        vgrid = torch.stack([x, y]) + offsets
        v = (2 * vgrid / (n_points - 1) - 1).permute(0, 2, 3, 1)  # (B·G, 12, 12, 2)
        sampled = functional.grid_sample(
            p.reshape(batch * HEADS, EMBED // HEADS, size, size),
            v,
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        sampled = sampled.reshape(batch, EMBED, n_points, n_points)
        k, val = self.to_k(sampled), self.to_v(sampled)
        q, k, val = (t.reshape(batch, HEADS, HEAD_DIM, -1).transpose(2, 3) for t in (q, k, val))
        steps = torch.arange(size, dtype=m.dtype, device=m.device)
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        u = (2 * torch.stack([x, y], -1) / (size - 1) - 1).reshape(-1, 2)
        bias = self.rel_pos_bias(u, v.reshape(batch * HEADS, -1, 2)).reshape(batch, HEADS, size * size, -1)
        attention = self.dropout(((q @ k.transpose(2, 3)) / HEAD_DIM**0.5 + bias).softmax(-1))
        out = (attention @ val).transpose(2, 3).reshape(batch, HEADS * HEAD_DIM, size, size)
        return self.to_out(out), vgrid


class _FusionLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fusion_layer = nn.Linear(2 * EMBED, EMBED)


class _Layer3(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(EMBED)
        self.attn2d = _Attention2d(dropout)


class _Pooler(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(EMBED, EMBED)


class _PathomicNet(nn.Module):
    def __init__(self, patch_dim: int, dropout: float) -> None:
        super().__init__()
        self._fc1 = nn.Sequential(nn.Linear(patch_dim, EMBED))
        self.fusion_layer = _FusionLayer()
        self.layer3 = _Layer3(dropout)
        self.norm = nn.LayerNorm(EMBED)
        self.pooler = _Pooler()
        self.multimodal_projection = nn.Linear(EMBED, EMBED)

    def forward(self, patches: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        p = self._fc1(patches).relu()
        m = self.fusion_layer.fusion_layer(torch.cat([p, g[:, None].expand(-1, p.shape[1], -1)], -1))
        size = math.isqrt(patches.shape[1])
        maps = [self.layer3.norm(t).transpose(1, 2).reshape(len(t), EMBED, size, size) for t in (m, p)]
        out, vgrid = self.layer3.attn2d(*maps)
        z = m + out.flatten(2).transpose(1, 2)
        return self.multimodal_projection(self.pooler.dense(self.norm(z).mean(1)).tanh()), vgrid


class Transcription(nn.Module):
    """METHOD A, as written."""

    def __init__(
        self, n_tumour: int, n_micro: int, n_classes: int, *, patch_dim: int = 1024, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.n_genes = (n_tumour, n_micro)
        for name, n_genes in zip(SUBSPACES, self.n_genes, strict=True):
            setattr(self, f"omic_net_{name}", _GeneNet(n_genes, dropout))
            setattr(self, f"pathomic_net_{name}", _PathomicNet(patch_dim, dropout))
        self.classifier = nn.Linear(2 * EMBED, n_classes)

    def forward(self, patches: Tensor, genes: Tensor) -> dict[str, Tensor]:
        """(B, 2500, F) and (B, genes), tumour genes first, to logits and what led to them."""
        e, g, grids = [], [], []
        for name, part in zip(SUBSPACES, genes.split(self.n_genes, dim=1), strict=True):
            g.append(getattr(self, f"omic_net_{name}")(part))
            embedding, vgrid = getattr(self, f"pathomic_net_{name}")(patches, g[-1])
            e.append(embedding)
            grids.append(vgrid.reshape(len(genes), HEADS, 2, -1).transpose(2, 3))
        return {
            "logits": self.classifier(torch.cat(e, 1)),
            "embedding": torch.stack(e, 1),
            "expression_embedding": torch.stack(g, 1),
            "sampling_grid": torch.stack(grids, 1),
        }


def random_released(
    n_tumour: int = 59,
    n_micro: int = 361,
    n_classes: int = 4,
    *,
    seed: int = 0,
    patch_dim: int = 1024,
    prefix: str = "",
    unused: bool = False,
    scale: float = 1.0,
) -> dict[str, Tensor]:
    """A released state dict with random weights.

    Args:
        prefix: "module." as distributed training writes it.
        unused: Whether to add the names that the forward pass never reads.
        scale: Factor on the position MLP's weights, as training would enlarge them.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in Transcription(n_tumour, n_micro, n_classes, patch_dim=patch_dim).state_dict().items():
        fan_in = max(tensor[0].numel(), 1)
        value = torch.randn(tensor.shape, generator=generator) * (3 * fan_in) ** -0.5  # as wide as default weights
        if ".norm." in name:
            value = 1 + 0.2 * value if name.endswith("weight") else 0.2 * value
        elif tensor.ndim == 1:
            value = 0.1 * torch.randn(tensor.shape, generator=generator)
        elif "to_offsets.0" in name:
            value = 2 * value  # offsets that use their range
        weights[name] = value * scale if "rel_pos_bias" in name else value
    if unused:
        for name in SUBSPACES:
            weights[f"omic_net_{name}.classifier.0.weight"] = torch.randn(n_classes, EMBED, generator=generator)
            weights[f"omic_net_{name}.output_range"] = torch.tensor([6.0])
            weights[f"omic_net_{name}.output_shift"] = torch.tensor([-3.0])
            weights[f"pathomic_net_{name}.cls_token"] = torch.randn(1, 1, EMBED, generator=generator)
            weights[f"pathomic_net_{name}._fc2.weight"] = torch.randn(n_classes, EMBED, generator=generator)
            weights[f"pathomic_net_{name}.layer3.attn1d.to_q.weight"] = torch.randn(512, 16, 1, generator=generator)
            weights[f"classifier_{name}.0.weight"] = torch.randn(n_classes, EMBED, generator=generator)
    return {prefix + name: value for name, value in weights.items()}


def strip(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Released weights without prefix and unused names, as `Transcription` loads them."""
    shapes = Transcription(1, 1, 1).state_dict()
    plain = {name.removeprefix("module."): value for name, value in state_dict.items()}
    return {name: value for name, value in plain.items() if name in shapes}

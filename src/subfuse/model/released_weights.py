"""Weights of the released code, converted."""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from subfuse.errors import preview
from subfuse.model.subspace_fusion import SubspaceFusion, SubspaceFusionConfig

logger = logging.getLogger(__name__)

PREFIX = "module."  # of every name where training was distributed
SUBSPACES = {"tumor": "tumour", "immune": "microenvironment"}  # released name: our name, in the released order

# Released name after `omic_net_SUB.` or `pathomic_net_SUB.`: our name after `subspaces.NAME.`
_GENE_NAMES = {
    f"encoder.{layer}.0.{kind}": f"expression_encoder.layers.{layer}.{kind}"
    for layer in range(4)
    for kind in ("weight", "bias")
}
_PATHOMIC_NAMES = {
    "_fc1.0.weight": "patch_projection.weight",
    "_fc1.0.bias": "patch_projection.bias",
    "fusion_layer.fusion_layer.weight": "fusion.weight",
    "fusion_layer.fusion_layer.bias": "fusion.bias",
    "layer3.norm.weight": "attention.norm.weight",
    "layer3.norm.bias": "attention.norm.bias",
    "layer3.attn2d.to_q.weight": "attention.query.weight",
    "layer3.attn2d.to_k.weight": "attention.key.weight",
    "layer3.attn2d.to_v.weight": "attention.value.weight",
    "layer3.attn2d.to_offsets.0.weight": "attention.offset_depthwise.weight",
    "layer3.attn2d.to_offsets.0.bias": "attention.offset_depthwise.bias",
    "layer3.attn2d.to_offsets.2.weight": "attention.offset_pointwise.weight",
    "layer3.attn2d.rel_pos_bias.mlp.0.0.weight": "attention.position_bias.first.weight",
    "layer3.attn2d.rel_pos_bias.mlp.0.0.bias": "attention.position_bias.first.bias",
    "layer3.attn2d.rel_pos_bias.mlp.1.0.weight": "attention.position_bias.second.weight",
    "layer3.attn2d.rel_pos_bias.mlp.1.0.bias": "attention.position_bias.second.bias",
    "layer3.attn2d.rel_pos_bias.mlp.2.weight": "attention.position_bias.output.weight",
    "layer3.attn2d.rel_pos_bias.mlp.2.bias": "attention.position_bias.constant",
    "layer3.attn2d.to_out.weight": "attention.output.weight",
    "layer3.attn2d.to_out.bias": "attention.output.bias",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
    "pooler.dense.weight": "pooler.weight",
    "pooler.dense.bias": "pooler.bias",
    "multimodal_projection.weight": "projection.weight",
    "multimodal_projection.bias": "projection.bias",
}


_CLASSIFIER = ("classifier.weight", "classifier.bias")


def convert_released(state_dict: Mapping[str, Tensor]) -> tuple[SubspaceFusionConfig, dict[str, Tensor]]:
    """Converts a checkpoint of the released code to a configuration and weights of `SubspaceFusion`.

    Genes are ordered tumour first, then microenvironment, so that the model is
    `SubspaceFusion(config, {"tumour": range(n_t), "microenvironment": range(n_t, n_t + n_m)})`. The layout is `raster`
    and the position bias `exact`, which reproduces the released logits; both may be replaced in the configuration.

    Args:
        state_dict: Released names, with or without the prefix `module.`. Those that the released forward pass never
            uses are left out and logged; `unused_names` lists them.

    Raises:
        ValueError: If a name is missing or a shape is not that of the released architecture.
    """
    released = _without_prefix(state_dict)
    names = _names()
    missing = [name for name in (*names, *_CLASSIFIER) if name not in released]
    if missing:
        raise ValueError(f"state_dict must hold every tensor of a released checkpoint. Missing: {preview(missing)}.")
    unused = unused_names(state_dict)
    if unused:
        logger.info("left out %d tensors that the released model never uses: %s", len(unused), preview(unused))
    config, expected = _architecture(released)
    weights = {
        ours: _reshaped(released[theirs], expected[ours], f"{theirs} in state_dict") for theirs, ours in names.items()
    }
    shape = expected["head.weight"]  # subspace, output, embed
    halves = _reshaped(
        released["classifier.weight"], (shape[1], shape[0] * shape[2]), "classifier.weight in state_dict"
    )
    weights["head.weight"] = torch.stack(halves.chunk(len(SUBSPACES), dim=1))
    weights["head.bias"] = _reshaped(
        released["classifier.bias"], expected["head.bias"], "classifier.bias in state_dict"
    )
    return config, weights


def unused_names(state_dict: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Returns the released names that `convert_released` leaves out, as they are written in the checkpoint."""
    used = {*_names(), *_CLASSIFIER}
    return tuple(name for name in state_dict if name.removeprefix(PREFIX) not in used)


def _without_prefix(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(PREFIX): tensor for name, tensor in state_dict.items()}


def _names() -> dict[str, str]:
    """Released name to our name, but for the classifier."""
    return {
        f"{net}_{theirs}.{their_name}": f"subspaces.{ours}.{our_name}"
        for theirs, ours in SUBSPACES.items()
        for net, table in (("omic_net", _GENE_NAMES), ("pathomic_net", _PATHOMIC_NAMES))
        for their_name, our_name in table.items()
    }


def _architecture(released: Mapping[str, Tensor]) -> tuple[SubspaceFusionConfig, dict[str, torch.Size]]:
    """Configuration and our shapes, for the sizes that released checkpoints differ in."""
    config = SubspaceFusionConfig(
        n_outputs=released["classifier.weight"].shape[0],
        patch_dim=released["pathomic_net_tumor._fc1.0.weight"].shape[-1],
        layout="raster",
        position_bias="exact",
    )
    n_genes = {ours: released[f"omic_net_{theirs}.encoder.0.0.weight"].shape[-1] for theirs, ours in SUBSPACES.items()}
    with torch.device("meta"):
        model = SubspaceFusion(config, {name: range(count) for name, count in n_genes.items()})
    return config, {name: tensor.shape for name, tensor in model.state_dict().items()}


def _reshaped(tensor: Tensor, shape: Sequence[int], name: str) -> Tensor:
    """A copy with the trailing axes of length 1 that convolutions carry dropped or added."""
    trimmed = [list(size) for size in (tensor.shape, shape)]
    for size in trimmed:
        while len(size) > 1 and size[-1] == 1:
            size.pop()
    if trimmed[0] != trimmed[1]:
        raise ValueError(f"{name} must have the shape {tuple(shape)}. Found {tuple(tensor.shape)}.")
    return tensor.detach().clone().reshape(*shape)

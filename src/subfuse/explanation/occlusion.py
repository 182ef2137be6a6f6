"""Occlusion: how a score changes when a patch, or a window of patches, looks like average tissue."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from subfuse.cohort.bags import BagBatch
from subfuse.explanation.explained_score import ExplainedScore, points_at_once
from subfuse.model.patch_grid import patch_pitch

MAX_WINDOWS = 400


def occlude_patches(
    model: nn.Module, batch: BagBatch, score: ExplainedScore, *, max_windows: int = MAX_WINDOWS
) -> Float[Tensor, "subspace patch"]:
    """Returns how much each subspace's share of the score falls when a patch is replaced by the average patch.

    The cost is bounded: where a bag has more patches than `max_windows`, square windows of neighbouring patches are
    replaced together, as small as possible, and the fall is shared equally between the patches of a window.

    A patch is replaced rather than removed. Removing one at the edge would shift all others on the model's grid, and
    the score would change for a reason that has nothing to do with the patch.

    Args:
        model: Anything with the forward signature of `SubspaceFusion`, in evaluation mode.
        batch: One patient. Patches are standardised, so zero is the average training patch.
        score: What is explained.
        max_windows: Largest number of windows, each one pass of the patient through the model.

    Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014.
    """
    window = torch.from_numpy(windows_of(batch, max_windows=max_windows)).to(batch.patches.device)
    n_windows = int(window.max()) + 1 if len(window) else 0
    real = batch.patch_mask[0].nonzero().flatten()
    inputs = batch.inputs()
    with torch.inference_mode():
        whole = score.of_subspaces(model(**inputs))[0]
        falls = whole.new_zeros(len(whole), batch.patch_mask.shape[1])
        at_once = points_at_once(batch)
        for start in range(0, n_windows, at_once):
            some = torch.arange(start, min(start + at_once, n_windows), device=window.device)
            hidden = window == some[:, None]  # window, patch
            copies = {name: value.expand(len(some), *value.shape[1:]) for name, value in inputs.items()}
            patches = copies["patches"].clone()
            patches[:, real] = patches[:, real].masked_fill(hidden[..., None], 0.0)
            fall = whole - score.of_subspaces(model(**copies | {"patches": patches}))  # window, subspace
            share = hidden.to(fall) / hidden.sum(dim=1, keepdim=True)
            falls[:, real] += fall.T @ share
    return falls


def windows_of(batch: BagBatch, *, max_windows: int) -> Int[np.ndarray, " real"]:
    """Returns the window of each real patch of the one patient of a batch, numbered from 0.

    Windows are squares of 1, 2, 3 ... patch spacings, the smallest that make at most `max_windows` of them.
    """
    if max_windows < 1:
        raise ValueError(f"max_windows must be at least 1. Found {max_windows}.")
    coords = batch.coords[0][batch.patch_mask[0]].double().cpu().numpy()
    if len(coords) <= max_windows:
        return np.arange(len(coords))
    pitch = float(patch_pitch(batch.coords, batch.patch_mask)[0]) or 1.0
    step = np.floor((coords - coords.min(axis=0)) / pitch + 0.5)
    width = 1
    while True:
        _, window = np.unique(step // width, axis=0, return_inverse=True)
        if window.max() < max_windows:
            return window.reshape(-1)
        width += 1

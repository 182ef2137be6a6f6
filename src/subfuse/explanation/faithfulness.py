"""Are attributions true to the model? Curves of deletion and insertion, and what random weights do to them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from subfuse.cohort.batches import BagBatch
from subfuse.evaluation.metrics import NORMAL_95
from subfuse.explanation.attribution import Attribution
from subfuse.explanation.explained_score import ExplainedScore, attribute_subspaces, points_at_once, subspace_parts
from subfuse.model.patch_grid import patch_pitch
from subfuse.training.fitted_model import FittedModel

_MAX_WINDOWS = 400


def occlude_patches(
    model: nn.Module, batch: BagBatch, score: ExplainedScore, *, max_windows: int = _MAX_WINDOWS
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


STEPS = 10  # of equal size along a curve
_RANDOM_ORDERS = 3
_BOOTSTRAP = 2000
_INPUTS = ("patches", "genes")
COLUMNS = ("patient_id", "fold", "input", "deletion", "insertion", "random_weights", "random_weights_absolute")
CURVE_COLUMNS = ("patient_id", "fold", "input", "order", "removed", "score")


def faithfulness_curves(
    model: nn.Module,
    batch: BagBatch,
    score: ExplainedScore,
    attributions: Mapping[str, Attribution],
    *,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Returns the score of one patient while its patches, or its genes, are replaced by the average one.

    Columns: patient_id; input; order: `deletion` replaces those that raise the score most first, `insertion` those that
    raise it least (read from the end, the most important are put back first), `random` is the mean over random orders;
    removed, the share of the input that is replaced, from 0 to 1; score. An input of fewer than three elements has no
    row. All orders start and end at the same score: below `random` is better for deletion, above it for insertion.

    Args:
        model: Anything with the forward signature of `SubspaceFusion`, in evaluation mode.
        batch: One patient; inputs are standardised, so zero is average.
        score: What is explained.
        attributions: Of each subspace's share.
        generator: Draws the random orders.

    Source: Petsiuk et al., RISE, BMVC 2018.
    """
    total = _total_attribution(attributions)
    tables = []
    for name in _INPUTS:
        places = _places(batch, total, name)
        if len(places) < 3:
            continue
        order = places[np.argsort(-total[name].double().cpu().numpy()[places], kind="stable")]
        shuffled = [generator.permutation(places) for _ in range(_RANDOM_ORDERS)]
        scores = deletion_scores(model, batch, score, np.stack([order, order[::-1], *shuffled]), input_name=name)
        curves = {"deletion": scores[0], "insertion": scores[1], "random": scores[2:].mean(axis=0)}
        tables += [
            pd.DataFrame({"input": name, "order": kind, "removed": np.linspace(0, 1, STEPS + 1), "score": curve})
            for kind, curve in curves.items()
        ]
    columns = [name for name in CURVE_COLUMNS if name != "fold"]
    found = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
    return found.assign(patient_id=batch.patient_id[0]).reindex(columns=columns)


def faithfulness_of(
    fitted: FittedModel,
    batch: BagBatch,
    score: ExplainedScore,
    attributions: Mapping[str, Attribution],
    curves: pd.DataFrame,
    *,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Returns how faithful the attributions of one patient are: one row for its patches and one for its genes.

    Columns: patient_id; input; `deletion`, by how much the score lies below that of random order while the inputs are
    replaced by the average one, those that raise the score most first; `insertion`, by how much it lies above random
    order while they are put back in the same order (both are mean differences along the curve, in units of the score;
    above 0 is better than chance); `random_weights` and `random_weights_absolute`, the rank correlation of the
    attributions, and of their absolute values, with those of the same model with random weights (near 0: the
    attributions depend on what was learned). An input without curves has no row.

    Source: Petsiuk et al., RISE, BMVC 2018; Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
    """
    total = _total_attribution(attributions)
    randomised = _total_attribution(_with_random_weights(fitted, batch, score, seed=int(generator.integers(2**31))))
    rows = []
    for name, of_input in curves.groupby("input", sort=False):
        by_order = of_input.pivot_table(index="removed", columns="order", values="score")
        area = {order: float(np.trapezoid(by_order[order], by_order.index)) for order in by_order}
        places = _places(batch, total, str(name))
        value, other = (part[str(name)].double().cpu().numpy()[places] for part in (total, randomised))
        rows.append(
            {
                "patient_id": batch.patient_id[0],
                "input": name,
                "deletion": area["random"] - area["deletion"],
                "insertion": area["insertion"] - area["random"],
                "random_weights": _rank_correlation(value, other),
                "random_weights_absolute": _rank_correlation(np.abs(value), np.abs(other)),
            }
        )
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "fold"])


def deletion_scores(
    model: nn.Module,
    batch: BagBatch,
    score: ExplainedScore,
    orders: Int[np.ndarray, "order place"],
    *,
    input_name: str,
) -> Float[np.ndarray, "order point"]:
    """Returns the score along each order in which patches or genes are replaced by the average one.

    Args:
        model: Anything with the forward signature of `SubspaceFusion`, in evaluation mode.
        batch: One patient; inputs are standardised, so zero is average.
        score: What is explained.
        orders: Places in the bag or on the gene axis, the first to be replaced first.
        input_name: `patches` or `genes`.

    Returns:
        Scores at 11 points: nothing replaced, a tenth, ... everything.
    """
    n_orders, n_places = orders.shape
    removed = np.rint(np.linspace(0, n_places, STEPS + 1)).astype(int)
    inputs = batch.inputs()
    name = "patches" if input_name == "patches" else "expression"
    curves = np.zeros((n_orders, STEPS + 1))
    # all orders start and end with the same input: that of the first one serves them all
    jobs = [(row, column) for row in range(n_orders) for column in range(STEPS + 1) if not row or 0 < column < STEPS]
    at_once = points_at_once(batch)
    with torch.inference_mode():
        for start in range(0, len(jobs), at_once):
            some = jobs[start : start + at_once]
            copies = {key: value.expand(len(some), *value.shape[1:]) for key, value in inputs.items()}
            copies[name] = copies[name].clone()
            for copy, (row, column) in enumerate(some):
                copies[name][copy, torch.from_numpy(orders[row, : removed[column]].copy())] = 0.0
            values = score.of_logits(model(**copies).logits).double().cpu().numpy()
            for value, (row, column) in zip(values, some, strict=True):
                curves[row, column] = value
    curves[:, [0, -1]] = curves[0, [0, -1]]
    return curves


def _total_attribution(attributions: Mapping[str, Attribution]) -> dict[str, Float[Tensor, " element"]]:
    """Returns what the patches and the genes of one patient add to the whole score."""
    parts = list(attributions.values())
    return {
        "patches": torch.stack([part.patch[0] for part in parts]).sum(dim=0),
        "genes": torch.stack([part.gene[0] for part in parts]).sum(dim=0),
    }


def faithfulness_summary(table: pd.DataFrame, *, generator: np.random.Generator) -> dict[str, dict[str, dict]]:
    """Returns mean, 95 % interval over patients and number of patients of every measure, by input.

    Curves also have `better_than_random`, the share of patients above 0. The interval is a percentile bootstrap of
    patients; with fewer than three there is none. A patient of several models counts once, with their mean.
    """
    summary: dict[str, dict[str, dict]] = {}
    names = ["deletion", "insertion", "random_weights", "random_weights_absolute"]
    for name, of_models in table.groupby("input", sort=False):
        rows = of_models[names].astype(float).groupby(of_models["patient_id"], sort=False).mean()
        measures = {}
        for measure in names:
            values = rows[measure].dropna().to_numpy(float)
            entry: dict[str, float | int | None] = {
                "n_patients": len(values),
                "mean": None,
                "lower": None,
                "upper": None,
            }
            if len(values):
                entry["mean"] = float(values.mean())
            if len(values) > 2:
                means = generator.choice(values, size=(_BOOTSTRAP, len(values))).mean(axis=1)
                entry["lower"], entry["upper"] = (float(x) for x in np.quantile(means, [0.025, 0.975]))
            if measure in ("deletion", "insertion") and len(values):
                entry["better_than_random"] = float((values > 0).mean())
            measures[measure] = entry
        summary[str(name)] = measures
    return summary


def mean_curves(curves: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean curve over patients of each input and order: what a plot of deletion and insertion shows.

    Columns: input, order, removed; `change`, the mean change of the score since nothing was replaced; `against_random`,
    the mean difference from random order at the same point, with `lower` and `upper`, its 95 % interval over patients
    (normal approximation; NaN for fewer than three patients); n_patients. Curves of random order differ from
    themselves by 0. A patient of several models counts once, with their mean.
    """
    keys = ["patient_id", "fold", "input"]
    start = curves[(curves["removed"] == 0) & (curves["order"] == "random")].set_index(keys)["score"].rename("start")
    random = curves[curves["order"] == "random"].set_index([*keys, "removed"])["score"].rename("random")
    joined = curves.join(start, on=keys).join(random, on=[*keys, "removed"])
    joined["change"] = joined["score"] - joined["start"]
    joined["against_random"] = joined["score"] - joined["random"]
    point = ["input", "order", "removed"]
    of_patients = joined.groupby([*point, "patient_id"], sort=False)[["score", "change", "against_random"]].mean()
    table = of_patients.groupby(point, sort=False).agg(
        change=("change", "mean"),
        against_random=("against_random", "mean"),
        error=("against_random", "sem"),
        n_patients=("score", "size"),
    )
    half_width = NORMAL_95 * table.pop("error").where(table["n_patients"] > 2)
    table.insert(2, "lower", table["against_random"] - half_width)
    table.insert(3, "upper", table["against_random"] + half_width)
    return table.reset_index()


def _places(
    batch: BagBatch, total: Mapping[str, Float[Tensor, " element"]], input_name: str
) -> Int[np.ndarray, " place"]:
    """Returns the real patches, or the genes that a subspace has and that were measured."""
    is_there = batch.patch_mask[0] if input_name == "patches" else total[input_name] != 0
    return is_there.nonzero().flatten().cpu().numpy()


def _with_random_weights(
    fitted: FittedModel, batch: BagBatch, score: ExplainedScore, *, seed: int
) -> dict[str, Attribution]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = fitted.recipe.build().to(batch.patches.device).eval()
    # a rough integral suffices for a correlation of ranks
    return attribute_subspaces(fitted, batch, score, parts=subspace_parts(fitted, model), tolerance=1.0)


def _rank_correlation(first: Float[np.ndarray, " element"], second: Float[np.ndarray, " element"]) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(pd.Series(first).corr(pd.Series(second), method="spearman"))

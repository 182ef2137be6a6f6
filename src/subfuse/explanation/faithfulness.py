"""Are attributions true to the model? Curves of deletion and insertion, and what random weights do to them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from subfuse.data.bags import BagBatch
from subfuse.explanation.attribution import Attribution
from subfuse.explanation.explained_score import ExplainedScore, attribute_subspaces, points_at_once
from subfuse.training.checkpoint import FittedModel

STEPS = 10  # of equal size along a curve
RANDOM_ORDERS = 5
BOOTSTRAP = 2000
INPUTS = ("patches", "genes")
COLUMNS = ("patient_id", "fold", "input", "deletion", "insertion", "random_weights", "random_weights_absolute")


def faithfulness_of(
    fitted: FittedModel,
    batch: BagBatch,
    score: ExplainedScore,
    attributions: Mapping[str, Attribution],
    *,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Returns how faithful the attributions of one patient are: one row for its patches and one for its genes.

    Columns: patient_id; input; `deletion`, by how much the score lies below that of random order while the inputs are
    replaced by the average one, those that raise the score most first; `insertion`, by how much it lies above random
    order while they are put back in the same order (both are mean differences along the curve, in units of the score;
    above 0 is better than chance); `random_weights` and `random_weights_absolute`, the rank correlation of the
    attributions, and of their absolute values, with those of the same model with random weights (near 0: the
    attributions depend on what was learned). An input of fewer than three elements has no row.

    Args:
        fitted: The model.
        batch: One patient.
        score: What is explained.
        attributions: Of each subspace's share.
        generator: Draws random orders and weights.

    Source: Petsiuk et al., RISE, BMVC 2018; Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
    """
    total = total_attribution(attributions)
    randomised = total_attribution(_with_random_weights(fitted, batch, score, seed=int(generator.integers(2**31))))
    rows = []
    for name in INPUTS:
        places = (batch.patch_mask[0] if name == "patches" else total[name] != 0).nonzero().flatten().cpu().numpy()
        if len(places) < 3:
            continue
        value = total[name].double().cpu().numpy()[places]
        order = places[np.argsort(-value, kind="stable")]
        shuffled = [generator.permutation(places) for _ in range(RANDOM_ORDERS)]
        orders = np.stack([order, order[::-1], *shuffled])
        area = deletion_areas(fitted.model, batch, score, orders, input_name=name)
        other = randomised[name].double().cpu().numpy()[places]
        rows.append(
            {
                "patient_id": batch.patient_id[0],
                "input": name,
                "deletion": area[2:].mean() - area[0],
                "insertion": area[1] - area[2:].mean(),  # the least important deleted first: read backwards, insertion
                "random_weights": _rank_correlation(value, other),
                "random_weights_absolute": _rank_correlation(np.abs(value), np.abs(other)),
            }
        )
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "fold"])


def deletion_areas(
    model: nn.Module,
    batch: BagBatch,
    score: ExplainedScore,
    orders: Int[np.ndarray, "order place"],
    *,
    input_name: str,
) -> Float[np.ndarray, " order"]:
    """Returns the mean score along each order in which patches or genes are replaced by the average one.

    Args:
        model: Anything with the forward signature of `SubspaceFusion`, in evaluation mode.
        batch: One patient; inputs are standardised, so zero is average.
        score: What is explained.
        orders: Places in the bag or on the gene axis, the first to be replaced first.
        input_name: `patches` or `genes`.
    """
    n_orders, n_places = orders.shape
    removed = np.rint(np.linspace(0, n_places, STEPS + 1)).astype(int)
    inputs = batch.inputs()
    name = "patches" if input_name == "patches" else "expression"
    curves = np.zeros((n_orders, STEPS + 1))
    jobs = [(row, column) for row in range(n_orders) for column in range(STEPS + 1)]
    at_once = points_at_once(batch)
    with torch.inference_mode():
        for start in range(0, len(jobs), at_once):
            some = jobs[start : start + at_once]
            copies = {key: value.repeat(len(some), *[1] * (value.ndim - 1)) for key, value in inputs.items()}
            for copy, (row, column) in enumerate(some):
                copies[name][copy, torch.from_numpy(orders[row, : removed[column]].copy())] = 0.0
            values = score.of_logits(model(**copies).logits).double().cpu().numpy()
            for value, (row, column) in zip(values, some, strict=True):
                curves[row, column] = value
    return np.asarray(np.trapezoid(curves, dx=1 / STEPS, axis=1))


def total_attribution(attributions: Mapping[str, Attribution]) -> dict[str, Float[Tensor, " element"]]:
    """Returns what the patches and the genes of one patient add to the whole score."""
    parts = list(attributions.values())
    return {
        "patches": torch.stack([part.patch[0] for part in parts]).sum(dim=0),
        "genes": torch.stack([part.gene[0] for part in parts]).sum(dim=0),
    }


def faithfulness_summary(table: pd.DataFrame, *, generator: np.random.Generator) -> dict[str, dict[str, dict]]:
    """Returns mean, 95 % interval over patients and number of patients of every measure, by input.

    Curves also have `better_than_random`, the share of patients above 0. The interval is a percentile bootstrap of
    patients; with fewer than three there is none.
    """
    summary: dict[str, dict[str, dict]] = {}
    for name, rows in table.groupby("input", sort=False):
        measures = {}
        for measure in ("deletion", "insertion", "random_weights", "random_weights_absolute"):
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
                means = generator.choice(values, size=(BOOTSTRAP, len(values))).mean(axis=1)
                entry["lower"], entry["upper"] = (float(x) for x in np.quantile(means, [0.025, 0.975]))
            if measure in ("deletion", "insertion") and len(values):
                entry["better_than_random"] = float((values > 0).mean())
            measures[measure] = entry
        summary[str(name)] = measures
    return summary


def _with_random_weights(
    fitted: FittedModel, batch: BagBatch, score: ExplainedScore, *, seed: int
) -> dict[str, Attribution]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = fitted.recipe.build().to(batch.patches.device).eval()
    # a rough integral suffices for a correlation of ranks
    return attribute_subspaces(fitted, batch, score, model=model, tolerance=1.0)


def _rank_correlation(first: Float[np.ndarray, " element"], second: Float[np.ndarray, " element"]) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(pd.Series(first).corr(pd.Series(second), method="spearman"))

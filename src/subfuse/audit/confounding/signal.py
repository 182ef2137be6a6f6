"""How much a batch shows in numbers: whether it can be told from them, and what it explains, among patients alike.

A batch is any grouping that is not biology: the hospital, the project, the scanner. Patients are alike who are of one
stratum; tests permute the batch among them, so that what the strata know of the batch counts for nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from subfuse.evaluation.floors import LEAST_OF_STRATUM

_PENALTY = 2.0  # of the ridge, whose columns have a mean square of one over their number
_PARTS = 5  # of a group whose columns are its own, over which it is cross-validated
_BLOCK = 2_000_000  # scores of drawings, patients and values at a time
_STRATUM_SCALE = 3.0  # of the columns that tell the stratum: penalised less than the inputs


@dataclass(frozen=True)
class Told:
    """How well a batch is told: area under the ROC curve, mean over its values, each against the others."""

    auc: float  # among all patients; NaN where undefined
    auc_within: float  # among patients of a stratum; NaN where no stratum has two values
    p_within: float  # of the latter, by permutation within strata and folds, each fitted anew


def told_by(
    inputs: Float[np.ndarray, "patient column"],
    batch: Int[np.ndarray, " patient"],
    fold: Int[np.ndarray, " patient"],
    stratum: Int[np.ndarray, " patient"],
    *,
    n_permutations: int,
    seed: int,
) -> Told:
    """Returns whether inputs tell the batch of patients whom the classifier did not see.

    For every fold a ridge regression of who is of a value is fitted on the patients of the others, alone for `auc`, and
    with the strata among its columns for `auc_within`, since inputs that were scaled within each batch tell it only to
    one who knows what the patient should look like. It is fitted again for every permutation: patients of two folds
    score each other, so that scores which stay as they are would vary by half of what chance does.
    """
    auc, within = _measured(inputs, batch, fold, stratum, n_permutations=n_permutations, seed=seed)
    return _told(auc, within)


def told_apart(
    inputs: Float[np.ndarray, "patient column"],
    batch: Int[np.ndarray, " patient"],
    group: Int[np.ndarray, " patient"],
    stratum: Int[np.ndarray, " patient"],
    *,
    n_permutations: int,
    seed: int,
) -> Told:
    """Returns `told_by` where columns mean something else in every group, as embeddings of different networks do.

    Every group is divided anew, so that the classifier sees patients of no other; areas are means over the groups in
    which two values are shared by ten patients each, so that there are some to learn from in every part.
    """
    random = np.random.default_rng(seed)
    measured = []
    for name in np.unique(group):
        chosen = np.flatnonzero(group == name)
        sizes = np.bincount(batch[chosen])
        chosen = chosen[sizes[batch[chosen]] >= LEAST_OF_STRATUM]
        if len(np.unique(batch[chosen])) < 2:
            continue
        part = random.permutation(len(chosen)) % _PARTS
        codes = np.unique(batch[chosen], return_inverse=True)[1]
        alike = np.unique(stratum[chosen], return_inverse=True)[1]
        measured.append(_measured(inputs[chosen], codes, part, alike, n_permutations=n_permutations, seed=seed))
    if not measured:
        return Told(np.nan, np.nan, np.nan)
    auc = float(np.mean([value for value, _ in measured]))
    known = [within for _, within in measured if np.isfinite(within).all()]
    return _told(auc, np.mean(known, axis=0) if known else np.full(n_permutations + 1, np.nan))


def _measured(
    inputs: Float[np.ndarray, "patient column"],
    batch: Int[np.ndarray, " patient"],
    fold: Int[np.ndarray, " patient"],
    stratum: Int[np.ndarray, " patient"],
    *,
    n_permutations: int,
    seed: int,
) -> tuple[float, Float[np.ndarray, " drawing"]]:
    """Returns the AUC among all patients, and that within strata, followed by those of permutations."""
    every, value = np.zeros(len(batch), dtype=np.int64), _one_hot(batch)
    scores, among_alike = np.full((1, *value.shape), np.nan), []
    for tested, train, alone, beside_strata in _smoothers(inputs, fold, stratum):
        _score(scores, value[None], tested, train, alone)
        among_alike.append((tested, train, beside_strata))
    auc = stratified_auc(scores, value[None], every)
    drawn = [batch, *permuted(batch, _joined(stratum, fold), n_permutations, seed)]
    n_at_once = max(1, _BLOCK // value.size)  # every drawing is scored on its own
    within = []
    for start in range(0, len(drawn), n_at_once):
        kinds = np.eye(value.shape[1])[np.stack(drawn[start : start + n_at_once])]
        scores = np.full(kinds.shape, np.nan)
        for smoother in among_alike:
            _score(scores, kinds, *smoother)
        within.append(stratified_auc(scores, kinds, stratum))
    return float(auc[0]), np.concatenate(within)


def _told(auc: float, within: Float[np.ndarray, " drawing"]) -> Told:
    found, by_chance = within[0], within[1:]
    p_value = np.nan if np.isnan(found) else (1 + np.sum(by_chance >= found)) / len(within)
    return Told(auc, float(found), float(p_value))


def held_out_scores(
    inputs: Float[np.ndarray, "patient column"],
    kinds: Float[np.ndarray, "drawing patient value"],
    fold: Int[np.ndarray, " patient"],
    *,
    stratum: Int[np.ndarray, " patient"] | None = None,
) -> Float[np.ndarray, "drawing patient value"]:
    """Returns the score of every value in every drawing, from ridge regressions of the other folds' patients.

    NaN where nobody of the other folds is of the value, or all are.

    Args:
        inputs: Of every patient.
        kinds: Who is of which value, in every drawing: one-hot; in each, as many of every fold.
        fold: Of every patient.
        stratum: Told beside the inputs.
    """
    scores = np.full(kinds.shape, np.nan)
    for tested, train, alone, beside_strata in _smoothers(inputs, fold, fold if stratum is None else stratum):
        _score(scores, kinds, tested, train, alone if stratum is None else beside_strata)
    return scores


def _smoothers(
    inputs: Float[np.ndarray, "patient column"], fold: Int[np.ndarray, " patient"], stratum: Int[np.ndarray, " patient"]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields for every fold who is tested and trained on, and what ridges multiply the outcomes of the latter by.

    One is of the inputs alone, the other of inputs and strata.
    """
    alike = _STRATUM_SCALE * _one_hot(stratum)
    for held_out in np.unique(fold):
        tested, train = np.flatnonzero(fold == held_out), np.flatnonzero(fold != held_out)
        if len(train):
            mean, spread = inputs[train].mean(axis=0), inputs[train].std(axis=0)
            columns = (inputs - mean) / np.where(spread > 1e-9, spread, np.inf) / np.sqrt(max(1, inputs.shape[1]))
            of_strata = alike - alike[train].mean(axis=0)
            similar = columns @ columns[train].T  # once for both: there are many more columns than strata
            both = (similar, similar + of_strata @ of_strata[train].T)
            alone, beside_strata = (
                np.linalg.solve(similar[train] + _PENALTY * np.eye(len(train)), similar[tested].T).T for similar in both
            )
            yield tested, train, alone, beside_strata


def _score(
    scores: Float[np.ndarray, "drawing patient value"],
    kinds: Float[np.ndarray, "drawing patient value"],
    tested: Int[np.ndarray, " tested"],
    train: Int[np.ndarray, " trained"],
    smoother: Float[np.ndarray, "tested trained"],
) -> None:
    """Fills in the scores of a fold's tested patients."""
    learned = kinds[:, train]
    values = np.flatnonzero(learned[0].any(axis=0))
    if len(values) > 1:
        mean = learned.mean(axis=1, keepdims=True)
        fitted = np.einsum("st,dtv->dsv", smoother, learned - mean, optimize=True)
        scores[np.ix_(np.arange(len(kinds)), tested, values)] = (mean + fitted)[:, :, values]


def stratified_auc(
    scores: Float[np.ndarray, "drawing patient value"],
    kinds: Float[np.ndarray, "drawing patient value"],
    stratum: Int[np.ndarray, " patient"],
) -> Float[np.ndarray, " drawing"]:
    """Returns the mean over values of the share of pairs within a stratum that a value's score orders rightly.

    Ties count one half. Values without a pair, or without a score for somebody, are left out; NaN where none is left.

    Args:
        scores: Of every value, in every drawing.
        kinds: Who is of which value, in every drawing: one-hot.
        stratum: Of each patient.
    """
    from scipy.stats import rankdata

    known = np.isfinite(scores).all(axis=(0, 1))
    scores, kinds = scores[:, :, known], kinds[:, :, known]
    won = np.zeros(kinds.shape[::2])
    pairs = np.zeros(kinds.shape[::2])
    for name in np.unique(stratum):
        chosen = stratum == name
        members, ranks = kinds[:, chosen], rankdata(scores[:, chosen], axis=1)
        n_members = members.sum(axis=1)
        won += (members * ranks).sum(axis=1) - n_members * (n_members + 1) / 2
        pairs += n_members * (chosen.sum() - n_members)
    shares = np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)
    counted = np.isfinite(shares)
    n_counted = counted.sum(axis=1)
    total = np.where(counted, shares, 0.0).sum(axis=1)
    return np.divide(total, n_counted, out=np.full(len(shares), np.nan), where=n_counted > 0)


def explained_share(
    values: Float[np.ndarray, "patient column"],
    batch: Int[np.ndarray, " patient"],
    stratum: Int[np.ndarray, " patient"],
    *,
    n_permutations: int,
    seed: int,
) -> tuple[float, float]:
    """Returns which share of the variance within strata the batch explains beyond chance, and its p-value.

    The share is that of the sum of squares which the batch explains beside the strata (partial R squared), less its
    mean over permutations of the batch within strata, as of adjusted R squared; not below zero. It is 1 of what is the
    batch and nothing else, however strata and batch are mixed.
    """
    residual = _within(values, stratum)
    total = (residual**2).sum()
    if total <= 1e-12 * max(1.0, (values**2).sum()):
        return 0.0, 1.0
    found = _explained(residual, batch, stratum) / total
    drawn = permuted(batch, stratum, n_permutations, seed)
    by_chance = np.array([_explained(residual, other, stratum) / total for other in drawn])
    mean = float(by_chance.mean())
    p_value = (1 + int((by_chance >= found - 1e-12).sum())) / (n_permutations + 1)
    return (max(0.0, (found - mean) / (1 - mean)) if mean < 1 else 0.0), p_value


def strongest_columns(
    inputs: Float[np.ndarray, "patient column"],
    batch: Int[np.ndarray, " patient"],
    stratum: Int[np.ndarray, " patient"],
    n: int,
) -> Int[np.ndarray, " strongest"]:
    """Returns the columns whose variance within strata the batch explains most, the strongest first."""
    residual, kinds = _within(inputs, stratum), _one_hot(batch)
    between = (kinds.sum(axis=0)[:, None] * _means(residual, kinds) ** 2).sum(axis=0)
    total = (residual**2).sum(axis=0)
    share = np.divide(between, total, out=np.zeros_like(total), where=total > 1e-12)
    return np.argsort(-share, kind="stable")[:n]


def permuted(
    batch: Int[np.ndarray, " patient"], stratum: Int[np.ndarray, " patient"], n: int, seed: int
) -> Iterator[Int[np.ndarray, " patient"]]:
    """Yields the batch with its values exchanged at random between patients of a stratum."""
    random = np.random.default_rng(seed)
    order = np.argsort(stratum, kind="stable")
    for _ in range(n):
        drawn = np.empty_like(batch)
        drawn[order] = batch[np.lexsort((random.random(len(batch)), stratum))]
        yield drawn


def martingale_residuals(
    time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
) -> Float[np.ndarray, " patient"]:
    """Returns the event less the cumulative hazard (Nelson-Aalen) at the patient's time: high for an early event."""
    times, place = np.unique(time_days, return_inverse=True)
    events = np.bincount(place, weights=event, minlength=len(times))
    at_risk = np.bincount(place, minlength=len(times))[::-1].cumsum()[::-1]
    return event - np.cumsum(events / at_risk)[place]


def _explained(
    residual: Float[np.ndarray, "patient column"],
    batch: Int[np.ndarray, " patient"],
    stratum: Int[np.ndarray, " patient"],
) -> float:
    """Returns the sum of squares within strata that the batch explains: of the projection on its values there."""
    axes, size, _ = np.linalg.svd(_within(_one_hot(batch), stratum), full_matrices=False)
    return float(((axes[:, size > 1e-9 * len(batch)].T @ residual) ** 2).sum())


def _within(
    values: Float[np.ndarray, "patient column"], stratum: Int[np.ndarray, " patient"]
) -> Float[np.ndarray, "patient column"]:
    kinds = _one_hot(stratum)
    return values - kinds @ _means(values, kinds)


def _means(
    values: Float[np.ndarray, "patient column"], kinds: Float[np.ndarray, "patient value"]
) -> Float[np.ndarray, "value column"]:
    return kinds.T @ values / np.maximum(kinds.sum(axis=0), 1)[:, None]


def _one_hot(codes: Int[np.ndarray, " patient"]) -> Float[np.ndarray, "patient value"]:
    return np.eye(int(codes.max()) + 1)[codes]


def _joined(first: Int[np.ndarray, " patient"], second: Int[np.ndarray, " patient"]) -> Int[np.ndarray, " patient"]:
    return np.unique(np.stack([first, second], axis=1), axis=0, return_inverse=True)[1].reshape(-1)

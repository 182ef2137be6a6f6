"""Do values look like their declared unit? Values that may be in it, but look more like another, are a warning."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from subfuse.errors import preview
from subfuse.expression.units import MILLION, OFFSETS, stated_sums

_JUDGED_GENES = 50  # fewer genes say nothing about the unit
_MOST_GENES = 1000  # shares of fewer genes may add up to anything below a million
_SHARES_OF_READS = ("tpm", "fpkm", "fpkm_uq")  # in which whole numbers are an exception
_JUDGED_ROWS = 64
_WHOLE = 0.06  # how far from whole counts may be whose logarithms were rounded to two digits
_LOW = 11.1  # counts, divided by the logarithm of the base, up to which they are that near; ten times with each digit
_EXACT = 1e-5  # of single precision
_DIFFERENT = 3  # of them, at least: few values may be whole by chance
_ROUNDED = 0.05  # of a million: what TPM lose that are rounded to whole numbers
_LOWEST_SUM, _HIGHEST_SUM = 0.6e6, 1.5e6  # of samples of a table whose others sum to a million
_SAME_SUM = 0.002  # spread of sums that were made equal, but for rounding
_SEVERAL = 5  # samples whose sums agree by chance in no table
_LARGEST_SUM = 2e6  # that samples are normalised to, unless it is a round number
_UPPER = (0.75, 0.9, 0.95, 0.99, 1.0)  # quantiles: what is lower may be zero or tied
_SAME_QUANTILE = 0.01  # spread of quantiles that were made equal, but for ties
_BASES = {"natural logarithms": (math.e, "exp(x) - 1"), "logarithms to base 10": (10.0, "10^x - 1")}


def doubts_of_unit(
    values: Float[np.ndarray, "sample gene"], unit: str, path: object, samples: Sequence[str] = ()
) -> tuple[str, ...]:
    """Returns in words why the declared unit is doubtful; nothing where it is not.

    Args:
        values: In `unit`, as `check_values` accepts them.
        unit: As declared.
        path: The file, for the text.
        samples: Their names, for the text.
    """
    if not values.size or values.shape[1] < _JUDGED_GENES:
        return ()
    doubt = _doubt(values, unit) or _doubt_of_samples(values, unit, samples)
    return (f"{path}: {doubt}",) if doubt else ()


def _doubt(values: Float[np.ndarray, "sample gene"], unit: str) -> str | None:
    low, high = float(values.min()), float(values.max())
    if unit == "zscore":
        # large ones say nothing: scores against diploid samples (cBioPortal) reach thousands
        if low >= 0 and len(values) > 1:
            return f"no value is negative (largest {high:g}), which z-scores would be. Check the unit."
        return None
    if of_counts := _doubt_of_counts(values, unit):
        return of_counts
    if not unit.startswith("log2_") and 0 < high < 25:
        return f"values look like logarithms (largest {high:g}), declared unit {unit}. Check the unit."
    if unit in OFFSETS and low >= 0:
        return (
            f"{unit} of a gene without expression is {np.log2(OFFSETS[unit]):.4g}. Found no value below 0, as of "
            f"log2(x + 1), which is {unit.removesuffix('_001')}. Check the unit."
        )
    return _doubt_of_base(values, unit) or _doubt_of_sums(values, unit)


def _doubt_of_samples(values: Float[np.ndarray, "sample gene"], unit: str, samples: Sequence[str]) -> str | None:
    """Samples on another scale than the others, as where two tables were joined."""
    if unit == "zscore":
        other = np.flatnonzero(values.min(axis=1) >= 0)
        if not len(other) or len(values) < 2:
            return None
        return (
            f"some z-scores of every sample are negative. Found none in {len(other)} of {len(values)} samples "
            f"({_named(other, samples)}): they are on another scale than the others. Correct or leave them out."
        )
    sums = stated_sums(values, unit)
    if sums is None or abs(np.median(sums) - 1e6) > _ROUNDED * 1e6:
        return None
    other = np.flatnonzero((sums < _LOWEST_SUM) | (sums > _HIGHEST_SUM))
    if not len(other):
        return None
    return (
        f"{MILLION[unit]} sum to one million per sample, as most do here. Found {sums[other].min():,.0f} to "
        f"{sums[other].max():,.0f} in {len(other)} of {len(sums)} samples ({_named(other, samples)}): they are on "
        "another scale than the others. Correct or leave them out."
    )


def _named(rows: Int[np.ndarray, " row"], samples: Sequence[str]) -> str:
    return preview([samples[i] for i in rows.tolist()]) if samples else f"{len(rows)} samples"


def _doubt_of_counts(values: Float[np.ndarray, "sample gene"], unit: str) -> str | None:
    """Counts, or their logarithms, in a unit whose values are hardly ever whole numbers."""
    judged = _judged(values)
    sums = stated_sums(judged, unit)
    if sums is not None and abs(np.median(sums) - 1e6) < _ROUNDED * 1e6:
        return None
    if unit in _SHARES_OF_READS and judged.any() and bool((judged == np.rint(judged)).all()):
        return (
            f"all values are whole numbers (largest {judged.max():g}), as counts of reads are, or {unit} that were "
            f"rounded; declared unit {unit}. Declare counts if they are counts."
        )
    if not unit.startswith("log2_") or unit in OFFSETS:
        return None
    if unit != "log2_counts" and _are_whole(judged, 2.0):
        return (
            f"all 2^x - 1 are whole numbers, as of counts of reads, or of values that were rounded; declared unit "
            f"{unit}. Declare log2_counts if they are counts."
        )
    for name, (base, inverse) in _BASES.items():
        if _are_whole(judged, base):
            return (
                f"values look like {name} of counts of reads, declared unit {unit}: all {inverse} are whole numbers. "
                "Give the counts."
            )
    return None


def _are_whole(logarithms: Float[np.ndarray, "row gene"], base: float) -> bool:
    """Returns whether low values are logarithms to a base of one more than whole numbers."""
    finer = 10.0 ** (_digits(logarithms) - 2)
    low = logarithms[(logarithms > 0) & (logarithms < math.log(_LOW * finer / math.log(base), base))].astype(np.float64)
    if len(low) < _JUDGED_GENES or bool((low == np.rint(low)).all()):
        return False
    restored = base**low - 1
    is_whole = np.abs(restored - np.rint(restored)) < _WHOLE
    return bool(is_whole.mean() >= 0.99) and len(np.unique(np.rint(restored[is_whole]))) >= _DIFFERENT


def _digits(values: Float[np.ndarray, "row gene"]) -> int:
    """Returns to how many digits after the point values were rounded: 2, 3, or 4 and more."""
    return next((n for n in (2, 3) if bool((np.abs(values - np.round(values, n)) < _EXACT).all())), 4)


def _doubt_of_base(values: Float[np.ndarray, "sample gene"], unit: str) -> str | None:
    """Logarithms to another base, which the sums of samples that were normalised to one sum give away."""
    judged = _judged(values).astype(np.float64)
    if not unit.startswith("log2_") or unit in OFFSETS or len(judged) < _SEVERAL or _have_one_distribution(judged):
        return None
    declared = _spread(np.exp2(judged).sum(axis=1) - judged.shape[1])
    for name, (base, inverse) in _BASES.items():
        sums = (base**judged).sum(axis=1) - judged.shape[1]
        total = float(np.median(sums))
        if _spread(sums) < min(_SAME_SUM, declared / 4) and _is_plausible_sum(total):
            undone = "tpm" if unit == "log2_tpm" and abs(total - 1e6) < _ROUNDED * 1e6 else "rsem"
            return (
                f"values look like {name} of what was normalised to {total:,.0f} per sample, declared unit {unit}: "
                f"{inverse} sums to that in every sample. Give {inverse} as unit {undone}, or the counts."
            )
    return None


def _have_one_distribution(values: Float[np.ndarray, "sample gene"]) -> bool:
    """Returns whether samples were quantile-normalised, so that sums are equal whatever the unit is."""
    quantiles = np.quantile(values, _UPPER, axis=1)
    return bool((np.ptp(quantiles, axis=1) <= _SAME_QUANTILE * np.median(quantiles, axis=1)).all())


def _is_plausible_sum(total: float) -> bool:
    """Returns whether samples may have been normalised to a sum: no large one, or a round one."""
    power = 10.0 ** math.floor(math.log10(max(total, 1.0)))
    return total <= _LARGEST_SUM or abs(total / power - round(total / power)) < _SAME_SUM


def _judged(values: Float[np.ndarray, "sample gene"]) -> Float[np.ndarray, "row gene"]:
    """Returns some rows, spread over all."""
    return values[:: max(1, len(values) // _JUDGED_ROWS)]


def _spread(sums: Float[np.ndarray, " sample"]) -> float:
    """Returns the range of sums as a share of their median."""
    return float(np.ptp(sums) / max(float(np.median(sums)), 1.0))


def _doubt_of_sums(values: Float[np.ndarray, "sample gene"], unit: str) -> str | None:
    sums = stated_sums(values, unit)
    if sums is None:
        return None
    total, name = float(np.median(sums)), MILLION[unit]
    is_one_sum = len(sums) >= _SEVERAL and _spread(sums) < _SAME_SUM and abs(total - 1e6) > _ROUNDED * 1e6
    if is_one_sum and not _have_one_distribution(_judged(values)):
        return (
            f"{name} sum to one million per sample. Found {total:,.0f} in every sample: either counts that were "
            f"normalised to that, which are unit rsem (their logarithms log2_counts), or {name} times "
            f"{total / 1e6:.3g}, which must be undone."
        )
    if total > 1.2e6:
        return f"{name} sum to one million per sample. Found a median of {total:g}. Check the unit."
    if total < 0.6e6 and values.shape[1] >= _MOST_GENES:
        return (
            f"{name} sum to one million per sample. Found a median of {total:g} over {values.shape[1]} genes. Where "
            "these are not a part of the measured genes, the unit is another one, or the logarithm is not to base 2."
        )
    return None

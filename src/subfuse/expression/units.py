"""Units of expression: what a table must look like in its unit, and the way from there to the scale of models."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from subfuse.errors import DataError
from subfuse.files import sha256_of_json

MODEL_SCALE = {  # unit -> scale that models take
    "counts": "log2_cpm",
    "rsem": "log2_cpm",
    "log2_counts": "log2_cpm",
    "log2_cpm": "log2_cpm",
    "fpkm": "log2_tpm",
    "log2_fpkm": "log2_tpm",
    "log2_fpkm_001": "log2_tpm",
    "fpkm_uq": "log2_tpm",
    "log2_fpkm_uq": "log2_tpm",
    "tpm": "log2_tpm",
    "log2_tpm": "log2_tpm",
    "log2_tpm_001": "log2_tpm",
    "zscore": "zscore",
}
COUNTS = ("counts", "rsem", "log2_counts")  # units whose sum is the depth of sequencing
FINISHED = ("log2_tpm", "log2_cpm", "zscore")  # units that are scales of models already
OFFSETS = {"log2_tpm_001": 0.001, "log2_fpkm_001": 0.001}  # added before the logarithm; 1 in the other log2 units
MILLION = {"tpm": "TPM", "log2_tpm": "TPM", "log2_tpm_001": "TPM", "log2_cpm": "CPM"}  # sum to it, over all genes
_MANY_GENES = 10  # of fewer, one may have half of all reads by itself
_ROUNDING = 1e-5  # of sums, relative
_LARGEST_LOG = 40.0  # 2 to the 40 exceeds any count


@dataclass(frozen=True)
class ShareBasis:
    """The genes that a sum runs over: a share of a million of it means something only together with them."""

    n_genes: int
    sha256: str  # of their sorted names

    @classmethod
    def of(cls, names: Collection[str]) -> "ShareBasis":
        """Returns the basis of shares over these genes."""
        return cls(len(names), sha256_of_json(sorted(names)))


def lowest_of(unit: str) -> float:
    """Returns the lowest value that a unit can have.

    Example:
        >>> lowest_of("zscore"), lowest_of("log2_tpm"), round(lowest_of("log2_tpm_001"), 3)
        (-inf, 0.0, -9.976)
    """
    if unit == "zscore":
        return -float("inf")
    return float(np.log2(OFFSETS[unit])) - 0.01 if unit in OFFSETS else 0.0  # -9.9658 is often written as -9.966


def told_by_negative(lowest: float) -> str:
    """Returns in words what a table with a negative value can hold, and the unit of each.

    Args:
        lowest: Its lowest value, or one of them.

    Example:
        >>> print(told_by_negative(-12.0))
        values below 0 are z-scores (zscore), or log-ratios and other logarithms (zscore with `standardise: cohort`)
    """
    offset = [unit for unit in OFFSETS if lowest >= lowest_of(unit)]
    logarithms = f", logarithms of x + 0.001 ({', '.join(offset)})" if offset else ""
    others = "log-ratios and other logarithms (zscore with `standardise: cohort`)"
    return f"values below 0 are z-scores (zscore){logarithms}, or {others}"


def fitting_units(values: Float[np.ndarray, "sample gene"]) -> tuple[str, ...]:
    """Returns the units that values can be in, by their signs, fractions and size; see `check_values`.

    Example:
        >>> fitting_units(np.array([[-11.5, 3.0]])), fitting_units(np.array([[-4.0, 3.0]]))
        (('zscore',), ('log2_fpkm_001', 'log2_tpm_001', 'zscore'))
    """
    return tuple(unit for unit in MODEL_SCALE if not _wrong_values(values, unit)[0].any())


def units_of(scale: str) -> str:
    """Returns the units that become a scale of models.

    Example:
        >>> units_of("log2_cpm")
        'counts, rsem, log2_counts, log2_cpm'
    """
    return ", ".join(unit for unit, becomes in MODEL_SCALE.items() if becomes == scale)


class UnitMismatch(DataError):
    """A value that cannot be in the declared unit."""

    def __init__(self, problem: str, remedy: str, *, seems: str) -> None:
        """Takes where it is and what was required, what to do in a cohort file, and what the values seem to be."""
        super().__init__(f"{problem}. {remedy}")
        self.problem, self.seems = problem, seems


def renormalise(values: Float[np.ndarray, "sample gene"]) -> Float[np.ndarray, "sample gene"]:
    """Returns log2(share + 1) with the shares over these genes alone, whatever they were shares of."""
    shares = np.exp2(values, dtype=np.float64) - 1
    sums = shares.sum(axis=1, keepdims=True)
    return np.log2(shares * (1e6 / np.where(sums > 0, sums, 1)) + 1).astype(np.float32)


def check_values(
    values: Float[np.ndarray, "sample gene"], unit: str, place: Callable[[int, int], str], path: object
) -> None:
    """Checks that values can be in their declared unit.

    Args:
        values: In `unit`.
        unit: As declared.
        place: Sample and gene number to words for a message, such as "row 3 (P7), gene EGFR".
        path: The file, for the message.

    Raises:
        UnitMismatch: A value that is not finite, negative where the unit forbids it, not whole in counts, or too large
            for a logarithm. Names file, row, gene and the first such value.
    """
    for rows in _row_blocks(values):
        wrong, wanted = _wrong_values(values[rows], unit)
        if wrong.any():
            sample, gene = np.argwhere(wrong)[0]
            value = values[rows][sample, gene]
            found = "an empty cell or NA" if np.isnan(value) else f"{value:g}"
            raise UnitMismatch(
                f"{path}, {place(rows.start + int(sample), int(gene))}: {wanted} is required. Found {found} "
                f"({np.count_nonzero(wrong)} such value(s))",
                _remedy(float(value), unit, lowest=float(np.nanmin(values))),
                seems=_seeming(float(value), unit),
            )


def _row_blocks(values: Float[np.ndarray, "sample gene"]) -> Iterator[slice]:
    """Yields slices of rows that hold a few million values each: temporaries of large tables stay small."""
    step = max(1, 4_000_000 // max(values.shape[1], 1))
    for start in range(0, values.shape[0], step):
        yield slice(start, min(start + step, values.shape[0]))


def remove_log(values: Float[np.ndarray, "sample gene"], unit: str) -> None:
    """Turns logarithms into the quantity itself, in place; units without logarithm and finished ones stay."""
    if not unit.startswith("log2_") or unit in FINISHED:
        return
    offset = OFFSETS.get(unit, 1.0)
    for rows in _row_blocks(values):
        block = np.exp2(values[rows]) - offset
        values[rows] = np.maximum(block, 0)  # rounding of the file leaves zeros slightly negative


def stated_sums(values: Float[np.ndarray, "sample gene"], unit: str) -> Float[np.ndarray, " sample"] | None:
    """Returns what each sample's shares of a million add up to; None for units that are no such shares."""
    if unit not in MILLION:
        return None
    if unit == "tpm":
        return sum_per_sample(values)
    offset = OFFSETS.get(unit, 1.0)
    blocks = (np.exp2(values[rows], dtype=np.float64).sum(axis=1) for rows in _row_blocks(values))
    return np.concatenate([*blocks, np.zeros(0)]) - offset * values.shape[1]


def sum_per_sample(values: Float[np.ndarray, "sample gene"]) -> Float[np.ndarray, " sample"]:
    """Returns each sample's sum over all genes, in float64."""
    return values.sum(axis=1, dtype=np.float64)


def to_model_scale(
    values: Float[np.ndarray, "sample gene"], unit: str, totals: Float[np.ndarray, " sample"], n_genes: int
) -> str:
    """Turns values without logarithm into the scale of models, in place, and returns the transform in words.

    Args:
        values: After `remove_log`.
        unit: As declared.
        totals: Each sample's sum over all genes of its file.
        n_genes: How many genes that are.
    """
    if unit in FINISHED:
        return "none"
    is_tpm = unit in ("tpm", "log2_tpm_001")
    factors = np.ones(len(values)) if is_tpm else 1e6 / np.where(totals > 0, totals, 1)
    for rows in _row_blocks(values):
        block = values[rows] * factors[rows, None].astype(np.float32)
        values[rows] = np.log2(block + 1)
    if is_tpm:
        return "log2(TPM + 1)" if unit == "tpm" else "log2(TPM + 1) from log2(TPM + 0.001)"
    name = "CPM" if MODEL_SCALE[unit] == "log2_cpm" else "TPM"
    return f"log2({name} + 1), {name} from {unit} over {n_genes} genes"


def _wrong_values(block: Float[np.ndarray, "row gene"], unit: str) -> tuple[Bool[np.ndarray, "row gene"], str]:
    """Returns where a block's values cannot be in the unit, and what is required instead."""
    wrong = ~np.isfinite(block)
    if wrong.any():
        return wrong, "a finite number"
    if unit == "zscore":
        return wrong, "a finite number"
    lowest = lowest_of(unit)
    wrong = block < lowest
    if wrong.any():
        return wrong, f"a value of at least {lowest:.4g} ({unit})"
    if unit == "counts":
        return block != np.rint(block), "a whole number (counts)"
    if unit.startswith("log2_"):
        return block > _LARGEST_LOG, f"a logarithm, below {_LARGEST_LOG:g} ({unit})"
    return wrong, ""


def _remedy(value: float, unit: str, *, lowest: float) -> str:
    if not np.isfinite(value):
        return "Fill the cell in, or drop the gene or the patient."
    if unit == "counts" and value > 0:
        return "Declare unit rsem for expected or normalised counts, or the unit that the file has."
    if unit.startswith("log2_") and value > 0:
        return "Declare the unit without log2_."
    if value < 0:
        told = told_by_negative(lowest)
        return f"{told[:1].upper()}{told[1:]}. Declare what they are, or correct the value."
    return "Check the unit (logarithms are log2_...), or drop the gene or the patient."


def _seeming(value: float, unit: str) -> str:
    """Returns what values seem to be of which one cannot be in a unit; empty where nothing tells."""
    if not np.isfinite(value):
        return ""
    if value < 0:
        return "z-scores, or logarithms of values below 1"
    return "values without logarithm" if unit.startswith("log2_") else "no counts of reads"


def are_sums_of_others(values: Float[np.ndarray, "sample gene"]) -> Bool[np.ndarray, " gene"]:
    """Returns which of many columns is the sum of all others in every sample, and so no gene, whatever it is called.

    Args:
        values: Without logarithm. None of fewer than 10 columns is.
    """
    known = np.where(np.isfinite(values), values, 0.0)
    sums = known.sum(axis=1, dtype=np.float64, keepdims=True)
    alike = np.abs(2.0 * known - sums) <= _ROUNDING * sums
    return alike.all(axis=0) & bool((sums > 0).all() and values.shape[1] >= _MANY_GENES)

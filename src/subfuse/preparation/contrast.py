"""Whether the modalities that a cohort declares can tell its patients apart, by their values."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.errors import DataError, preview
from subfuse.expression.table import ExpressionTable
from subfuse.features.contrast import PatchContrast
from subfuse.slides.source import SlideSource

_ROUNDING = 1e-6  # of float32, relative


def require_varying_expression(
    expression: ExpressionTable | None, patients: pd.DataFrame, gene_sets: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Returns a warning where more than half of a cohort's genes, or of a subspace, have one value in all patients.

    Args:
        expression: Of these patients.
        patients: patient_id, cohort, has_expression. A cohort of one patient is not judged.
        gene_sets: Subspace to its measured genes: those that models see.

    Raises:
        DataError: All genes of a cohort, or all that models see, have one value in all its patients.
    """
    warnings: list[str] = []
    if expression is not None:
        for cohort, rows in patients[patients["has_expression"]].groupby("cohort", sort=False):
            if len(rows) > 1:
                values = expression.values.loc[rows["patient_id"]]
                constant = values.columns[_is_constant(values.to_numpy())]
                warnings += _of_genes(str(cohort), len(rows), list(values.columns), frozenset(constant), gene_sets)
    return tuple(warnings)


def _is_constant(values: Float[np.ndarray, "patient gene"]) -> Bool[np.ndarray, " gene"]:
    low, high = values.min(axis=0), values.max(axis=0)
    return np.asarray(high - low <= _ROUNDING * np.maximum(np.abs(low), np.abs(high)))


def _of_genes(
    cohort: str,
    n_patients: int,
    genes: Sequence[str],
    constant: frozenset[str],
    gene_sets: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    in_all = f"one value in all {n_patients} patients"
    seen = sorted(set().union(*gene_sets.values()))
    for words, judged in (("genes", genes), ("genes of the gene sets", seen)):
        if constant.issuperset(judged):
            raise DataError(
                f"{cohort}: expression that differs between patients is required where `expression` is declared. Found "
                f"that all {len(judged)} {words} have {in_all} ({preview(judged, 3)}). Give the table with the "
                "measured values, or remove `expression`."
            )
    subspaces = {f"genes of gene_sets.{name}": of_set for name, of_set in gene_sets.items()}
    for words, judged in {"genes": genes, **subspaces}.items():
        same = [gene for gene in judged if gene in constant]
        if 2 * len(same) > len(judged):
            yield (
                f"{cohort}: {len(same)} of {len(judged)} {words} have {in_all} and tell models nothing "
                f"({preview(same, 3)}). Check the expression table."
            )


def require_varying_features(
    slides: Sequence[SlideSource], patients: pd.DataFrame, contrasts: Mapping[str, PatchContrast]
) -> tuple[str, ...]:
    """Returns a warning that names the slides whose patches all have the same features.

    Args:
        slides: Those that can be used.
        patients: Their patients: patient_id, cohort.
        contrasts: Of the slides that were looked into.

    Raises:
        DataError: All slides of a cohort, two or more, were looked into, and the patches of each, or of all together,
            have the same features.
    """
    cohort_of = dict(zip(patients["patient_id"], patients["cohort"], strict=True))
    for cohort in dict.fromkeys(patients["cohort"]):
        names = [slide.slide_id for slide in slides if cohort_of.get(slide.patient_id) == cohort]
        found = [contrasts[name] for name in names if name in contrasts]
        if len(names) < 2 or len(found) < len(names):
            continue
        is_one = len({contrast.shared for contrast in found}) == 1 and found[0].shared is not None
        if is_one or all(contrast.is_flat for contrast in found):
            same = "the same in all patches of all of them" if is_one else "the same in all patches of each of them"
            raise DataError(
                f"{cohort}: features that differ are required where `slides` is declared. Found {len(names)} slides "
                f"({preview(names, 3)}), and features that are {same}. Extract the features again, or remove `slides`."
            )
    return flat_slides({slide.slide_id: contrasts[slide.slide_id] for slide in slides if slide.slide_id in contrasts})


def flat_slides(contrasts: Mapping[str, PatchContrast]) -> tuple[str, ...]:
    """Returns a warning that names the slides whose patches all have the same features, if there are any."""
    names = sorted(name for name, contrast in contrasts.items() if contrast.is_flat)
    if not names:
        return ()
    return (
        f"slide{'s' * (len(names) > 1)} {preview(names, 3)}: all patches have the same features, which tell nothing of "
        "the tissue. Extract the features again, or leave the slide out.",
    )

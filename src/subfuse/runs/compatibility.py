"""Does a cohort fit a trained model: what refuses it, and what is otherwise than in training."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from subfuse.cohort.bags import PatchStandardiser
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.covariates import check_values, column_of
from subfuse.errors import DataError, preview
from subfuse.expression.gene_names import case_hint
from subfuse.expression.table import COHORT_SCALE, FAR, ExpressionStandardiser
from subfuse.expression.units import units_of
from subfuse.features.encoder import is_same_encoder
from subfuse.features.store import read_sample
from subfuse.slides.patch_width import beyond_training
from subfuse.slides.stain import method_of
from subfuse.training.fitted_model import FittedModel
from subfuse.training.models import BATCH, SITE

_CLOSE_BASIS = 0.05  # of the number of genes: data releases differ by less, and by genes that hardly count
_PATCHES_COMPARED, _LEAST_COMPARED = 64, 10  # of a slide, whose scale is compared with that of training


def check_compatible(fitted: FittedModel, cohort: Cohort) -> list[str]:
    """Raises a DataError where a cohort cannot be predicted; returns notes on what is ignored or unknown.

    Genes are matched by name, whatever their order, and by the approved symbol behind an earlier one (`align`).
    """
    notes: list[str] = []
    has_expression = any(patient.expression is not None for patient in cohort)
    scaler, patches = fitted.standardiser.expression, fitted.standardiser.patches
    if scaler is not None and has_expression:
        if fitted.expression_unit is not None and cohort.expression_unit != fitted.expression_unit:
            raise DataError(
                f"{cohort.told('expression')} must be on the scale of training, {fitted.expression_unit}. "
                f"Found {cohort.expression_unit}. {_remedy_of_scale(fitted.expression_unit, cohort.expression_unit)}"
            )
        notes += _check_basis(fitted, cohort)
        found = fitted.find_genes(cohort)
        if found.missing:
            raise DataError(
                f"{cohort.told('expression')} must have the {len(fitted.genes)} genes of training. "
                f"Missing: {preview(found.missing)}.{case_hint(found.missing, cohort.genes)} Name "
                "later symbols of these in expression.aliases of the cohort file, or train on the genes both share."
            )
        if found.renamed:
            pairs = preview([f"{gene} as {name}" for gene, name in found.renamed.items()])
            notes.append(f"{len(found.renamed)} genes of the model are in the cohort under another symbol: {pairs}")
        notes += _range_notes(scaler, fitted, cohort)
    notes += _covariate_notes(fitted, cohort)
    if not any(patient.slides for patient in cohort):
        return notes
    if "slides" not in fitted.recipe.modalities:
        return notes
    if patches is None:
        notes.append("no training patient had slides: slides are ignored")
    else:
        notes += _check_encoder(fitted, cohort)
        notes += _check_width(fitted, cohort) + _feature_notes(patches, cohort)
    return notes


def check_patches(fitted: Iterable[FittedModel], prepared: Mapping[str, Any], cohort: Cohort) -> None:
    """Refuses patches that were cut, or whose stain was normalised, otherwise than those of training.

    Args:
        fitted: The models.
        prepared: How the run's cohort was prepared, as its provenance has it.
        cohort: The cohort to predict.

    Raises:
        DataError: A model reads slides, and these are cut or normalised otherwise, where both are known.
    """
    trained = prepared.get("tiling")
    if trained is None or cohort.tiling is None or not any(patient.slides for patient in cohort):
        return
    if not any("slides" in model.recipe.modalities for model in fitted):
        return
    own, other = (
        ", ".join(f"{name}: {tiling.get(name)}" for name in ("mpp", "tile_px", "overlap_px"))
        for tiling in (trained, cohort.tiling)
    )
    if own != other:
        raise DataError(
            f"{cohort.told('slides')} must be cut into patches as in training, {own}. Found {other}. Declare "
            f"`tiling: {{{own}}}` in `slides` of its cohort file and prepare it again."
        )
    if prepared.get("stain") != cohort.stain:
        stain = method_of(prepared.get("stain"))
        raise DataError(
            f"{cohort.told('slides')} must have their stain normalised as in training, {stain}. Found "
            f"{method_of(cohort.stain)}. Declare `stain: {stain}` in `slides` of its cohort file and prepare it again."
        )


def _remedy_of_scale(trained: str, found: str | None) -> str:
    if trained == COHORT_SCALE:
        return "Declare `standardise: cohort` in `expression` of its cohort file, as in training, and prepare it again."
    leave = "Leave `standardise` out of its cohort file, or prepare" if found == COHORT_SCALE else "Prepare"
    return f"{leave} the cohort from data in a unit that becomes that scale ({units_of(trained)})."


def _check_encoder(fitted: FittedModel, cohort: Cohort) -> list[str]:
    """Refuses features of another encoder, or of other weights or another number; notes another name of the same."""
    n_features = fitted.standardiser.patch_dim
    if cohort.encoder_sha256 == fitted.encoder_sha256:
        return []
    fits = cohort.patch_dim in (None, n_features)
    if cohort.encoder != fitted.encoder and is_same_encoder(str(cohort.encoder), str(fitted.encoder)) and fits:
        return [
            f"{cohort.told('features')} are of encoder {cohort.encoder}, another name of {fitted.encoder} of "
            "training: taken to have the same weights"
        ]
    if cohort.encoder != fitted.encoder:
        problem = f"must be encoded by {fitted.encoder} as in training. Found {cohort.encoder}"
    elif not fits:
        problem = f"must have {n_features} features per patch as in training. Found {cohort.patch_dim}"
    else:
        problem = (
            f"must be encoded by the weights of {fitted.encoder} that training had. Found features that record "
            "other weights, or none"
        )
    raise DataError(
        f"{cohort.told('slides')} {problem}. Extract features as for the training patients (slides: "
        f"prepare with --encoder {fitted.encoder})."
    )


def _check_width(fitted: FittedModel, cohort: Cohort) -> list[str]:
    """Refuses patches that all show more or less tissue than in training; a note where some do, as by a wrong mpp."""
    if fitted.patch_um is None:
        return []
    widths = {p.patient_id: [cohort.patch_um[s] for s in p.slides if s in cohort.patch_um] for p in cohort}
    other = {
        patient: found
        for patient, all_of in widths.items()
        if (found := [width for width in all_of if beyond_training(width, fitted.patch_um)])
    }
    if not other:
        return []
    found = sorted(width for its in other.values() for width in its)
    told, here, trained = cohort.told("slides"), _span(found[0], found[-1]), _span(*fitted.patch_um)
    n_known = sum(map(bool, widths.values()))
    if len(other) == n_known:
        raise DataError(
            f"{told} must have patches as wide as in training, {trained} µm. Found {here} µm: features of another "
            "scale mislead the model. Extract features as for the training patients, or correct mpp; where a file does "
            "not record the width, write the side in level-0 pixels as attribute `patch_size_level0` of `coords`."
        )
    return [
        f"{told}: patches of {len(other)} of {n_known} patients ({preview(other)}) are {here} µm wide, those of "
        f"training {trained} µm. Features of another scale mislead the model. Correct mpp, or extract features as for "
        "the training patients."
    ]


def _feature_notes(patches: PatchStandardiser, cohort: Cohort) -> list[str]:
    """Returns a note where features of slides have another scale than in training, as if normalised otherwise."""
    slides = {
        p.patient_id: [_scale_of(s, s.stat().st_mtime_ns if s.exists() else 0) for s in p.slides]
        for p in cohort
        if p.slides
    }
    far = [patient for patient, scales in slides.items() if any(patches.is_far(*s) for s in scales)]
    if not far:
        return []
    return [
        f"{cohort.told('slides')}: features of {len(far)} of {len(slides)} patients ({preview(far)}) have "
        "another scale than those of training. Predictions from such values cannot be trusted. Extract features "
        "with the same weights and the same normalisation as for the training patients."
    ]


def _range_notes(scaler: ExpressionStandardiser, fitted: FittedModel, cohort: Cohort) -> list[str]:
    """Returns a note where most genes of a patient are far from all that training had, whatever the reason."""
    measured = {p.patient_id: p.expression for p in fitted.align(cohort) if p.expression is not None}
    shares = {patient: scaler.far_genes(values) for patient, values in measured.items()}
    far = {patient: sides for patient, sides in shares.items() if sum(sides) > 0.5}
    if not far:
        return []
    above, below = np.mean(list(far.values()), axis=0)
    side = "above" if above > 2 * below else "below" if below > 2 * above else "away from"
    own, other = fitted.expression_basis, cohort.expression_basis
    cause = (
        f"These are shares of a million over {other.n_genes} genes, those of training over others: give all genes"
        if own is None and other is not None
        else "Another unit is likely: check the declared one"
    )
    return [
        f"{cohort.told('expression')}: most genes of {len(far)} of {len(measured)} patients "
        f"({preview(far)}) lie more than {FAR:g} standard deviations {side} the mean of training. Predictions from "
        f"such values cannot be trusted. {cause}, or give values that were made as for the training patients."
    ]


def _covariate_notes(fitted: FittedModel, cohort: Cohort) -> list[str]:
    """Returns what is unknown of covariates; a DataError if one of the model's is not declared or no number."""
    if fitted.standardiser.covariates is None or fitted.recipe.modalities == {"slides"}:
        return []
    declared = {column_of(name) for name in cohort.covariates}
    trained = list(dict.fromkeys(map(column_of, fitted.covariates)))
    missing = [name for name in trained if name not in declared]
    if missing and not fitted.recipe.modalities <= SITE | BATCH:  # without which a patient is not predicted
        raise DataError(
            f"cohort {cohort.name!r} must have the covariates of training, {preview(trained)}. Missing: "
            f"{preview(missing)}. Map these columns in patients.columns, name them under covariates of the cohort "
            "file, and prepare it again; empty cells are taken as those of an average training patient."
        )
    try:
        check_values(fitted.covariates, {patient.patient_id: patient.columns for patient in cohort})
    except DataError as error:
        raise DataError(f"cohort {cohort.name!r}, {error} Then prepare it again.") from None
    return fitted.standardiser.covariates.notes({patient.patient_id: patient.columns for patient in cohort})


def _check_basis(fitted: FittedModel, cohort: Cohort) -> list[str]:
    """Refuses shares over other genes than in training, where they cannot be made shares over the model's genes."""
    own, other = fitted.expression_basis, cohort.expression_basis
    if own is None or own == other:
        return []
    found = "a part of unknown genes" if other is None else f"{other.n_genes} genes"
    if fitted.sums_over_axis:
        return [
            f"{cohort.told('expression')} has shares over {found}: taken as shares over the {own.n_genes} genes "
            "of training"
        ]
    close = other is not None and abs(other.n_genes - own.n_genes) <= _CLOSE_BASIS * own.n_genes
    if other is not None and not close:
        raise DataError(
            f"{cohort.told('expression')} must be shares over the {own.n_genes} genes of training. Found "
            f"shares over {found}. Give a table of the same genes, or train on the genes that both have."
        )
    return [f"{cohort.told('expression')} has shares over {found}, not exactly the {own.n_genes} genes of training"]


@lru_cache(maxsize=4096)
def _scale_of(
    path: Path, modified_ns: int
) -> tuple[Float[np.ndarray, " feature"], Float[np.ndarray, " feature"] | None]:
    """Mean and spread of a slide's features over some patches, read once for all models of a run."""
    features = read_sample(path, _PATCHES_COMPARED).features.astype(np.float32)
    return features.mean(axis=0), features.std(axis=0) if len(features) >= _LEAST_COMPARED else None


def _span(least: float, most: float) -> str:
    low, high = f"{least:.0f}", f"{most:.0f}"
    return low if low == high else f"{low} to {high}"

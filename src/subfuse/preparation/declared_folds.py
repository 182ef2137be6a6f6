"""Folds as a cohort file declares them: drawn, or given in a folder, by patients or by their slides."""

from collections.abc import Sequence

import pandas as pd

from subfuse.cohort.cohort_file import DrawnSplits, GivenSplits, SplitsSection
from subfuse.cohort.drawn_folds import repeated_folds
from subfuse.cohort.fold import Fold
from subfuse.cohort.given_folds import given_folds, unlisted_patients
from subfuse.slides.source import SlideSource


def declared_folds(
    splits: SplitsSection, patients: pd.DataFrame, stratify: Sequence[str], slides: Sequence[SlideSource]
) -> tuple[tuple[tuple[Fold, ...], ...], tuple[str, ...]]:
    """Returns the repeats of folds that a cohort file declares, and in words how given folds and patients differ.

    Args:
        splits: Of the cohort file.
        patients: Those to develop on.
        stratify: Columns whose mixture drawn folds, or drawn validation patients, keep.
        slides: Whose patients are meant where given folds name slides.

    Raises:
        DataError: See `repeated_folds` and `given_folds`.
    """
    unlisted: tuple[str, ...] = ()
    match splits:
        case DrawnSplits():
            repeats = repeated_folds(
                patients,
                folds=splits.folds,
                repeats=splits.repeats,
                validation=splits.validation,
                stratify=stratify,
                seed=splits.seed,
                by=splits.by,
            )
        case GivenSplits(folder=folder):
            owners = {slide.slide_id: slide.patient_id for slide in slides}
            folds = given_folds(
                folder,
                patients,
                validation=splits.validation,
                stratify=stratify,
                seed=splits.seed,
                owners=owners,
            )
            repeats, unlisted = (folds,), unlisted_patients(folder, patients["patient_id"].tolist(), owners)
    return repeats, unlisted

"""Which tissue a slide shows, and which slides of a patient are used: by the rule of expression samples."""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from subfuse.errors import DataError, preview
from subfuse.exclusions import exclusion_table
from subfuse.expression.samples import NORMAL, PRIMARY, rank_of_barcode, rank_of_words
from subfuse.identifiers import composed
from subfuse.slides.source import SlideSource


def rank_of_slide(slide_id: str, patient: str = "", words: str = "") -> int:
    """Returns the worst of three ranks: of the slide's barcode, of its sample's, and of the words for its type.

    Example:
        >>> rank_of_slide("tcga-a1-1002-11a-02-tsb"), rank_of_slide("s1", "TCGA-A1-1002-02A"), rank_of_slide("s1")
        (2, 1, 0)
    """
    return max(rank_of_barcode(slide_id), rank_of_barcode(patient), rank_of_words(words))


def choose_slides(
    slides: Sequence[SlideSource], ranks: Mapping[str, int], include: Collection[str] = ()
) -> tuple[tuple[SlideSource, ...], pd.DataFrame]:
    """Returns the slides that are used, and the others with the reason.

    Normal tissue is never used, and other tumours (recurrences, metastases) only of patients without a slide of the
    primary one.

    Raises:
        DataError: A slide to include is not there.
    """
    include = {composed(slide_id) for slide_id in include}
    absent = sorted(include - {slide.slide_id for slide in slides})
    if absent:
        raise DataError(f"slides.include: slides of the cohort's patients are required. Not found: {preview(absent)}.")
    with_primary = {slide.patient_id for slide in slides if ranks[slide.slide_id] == PRIMARY}
    reasons = {}
    for slide in slides:
        rank = ranks[slide.slide_id]
        if slide.slide_id in include or rank == PRIMARY:
            continue
        if rank == NORMAL:
            reasons[slide.slide_id] = "normal tissue"
        elif slide.patient_id in with_primary:
            reasons[slide.slide_id] = f"not the primary tumour, of which {slide.patient_id} has a slide"
    used = tuple(slide for slide in slides if slide.slide_id not in reasons)
    return used, exclusion_table(("slide", slide_id, reason) for slide_id, reason in reasons.items())

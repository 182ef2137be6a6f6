"""Which tissue a slide shows, and which slides of a patient are used: by the rule of expression samples."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from subfuse.errors import DataError, preview
from subfuse.exclusions import exclusion_table
from subfuse.expression.samples import NORMAL, PRIMARY, rank_of_barcode, rank_of_words
from subfuse.identifiers import composed, site_of_barcode
from subfuse.slides.source import SlideSource
from subfuse.tables import is_missing

_KIND = re.compile(r"-(DX|TS|BS|MS)[0-9A-Z]?(?![0-9A-Z])", re.IGNORECASE)  # and the slide's number or letter


def rank_of_slide(slide_id: str, patient: str = "", words: str = "") -> int:
    """Returns the worst of three ranks: of the slide's barcode, of its sample's, and of the words for its type.

    Example:
        >>> rank_of_slide("tcga-a1-1002-11a-02-tsb"), rank_of_slide("s1", "TCGA-A1-1002-02A"), rank_of_slide("s1")
        (2, 1, 0)
    """
    return max(rank_of_barcode(slide_id), rank_of_barcode(patient), rank_of_words(words))


def kind_of_slide(slide_id: str, kind: str = "") -> str | None:
    """Returns the kind of a slide: as its table says, else that of its TCGA barcode (DX fixed; TS, BS, MS frozen).

    Example:
        >>> kind_of_slide("TCGA-02-0001-01Z-00-DX1.4755"), kind_of_slide("tcga-02-0001-01a-01-tsb")
        ('DX', 'TS')
        >>> kind_of_slide("case-1", "FFPE"), kind_of_slide("case-DX1")
        ('FFPE', None)
    """
    if not is_missing(kind):
        return kind
    match = None if site_of_barcode(slide_id) is None else _KIND.search(slide_id)
    return None if match is None else match[1].upper()


def choose_kinds(
    slides: Sequence[SlideSource], kinds_of: Mapping[str, str | None], kinds: Sequence[str] | None
) -> tuple[tuple[SlideSource, ...], pd.DataFrame, tuple[str, ...]]:
    """Returns the slides of the declared kinds; the others with the reason; and a note where none is declared.

    Args:
        slides: Of the cohort's patients.
        kinds_of: Of each slide, see `kind_of_slide`.
        kinds: `slides.kinds` of the cohort file, in any case; None: every slide stays.

    Raises:
        DataError: A slide whose kind nothing tells, or a declared kind that no slide has.
    """
    found = Counter(kinds_of[slide.slide_id] for slide in slides)
    if kinds is None:
        of_barcodes = {kind: n for kind in ("DX", "TS", "BS", "MS") if (n := found[kind])}
        shown = preview([f"{kind} ({n})" for kind, n in of_barcodes.items()])
        is_mixed = "DX" in of_barcodes and len(of_barcodes) > 1
        note = f"fixed and frozen slides are used together: {shown}. Name those to use as slides.kinds"
        return tuple(slides), exclusion_table(), (note,) if is_mixed else ()
    unknown = [slide.slide_id for slide in slides if kinds_of[slide.slide_id] is None]
    if unknown:
        raise DataError(
            f"slides.kinds: the kind of every slide is required, in a column `kind` of slides.table or in a TCGA "
            f"barcode. Found none of {preview(unknown, 3)}. Add the column, or leave out slides.kinds."
        )
    wanted = {kind.lower() for kind in kinds}
    named = {str(kind).lower() for kind in found}
    absent = [kind for kind in kinds if kind.lower() not in named]
    if slides and absent:
        raise DataError(
            f"slides.kinds: kinds of the cohort's slides are required. Not found: {preview(absent)}. There are "
            f"{preview(sorted(map(str, found)))}."
        )
    used = tuple(slide for slide in slides if str(kinds_of[slide.slide_id]).lower() in wanted)
    others = [slide.slide_id for slide in slides if slide not in used]
    reasons = (("slide", name, f"of kind {kinds_of[name]}, which slides.kinds does not name") for name in others)
    return used, exclusion_table(reasons), ()


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

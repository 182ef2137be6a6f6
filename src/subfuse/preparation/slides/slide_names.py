"""Whose a slide is by its name, and which patient is nearest where it is nobody's."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from subfuse.errors import DataError, preview
from subfuse.identifiers import patient_named_in, patient_of_barcode, same_but_for_spelling, site_of_barcode

_SHOWN = 3  # slides without a patient
_COMPARED = 2000  # patients, for each of these
_NEAR = 0.75  # similarity of names, from 0 to 1


def patient_of_slide(slide_id: str, patient_ids: Collection[str]) -> str | None:
    """Returns the patient whose identifier begins the slide's and ends at a letter or digit; the longest such.

    TCGA barcodes name their patient in lower case as well.

    Example:
        >>> patient_of_slide("case-12_a", {"case-1", "case-12"}), patient_of_slide("case-123", {"case-12"})
        ('case-12', None)
    """
    of_barcode = patient_of_barcode(slide_id)
    return next((start for start in (*_starts(slide_id), of_barcode) if start in patient_ids), None)


def spelt_as(slide_id: str, patient_ids: Collection[str]) -> str | None:
    """Returns the patient whose identifier begins the slide's but for case, zeros or separators.

    Example:
        >>> spelt_as("p_001_a", ["P0", "P1"]), spelt_as("P2_a", ["P0", "P1"])
        ('P1', None)
    """
    alike = same_but_for_spelling([start for start in _starts(slide_id) if start], patient_ids)
    return next(iter(alike.values()), None)


def note_of_unmatched(
    place: Path, n_matched: int, unmatched: Sequence[str], patient_ids: Collection[str]
) -> tuple[str, ...]:
    """Returns a note on slides whose names begin with no patient's identifier, each with the nearest patient.

    Of a TCGA barcode no patient is near: it says itself whose the slide is.

    Example:
        >>> note_of_unmatched(Path("wsi"), 37, ["case_5x", "other"], ["case_4", "case_5"])
        ('wsi: 37 of 39 slides matched by name; not matched: case_5x (nearest patient case_5), other',)
    """
    if not unmatched:
        return ()
    near = {slide_id: _nearest(slide_id, patient_ids) for slide_id in unmatched[:_SHOWN]}
    shown = [f"{name} (nearest patient {near[name]})" if near.get(name) else name for name in unmatched]
    total = n_matched + len(unmatched)
    return (f"{place}: {n_matched} of {total} slides matched by name; not matched: {preview(shown, _SHOWN)}",)


def refuse_one_person_twice(owners: Sequence[tuple[str, str]], path: Path) -> None:
    """Refuses slides whose barcodes name one person and whose rows name two patients of the cohort.

    Args:
        owners: Slides and the patients that they are given to.
        path: Of the slide table.

    Raises:
        DataError: Names two such slides.
    """
    first: dict[str, tuple[str, str]] = {}
    for slide_id, patient in owners:
        person = patient_named_in(slide_id)
        if person is None:
            continue
        other_slide, other = first.setdefault(person, (slide_id, patient))
        if other != patient:
            raise DataError(
                f"{path}: slides of one person must be of one patient: its tissue would be in two folds. "
                f"Found {other_slide} for {other} and {slide_id} for {patient}, by their barcodes of {person}. "
                "Correct the rows, or join the patients."
            )


def refuse_other_barcode(slide_id: str, patient: str | None, place: str) -> None:
    """Refuses a slide whose barcode names another patient than its row: one patient's tissue would be in two folds.

    Raises:
        DataError: Names the slide and its patient.
    """
    of_slide = patient_named_in(slide_id)
    if patient is None or of_slide is None or site_of_barcode(patient) is None:
        return
    if of_slide != patient_of_barcode(patient):
        raise DataError(
            f"{place}: a slide of its own patient is required. Found {slide_id}, by its barcode of {of_slide}, for "
            f"{patient}. Correct the row."
        )


def note_of_other_names(
    owners: Iterable[tuple[str, str | None]], patient_ids: Collection[str], table: Path | None
) -> tuple[str, ...]:
    """Returns a note on slides whose names begin with another patient of the cohort than the one they are given to.

    Example:
        >>> note_of_other_names([("p1_a", "p2"), ("p2_a", "p2")], {"p1", "p2"}, Path("slides.csv"))
        ('slides.csv: p1_a of p2: by its name a slide of another patient of the cohort. Check the table.',)
    """
    pairs = [
        f"{slide_id} of {patient}"
        for slide_id, patient in owners
        if patient in patient_ids and patient_of_slide(slide_id, patient_ids) not in (None, patient)
    ]
    if not pairs:
        return ()
    return (f"{table}: {preview(pairs)}: by its name a slide of another patient of the cohort. Check the table.",)


def _nearest(slide_id: str, patient_ids: Collection[str]) -> str | None:
    if site_of_barcode(slide_id) is not None:
        return None
    if (alike := spelt_as(slide_id, patient_ids)) is not None:
        return alike
    name = slide_id.lower()

    def likeness() -> Iterator[tuple[float, str]]:
        for patient in sorted(patient_ids)[:_COMPARED]:
            lowered = patient.lower()
            ratio = difflib.SequenceMatcher(None, lowered, name[: len(lowered)]).ratio()
            yield 1.0 if lowered in name else ratio, patient

    best, nearest = max(likeness(), key=lambda pair: (pair[0], len(pair[1])), default=(0.0, ""))
    return nearest if best >= _NEAR else None


def _starts(slide_id: str) -> list[str]:
    """Returns the beginnings of an identifier that end at a letter or digit, the longest first."""
    ends = [i for i, character in enumerate(slide_id) if not character.isalnum()]
    return [slide_id[:end] for end in (len(slide_id), *reversed(ends))]

"""Which slides or ready features there are, whose they are and where they lie. No slide is opened here."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd

from subfuse.bounded_files import file_of
from subfuse.cells import number_hint
from subfuse.errors import DataError, preview
from subfuse.exclusions import NothingLeft, commonest_reasons, example_of, exclusion_table, join_exclusions
from subfuse.expression.samples import not_understood, type_of_sample
from subfuse.features.feature_table import read_feature_table
from subfuse.identifiers import (
    NAME_RULE,
    composed,
    describe_mismatch,
    is_plain_name,
    patient_of_barcode,
    spelt_otherwise,
)
from subfuse.preparation.slides.feature_sets import find_feature_sets, notes_of_vectors
from subfuse.preparation.slides.slide_columns import read_slide_table
from subfuse.preparation.slides.slide_names import (
    note_of_other_names,
    note_of_unmatched,
    patient_of_slide,
    refuse_one_person_twice,
    refuse_other_barcode,
    spelt_as,
)
from subfuse.preparation.slides.slide_samples import choose_kinds, choose_slides, kind_of_slide, rank_of_slide
from subfuse.preparation.slides.slide_search import (
    FEATURE_SUFFIXES,
    feature_id_of,
    files_in_words,
    find_slides,
    vectors_of_slides,
)
from subfuse.slides.file_names import DICOM_SUFFIX, SLIDE_SUFFIXES, slide_id_of
from subfuse.slides.image_folders import IMAGE_SUFFIXES
from subfuse.slides.source import (
    FeatureFiles,
    FeatureRows,
    FeatureSource,
    SlideFolder,
    SlideList,
    SlideSource,
    SlidesSection,
    SlidesToEncode,
)
from subfuse.slides.tissue import doubt_of_mpp
from subfuse.slides.tissue_rule import require_rule
from subfuse.tables import is_missing, note_of_commas, read_text_table, require_columns

_MPP_REMEDY = "Correct it, or empty the cell where the slide itself says it."


class _Listed(NamedTuple):
    """A slide as the table lists it, or as it lies in the folder."""

    slide_id: str
    patient_id: str | None  # None: its name begins with none
    path: Path | None
    mpp: float | None
    rank: int  # of its sample
    words: str = ""  # for the type of its sample
    kind: str | None = None  # such as DX


@dataclass(frozen=True)
class _Place:
    """Where slides or ready features are: a folder, a table of features, or wherever the slide table says."""

    path: Path
    found: Mapping[str, Path]  # what lies there, by identifier
    identify: Callable[[str], str]  # the identifier, from the name in a slide table
    source: Callable[[str, str, Path, float | None], SlideSource]
    base: Path | None  # what paths of a slide table are relative to; None: they do not count
    needs_paths: bool = False  # nothing is found in another way
    absence: str = ""  # said of a slide of the table that is not found; empty: that there is no such file
    reads: tuple[str, Sequence[str]] | None = None  # what is searched for in a folder, and its suffixes
    notes: tuple[str, ...] = ()  # on what lies there and is not read, or how it is
    lacking: Mapping[str, str] = field(default_factory=dict)  # why slides that are found cannot be used, by identifier


def read_slides(
    section: SlidesSection, patient_ids: Collection[str]
) -> tuple[tuple[SlideSource, ...], pd.DataFrame, tuple[str, ...]]:
    """Returns the slides that exist and belong to a patient, sorted; the others with their reason; and warnings.

    With a table, `path` (relative to `folder`, or to the table's own folder) says where a slide lies: a file, or a
    folder of images or of DICOM files. Without that column the slide is found in `folder` by its identifier, see
    `find_slides`. A table without `patient_id`, or no table at all, takes the patient from the beginning of the slide's
    identifier. Ready features (`features`, `feature_table`) are found likewise and become `FeatureSource`s.

    Args:
        section: `slides` of the cohort file.
        patient_ids: Patients of the clinical table, TCGA ones by their 12 characters.

    Raises:
        DataError: Missing folder or column, a slide identifier that occurs twice, an mpp that is not a positive
            number, a slide to include that is not there, a kind that is not known or that no slide has, or a feature
            table that cannot be used.
        ConfigurationError: The model that is to find tissue is not known.
    """
    if isinstance(section, SlidesToEncode):
        require_rule(section.tissue)
    known, place = frozenset(patient_ids), _place_of(section)
    listed = _listed(section.table, place, known)
    slides, left_out = [], []
    like = spelt_otherwise((slide.patient_id for slide in listed if slide.patient_id), known)
    for slide_id, patient_id, path, mpp, *_ in sorted(listed, key=lambda slide: slide.slide_id):
        if not patient_id:
            left_out.append(("slide", slide_id, f"its name begins with no patient's identifier{_but(slide_id, known)}"))
        elif patient_id not in known:
            left_out.append(("slide", slide_id, f"{patient_id} is not in the cohort{like.get(patient_id, '')}"))
        elif path is None or not file_of(path).exists():
            left_out.append(("slide", slide_id, _absence(place, slide_id, path)))
        elif slide_id in place.lacking:
            left_out.append(("slide", slide_id, place.lacking[slide_id]))
        elif not is_plain_name(slide_id):
            left_out.append(("slide", slide_id, f"its identifier names files: {NAME_RULE}"))
        else:
            slides.append(place.source(slide_id, patient_id, path, section.mpp if mpp is None else mpp))
    n_theirs = sum(slide.patient_id in known for slide in listed)
    unmatched = sorted(slide.slide_id for slide in listed if not slide.patient_id)
    few = _few_found(section.table or place.path, n_theirs, len(slides), exclusion_table(left_out))
    ranks = {slide.slide_id: slide.rank for slide in listed}
    kinds = {slide.slide_id: slide.kind for slide in listed}
    of_kinds, other_kinds, mixture = choose_kinds(slides, kinds, section.kinds)
    used, other_tissue = choose_slides(of_kinds, ranks, section.include)
    exclusions = join_exclusions([exclusion_table(left_out), other_kinds, other_tissue])
    doubts = (
        *_of_commas(section.table),
        *mixture,
        *(note_of_unmatched(place.path, n_theirs, unmatched, known) if section.table is None else ()),
        *note_of_other_names(((slide.slide_id, slide.patient_id) for slide in listed), known, section.table),
        *not_understood((slide.words for slide in listed if slide.patient_id in known), section.table),
    )
    return used, exclusions, (*place.notes, *_unlisted(section.table, place, set(ranks)), *few, *doubts)


def require_slides(
    section: SlidesSection, patient_ids: Collection[str], slides: Collection[SlideSource], exclusions: pd.DataFrame
) -> None:
    """Checks that there is a slide at all.

    Args:
        section: `slides` of the cohort file.
        patient_ids: Patients of the clinical table.
        slides: Those that exist and belong to a patient.
        exclusions: Of the tables, with those of slides among them.

    Raises:
        NothingLeft: There is none. Names the commonest reason, and the identifiers that do not meet.
    """
    if slides:
        return
    of_slides, place = exclusions[exclusions["level"] == "slide"], _place_of(section)
    why = f"{len(of_slides)} and none that can be used. Commonest reason: {commonest_reasons(of_slides, 1)}"
    mismatch = _mismatch(section.table, place, frozenset(patient_ids))
    found = f"{why if len(of_slides) else 'no slide'}.{_other_files(place)} {mismatch}"
    raise NothingLeft(
        f"{section.table or place.path}: slides of the cohort's patients are required where `slides` is declared. "
        f"Found {found}. Correct the identifiers or paths, or remove `slides`.",
        exclusions,
    )


def _place_of(section: SlidesSection) -> _Place:
    match section:
        case SlideFolder(folder=folder):
            suffixes = (*SLIDE_SUFFIXES, *IMAGE_SUFFIXES)
            whole = partial(SlideSource, tissue=section.tissue, stain=section.stain)
            return _Place(folder, find_slides(folder), slide_id_of, whole, folder, reads=("slides", suffixes))
        case SlideList(table=table):
            whole = partial(SlideSource, tissue=section.tissue, stain=section.stain)
            return _Place(table, {}, slide_id_of, whole, table.parent, needs_paths=True)
        case FeatureFiles(features=folder) if (vectors := vectors_of_slides(folder, section.encoder)) is not None:
            return replace(_rows_of(vectors), identify=feature_id_of, notes=notes_of_vectors(vectors, section))
        case FeatureFiles(features=folder):
            sets = find_feature_sets(folder, section.concatenate, section.encoder)
            source = partial(sets.source, encoder=section.encoder, is_copied=section.copies)
            reads = ("features", FEATURE_SUFFIXES)
            absence, found = f"no feature file in {folder}", sets.found
            return _Place(folder, found, feature_id_of, source, folder, False, absence, reads, sets.notes, sets.lacking)
        case FeatureRows(feature_table=table):
            return _rows_of(table)


def _rows_of(table: Path) -> _Place:
    """Returns where slides are whose features one file holds."""
    features = read_feature_table(table)
    rows = {composed(str(name)): table for name in features.index}
    commas = note_of_commas(table, features.attrs.get("decimal_commas", ()))
    source, absence = partial(FeatureSource, in_table=True), f"no row in {table.name}"
    return _Place(table, rows, composed, source, None, absence=absence, notes=commas)


def _other_files(place: _Place) -> str:
    """Returns what a folder holds in which no file has a name of features, or of a slide, and which names are read."""
    if place.reads is None or place.found:
        return ""
    what, suffixes = place.reads
    return (
        f" The folder {place.path.name} holds {files_in_words(place.path)}; {what} are read from {', '.join(suffixes)}."
    )


def _mismatch(table: Path | None, place: _Place, known: frozenset[str]) -> str:
    """Which identifiers do not meet: those of patients, or those of the slides listed and found."""
    if table is None:
        return describe_mismatch(known, {"slides": place.found}, of_ours="patients")
    listed = _listed(table, place, known)
    owners = {slide.patient_id or slide.slide_id for slide in listed}
    if not owners & known:
        return describe_mismatch(known, {f"in {table.name}": owners}, of_ours="patients")
    paths = {slide.slide_id: slide.path for slide in listed}
    named = len(known & set(place.found))
    of_patients = f"; {named} files are called as patients: remove `slides.table`" if named else ""
    mismatch = describe_mismatch(
        [name for name, path in paths.items() if path is None or not file_of(path).exists()] or paths,
        {"found": set(place.found) - set(paths)},
        of_ours=f"slides of {table.name}",
    )
    return f"{mismatch}{of_patients}"


def _but(slide_id: str, patient_ids: Collection[str]) -> str:
    alike = spelt_as(slide_id, patient_ids)
    return "" if alike is None else f", but with another spelling of {alike}"


def _few_found(path: Path, listed: int, found: int, left_out: pd.DataFrame) -> tuple[str, ...]:
    """Returns a warning where at most half of the slides that are listed for the cohort's patients are there."""
    if not found or 2 * found > listed:
        return ()
    absent = left_out[~left_out["reason"].str.contains("is not in the cohort|begins with no patient", regex=True)]
    return (f"{path}: only {found} of {listed} slides of the cohort's patients are found. {example_of(absent)}",)


def _absence(place: _Place, slide_id: str, path: Path | None) -> str:
    return place.absence if path is None and place.absence else f"no such file: {path or slide_id}"


def _listed(table: Path | None, place: _Place, known: frozenset[str]) -> list[_Listed]:
    """Returns the slides that the table lists; without a table those that are found."""
    if table is not None:
        return _listed_in_table(table, place, known)
    return [
        _Listed(
            slide_id,
            patient_of_slide(slide_id, known),
            path,
            None,
            rank_of_slide(slide_id),
            kind=kind_of_slide(slide_id),
        )
        for slide_id, path in place.found.items()
    ]


def _listed_in_table(path: Path, place: _Place, known: frozenset[str]) -> list[_Listed]:
    table = read_slide_table(path)
    if place.needs_paths:
        require_columns(table, {"path": "where the slide lies, since there is no slides.folder"}, path)
    listed = []
    seen: dict[str, int] = {}
    for row, record in enumerate(table.to_dict("records"), start=2):
        name = record["slide_id"]
        slide_id = _identifier(name, place)
        if not slide_id or slide_id in seen:
            first = f"{slide_id} again (first: row {seen[slide_id]})" if slide_id else "an empty cell"
            raise DataError(f"{path}, row {row}: slide_id must be given once. Found {first}.")
        seen[slide_id] = row
        given = str(record.get("path", ""))
        patient = str(record["patient_id"]) if "patient_id" in record else None
        words = type_of_sample(record)
        refuse_other_barcode(slide_id, patient, f"{path}, row {row}")
        listed.append(
            _Listed(
                slide_id,
                patient_of_slide(slide_id, known) if patient is None else patient_of_barcode(patient),
                place.found.get(slide_id) if place.base is None or is_missing(given) else _slide_at(place.base / given),
                _mpp(str(record.get("mpp", "")), f"{path}, row {row}"),
                rank_of_slide(slide_id, patient or "", words),
                words,
                kind_of_slide(slide_id, str(record.get("kind", ""))),
            )
        )
    owners = [(slide.slide_id, slide.patient_id) for slide in listed if slide.patient_id in known]
    refuse_one_person_twice(owners, path)
    return listed


def _identifier(name: str, place: _Place) -> str:
    """Returns the identifier of a slide whose name in a table may be a path, as of STAMP: that of the file there."""
    given = PurePosixPath(name)
    slide_id, of_file = place.identify(name), place.identify(given.name)
    found = place.found.get(of_file)
    is_that = found is not None and found.parts[-len(given.parts) :] == given.parts
    return of_file if is_that and slide_id not in place.found else slide_id


def _of_commas(table: Path | None) -> tuple[str, ...]:
    columns = () if table is None else read_text_table(table).attrs.get("decimal_commas", ())
    return () if table is None else note_of_commas(table, [name for name in columns if name.lower() == "mpp"])


def _slide_at(path: Path) -> Path:
    """Returns the first DICOM file of a folder of them, anything else as it is."""
    levels = sorted(path.glob(f"*{DICOM_SUFFIX}")) if path.is_dir() else []
    return levels[0] if levels else path


def _mpp(cell: str, place: str) -> float | None:
    if is_missing(cell):
        return None
    mpp = pd.to_numeric(cell, errors="coerce")
    if not (np.isfinite(mpp) and mpp > 0):
        remedy = number_hint(cell) or f" {_MPP_REMEDY}"
        raise DataError(f"{place}: mpp must be a positive number of µm per pixel. Found {cell!r}.{remedy}")
    doubt = doubt_of_mpp(float(mpp))
    if doubt is not None:
        raise DataError(f"{place}: mpp must be {doubt}. Found {cell!r}. {_MPP_REMEDY}")
    return float(mpp)


def _unlisted(table: Path | None, place: _Place, listed: Collection[str]) -> tuple[str, ...]:
    extra = sorted(set(place.found) - set(listed))
    if table is None or not extra:
        return ()
    return (f"{len(extra)} slides of {place.path} are not in {table.name} and are not used ({preview(extra)})",)

"""Which slides or ready features there are, whose they are and where they lie. No slide is opened here."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.errors import DataError, preview
from subfuse.exclusions import NothingLeft, commonest_reasons, exclusion_table, join_exclusions
from subfuse.features.feature_table import read_feature_table
from subfuse.identifiers import NAME_RULE, describe_mismatch, is_plain_name, patient_of_barcode, spelt_otherwise
from subfuse.preparation.slide_samples import choose_slides, rank_of_slide
from subfuse.slides.image_folders import IMAGE_SUFFIXES
from subfuse.slides.source import FeatureSource, SlideSource, SlidesSection
from subfuse.slides.tissue import doubt_of_mpp
from subfuse.tables import decimal_hint, is_missing, read_text_table, require_columns

SLIDE_SUFFIXES = (
    ".ome.tiff", ".ome.tif", ".svs", ".tiff", ".tif", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu",
    ".czi", ".dcm",
)  # fmt: skip
DICOM_SUFFIX = ".dcm"
FEATURE_SUFFIXES = (".h5", ".hdf5", ".pt", ".zarr")


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
            number, a slide to include that is not there, or a feature table that cannot be used.
    """
    known = frozenset(patient_ids)
    found = _found(section)
    listed = _listed_in_folder(found, known) if section.table is None else _listed_in_table(section, known, found)
    slides, left_out = [], []
    like = spelt_otherwise((row[1] for row in listed if row[1]), known)
    for slide_id, patient_id, path, mpp, _ in sorted(listed, key=lambda row: row[0]):
        if not patient_id:
            left_out.append(("slide", slide_id, "its name begins with no patient's identifier"))
        elif patient_id not in known:
            left_out.append(("slide", slide_id, f"{patient_id} is not in the cohort{like.get(patient_id, '')}"))
        elif path is None or not path.exists():
            left_out.append(("slide", slide_id, _absence(section, slide_id, path)))
        elif not is_plain_name(slide_id):
            left_out.append(("slide", slide_id, f"its identifier names files: {NAME_RULE}"))
        else:
            slides.append(_source(section, slide_id, patient_id, path, mpp))
    ranks = {row[0]: row[4] for row in listed}
    used, other_tissue = choose_slides(slides, ranks, section.include)
    exclusions = join_exclusions([exclusion_table(left_out), other_tissue])
    return used, exclusions, _unlisted(section, found, set(ranks))


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
    of_slides = exclusions[exclusions["level"] == "slide"]
    place = section.table or section.folder or section.features or section.feature_table
    why = f"{len(of_slides)} and none that can be used. Commonest reason: {commonest_reasons(of_slides, 1)}"
    raise NothingLeft(
        f"{place}: slides of the cohort's patients are required where `slides` is declared. Found "
        f"{why if len(of_slides) else 'no slide'}. {_mismatch(section, patient_ids)}. Correct the identifiers or "
        "paths, or remove `slides`.",
        exclusions,
    )


def _mismatch(section: SlidesSection, patient_ids: Collection[str]) -> str:
    """Which identifiers do not meet: those of patients, or those of the slides listed and found."""
    known, found = frozenset(patient_ids), _found(section)
    if section.table is None:
        return describe_mismatch(known, {"slides": found}, of_ours="patients")
    listed = _listed_in_table(section, known, found)
    owners = {patient or slide_id for slide_id, patient, *_ in listed}
    if not owners & known:
        return describe_mismatch(known, {f"in {section.table.name}": owners}, of_ours="patients")
    paths = {slide_id: path for slide_id, _, path, *_ in listed}
    return describe_mismatch(
        [name for name, path in paths.items() if path is None or not path.exists()] or paths,
        {"found": set(found) - set(paths)},
        of_ours=f"slides of {section.table.name}",
    )


def find_slides(folder: Path) -> dict[str, Path]:
    """Returns the slides of a folder and its subfolders: identifier to path.

    A slide is a file with a slide suffix; a subfolder that directly holds PNG or JPEG images, or several DICOM files
    (the levels of one slide, all of which OpenSlide reads with the first), named by the folder; or an image that lies
    in `folder` itself. Hidden files are ignored.

    Raises:
        DataError: The folder does not exist, or two slides have one identifier.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: a folder of slides is required. Found none. Check slides.folder.")
    found: dict[str, Path] = {}
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for identifier, path in _slides_in(Path(place), sorted(names), is_top=Path(place) == folder):
            if identifier in found:
                raise DataError(
                    f"{folder}: slide identifiers must be unique. Found {identifier!r} as {found[identifier]} and "
                    f"{path}. Rename one, or give a slide table with a path column."
                )
            found[identifier] = path
    return found


def _slides_in(here: Path, names: Sequence[str], *, is_top: bool) -> Iterator[tuple[str, Path]]:
    """Yields identifier and path of the slides that lie directly in a folder."""
    files = [here / name for name in names if _is_slide(name)]
    images = [here / name for name in names if _is_image(name)]
    levels = [] if is_top else [path for path in files if path.suffix.lower() == DICOM_SUFFIX]
    if len(levels) > 1:
        yield here.name, levels[0]
        files = [path for path in files if path not in levels]
    yield from ((slide_id_of(path.name), path) for path in (*files, *(images if is_top else [])))
    if images and not is_top:
        yield here.name, here


def find_features(folder: Path) -> dict[str, Path]:
    """Returns the feature files and zarr stores of a folder and its subfolders: identifier to path.

    Of a slide with both files of CLAM, `h5_files/<slide>.h5` and `pt_files/<slide>.pt`, the former counts: it has the
    coordinates. Hidden files are ignored.

    Raises:
        DataError: The folder does not exist, or two files have one identifier.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: a folder of feature files is required. Found none. Check slides.features.")
    found: dict[str, Path] = {}
    for place, subfolders, names in os.walk(folder):
        stores = sorted(name for name in subfolders if name.lower().endswith(".zarr"))
        subfolders[:] = sorted(name for name in subfolders if name not in stores and not name.startswith("."))
        for name in (*sorted(name for name in names if _is_feature_file(name)), *stores):
            path, identifier = Path(place, name), feature_id_of(name)
            other = found.setdefault(identifier, path)
            if {path.parent.name, other.parent.name} == {"h5_files", "pt_files"}:
                found[identifier] = path if path.parent.name == "h5_files" else other
            elif other != path:
                raise DataError(
                    f"{folder}: slide identifiers must be unique. Found {identifier!r} as {other} and {path}. Name "
                    "the folder of one encoder as slides.features, or give a slide table with a path column."
                )
    return found


def feature_id_of(name: str) -> str:
    """Returns the slide's identifier of a feature file: its name without the suffixes of features and slide.

    Example:
        >>> feature_id_of("TCGA-02-0047-01Z-00-DX1.4755D138.h5"), feature_id_of("case.7.svs.h5")
        ('TCGA-02-0047-01Z-00-DX1.4755D138', 'case.7')
    """
    suffix = next((s for s in FEATURE_SUFFIXES if name.lower().endswith(s)), "")
    return slide_id_of(name[: len(name) - len(suffix)])


def slide_id_of(name: str) -> str:
    """Returns a slide's identifier: its file name without a slide or image suffix; dots inside stay.

    Example:
        >>> slide_id_of("TCGA-02-0047-01Z-00-DX1.4755D138.svs"), slide_id_of("case.7")
        ('TCGA-02-0047-01Z-00-DX1.4755D138', 'case.7')
    """
    suffix = next((s for s in (*SLIDE_SUFFIXES, *IMAGE_SUFFIXES) if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]


def patient_of_slide(slide_id: str, patient_ids: Collection[str]) -> str | None:
    """Returns the patient whose identifier begins the slide's and ends at a letter or digit; the longest such.

    TCGA barcodes name their patient in lower case as well.

    Example:
        >>> patient_of_slide("case-12_a", {"case-1", "case-12"}), patient_of_slide("case-123", {"case-12"})
        ('case-12', None)
    """
    ends = [i for i, character in enumerate(slide_id) if not character.isalnum()]
    starts = (slide_id[:end] for end in (len(slide_id), *reversed(ends)))
    of_barcode = patient_of_barcode(slide_id)
    return next((start for start in (*starts, of_barcode) if start in patient_ids), None)


_MPP_REMEDY = "Correct it, or empty the cell where the slide itself says it."
Listed = list[tuple[str, str | None, Path | None, float | None, int]]  # slide, patient, path, mpp, rank of the sample


def _found(section: SlidesSection) -> dict[str, Path]:
    if section.features is not None:
        return find_features(section.features)
    if section.feature_table is not None:
        return {str(name): section.feature_table for name in read_feature_table(section.feature_table).index}
    return {} if section.folder is None else find_slides(section.folder)


def _source(section: SlidesSection, slide_id: str, patient_id: str, path: Path, mpp: float | None) -> SlideSource:
    mpp = section.mpp if mpp is None else mpp
    if section.features is None and section.feature_table is None:
        return SlideSource(slide_id, patient_id, path, mpp)
    in_table = section.feature_table is not None
    return FeatureSource(slide_id, patient_id, path, mpp, encoder=section.encoder, in_table=in_table)


def _absence(section: SlidesSection, slide_id: str, path: Path | None) -> str:
    if path is None and section.features is not None:
        return f"no feature file in {section.features}"
    if path is None and section.feature_table is not None:
        return f"no row in {section.feature_table.name}"
    return f"no such file: {path or slide_id}"


def _listed_in_folder(found: Mapping[str, Path], known: frozenset[str]) -> Listed:
    return [
        (slide_id, patient_of_slide(slide_id, known), path, None, rank_of_slide(slide_id))
        for slide_id, path in found.items()
    ]


def _listed_in_table(section: SlidesSection, known: frozenset[str], found: Mapping[str, Path]) -> Listed:
    path = section.table
    assert path is not None  # the caller checked
    table = read_text_table(path)
    require_columns(table, {"slide_id": "the slide"}, path, optional=("patient_id", "path", "mpp", "sample_type"))
    place, of_table = section.folder or section.features, section.feature_table is not None
    if place is None and not of_table:
        require_columns(table, {"path": "where the slide lies, since there is no slides.folder"}, path)
    listed: Listed = []
    seen: dict[str, int] = {}
    for row, record in enumerate(table.to_dict("records"), start=2):
        name = record["slide_id"]
        slide_id = feature_id_of(name) if section.features is not None else name if of_table else slide_id_of(name)
        if not slide_id or slide_id in seen:
            first = f"{slide_id} again (first: row {seen[slide_id]})" if slide_id else "an empty cell"
            raise DataError(f"{path}, row {row}: slide_id must be given once. Found {first}.")
        seen[slide_id] = row
        given = "" if of_table else str(record.get("path", ""))
        patient = str(record["patient_id"]) if "patient_id" in record else None
        listed.append(
            (
                slide_id,
                patient_of_slide(slide_id, known) if patient is None else patient_of_barcode(patient),
                found.get(slide_id) if is_missing(given) else _slide_at((place or path.parent) / given),
                _mpp(str(record.get("mpp", "")), f"{path}, row {row}"),
                rank_of_slide(slide_id, patient or "", str(record.get("sample_type", ""))),
            )
        )
    return listed


def _slide_at(path: Path) -> Path:
    """Returns the first DICOM file of a folder of them, anything else as it is."""
    levels = sorted(path.glob(f"*{DICOM_SUFFIX}")) if path.is_dir() else []
    return levels[0] if levels else path


def _mpp(cell: str, place: str) -> float | None:
    if is_missing(cell):
        return None
    mpp = pd.to_numeric(cell, errors="coerce")
    if not (np.isfinite(mpp) and mpp > 0):
        remedy = decimal_hint(cell) or f" {_MPP_REMEDY}"
        raise DataError(f"{place}: mpp must be a positive number of µm per pixel. Found {cell!r}.{remedy}")
    doubt = doubt_of_mpp(float(mpp))
    if doubt is not None:
        raise DataError(f"{place}: mpp must be {doubt}. Found {cell!r}. {_MPP_REMEDY}")
    return float(mpp)


def _unlisted(section: SlidesSection, found: Mapping[str, Path], listed: Collection[str]) -> tuple[str, ...]:
    if section.table is None:
        return ()
    extra = sorted(set(found) - set(listed))
    place = section.folder or section.features or section.feature_table
    note = f"{len(extra)} slides of {place} are not in {section.table.name} and are not used"
    return (f"{note} ({preview(extra)})",) if extra else ()


def _is_slide(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SLIDE_SUFFIXES)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def _is_feature_file(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(FEATURE_SUFFIXES)

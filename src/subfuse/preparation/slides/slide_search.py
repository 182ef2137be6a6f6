"""Which files of a folder are slides or features, and how their names identify them."""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from subfuse.errors import DataError, preview
from subfuse.features.encoder import is_same_encoder
from subfuse.features.feature_table import encoder_of_vectors
from subfuse.features.trident_job import OF_PATCHES, encoder_of_folder
from subfuse.identifiers import composed
from subfuse.slides.file_names import DICOM_SUFFIX, SLIDE_SUFFIXES, slide_id_of
from subfuse.slides.image_folders import IMAGE_SUFFIXES

FEATURE_SUFFIXES = (".h5", ".hdf5", ".pt", ".zarr")
_OF_CLAM = ("h5_files", "pt_files")
_COORDINATES = "patches"  # of CLAM and TRIDENT, beside the features
_OF_PLACES = "_patches"  # ends the names of TRIDENT's files there
_PROCESSED = "process_list_autogen.csv"  # beside the coordinates of CLAM


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
        for identifier, path in _slides_in(Path(place), names, is_top=Path(place) == folder):
            if identifier in found:
                raise DataError(
                    f"{folder}: slide identifiers must be unique. Found {identifier!r} as {found[identifier]} and "
                    f"{path}. Rename one, or give a slide table with a path column."
                )
            found[identifier] = path
    return found


def _slides_in(here: Path, names: Sequence[str], *, is_top: bool) -> Iterator[tuple[str, Path]]:
    """Yields identifier and path of the slides that lie directly in a folder."""
    files = [here / name for name in _visible(names, SLIDE_SUFFIXES)]
    images = [here / name for name in _visible(names, IMAGE_SUFFIXES)]
    levels = [] if is_top else [path for path in files if path.suffix.lower() == DICOM_SUFFIX]
    if len(levels) > 1:
        yield composed(here.name), levels[0]
        files = [path for path in files if path not in levels]
    yield from ((slide_id_of(path.name), path) for path in (*files, *(images if is_top else [])))
    if images and not is_top:
        yield composed(here.name), here


def find_features(folder: Path, encoder: str | None = None) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Returns the feature files and zarr stores of a folder and its subfolders: identifier to path; and what is unread.

    Of a slide with both files of CLAM, `h5_files/<slide>.h5` and `pt_files/<slide>.pt`, the former counts: it has the
    coordinates. In a job folder of TRIDENT the features of one encoder are read, of patches unless those of slides are
    asked for or alone there; the names of the other folders are unread. Files of coordinates beside features
    (`patches`, of CLAM in the folder of its `process_list_autogen.csv`) and hidden files are ignored.

    Args:
        folder: Where to search.
        encoder: As declared; chooses among the folders of several (TRIDENT).

    Raises:
        DataError: The folder does not exist, there are features of several encoders, or two files have one identifier.
    """
    if not folder.is_dir():
        kind = "another file" if folder.exists() else "none"
        raise DataError(
            f"{folder}: a folder of feature files is required, or a file of STAMP with a vector for each slide. Found "
            f"{kind}. Check slides.features."
        )
    places = list(_places_of_features(folder))
    parts = {part for place in places for part in place.folders}
    made_by = {part: made for part in sorted(parts) if (made := encoder_of_folder(part)) is not None}
    unread = set(made_by) - _chosen_folders(folder, made_by, encoder)
    found: dict[str, Path] = {}
    files = [path for place in places if not unread & {*place.folders} for path in place.features]
    for path in [path for path in files if not lists_places(path)] or files:
        identifier = feature_id_of(path.name)
        other = found.setdefault(identifier, path)
        if {path.parent.name, other.parent.name} == {*_OF_CLAM}:
            found[identifier] = path if path.parent.name == _OF_CLAM[0] else other
        elif other != path:
            raise DataError(
                f"{folder}: slide identifiers must be unique. Found {identifier!r} as {other} and {path}. Name the "
                f"folder of one encoder and tiling, such as {other.parent.relative_to(folder)}, as slides.features, or "
                "give a slide table with a path column."
            )
    return found, tuple(sorted(unread))


def folders_of_features(folder: Path) -> list[Path]:
    """Returns the folders, this one or below it, in which feature files or zarr stores lie directly, sorted."""
    return sorted({path.parent for part in _places_of_features(folder) for path in part.features})


def vectors_of_slides(place: Path, encoder: str | None) -> Path | None:
    """Returns the file in which STAMP keeps the vectors of all slides, see `read_feature_table`; None for other places.

    Args:
        place: The file itself, or a folder with no other features than such files.
        encoder: As declared; chooses among several.

    Raises:
        DataError: Several could be meant.
    """
    made_by: dict[Path, str] = {}
    inside = [path for part in _places_of_features(place) for path in part.features] if place.is_dir() else [place]
    for path in inside:
        made = encoder_of_vectors(path)
        if made is None:
            return None
        made_by[path] = made
    named = [path for path, made in made_by.items() if encoder is not None and is_same_encoder(made, encoder)]
    chosen = named or list(made_by)
    if not chosen:
        return None
    if len(chosen) > 1:
        found = preview([f"{path.name} of {made_by[path]}" for path in chosen])
        raise DataError(
            f"{place}: vectors of slides by one encoder are required. Found {found}. Name the encoder as "
            "slides.encoder, or the file as slides.features."
        )
    return chosen[0]


def without_features(folder: Path, found: Collection[str]) -> list[str]:
    """Returns the slides of which a job of TRIDENT has the places of patches and no features yet, sorted.

    Args:
        folder: The job.
        found: Slides that have features there.
    """
    listed = {
        feature_id_of(path.name).removesuffix(_OF_PLACES)
        for part in _places_of_features(folder)
        for path in part.places
        if path.stem.endswith(_OF_PLACES)
    }
    return sorted(listed - set(found))


def lists_places(path: Path) -> bool:
    """Returns whether a file is one of CLAM's that list places of patches, which its features lie beside or elsewhere.

    Example:
        >>> lists_places(Path("results/h5_files/slide.h5"))
        False
    """
    return path.parent.name == _COORDINATES and (path.parents[1] / _PROCESSED).exists()


class _PlaceOfFeatures(NamedTuple):
    """A folder, and the feature files and zarr stores that lie directly in it."""

    folders: tuple[str, ...]  # from below the folder that is searched down to this one
    features: list[Path]
    places: list[Path]  # what only lists places of patches, of slides whose features lie beside


def _places_of_features(folder: Path) -> Iterator[_PlaceOfFeatures]:
    """Yields a folder and its subfolders: none that is hidden, in a store, or of coordinates beside features."""
    for place, subfolders, names in os.walk(folder):
        stores = sorted(name for name in subfolders if name.lower().endswith(".zarr"))
        beside = any(encoder_of_folder(name) or name in _OF_CLAM for name in subfolders)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if name not in stores and not name.startswith(".") and not (beside and name == _COORDINATES)
        )
        features = [Path(place, name) for name in (*_visible(names, FEATURE_SUFFIXES), *stores)]
        coordinates = Path(place, _COORDINATES)
        places = list(coordinates.glob("*.h5")) if beside and coordinates.is_dir() else []
        yield _PlaceOfFeatures(Path(place).relative_to(folder).parts, features, places)


def _chosen_folders(folder: Path, made_by: Mapping[str, str], encoder: str | None) -> set[str]:
    """Returns which of the folders of features in a job of TRIDENT is read: one, or none where there is none.

    Args:
        folder: The job, for the message.
        made_by: Names of folders to the encoders that these name.
        encoder: As declared.

    Raises:
        DataError: Several could be meant.
    """
    of_patches = [name for name in made_by if name.startswith(OF_PATCHES)]
    named = [name for name in made_by if encoder is not None and is_same_encoder(made_by[name], encoder)]
    chosen = [name for name in named if name in of_patches] or named or of_patches or list(made_by)
    if len(chosen) > 1:
        words = "Found" if encoder is None else f"slides.encoder is {encoder}. Found"
        raise DataError(
            f"{folder}: features of one encoder are required. {words} those of "
            f"{preview(list(made_by.values()))}. Name one of them as slides.encoder."
        )
    return set(chosen)


def files_in_words(folder: Path) -> str:
    """Returns how many files of which kind a folder and its subfolders hold, the commonest kinds first.

    Hidden files are ignored.
    """
    names = [name for _, _, files in os.walk(folder) for name in files if not name.startswith(".")]
    kinds = Counter(Path(name).suffix.lower() or "without suffix" for name in names)
    return preview([f"{count} {kind}" for kind, count in kinds.most_common()], limit=4) or "no file"


def feature_id_of(name: str) -> str:
    """Returns the slide's identifier of a feature file: its name without the suffixes of features and slide.

    Example:
        >>> feature_id_of("TCGA-02-0047-01Z-00-DX1.4755D138.h5"), feature_id_of("case.7.svs.h5")
        ('TCGA-02-0047-01Z-00-DX1.4755D138', 'case.7')
    """
    suffix = next((s for s in FEATURE_SUFFIXES if name.lower().endswith(s)), "")
    return slide_id_of(name[: len(name) - len(suffix)])


def _visible(names: Sequence[str], suffixes: tuple[str, ...]) -> list[str]:
    """Returns the names with one of the suffixes, sorted, without hidden files."""
    return sorted(name for name in names if not name.startswith(".") and name.lower().endswith(suffixes))

"""Which slides or features a folder holds: the section `slides` of its draft."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from subfuse.errors import DataError, SubfuseError, counted, preview
from subfuse.features.feature_table import encoder_of_vectors, read_feature_table
from subfuse.features.other_tools import opened_features
from subfuse.features.store import UNKNOWN_ENCODER
from subfuse.features.trident_job import STATES, encoder_of_folder
from subfuse.preparation.slides.slide_search import (
    FEATURE_SUFFIXES,
    find_features,
    find_slides,
    folders_of_features,
    lists_places,
    vectors_of_slides,
)
from subfuse.recognition.kinds import (
    SLIDE_FEATURES,
    SLIDES,
    SLIDES_OF_PATIENTS,
    FoundTable,
    visible_subfolders,
)
from subfuse.recognition.yaml_lines import (
    PROBLEM,
    QUESTION,
    asked,
    line,
    names_of,
    relative,
    remark,
)
from subfuse.slides.file_names import SLIDE_SUFFIXES
from subfuse.slides.image_folders import IMAGE_SUFFIXES
from subfuse.tables import usual_name

_LOOKED_AT = 3  # files of features that are read
_MOST_OPENED = 20  # of which some may be damaged
_OF_CLAM = ("h5_files", "pt_files")
_ENCODER_KEY = "slides.encoder"  # in messages: naming one there is the remedy
_ANY_MPP = 0.5  # µm per pixel: what a file lacks that can be read with it and not without


def slides_lines(folder: Path, direct: Sequence[FoundTable], below: Sequence[FoundTable], base: Path) -> list[str]:
    """Returns the lines of the section, without which there is none: features before slides that are to be encoded.

    Args:
        folder: Where features and slides are searched for.
        direct: Tables directly in the folder.
        below: Tables of its subfolders, which count where none of slides is in the folder itself.
        base: The folder of the cohort file.
    """
    tables = _of_kind((SLIDES, SLIDES_OF_PATIENTS), direct, below)
    features = _places(folder, FEATURE_SUFFIXES, _has_features)
    if features:
        unused = [path for path in _places(folder, SLIDE_SUFFIXES, _has_slides) if path != folder]
        note = [remark(f"not used, since there are features: slides in {preview([p.name for p in unused])}")]
        return ["slides:", *_table(tables, base), *_features(features, tables, base), *(note if unused else [])]
    in_tables = _of_kind((SLIDE_FEATURES,), direct, below)
    if in_tables:
        paths = [table.path for table in in_tables]
        one = line("feature_table", relative(paths[0], base))
        which = asked("feature_table", f"which of {names_of(paths, base)}?")
        return ["slides:", *_table(tables, base), one if len(paths) == 1 else which]
    slides = _places(folder, SLIDE_SUFFIXES, _has_slides)
    tiles = [] if slides else [path for path in visible_subfolders(folder) if _has_images(path)]
    if len(slides or tiles) > 1:
        return ["slides:", *_table(tables, base), asked("folder", f"which of {names_of(slides or tiles, base)}?")]
    if slides:
        found = counted(len(find_slides(slides[0])), "slide")
        return ["slides:", *_table(tables, base), line("folder", relative(slides[0], base), found)]
    if tiles:
        mpp = [] if _has_mpp(tables) else [asked("mpp", "µm per pixel of the tiles?")]
        told = line("folder", relative(tiles[0], base), "tiles as images")
        return ["slides:", *_table(tables, base), told, *mpp]
    listed = [table for table in tables if _has_column(table, "path")]
    return ["slides:", *_table(listed, base)] if listed else []


def _of_kind(kinds: Sequence[str], direct: Sequence[FoundTable], below: Sequence[FoundTable]) -> list[FoundTable]:
    found = [table for table in direct if table.kind in kinds]
    return found or [table for table in below if table.kind in kinds]


def _places(folder: Path, suffixes: Sequence[str], has_any: Callable[[Path], bool]) -> list[Path]:
    """Returns the folder itself where files lie directly in it, or a tool lays it out; else those of its subfolders."""
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    is_of_tool = suffixes is FEATURE_SUFFIXES and any(
        name in (STATES, *_OF_CLAM) or encoder_of_folder(name) for name in names
    )
    if is_of_tool or any(name.lower().endswith(tuple(suffixes)) for name in names):
        return [folder] if has_any(folder) else []
    return [path for path in visible_subfolders(folder) if has_any(path)]


def _has_features(folder: Path) -> bool:
    try:
        return any(not lists_places(path) for path in find_features(folder)[0].values())
    except DataError:
        return True  # of several encoders


def _has_slides(folder: Path) -> bool:
    try:
        found = find_slides(folder)
    except DataError:
        return True
    return any(path.name.lower().endswith(SLIDE_SUFFIXES) for path in found.values())


def _has_images(folder: Path) -> bool:
    return any(name.lower().endswith(IMAGE_SUFFIXES) for _, _, names in os.walk(folder) for name in names)


def _has_mpp(tables: Sequence[FoundTable]) -> bool:
    return any(_has_column(table, "mpp") for table in tables)


def _has_column(table: FoundTable, name: str) -> bool:
    return any(usual_name(str(column)) == name for column in table.start)


def _table(tables: Sequence[FoundTable], base: Path) -> list[str]:
    if len(tables) > 1:
        return [asked("table", f"which of {names_of([table.path for table in tables], base)}?")]
    return [line("table", relative(table.path, base)) for table in tables]


def _features(places: Sequence[Path], tables: Sequence[FoundTable], base: Path) -> list[str]:
    if len(places) > 1:
        return _which_of(places, base)
    if vectors := _vectors(places[0], base):
        return vectors
    try:
        found, unread = find_features(places[0])
    except DataError as error:
        problem = str(error).removeprefix(f"{places[0]}: ")
        of_one = _of_first_encoder(places[0]) if _ENCODER_KEY in problem else None
        if of_one is None:
            return _which_of(places, base)
        told = [line("features", relative(places[0], base)), asked("encoder", f"which one? {problem}")]
        return [*told, *_look_into(of_one, places[0], tables).lines]
    top = _top(list(found.values()), places[0])
    seen = _look_into(list(found.values()), places[0], tables)
    lines = seen.lines
    if seen.encoders == {UNKNOWN_ENCODER}:
        lines.append(remark(f"{QUESTION}which encoder made them? The files do not say:"))
        lines.append(remark("encoder: uni_v1"))
    told = [counted(len(found), "slide"), *sorted(seen.layouts), *(f"encoder {name}" for name in sorted(seen.encoders))]
    also = [remark(f"not read: {preview(unread)}; encoder: names which are")] if unread else []
    return [line("features", relative(top, base), ", ".join(told)), *lines, *also]


def _which_of(places: Sequence[Path], base: Path) -> list[str]:
    """Returns the question which folder of features is read: a place, or one below it where a name occurs again."""
    found = [path for place in places for path in ([place] if _is_one_set(place) else folders_of_features(place))]
    return [asked("features", f"which of {names_of(found, base)}?")]


def _is_one_set(place: Path) -> bool:
    try:
        return bool(find_features(place)[0])
    except DataError:
        return False


def _of_first_encoder(job: Path) -> list[Path] | None:
    """Returns the feature files of one of a job's encoders; None where one name stands for several files there, too."""
    try:
        return list(find_features(job, _encoders_in(job)[0])[0].values())
    except DataError:
        return None


def _vectors(place: Path, base: Path) -> list[str]:
    """Returns lines on a file of STAMP with the vectors of all slides; none where there is none."""
    try:
        path = vectors_of_slides(place, None)
        if path is None:
            return []
        told = [counted(len(read_feature_table(path)), "slide"), "STAMP", f"encoder {encoder_of_vectors(path)}"]
    except DataError as error:
        problem = str(error).removeprefix(f"{place}: ").replace(f"{place}/", "")
        if _ENCODER_KEY in problem:
            return [line("features", relative(place, base)), asked("encoder", f"which one? {problem}")]
        return [line("features", relative(place, base), f"{PROBLEM}{problem}")]
    return [line("features", relative(path, base), ", ".join(told))]


def _encoders_in(folder: Path) -> list[str]:
    """Returns the encoders that the folders of a job are named by."""
    names = (encoder_of_folder(name) for _, folders, _ in os.walk(folder) for name in folders)
    return sorted({name for name in names if name is not None})


class _Seen(NamedTuple):
    """What some files of features are, and the lines on what they lack."""

    layouts: set[str]
    encoders: set[str]
    lines: list[str]


def _look_into(files: Sequence[Path], place: Path, tables: Sequence[FoundTable]) -> _Seen:
    """Opens files until some are read or many are not."""
    layouts, encoders, widths = set[str](), set[str](), dict[int, str]()
    unreadable, without_mpp, n_read = list[str](), list[str](), 0
    for path in sorted(files)[:_MOST_OPENED]:
        try:
            layout, encoder, width = _look(path)
        except SubfuseError as error:
            seen = _look_with_any_mpp(path)
            if seen is None:
                unreadable.append(str(error))
                continue
            without_mpp.append(str(error))
            layout, encoder, width = seen
        layouts, encoders, n_read = layouts | {layout}, encoders | {encoder}, n_read + 1
        widths.setdefault(width, path.name)
        if n_read == _LOOKED_AT:
            break
    lines = []
    if without_mpp and len(without_mpp) == n_read and not _has_mpp(tables):
        lines = [asked("mpp", "µm per level-0 pixel? No file says it")]
    elif not _has_mpp(tables):  # a value for all would stand for those that say theirs, too
        lines = [remark(f"{QUESTION}{problem.replace(f'{place}/', '')}") for problem in without_mpp]
    undecided = [problem for problem in unreadable if _ENCODER_KEY in problem]
    unreadable = [problem for problem in unreadable if problem not in undecided]
    if undecided:
        lines.append(asked("encoder", f"which one? {undecided[0].replace(f'{place}/', '')}"))
    if unreadable:
        looked_at = counted(len(unreadable) + len(undecided) + n_read, "file")
        told = f"{len(unreadable)} of {looked_at} looked at cannot be read; the first"
        lines.append(remark(f"{PROBLEM}{told}: {unreadable[0].replace(f'{place}/', '')}"))
    if len(widths) > 1:
        told = " and ".join(f"{width} in {name}" for width, name in widths.items())
        lines.append(remark(f"{PROBLEM}features of one width are required. Found {told}"))
    return _Seen(layouts, encoders, lines)


def _look(path: Path, mpp: float | None = None) -> tuple[str, str, int]:
    with opened_features(path, mpp=mpp) as file:
        return file.layout, file.encoder, file.shape[1]


def _look_with_any_mpp(path: Path) -> tuple[str, str, int] | None:
    """Returns what a file is of which nothing but the pixel size is missing; None of others."""
    try:
        return _look(path, _ANY_MPP)
    except SubfuseError:
        return None


def _top(files: Sequence[Path], place: Path) -> Path:
    """Returns the folder of features: that of the job that they are of, of both kinds of CLAM, or what holds all."""
    common = Path(os.path.commonpath([path.parent for path in files]))
    job = next((path for path in (common, *common.parents) if (path / STATES).is_dir()), None)
    if job is not None and job.is_relative_to(place):
        return job
    return common.parent if common.name in _OF_CLAM and common != place else common

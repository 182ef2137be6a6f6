"""What a TRIDENT job folder says of its slides beside their features: one file of `wsi_states` for each slide."""

import difflib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from subfuse.errors import DataError, preview
from subfuse.slides.file_names import slide_id_of
from subfuse.tables import read_json

STATES = "wsi_states"  # in the job folder: <slide>__<hash of the slide's path>.json
OF_PATCHES, OF_SLIDES = "features_", "slide_features_"  # begin the names of folders; their encoder follows
_REMEDY = "Declare `mpp` in the slide table, or as slides.mpp"
_LEVELS = 3  # from a feature file up to its job folder: features_<encoder>, <tiling>, job


def state_files(features: Path) -> list[Path]:
    """Returns what the job folder of a feature file says of its slide; nothing outside such a folder.

    The file may be called as the slide's: `case.svs.h5`.
    """
    by_slide = _states_near(features)
    return by_slide.get(features.stem) or by_slide.get(slide_id_of(features.stem), [])


def unrecorded(features: Path) -> str:
    """Returns what is told of a slide that its job folder has no record of, with the nearest; empty of others."""
    by_slide, name = _states_near(features), slide_id_of(features.stem)
    if not by_slide or features.stem in by_slide or name in by_slide:
        return ""
    near = difflib.get_close_matches(name, by_slide, n=1, cutoff=0)
    return f"; {STATES} has no record of slide {name} (nearest: {preview(near)})"


def _states_near(features: Path) -> Mapping[str, list[Path]]:
    places = (place / STATES for place in features.parents[:_LEVELS])
    states = next((place for place in places if place.is_dir()), None)
    return {} if states is None else _states_by_slide(states, states.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _states_by_slide(states: Path, modified_ns: int) -> dict[str, list[Path]]:
    """Returns the records of a job, which are listed once for all its slides."""
    found: dict[str, list[Path]] = {}
    for path in sorted(states.glob("*__*.json")):
        found.setdefault(_slide_of(path), []).append(path)
    return found


def _slide_of(state: Path) -> str:
    return state.name.rpartition("__")[0]


def encoder_of_folder(name: str) -> str | None:
    """Returns what made the features in a folder that is called as TRIDENT does.

    Example:
        >>> [encoder_of_folder(name) for name in ("features_uni_v1", "slide_features_titan", "h5_files")]
        ['uni_v1', 'titan', None]
    """
    prefix = next((prefix for prefix in (OF_PATCHES, OF_SLIDES) if name.startswith(prefix)), None)
    return None if prefix is None else name.removeprefix(prefix) or None


def recorded_mpp(features: Path) -> float | None:
    """Returns the µm per level-0 pixel of a feature file's slide, as its job folder records it; None where it does not.

    Raises:
        DataError: A file of the job is damaged or of another slide, its pixel size is no positive number, or two files
            have different ones.
    """
    sizes = {path: size for path in state_files(features) if (size := _pixel_size(path)) is not None}
    if len(set(sizes.values())) > 1:
        found = " and ".join(f"{size:g} in {path.name}" for path, size in sizes.items())
        raise DataError(f"{features}: one pixel size is required. Found {found}, of slides of one name. {_REMEDY}.")
    return next(iter(sizes.values()), None)


def _pixel_size(path: Path) -> float | None:
    state, slide = read_json(path), _slide_of(path)
    content: dict[str, Any] = state if isinstance(state, dict) else {}
    described, meta = content.get("slide"), content.get("meta")
    if not isinstance(described, dict) or described.get("name") != slide or not isinstance(meta, dict):
        name = described.get("name") if isinstance(described, dict) else None
        found = f"slide {name}" if name else "no slide"
        raise DataError(f"{path}: what TRIDENT records of slide {slide} is required. Found {found}. {_REMEDY}.")
    size = meta.get("mpp")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int | float) or not size > 0:
        raise DataError(f"{path}: meta.mpp must be a positive number. Found {size!r}. {_REMEDY}.")
    return float(size)

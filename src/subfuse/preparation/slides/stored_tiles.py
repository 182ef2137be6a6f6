"""Tissue and tiles of a slide that an earlier preparation found, for another encoder: searched for and cut once."""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from subfuse.cohort.marker import PROVENANCE
from subfuse.errors import ConfigurationError, preview
from subfuse.features.store import read_matching, read_places
from subfuse.files import atomic_path, read_json
from subfuse.preparation.slides.slide_content import is_same_slide
from subfuse.slides.image_folders import is_image_source
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import Tiling
from subfuse.slides.tissue_rule import folder_of_outlines, recorded_rule

PICTURES = (("contours_geojson", "geojson"), ("thumbnails", "jpg"), ("contact_sheets", "jpg"))
_TAKEN = ("tissue_rule", "outlines_sha256", "tissue_mm2", "pen_share")


@dataclass(frozen=True)
class StoredTiles:
    """Where the patches of a slide are, and what was found on it."""

    coords: Int32[np.ndarray, "patch 2"]  # top-left corners (x, y) in level-0 pixels
    facts: Mapping[str, str | int | float]  # attributes of the feature file
    folder: Path  # of the tiling, with outlines and pictures

    def copy_pictures(self, folder: Path, slide_id: str) -> None:
        """Copies outlines, thumbnail and contact sheet into the folder of a tiling."""
        for kind, end in PICTURES:
            name = Path(kind) / f"{slide_id}.{end}"
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(self.folder / name, temporary)


def require_tiles(prepared: Path, tiling: Tiling, tissue: Collection[str]) -> None:
    """Checks that a prepared folder has tiles of a tiling, on tissue that was found as these slides have it.

    Slides whose tissue a person outlined are looked at one by one: outlines may be those that were found there.

    Raises:
        ConfigurationError: It has none.
    """
    if any(prepared.glob(f"wsi/{tiling.folder_name}/features_*/[!.]*.h5")):
        _require_tissue(prepared, tissue)
        return
    others = sorted({path.parent.name for path in prepared.glob("wsi/*/contours_geojson")})
    found = f"those of {preview(others)}" if others else "no slides that were cut into patches"
    raise ConfigurationError(
        f"--tiles-from {prepared}: a prepared folder with patches of {tiling} is required. Found {found}. Give another "
        "folder, or declare its tiling in slides.tiling of the cohort file."
    )


def _require_tissue(prepared: Path, tissue: Collection[str]) -> None:
    path = prepared / PROVENANCE
    found = (read_json(path) if path.exists() else {}).get("tissue") or []  # none in folders of earlier versions
    is_outlined = any(folder_of_outlines(rule) is not None for rule in tissue)
    if found and not is_outlined and not set(map(recorded_rule, found)) & set(map(recorded_rule, tissue)):
        others = preview([rule.partition(":")[0] for rule in found])
        raise ConfigurationError(
            f"--tiles-from {prepared}: tissue that is found as slides.tissue has it, {preview(list(tissue))}, is "
            f"required. Found tiles on that of {others}. Declare the same, or leave out --tiles-from."
        )


def stored_tiles(
    source: SlideSource, tiling: Tiling, prepared: Path, identity: Mapping[str, str | int | float]
) -> StoredTiles | None:
    """Returns the tiles of a slide in a prepared folder, of whatever encoder; None where it has none of this slide.

    Images are decoded whole to find their patches, so that there is nothing to spare: None.

    Args:
        source: The slide.
        tiling: Size and resolution of the patches.
        prepared: The prepared folder.
        identity: Attributes of a feature file that decide about tissue and tiles.
    """
    folder = prepared / "wsi" / tiling.folder_name
    if is_image_source(source.path) or not all(
        (folder / kind / f"{source.slide_id}.{end}").exists() for kind, end in PICTURES
    ):
        return None
    for path in [features / f"{source.slide_id}.h5" for features in sorted(folder.glob("features_*"))]:
        if not path.exists():
            continue
        written = path.stat().st_mtime  # before a missing hash is added
        stored = read_matching(path, identity)
        if stored is not None and is_same_slide(source.path, str(stored[1].get("source_sha256")), written):
            facts = {name: stored[1][name] for name in _TAKEN if name in stored[1]}
            return StoredTiles(read_places(path).coords, facts, folder)
    return None

"""From features that another tool extracted to those of a prepared folder."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subfuse.exclusions import exclusion_table
from subfuse.execution import Progress
from subfuse.features.encoder import encoder_id
from subfuse.features.other_tools import files_behind
from subfuse.features.patch_spacing import NO_PATCH_SIZE, SPACING_RULE, nearest_distances
from subfuse.features.store import (
    SlideFeatures,
    features_in_place,
    patch_um,
    read_attributes,
    read_matching,
    write_features,
)
from subfuse.features.stored.in_place import FeaturesInPlace, in_place
from subfuse.files import sha256_of_json
from subfuse.preparation.slides.feature_survey import FeatureSurvey, opened_source, table_of_features
from subfuse.preparation.slides.slide_jobs import FinishedSlide, SlideProgress, run_slides
from subfuse.slides.source import FeatureSource

_MOST_OVERLAP = 8  # patches that cover one point along an axis
FOLDER = "imported"  # under `wsi` of a prepared folder, beside the folders of tilings


@dataclass(frozen=True)
class FeatureRecord:
    """One slide of `slides.csv`. None and NaN mean unknown."""

    slide_id: str
    patient_id: str
    n_patches: int
    mpp: float  # µm per level-0 pixel
    patch_um: float  # side of a patch in µm
    width_px: int | None  # at level 0
    height_px: int | None
    tissue_mm2: float  # area that the patches cover together
    features: str  # feature file, relative to the prepared folder (the parent of `out`)
    layout: str  # the tool that wrote the source
    source: str  # name of the file
    has_coordinates: bool
    mpp_source: str | None  # "file" or "declared": in the slide table or as slides.mpp; None without coordinates
    warnings: tuple[str, ...] = ()
    bytes_in_place: int = 0  # of features that stay in the source
    why_copied: str = ""  # empty for features that stay


def import_slides(
    slides: Sequence[FeatureSource],
    survey: FeatureSurvey,
    out: Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> tuple[list[FeatureRecord], pd.DataFrame]:
    """Converts the feature files of a cohort into a prepared folder; what is complete there is not done again.

    Features that can be read quickly where they are stay there, unless they are to be copied.

    Args:
        slides: Feature files of patients, or rows of a feature table.
        survey: What `survey_features` found of them.
        out: The folder `wsi` of the prepared cohort.
        workers: Local processes.
        scheduler: Address of a running Dask scheduler, instead of local processes.
        progress: Called after each slide.

    Returns:
        The converted slides, sorted, and all that are excluded.

    Raises:
        ConfigurationError: A library is missing, or the disk is full.
    """
    usable = [source for source in slides if source.slide_id in survey.headers]
    folder = out / FOLDER / f"features_{encoder_id(survey.encoder)}"
    records, failures = run_slides(
        _import_slide,
        [(source, folder, survey.headers[source.slide_id].why_copied) for source in usable],
        workers=workers,
        scheduler=scheduler,
        progress=SlideProgress(len(usable), progress, workers=workers),
    )
    unusable = list(survey.exclusions.itertuples(index=False, name=None))
    return records, exclusion_table(sorted([*unusable, *failures]))


def _import_slide(source: FeatureSource, folder: Path, why_copied: str) -> FinishedSlide:
    """Converts the features of one slide unless `folder` holds them from the same source.

    Args:
        source: The slide.
        folder: Of the converted files.
        why_copied: Features are copied, for this reason; empty: they stay where they are if they can be read there.

    Raises:
        DataError: The file cannot be read, or a feature is not finite.
        ConfigurationError: A library is missing, or the disk is full.
    """
    start = time.monotonic()
    path = folder / f"{source.slide_id}.h5"
    identity = _identity_of_source(source)
    stored = _stored(path, identity, source, why_copied)
    is_new = stored is None
    if stored is None:
        with opened_source(source) as file:
            stay = None if why_copied or file.array is None else in_place(file.array, source.path, file.dtype)
            slide = file.slide_features(source.path)
            facts: dict[str, str | int | float] = {
                "layout": file.layout,
                "tissue_mm2": slide.area_mm2,
                "spacing_rule": SPACING_RULE,
                "warnings": json.dumps([*file.warnings, *_of_places(slide), *_empty_patches(slide)]),
            }
        if stay is not None and not np.array_equal(stay.read(), slide.features):
            stay = None
        attributes = identity | facts
        write_features(
            path, slide, tile_px=file.tile_px, overlap_px=file.overlap_px, attributes=attributes, in_place=stay
        )
        stored = (*read_attributes(path), stay)
    record = _record(source, path, folder, *stored, why_copied)
    return FinishedSlide(record, is_new=is_new, seconds=time.monotonic() - start)


def _of_places(slide: SlideFeatures) -> Iterator[str]:
    """Yields what is odd about where patches lie: several in one place, or nearer than anybody cuts them."""
    places = np.unique(slide.coords, axis=0)
    if len(places) < len(slide.coords):
        yield f"{len(slide.coords)} patches stand on {len(places)} places: those that are there again weigh again"
    if len(places) < 2 or not slide.has_coordinates:
        return
    distance = float(np.median(nearest_distances(places)))
    if distance * _MOST_OVERLAP < slide.patch_size_level0:
        yield (
            f"patches {slide.patch_size_level0} px wide lie {distance:g} px apart: where places are rows and columns, "
            "write pixels of level 0"
        )


def _empty_patches(slide: SlideFeatures) -> tuple[str, ...]:
    n_empty = int((~slide.features.any(axis=1)).sum()) if len(slide.features) > 1 else 0
    return (f"the features of {n_empty} of {len(slide.features)} patches are all zero",) if n_empty else ()


def _identity_of_source(source: FeatureSource) -> dict[str, str | int | float]:
    """Attributes that must agree for a converted file to count as that of this source."""
    if not source.in_table:
        files = [file for path in source.paths for file in files_behind(path)]
        content = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    else:
        row = table_of_features(source.path).loc[source.slide_id]
        content = [f"{name} {value!r}" for name, value in row.items()]
    return {
        "source": source.path.name,
        "source_sha256": sha256_of_json(content),
        "declared_mpp": "none" if source.mpp is None else source.mpp,
        "declared_encoder": source.encoder or "none",
    }


def _stored(
    path: Path, identity: Mapping[str, str | int | float], source: FeatureSource, why_copied: str
) -> tuple[int, dict[str, Any], FeaturesInPlace | None] | None:
    """Patches, attributes and place of the features of a complete file from the same source; None: to be written.

    Features that stay count only in the source itself, and where they are not to be copied; copies always do.
    """
    stored = read_matching(path, identity)
    if stored is None:
        return None
    n_patches, attributes = stored
    stay = features_in_place(path)
    is_elsewhere = stay is not None and (bool(why_copied) or stay.path != source.path.absolute())
    is_by_spacing = NO_PATCH_SIZE in json.loads(attributes["warnings"])
    if is_elsewhere or (is_by_spacing and attributes.get("spacing_rule") != SPACING_RULE):
        return None
    return n_patches, attributes, stay


def _record(
    source: FeatureSource,
    path: Path,
    folder: Path,
    n_patches: int,
    attributes: Mapping[str, Any],
    stay: FeaturesInPlace | None,
    why_copied: str,
) -> FeatureRecord:
    known = bool(attributes["has_coordinates"])
    return FeatureRecord(
        slide_id=source.slide_id,
        patient_id=source.patient_id,
        n_patches=n_patches,
        mpp=float(attributes["level0_mpp"]) if known else math.nan,
        patch_um=patch_um(attributes),
        width_px=int(attributes["slide_width_level0"]) if known else None,
        height_px=int(attributes["slide_height_level0"]) if known else None,
        tissue_mm2=float(attributes["tissue_mm2"]),
        features=path.relative_to(folder.parents[2]).as_posix(),
        layout=str(attributes["layout"]),
        source=str(attributes["source"]),
        has_coordinates=known,
        mpp_source=("file" if attributes["declared_mpp"] == "none" else "declared") if known else None,
        bytes_in_place=0 if stay is None else stay.n_bytes,
        why_copied="" if stay is not None else why_copied or "as they were before",
        warnings=tuple(json.loads(attributes["warnings"])),
    )

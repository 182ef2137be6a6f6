"""From the patches of a prepared slide to the one vector of a slide encoder."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.errors import ConfigurationError, DataError
from subfuse.exclusions import exclusion_table
from subfuse.execution import Progress
from subfuse.features.encoder import SlideEncoder, is_same_encoder
from subfuse.features.registered.cards import slide_encoder_card
from subfuse.features.store import (
    UNKNOWN_ENCODER,
    raster_corners,
    read_attributes,
    read_features,
    read_matching,
    recorded_hash,
    write_features,
)
from subfuse.features.stored.content import CONTENT_HASH
from subfuse.preparation.slides.feature_import import FeatureRecord
from subfuse.preparation.slides.slide_jobs import FinishedSlide, SlideProgress, run_slides

_OF_SLIDE = (  # what was found of the slide before its patches were encoded, or of the file that they came in
    "min_tissue_fraction", "declared_mpp", "tissue_rule", "outlines_sha256", "source_sha256", "tissue_mm2", "pen_share",
    "sharpness", "warnings", "stain", "source", "declared_encoder", "layout",
)  # fmt: skip


def write_vector(patches: Path, vector: Path, encoder: SlideEncoder) -> None:
    """Writes the vector of a slide beside the features of its patches: a bag of one patch without a place.

    Args:
        patches: Feature file of the patches, complete.
        vector: File to write.
        encoder: Reads these features.

    Raises:
        DataError: The patches are of another encoder, or the vector is not finite.
    """
    slide, (_, attributes) = read_features(patches), read_attributes(patches)
    tile_px, overlap_px = (int(attributes.get(name, 0)) for name in ("patch_size", "overlap"))  # 0: unknown, or none
    spacing = (tile_px - overlap_px) * slide.target_mpp / slide.level0_mpp if tile_px else slide.patch_size_level0
    found = encoder.encode(slide, spacing_px=max(1, round(spacing)))
    if not np.isfinite(found).all():
        raise DataError(
            f"encoder {encoder.name}: a finite vector of every slide is required. Found NaN or infinity, which the "
            "encoder returned. Check its weights, or use another with --encoder."
        )
    facts = {
        name: getattr(attributes[name], "item", lambda name=name: attributes[name])()
        for name in _OF_SLIDE
        if name in attributes
    }
    of_slide = replace(
        slide,
        features=found[None].astype(np.float32),
        coords=raster_corners(1, slide.patch_size_level0),
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        has_coordinates=False,
    )
    facts |= {
        "patch_encoder": encoder.patches.name,
        "patches_sha256": str(attributes[CONTENT_HASH]),
        "n_patches": len(slide.features),
    }
    write_features(vector, of_slide, tile_px=tile_px or None, overlap_px=overlap_px, attributes=facts)


def is_slide_encoder_of(name: str, encoder_of_patches: str) -> bool:
    """Returns whether an encoder turns ready features of patches into vectors of slides; False for any other encoder.

    Args:
        name: As `prepare` is given it.
        encoder_of_patches: Of the features.

    Raises:
        ConfigurationError: It encodes slides, but from features of another patch encoder.
    """
    card = slide_encoder_card(name)
    if card is None or card.patch_encoder is None or is_same_encoder(name, encoder_of_patches):
        return False
    if is_same_encoder(card.patch_encoder, encoder_of_patches):
        return True
    is_unknown = encoder_of_patches == UNKNOWN_ENCODER
    remedy = "Name it as slides.encoder, if it is that" if is_unknown else "Extract them with it"
    raise ConfigurationError(
        f"--encoder {name} reads features of {card.patch_encoder}. Found features of "
        f"{'an encoder that is not recorded' if is_unknown else encoder_of_patches}. {remedy}, or leave out --encoder."
    )


def require_width(encoder: SlideEncoder, n_features: int | None) -> None:
    """Refuses ready features of patches that are fewer or more than a slide encoder reads, before any is imported.

    Raises:
        ConfigurationError: Names both numbers.
    """
    if n_features not in (None, encoder.patches.dim):
        raise ConfigurationError(
            f"--encoder {encoder.name} reads {encoder.patches.dim} features of {encoder.patches.name}. Found "
            f"{n_features} features a patch: a part of them (its class token alone), or of another version. Extract "
            "all of them, or leave out --encoder."
        )


def encode_imports(
    records: Sequence[FeatureRecord], prepared: Path, encoder: SlideEncoder, *, progress: Progress | None = None
) -> tuple[list[FeatureRecord], pd.DataFrame]:
    """Writes one vector per slide beside the imported features of its patches; what is complete is not done again.

    Args:
        records: Of imported slides.
        prepared: The prepared folder.
        encoder: Reads their features.
        progress: Called after each slide.

    Returns:
        The records of the vectors, and the slides that are excluded.
    """
    meter = SlideProgress(len(records), progress)
    jobs = [(record, prepared, encoder) for record in records]
    vectors, failures = run_slides(_encode_import, jobs, workers=1, scheduler=None, progress=meter)
    return vectors, exclusion_table(failures)


def _encode_import(record: FeatureRecord, prepared: Path, encoder: SlideEncoder) -> FinishedSlide:
    start, patches = time.monotonic(), prepared / record.features
    vector = patches.parents[1] / f"features_{encoder.name}" / patches.name
    same = read_matching(vector, {"patches_sha256": recorded_hash(patches), "encoder_sha256": encoder.sha256})
    if same is None:
        write_vector(patches, vector, encoder)
    features = vector.relative_to(prepared).as_posix()
    of_slide = replace(record, n_patches=1, patch_um=math.nan, has_coordinates=False, features=features)
    return FinishedSlide(of_slide, is_new=same is None, seconds=time.monotonic() - start)

"""From the patches of a prepared slide to the one vector of a slide encoder."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from subfuse.features.encoder import SlideEncoder
from subfuse.features.store import raster_corners, read_attributes, read_features, write_features
from subfuse.slides.tissue import Tiling

_OF_SLIDE = (  # what was found of the slide before its patches were encoded
    "min_tissue_fraction", "declared_mpp", "tissue_rule", "outlines_sha256", "source_sha256", "tissue_mm2", "pen_share",
    "sharpness", "warnings", "stain",
)  # fmt: skip


def write_vector(patches: Path, vector: Path, encoder: SlideEncoder, tiling: Tiling) -> None:
    """Writes the vector of a slide beside the features of its patches: a bag of one patch without a place.

    Args:
        patches: Feature file of the patches, complete.
        vector: File to write.
        encoder: Reads these features.
        tiling: That the patches were cut with.

    Raises:
        DataError: The patches are of another encoder, or the vector is not finite.
    """
    slide = read_features(patches)
    found = encoder.encode(slide, spacing_px=tiling.stride_level0(slide.level0_mpp))
    _, attributes = read_attributes(patches)
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
    facts |= {"patch_encoder": encoder.patches.name, "n_patches": len(slide.features)}
    write_features(vector, of_slide, tile_px=tiling.tile_px, overlap_px=tiling.overlap_px, attributes=facts)

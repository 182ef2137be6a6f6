"""Slides: open them, find tissue, cut patches at a physical resolution and store their features."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subfuse.errors import DataError
from subfuse.features.encoder import PatchEncoder, SlideEncoder, encoder_id
from subfuse.features.store import SlideFeatures, patch_um, read_attributes, read_matching, write_features
from subfuse.identifiers import NAME_RULE, is_plain_name
from subfuse.preparation.slides.encoding import encoded_patches
from subfuse.preparation.slides.slide_content import is_same_slide, slide_sha256
from subfuse.preparation.slides.slide_vector import write_vector
from subfuse.preparation.slides.stored_tiles import PICTURES, stored_tiles
from subfuse.slides.opening import OpenedSlide, opened_slide
from subfuse.slides.outlines import outline_file, outlines_sha256, write_outlines
from subfuse.slides.review import quality_warnings, write_pictures
from subfuse.slides.source import SlideSource
from subfuse.slides.stain import fit_stain, recorded_stain
from subfuse.slides.tissue import MPP_PLACE, Tiling
from subfuse.slides.tissue_rule import folder_of_outlines, recorded_rule

_STAIN_SAMPLE = 32  # patches, at least, over which the stain of a slide is estimated


@dataclass(frozen=True)
class SlideHeader:
    """What a slide says about itself."""

    format: str  # the scanner's vendor or container, or "images"
    width_px: int  # at level 0
    height_px: int
    mpp: float  # µm per level-0 pixel
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SlideRecord:
    """One prepared slide, a row of `slides.csv`."""

    slide_id: str
    patient_id: str
    n_patches: int
    mpp: float  # µm per level-0 pixel
    patch_um: float  # side of a patch in µm
    width_px: int  # at level 0
    height_px: int
    mpp_source: str  # "slide" or "declared": in the slide table or as slides.mpp
    tissue_mm2: float  # for images: area of the patches that were kept
    pen_share: float  # of the stained and marked area
    sharpness: float  # median of the patches' variances of the Laplacian
    sharpness_mpp: float  # µm per pixel at which it is measured
    features: str  # feature file, relative to the prepared folder (the parent of `out`)
    warnings: tuple[str, ...] = ()


def inspect_slide(source: SlideSource) -> SlideHeader:
    """Opens a slide and returns what its header says; pixels are not read.

    Raises:
        DataError: The slide is missing, of another kind or damaged, its pixel size is unknown or implausible, or its
            outlines, where they are declared, cannot be used.
        ConfigurationError: The extra `wsi` is missing.
    """
    with opened_slide(source, Tiling()) as slide:
        if folder_of_outlines(source.tissue) is not None:
            slide.tissue(np.empty((0, 2), np.int32))  # read, not searched for
        return SlideHeader(slide.format, slide.width_px, slide.height_px, slide.mpp, slide.warnings)


def prepare_slide(
    source: SlideSource,
    encoder: PatchEncoder | SlideEncoder,
    tiling: Tiling,
    out: Path,
    *,
    tiles_from: Path | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> SlideRecord:
    """Finds the tissue of a slide, encodes its patches and writes features, outline and pictures.

    Files go to `features_<encoder>/<slide>.h5`, `contours_geojson/<slide>.geojson`, `thumbnails/<slide>.jpg` and
    `contact_sheets/<slide>.jpg` under `out/<tiling>`. Each is complete or absent and the features come last, so a slide
    with features is finished; it is not done again. The result depends on the slide, encoder and tiling alone.

    Args:
        source: The slide.
        encoder: What makes features of patches; or of a slide, whose patches are encoded first, and kept.
        tiling: Size and resolution of the patches.
        out: The folder `wsi` of the prepared cohort.
        tiles_from: Another prepared folder, whose tissue and tiles of this slide are taken over where it has them.
        device: Where a model that finds tissue runs, if one does.
        progress: Called with the patches encoded and expected.

    Raises:
        DataError: The slide cannot be read, its pixel size is unknown, or it has no tissue.
        ConfigurationError: The extra `wsi` is missing.
    """
    done = completed_record(source, encoder.name, tiling, out, encoder_sha256=encoder.sha256)
    if done is not None:
        return done
    if isinstance(encoder, SlideEncoder):
        record = prepare_slide(
            source, encoder.patches, tiling, out, tiles_from=tiles_from, device=device, progress=progress
        )
        vector = _features_path(source, encoder.name, tiling, out)
        write_vector(Path(out).parent / record.features, vector, encoder)
        return _record(source, vector, out)
    identity = _identity(source, tiling)  # before they are read, like the slide: outlines may be corrected meanwhile
    given = outline_file(source.tissue, source.slide_id)
    source_sha256 = slide_sha256(source.path)  # before it is read: a slide that is replaced meanwhile is done again
    tiles = None if tiles_from is None else stored_tiles(source, tiling, tiles_from, _of_tiles(identity))
    folder = Path(out) / tiling.folder_name
    outlines = folder / "contours_geojson" / f"{source.slide_id}.geojson"
    with opened_slide(source, tiling, device=device) as slide:
        parts = slide.parts() if tiles is None else [(int(x), int(y)) for x, y in tiles.coords]
        coords, features, sharp = encoded_patches(
            slide.read,
            parts,
            encoder,
            patches_per_part=slide.patches_per_part,
            normalise=_normaliser(slide, parts, source),
            progress=progress,
        )
        if tiles is not None:
            tiles.copy_pictures(folder, source.slide_id)
            facts: dict[str, str | int | float] = dict(tiles.facts)
        else:
            tissue = slide.tissue(coords)
            _require_patches(coords, slide, source, tiling)
            facts = {"tissue_mm2": tissue.area * slide.mpp**2 / 1e6, "pen_share": slide.pen_share()}
            in_place = given is not None and outlines.exists() and given.samefile(outlines)
            if not in_place:  # outlines that were corrected there stay as they are
                write_outlines(outlines, tissue, slide.pen(), bounds_corner=slide.bounds_corner)
            size = tiling.patch_size_level0(slide.mpp)
            write_pictures(folder, source.slide_id, slide, tissue, coords, size=size)
        stored = SlideFeatures(
            features=features,
            coords=coords,
            patch_size_level0=tiling.patch_size_level0(slide.mpp),
            level0_mpp=slide.mpp,
            target_mpp=tiling.mpp,
            encoder=encoder.name,
            encoder_sha256=encoder.sha256,
            slide_width_px=slide.width_px,
            slide_height_px=slide.height_px,
            bounds_corner=slide.bounds_corner,
        )
        quality = quality_warnings(pen_share=float(facts["pen_share"]), median_sharpness=sharp)
        written = {name: value for name, value in identity.items() if value is not None}
        attributes: dict[str, str | int | float] = {
            "tissue_rule": recorded_rule(source.tissue),
            "outlines_sha256": outlines_sha256(outlines),
            "source_sha256": source_sha256,
            "sharpness": sharp,
            "warnings": json.dumps([*slide.warnings, *_upsampling(slide.mpp, tiling), *quality]),
        }
    path = _features_path(source, encoder.name, tiling, out)
    write_features(
        path, stored, tile_px=tiling.tile_px, overlap_px=tiling.overlap_px, attributes=attributes | facts | written
    )
    return _record(source, path, out)


def completed_record(
    source: SlideSource, encoder_name: str, tiling: Tiling, out: Path, *, encoder_sha256: str | None = None
) -> SlideRecord | None:
    """Returns the record of a slide that is prepared already, or None. Neither slide nor encoder is opened.

    A slide counts as prepared when all its files exist and the feature file names the same encoder, tiling, declared
    pixel size and source, see `is_same_slide`.

    Args:
        source: The slide.
        encoder_name: As given to `load_patch_encoder`, or the encoder's own name.
        tiling: Size and resolution of the patches.
        out: The folder `wsi` of the prepared cohort.
        encoder_sha256: Hash of the weights, where it is known.

    Raises:
        DataError: The slide's identifier is not a file name.
    """
    path = _features_path(source, encoder_name, tiling, out)
    folder = path.parent.parent
    if not path.exists() or not all((folder / kind / f"{source.slide_id}.{end}").exists() for kind, end in PICTURES):
        return None
    written = path.stat().st_mtime  # before a missing hash is added
    expected = _identity(source, tiling) | {"encoder": encoder_id(encoder_name)}
    stored = read_matching(path, expected | ({} if encoder_sha256 is None else {"encoder_sha256": encoder_sha256}))
    same = stored is not None and is_same_slide(source.path, str(stored[1].get("source_sha256")), written)
    return _record(source, path, out) if same else None


def _require_patches(coords: np.ndarray, slide: OpenedSlide, source: SlideSource, tiling: Tiling) -> None:
    if len(coords) == 0 and (given := outline_file(source.tissue, source.slide_id)) is not None:
        raise DataError(
            f"{given}: outlines that hold a patch of {tiling.tile_px * tiling.mpp:g} µm, "
            f"{tiling.min_tissue_fraction:.0%} of it tissue, are required. Found none. Draw larger ones."
        )
    if len(coords) == 0:
        raise DataError(
            f"{source.path}: no tissue found at {slide.mpp:g} µm per pixel ({slide.width_px} x {slide.height_px} "
            f"px). A patch with {tiling.min_tissue_fraction:.0%} tissue is required; look at the slide, check "
            f"`mpp` in {MPP_PLACE}, or leave the slide out."
        )


def _normaliser(
    slide: OpenedSlide, parts: Sequence[Any], source: SlideSource
) -> Callable[[np.ndarray], np.ndarray] | None:
    """What normalises the stain of a slide, estimated over some patches from all over it; None: colours stay."""
    if source.stain == "none" or len(parts) == 0:
        return None
    sample = parts[:: max(1, len(parts) // _STAIN_SAMPLE)]
    images = [patch.image for part in sample for patch in slide.read(part)]
    return fit_stain(source.stain, images, source.path)


def _features_path(source: SlideSource, encoder_name: str, tiling: Tiling, out: Path) -> Path:
    name = source.slide_id
    if not is_plain_name(name):
        raise DataError(
            f"{source.path}: a slide identifier names files: {NAME_RULE}. Found {name[:60]!r}. Correct slide_id in the "
            "slide table."
        )
    return Path(out) / tiling.folder_name / f"features_{encoder_id(encoder_name)}" / f"{name}.h5"


def _of_tiles(identity: Mapping[str, str | int | float | None]) -> dict[str, str | int | float]:
    """What decides about tissue and tiles, not about how these are encoded."""
    return {name: value for name, value in identity.items() if name != "stain" and value is not None}


def _identity(source: SlideSource, tiling: Tiling) -> dict[str, str | int | float | None]:
    """Attributes that must agree for a feature file to count as that of this slide and tiling.

    The outlines of a person count by their polygons: those that `prepare` wrote and nobody changed are what it found.
    """
    outlines = outline_file(source.tissue, source.slide_id)
    tissue = (
        {"tissue_rule": recorded_rule(source.tissue)}
        if outlines is None
        else {"outlines_sha256": outlines_sha256(outlines)}
    )
    return {
        "patch_size": tiling.tile_px,
        "target_mpp": tiling.mpp,
        "overlap": tiling.overlap_px,
        "min_tissue_fraction": tiling.min_tissue_fraction,
        "declared_mpp": "none" if source.mpp is None else float(source.mpp),
        "stain": recorded_stain(source.stain),  # None: files of colours as they are have no such attribute
    } | tissue


def _record(source: SlideSource, path: Path, out: Path) -> SlideRecord:
    n_patches, attributes = read_attributes(path)
    return SlideRecord(
        slide_id=source.slide_id,
        patient_id=source.patient_id,
        n_patches=n_patches,
        mpp=float(attributes["level0_mpp"]),
        patch_um=patch_um(attributes),
        width_px=int(attributes["slide_width_level0"]),
        height_px=int(attributes["slide_height_level0"]),
        mpp_source="slide" if attributes["declared_mpp"] == "none" else "declared",
        tissue_mm2=float(attributes["tissue_mm2"]),
        pen_share=float(attributes["pen_share"]),
        sharpness=float(attributes["sharpness"]),
        sharpness_mpp=float(attributes["target_mpp"]),
        features=path.relative_to(Path(out).parent).as_posix(),
        warnings=tuple(json.loads(attributes["warnings"])),
    )


def _upsampling(mpp: float, tiling: Tiling) -> tuple[str, ...]:
    if mpp <= 1.2 * tiling.mpp:
        return ()
    return (f"scanned at {mpp:g} µm per pixel and enlarged {mpp / tiling.mpp:.1f} times: patches look blurred",)

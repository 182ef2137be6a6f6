"""The patches that matter most: at the slide's own resolution, or where they lie if it cannot be read."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from subfuse.cohort.cohort import Cohort, read_resolved
from subfuse.errors import DataError, SubfuseError
from subfuse.explanation.ground import picture_of_place
from subfuse.explanation.heatmaps import NEGATIVE_RGB, POSITIVE_RGB
from subfuse.features.store import SlideFeatures, read_attributes
from subfuse.preparation.slides.slide_table import read_slides
from subfuse.slides.image_folders import is_image_source
from subfuse.slides.opening import OpenedSlide, open_slide
from subfuse.slides.source import FeatureSource, SlideSource, SlidesToEncode
from subfuse.slides.tissue import Tiling
from subfuse.slides.tissue_rule import FIXED

_TILES_PER_ROW = 6
NOT_LOCATED = "it is not among the slides of the cohort file"
_ONLY_FEATURES = "the cohort has its features, not its image"

SlidePlace = SlideSource | str  # where a slide is, or why that is not known


@dataclass(frozen=True)
class GalleryTile:
    """One patch of a gallery."""

    image: UInt8[np.ndarray, "height width 3"]  # its pixels, or where it lies on its slide
    score: float
    slide_id: str
    x: int  # top left corner in level-0 pixels
    y: int


def locate_slides(cohort: Cohort) -> dict[str, SlidePlace]:
    """Returns where each slide of a cohort lies, or why that is not known.

    The cohort file may name folders of another machine; that is no error here.
    """
    if cohort.root is None:
        return {}
    places: dict[str, SlidePlace] = {}
    try:
        members = read_resolved(cohort.root).members
    except SubfuseError as error:
        return {path.stem: str(error) for patient in cohort for path in patient.slides}
    for member in members:
        patients = [patient for patient in cohort if patient.cohort == member.name]
        if member.slides is None or not patients:
            continue
        try:
            section = member.slides
            if isinstance(section, SlidesToEncode):  # how their tissue was found no longer matters
                section = section.model_copy(update={"tissue": FIXED})
            found, missing, _ = read_slides(section, [patient.patient_id for patient in patients])
        except (SubfuseError, OSError) as error:
            places |= {path.stem: str(error) for patient in patients for path in patient.slides}
            continue
        places |= dict(zip(missing["id"], missing["reason"], strict=True))
        places |= {slide.slide_id: _ONLY_FEATURES if isinstance(slide, FeatureSource) else slide for slide in found}
    return places


def open_prepared(source: SlideSource, slide: SlideFeatures, *, tiling: Tiling | None = None) -> OpenedSlide:
    """Opens the slide that features were made from; whoever opens it closes it.

    Args:
        source: The slide.
        slide: Its features, or their places alone.
        tiling: How patches are read; None: at the resolution of the slide itself.

    Raises:
        DataError: The slide is missing, damaged, or not the one that was prepared.
        ConfigurationError: The extra `wsi` is missing.
    """
    native = Tiling(tile_px=slide.patch_size_level0, mpp=slide.level0_mpp)
    opened = open_slide(replace(source, mpp=slide.level0_mpp, tissue=FIXED), tiling or native)  # it was found before
    if (opened.width_px, opened.height_px) == (slide.slide_width_px, slide.slide_height_px):
        return opened
    opened.close()
    raise DataError(
        f"{source.path}: the slide that was prepared, {slide.slide_width_px} x {slide.slide_height_px} px, is "
        f"required. Found {opened.width_px} x {opened.height_px} px. Restore it, or prepare the cohort again."
    )


def read_tiles(
    source: SlideSource, features: Path, slide: SlideFeatures, chosen: Sequence[int]
) -> dict[int, UInt8[np.ndarray, "height width 3"]]:
    """Returns the pixels of chosen patches: of a slide at level 0, of images as the encoder saw them.

    Raises:
        DataError: The slide is missing, damaged, or not the one that was prepared.
        ConfigurationError: The extra `wsi` is missing.
    """
    is_images = is_image_source(source.path)
    with closing(open_prepared(source, slide, tiling=_prepared_tiling(features) if is_images else None)) as opened:
        if is_images:
            return _from_images(opened, slide.coords, chosen)
        return {row: opened.read((int(slide.coords[row, 0]), int(slide.coords[row, 1])))[0].image for row in chosen}


def strongest_tiles(
    scores: Mapping[str, np.ndarray],
    slides: Mapping[str, SlideFeatures],
    features: Mapping[str, Path],
    places: Mapping[str, SlidePlace],
    *,
    count: int = _TILES_PER_ROW,
) -> tuple[list[GalleryTile], list[GalleryTile], dict[str, str]]:
    """Returns the patches with the highest and the lowest scores, and the slides without pixels with the reason.

    A patch of a slide that cannot be read is shown by where it lies. Only patches that raise the score are among the
    highest and only those that lower it among the lowest, so there may be fewer than `count`.

    Args:
        scores: One value per patch, by slide.
        slides: Features by slide; the places of their patches must be known.
        features: Feature files by slide.
        places: Where the slides are.
        count: Patches of each kind.
    """
    ranked = sorted((float(value), name, row) for name in slides for row, value in enumerate(scores[name]))
    low = [entry for entry in ranked[:count] if entry[0] < 0]
    high = [entry for entry in ranked[::-1][:count] if entry[0] > 0]
    images: dict[tuple[str, int], np.ndarray] = {}
    unavailable: dict[str, str] = {}
    for name in slides:
        rows = [row for _, slide, row in (*high, *low) if slide == name]
        place = places.get(name, NOT_LOCATED)
        if isinstance(place, str):
            unavailable[name] = place
        elif rows:
            try:
                pixels = read_tiles(place, features[name], slides[name], rows)
                images |= {(name, row): image for row, image in pixels.items()}
            except SubfuseError as error:
                unavailable[name] = str(error)
    tiles = [[_tile(*entry, slides[entry[1]], images) for entry in entries] for entries in (high, low)]
    return tiles[0], tiles[1], unavailable


def _tile(
    score: float, name: str, row: int, slide: SlideFeatures, images: Mapping[tuple[str, int], np.ndarray]
) -> GalleryTile:
    image = images.get((name, row))
    if image is None:
        image = np.asarray(picture_of_place(slide, row, POSITIVE_RGB if score > 0 else NEGATIVE_RGB))
    return GalleryTile(image, score, name, *slide.coords[row].tolist())


def gallery(
    high: Sequence[GalleryTile], low: Sequence[GalleryTile], *, label: str, score_name: str
) -> Image.Image | None:
    """Returns a picture of the highest tiles above the lowest, each with its score and place; None without tiles.

    Args:
        high: Tiles that raise the score.
        low: Tiles that lower it.
        label: Heading of the picture.
        score_name: What the scores add to, for example `the hazard`.
    """
    tiles = [*high, *low]
    if not tiles:
        return None
    side = max(max(tile.image.shape[:2]) for tile in tiles)
    text, gap = max(11, side // 16), max(4, side // 32)
    rows = [row for row in ((f"raises {score_name}", high), (f"lowers {score_name}", low)) if row[1]]
    columns = max(len(row) for _, row in rows)
    height = round(2 * text) + len(rows) * (side + gap + round(5.2 * text))
    canvas = Image.new("RGB", (max(columns * (side + gap) + gap, 20 * text), height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(text)
    draw.text((gap, 0.4 * text), label, fill="black", font=ImageFont.load_default(round(1.2 * text)))
    top = 2 * text
    for heading, row in rows:
        draw.text((gap, top + 0.3 * text), heading, fill="black", font=font)
        for column, tile in enumerate(row):
            left, below = gap + column * (side + gap), top + round(1.7 * text)
            canvas.paste(Image.fromarray(tile.image), (left, below))
            caption = f"{tile.score:+.3g}\n{tile.slide_id}\n({tile.x}, {tile.y})"
            draw.multiline_text(
                (left, below + side + 2), caption, fill="black", font=ImageFont.load_default(0.8 * text)
            )
        top += side + gap + round(5.2 * text)
    return canvas


def _prepared_tiling(features: Path) -> Tiling:
    """The tiling that a feature file was made with: images are cut relative to it."""
    _, found = read_attributes(features)
    if not {"patch_size", "target_mpp", "min_tissue_fraction"} <= found.keys():
        raise DataError(f"{features}: patches that subfuse cut are required to find them again. Found another tool's.")
    return Tiling(
        int(found["patch_size"]), float(found["target_mpp"]), int(found["overlap"]), float(found["min_tissue_fraction"])
    )


def _from_images(
    images: OpenedSlide, coords: Int[np.ndarray, "patch 2"], chosen: Sequence[int]
) -> dict[int, np.ndarray]:
    """Decodes images until all chosen patches are found."""
    wanted = {(int(coords[row, 0]), int(coords[row, 1])): row for row in chosen}
    found: dict[int, np.ndarray] = {}
    for part in images.parts():
        found |= {wanted[patch.x, patch.y]: patch.image for patch in images.read(part) if (patch.x, patch.y) in wanted}
        if len(found) == len(wanted):
            break
    return found

"""Heat maps: patch scores over the slide, as a picture and as objects for QuPath."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import Image, ImageDraw, ImageFont

from subfuse.explanation.ground import pixel_edges
from subfuse.slides.qupath import write_qupath

# blue for negative, orange for positive: told apart with every common colour-vision deficiency, and neither is a stain
NEGATIVE_RGB = (20, 92, 196)
POSITIVE_RGB = (232, 97, 0)
_MAX_ALPHA = 0.85
_MIN_WIDTH_PX = 240  # of a heat map, so that its label can be read


def heat_map(
    thumbnail: Image.Image,
    coords: Num[np.ndarray, "patch 2"],
    patch_size_level0: float | int,
    *,
    slide_width_px: float | int,
    slide_height_px: float | int,
    scores: Float[np.ndarray, " patch"],
    label: str,
    limit: float | int | None = None,
) -> Image.Image:
    """Lays patch scores over a thumbnail of the slide, with a colour bar below.

    The tissue is shown in grey, so that colour means score only. The scale is symmetric around zero; opacity grows
    with the absolute score, so patches without influence stay readable. The thumbnail keeps its pixels: the overlay
    starts at the top left corner and the colour bar is added underneath.

    Args:
        thumbnail: The whole slide at any scale.
        coords: Top left corners of the patches in level-0 pixels, (x, y).
        patch_size_level0: Edge of a patch in level-0 pixels.
        slide_width_px: Width of the slide at level 0.
        slide_height_px: Height of the slide at level 0.
        scores: One signed value per patch, finite. Where patches overlap, their mean is shown.
        label: What the scores are, printed at the colour bar.
        limit: Absolute score with full colour; larger ones are clipped to it. Pass one limit for maps that are to be
            compared; None takes the 99th percentile of the non-zero absolute scores.

    Returns:
        An RGB picture as wide as the thumbnail; white is added to the right of a narrow one.
    """
    scores = np.asarray(scores, dtype=np.float64)
    _require_finite(scores, n_patches=len(coords))
    limit = colour_limit(scores) if limit is None else limit
    edges = pixel_edges(coords, patch_size_level0, (slide_width_px, slide_height_px), thumbnail.size)
    colour, alpha = _colours(_mean_per_pixel(edges, scores, thumbnail.size), limit)
    alpha = alpha[..., None]
    tissue = np.asarray(thumbnail.convert("L").convert("RGB"), dtype=np.float64)
    shown = Image.fromarray(np.rint(tissue * (1 - alpha) + colour * alpha).astype(np.uint8))
    return _with_colour_bar(shown, label, limit)


def colour_limit(*scores: np.ndarray) -> float:
    """Returns a symmetric colour limit for maps that share a scale: robust to a few extreme patches, never zero."""
    absolute = np.abs(np.concatenate([np.asarray(values, dtype=np.float64).ravel() for values in scores]))
    absolute = absolute[absolute > 0]
    return float(np.percentile(absolute, 99)) if absolute.size else 1.0


def write_geojson(
    path: Path,
    coords: Num[np.ndarray, "patch 2"],
    patch_size_level0: float | int,
    scores: Mapping[str, np.ndarray],
    *,
    classify_by: str,
    score_name: str,
    bounds_corner: tuple[int, int] = (0, 0),
) -> None:
    """Writes the patches as GeoJSON that QuPath imports: squares in level-0 pixels with scores as measurements.

    The frame is QuPath's, see `subfuse.slides.qupath`.

    Args:
        path: File to write, `.geojson`.
        coords: Top left corners in level-0 pixels, (x, y).
        patch_size_level0: Edge of a patch in level-0 pixels.
        scores: One finite value per patch by measurement name, for example `total` and one per subspace.
        classify_by: The measurement whose sign decides the class and colour of a patch; zero gets no class.
        score_name: What the scores add to, for example `the hazard` or `the score of G4`: names the classes.
        bounds_corner: Top left corner of the slide's scanned bounds in level-0 pixels, (x, y).
    """
    if classify_by not in scores:
        raise ValueError(f"classify_by must be one of the scores: {', '.join(scores)}. Found {classify_by!r}.")
    for values in scores.values():
        _require_finite(np.asarray(values), n_patches=len(coords))
    classes = {
        -1: {"name": f"lowers {score_name}", "color": list(NEGATIVE_RGB)},
        1: {"name": f"raises {score_name}", "color": list(POSITIVE_RGB)},
    }
    tiles = []
    for index, (left, top) in enumerate(np.asarray(coords, dtype=np.float64).tolist()):
        measurements = {name: float(values[index]) for name, values in scores.items()}
        properties: dict = {"objectType": "tile", "measurements": measurements}
        sign = int(np.sign(scores[classify_by][index]))
        if sign:
            properties["classification"] = classes[sign]
        tiles.append(([_square(left, top, patch_size_level0)], properties))
    write_qupath(path, tiles, bounds_corner=bounds_corner)


def _require_finite(scores: np.ndarray, *, n_patches: int) -> None:
    if scores.shape != (n_patches,) or not np.isfinite(scores).all():
        raise ValueError(
            f"scores must be one finite value for each of the {n_patches} patches. Found shape {scores.shape} with "
            f"{int((~np.isfinite(scores)).sum())} values that are not finite."
        )


def _square(left: float, top: float, size: float | int) -> list[list[float]]:
    right, bottom = left + size, top + size
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def _mean_per_pixel(
    edges: np.ndarray, scores: np.ndarray, picture_size: tuple[int, int]
) -> Float[np.ndarray, "height width"]:
    """Returns the mean score of the patches over each pixel, 0 where there is none."""
    total = np.zeros(picture_size[::-1])
    count = np.zeros(picture_size[::-1], dtype=np.int64)
    for (left, top, right, bottom), score in zip(edges, scores, strict=True):
        total[top:bottom, left:right] += score
        count[top:bottom, left:right] += 1
    return total / np.maximum(count, 1)


def _colours(
    scores: np.ndarray, limit: float | int
) -> tuple[Float[np.ndarray, "height width 3"], Float[np.ndarray, "height width"]]:
    """Returns the colour and the opacity of each score."""
    strength = np.clip(np.abs(scores) / limit, 0, 1)
    colour = np.where((scores < 0)[..., None], np.array(NEGATIVE_RGB, float), np.array(POSITIVE_RGB, float))
    return colour, _MAX_ALPHA * strength


def _with_colour_bar(picture: Image.Image, label: str, limit: float | int) -> Image.Image:
    """Adds a strip below the picture: label, the scale from -limit to limit, and its ends and centre in numbers.

    Sizes follow the width of the picture, so the strip is readable however the picture is shown.
    """
    width, height = picture.size
    size = max(12, width // 34)
    font = ImageFont.load_default(size)
    shown, width = picture, max(width, _MIN_WIDTH_PX)
    canvas = Image.new("RGB", (width, height + round(3.7 * size)), "white")
    canvas.paste(shown, (0, 0))
    draw = ImageDraw.Draw(canvas)
    margin, top = size // 2, height + round(1.55 * size)
    bar_height = round(0.65 * size)
    canvas.paste(Image.fromarray(_bar_pixels(max(1, width - 2 * margin), bar_height, limit)), (margin, top))
    fitting = min(1.0, (width - 2 * margin) / max(1.0, draw.textlength(label, font=font)))
    label_font = ImageFont.load_default(max(6, int(size * fitting)))
    draw.text((width / 2, height + 0.2 * size), label, fill="black", font=label_font, anchor="ma")
    for text, place, anchor in (
        (f"-{limit:.2g}", margin, "la"),
        ("0", width / 2, "ma"),
        (f"+{limit:.2g}", width - margin, "ra"),
    ):
        draw.text((place, top + bar_height + 0.15 * size), text, fill="black", font=font, anchor=anchor)
    return canvas


def _bar_pixels(width: int, height: int, limit: float | int) -> UInt8[np.ndarray, "height width 3"]:
    ramp = np.tile(np.linspace(-limit, limit, width), (height, 1))
    colour, alpha = _colours(ramp, limit)
    blended = 225.0 * (1 - alpha[..., None]) + colour * alpha[..., None]  # over light grey, as over pale tissue
    return np.rint(blended).astype(np.uint8)

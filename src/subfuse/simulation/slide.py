"""Simulated haematoxylin and eosin slides: a layout of tissue regions, and its drawing.

Everything is drawn as amounts of stain that absorb light (Beer-Lambert), so overlaps darken as they do in glass.
Lengths are micrometres where named `_um`; the drawing has 0.5 µm per pixel.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, UInt8
from scipy import fft, ndimage, sparse

from subfuse.simulation.layout import CELL_PX, GLASS, MPP, REGIONS
from subfuse.simulation.nuclei import Nuclei, grown, place_erythrocytes, place_nuclei, place_vessels

_TEXTURE_PX = 1024  # period of the noise textures
_MARGIN_PX = 96  # canvas around the image, so that nothing drawn needs clipping
# Optical density of (red, green, blue) per unit of stain.
_HAEMATOXYLIN = np.array([0.600, 0.720, 0.345], dtype=np.float32)
_EOSIN = np.array([0.170, 0.800, 0.450], dtype=np.float32)
_ERYTHROCYTE = np.array([0.22, 1.05, 0.85], dtype=np.float32)
# Background of a region, axes as REGIONS: eosin, haematoxylin haze, depth of fibres, depth of vacuoles.
_BACKGROUND = np.array(
    [
        [0.00, 0.00, 0.0, 0.0],
        [0.46, 0.13, 0.5, 0.2],
        [0.40, 0.24, 0.8, 0.6],
        [0.36, 0.26, 0.6, 0.4],
        [0.48, 0.17, 0.9, 0.4],
        [0.36, 0.06, 0.5, 0.5],
    ],
    dtype=np.float32,
)


@dataclass(frozen=True)
class Staining:
    """How a laboratory stained: factors on the amounts of stain, and the hue of haematoxylin."""

    haematoxylin: float = 1.0
    eosin: float = 1.0
    blueness: float = 0.0

    @classmethod
    def draw(cls, generator: np.random.Generator) -> "Staining":
        """Returns a slight variation, log-normal for the amounts."""
        haematoxylin, eosin = np.exp(0.08 * generator.standard_normal(2))
        return cls(float(haematoxylin), float(eosin), float(0.03 * generator.standard_normal()))


def draw_slide(
    layout: UInt8[np.ndarray, "row column"],
    height: int,
    width: int,
    *,
    tumour: float,
    staining: Staining,
    generator: np.random.Generator,
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the image of a layout, RGB.

    Nuclear density, size, elongation and pleomorphism in malignant regions grow with the tumour latent.
    """
    textures = _textures(generator)
    region_weights = ndimage.gaussian_filter(np.eye(len(REGIONS), dtype=np.float32)[layout], (0.6, 0.6, 0.0))
    vessels = place_vessels(layout, generator)
    nuclei = place_nuclei(layout, tumour, vessels, generator)

    canvas = (height + 2 * _MARGIN_PX, width + 2 * _MARGIN_PX)
    inside = (slice(_MARGIN_PX, _MARGIN_PX + height), slice(_MARGIN_PX, _MARGIN_PX + width))
    lumen = np.zeros(canvas, dtype=np.float32)
    wall = np.zeros(canvas, dtype=np.float32)
    erythrocyte = np.zeros(canvas, dtype=np.float32)
    nuclear = np.zeros(canvas, dtype=np.float32)
    _stamp(wall, grown(vessels, 3.0 / MPP))
    _stamp(lumen, vessels)
    _stamp(erythrocyte, place_erythrocytes(vessels, generator))
    _stamp(nuclear, nuclei)
    lumen, wall, erythrocyte, nuclear = lumen[inside], wall[inside], erythrocyte[inside], nuclear[inside]

    tissue = _tissue_alpha(region_weights, textures, height, width)
    haematoxylin, eosin = _background(region_weights, textures, height, width)
    eosin += 0.22 * _cytoplasm(nuclear)
    eosin += 0.45 * wall * (0.8 + 0.25 * textures.tiled("fibre", height, width))
    open_tissue = tissue * (1.0 - 0.97 * lumen)
    eosin *= open_tissue
    haematoxylin *= open_tissue
    nuclear *= tissue
    nuclear *= 1.0 + 0.24 * textures.tiled("chromatin", height, width)
    haematoxylin += nuclear
    erythrocyte *= tissue
    return _absorb(haematoxylin, eosin, erythrocyte, staining)


def _stamp(canvas: Float32[np.ndarray, "height width"], nuclei: Nuclei) -> None:
    """Draws ellipses onto a canvas with margins, in place; where they overlap the darker one shows.

    Ellipses of similar size are evaluated together on squares around their centres.
    """
    reach = np.ceil(1.3 * nuclei.major + 2.0).astype(int)
    steps = np.array([6, 8, 10, 12, 14, 17, 20, 26, 34, 48, 66, 90])
    bucket = np.searchsorted(steps, reach)
    for k in np.unique(bucket):
        if k == len(steps):
            raise ValueError(f"ellipses must fit the canvas margin ({_MARGIN_PX} px). Found a reach of {reach.max()}.")
        half = int(steps[k])
        members = np.flatnonzero(bucket == k)
        at_once = max(1, 500_000 // (2 * half + 1) ** 2)
        for start in range(0, len(members), at_once):
            _stamp_squares(canvas, nuclei, members[start : start + at_once], half)


def _stamp_squares(
    canvas: Float32[np.ndarray, "height width"], nuclei: Nuclei, members: Int[np.ndarray, " member"], half: int
) -> None:
    x, y = nuclei.x[members] + _MARGIN_PX, nuclei.y[members] + _MARGIN_PX
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    offset = np.arange(-half, half + 1, dtype=np.float32)
    dx = offset[None, None, :] - (x - column)[:, None, None]
    dy = offset[None, :, None] - (y - row)[:, None, None]
    cosine, sine = np.cos(nuclei.angle[members])[:, None, None], np.sin(nuclei.angle[members])[:, None, None]
    major, minor = nuclei.major[members][:, None, None], nuclei.minor[members][:, None, None]
    u = (dx * cosine + dy * sine) / major
    v = (dy * cosine - dx * sine) / minor
    squared = u * u + v * v
    radius = np.sqrt(squared)
    # Three lobes: the third harmonic of the angle as a polynomial of u and v.
    radius *= 1.0 + nuclei.irregularity[members][:, None, None] * u * (u * u - 3.0 * v * v) / (squared * radius + 1e-3)
    alpha = np.clip((1.0 - radius) * (minor / 1.6) + 0.5, 0.0, 1.0)
    # The nuclear membrane is darker than the centre.
    alpha *= nuclei.stain[members][:, None, None] * (0.85 + 0.2 * np.minimum(squared, 1.0))
    size = 2 * half + 1
    for i in range(len(members)):
        top, left = row[i] - half, column[i] - half
        if top < 0 or left < 0 or top + size > canvas.shape[0] or left + size > canvas.shape[1]:
            continue
        window = canvas[top : top + size, left : left + size]
        np.maximum(window, alpha[i], out=window)


@dataclass(frozen=True)
class _Textures:
    """Periodic noise images of unit variance, by name."""

    images: dict[str, Float32[np.ndarray, "row column"]]

    def tiled(self, name: str, height: int, width: int) -> Float32[np.ndarray, "height width"]:
        """Returns a texture repeated over the image."""
        tiled = np.empty((height, width), dtype=np.float32)
        for top in range(0, height, _TEXTURE_PX):
            for left in range(0, width, _TEXTURE_PX):
                target = tiled[top : top + _TEXTURE_PX, left : left + _TEXTURE_PX]
                target[:] = self.images[name][: target.shape[0], : target.shape[1]]
        return tiled


def _textures(generator: np.random.Generator) -> _Textures:
    """Fibres, vacuoles and chromatin: white noise filtered in the frequency domain."""
    fy = fft.fftfreq(_TEXTURE_PX).astype(np.float32)[:, None]
    fx = fft.rfftfreq(_TEXTURE_PX).astype(np.float32)[None, :]
    squared = fx * fx + fy * fy
    shape = (_TEXTURE_PX, _TEXTURE_PX)
    white = [fft.rfft2(generator.standard_normal(shape, dtype=np.float32)) for _ in range(2)]

    def gaussian(sigma_px: float) -> np.ndarray:
        return np.exp(-2 * np.pi**2 * sigma_px**2 * squared)

    first = generator.uniform(0, np.pi)
    fibre = np.zeros(shape, dtype=np.float32)
    for turn in range(2):  # two felts of streaks at right angles, each strong in patches
        angle = first + turn * np.pi / 2
        along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
        streaks = _filtered(white[turn], np.exp(-2 * np.pi**2 * ((5.0 * along) ** 2 + (0.8 * across) ** 2)))
        fibre += streaks * np.clip(0.7 + 0.5 * _filtered(white[1 - turn], gaussian(45.0)), 0.2, None)
    fibre = _warped(fibre, _filtered(white[0], gaussian(22.0)), _filtered(white[1], gaussian(22.0)))
    grain = _filtered(white[0], gaussian(1.0))
    fibre = 0.75 * fibre / fibre.std() + 0.5 * _filtered(white[1], gaussian(1.6))
    foam = _filtered(white[1], gaussian(1.9) - gaussian(3.6)) + 0.5 * _filtered(white[0], gaussian(12.0))
    return _Textures({"fibre": fibre.astype(np.float32), "vacuole": foam, "chromatin": grain})


def _filtered(spectrum: np.ndarray, transfer: np.ndarray) -> Float32[np.ndarray, "row column"]:
    """Noise of zero mean and unit variance from a white spectrum."""
    image = fft.irfft2(spectrum * transfer.astype(np.float32), s=(_TEXTURE_PX, _TEXTURE_PX))
    return ((image - image.mean()) / image.std()).astype(np.float32)


def _warped(
    image: Float32[np.ndarray, "row column"],
    down: Float32[np.ndarray, "row column"],
    right: Float32[np.ndarray, "row column"],
) -> Float32[np.ndarray, "row column"]:
    """The image with its places shifted by about 14 pixels, so that straight streaks become wavy."""
    place = np.arange(_TEXTURE_PX)
    row = (place[:, None] + np.rint(14.0 * down).astype(int)) % _TEXTURE_PX
    column = (place[None, :] + np.rint(14.0 * right).astype(int)) % _TEXTURE_PX
    return image[row, column]


def _upsampled(
    low: Float32[np.ndarray, "row column"], height: int, width: int, *, cell_px: int = CELL_PX
) -> Float32[np.ndarray, "height width"]:
    """Bilinear interpolation between cell centres, constant beyond the outermost."""
    rows, columns = (_interpolation(n_low, n, cell_px) for n_low, n in zip(low.shape, (height, width), strict=True))
    return rows @ np.ascontiguousarray((columns @ low.T).T)


def _interpolation(n_low: int, n: int, cell_px: int) -> sparse.csr_array:
    """Weights (n, n_low) of linear interpolation, at most two per row."""
    place = np.clip((np.arange(n, dtype=np.float32) + 0.5) / cell_px - 0.5, 0, n_low - 1)
    lower = np.minimum(place.astype(int), max(n_low - 2, 0))
    fraction = (place - lower).astype(np.float32)
    columns = np.stack([lower, np.minimum(lower + 1, n_low - 1)], axis=1).ravel()
    values = np.stack([1.0 - fraction, fraction], axis=1).ravel()
    return sparse.csr_array((values, columns, np.arange(0, 2 * n + 1, 2)), shape=(n, n_low))


def _tissue_alpha(
    region_weights: Float32[np.ndarray, "row column region"], textures: _Textures, height: int, width: int
) -> Float32[np.ndarray, "height width"]:
    """1 in tissue, 0 on glass, with a ragged rim."""
    tissue = _upsampled(1.0 - region_weights[..., GLASS], height, width)
    tissue += (0.4 * tissue * (1.0 - tissue)) * textures.tiled("vacuole", height, width)
    tissue -= 0.5
    tissue *= 7.0
    tissue += 0.5
    return np.clip(tissue, 0.0, 1.0, out=tissue)


def _background(
    region_weights: Float32[np.ndarray, "row column region"], textures: _Textures, height: int, width: int
) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """Haematoxylin and eosin of the tissue between nuclei."""
    covered = np.maximum(1.0 - region_weights[..., GLASS], 1e-3)
    eosin_low, haze_low, fibre_low, vacuole_low = np.moveaxis(region_weights @ _BACKGROUND, -1, 0) / covered
    texture = _upsampled(fibre_low, height, width)
    texture *= 0.22 * textures.tiled("fibre", height, width)
    texture += 1.0
    holes = textures.tiled("vacuole", height, width) - 0.35
    np.clip(holes, 0.0, 1.6, out=holes)
    holes *= _upsampled(vacuole_low, height, width)
    texture -= 0.5 * holes
    np.clip(texture, 0.12, 2.0, out=texture)
    return _upsampled(haze_low, height, width) * texture, _upsampled(eosin_low, height, width) * texture


def _cytoplasm(nuclear: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, "height width"]:
    """Eosinophilic surroundings of nuclei: their mask, blurred by about 5 µm at a quarter of the resolution."""
    height, width = nuclear.shape
    padded = np.pad(nuclear, ((0, -height % 4), (0, -width % 4)), mode="edge")
    low = padded.reshape(padded.shape[0] // 4, 4, padded.shape[1] // 4, 4).mean(axis=(1, 3))
    blurred = ndimage.gaussian_filter(low, 2.2)
    return _upsampled(np.minimum(1.6 * blurred, 1.0).astype(np.float32), height, width, cell_px=4)


def _absorb(
    haematoxylin: Float32[np.ndarray, "height width"],
    eosin: Float32[np.ndarray, "height width"],
    erythrocyte: Float32[np.ndarray, "height width"],
    staining: Staining,
) -> UInt8[np.ndarray, "height width 3"]:
    """Transmitted light of a scanner whose empty glass reads (244, 243, 245)."""
    hue = _HAEMATOXYLIN * staining.haematoxylin * np.array([1 + staining.blueness, 1, 1 - staining.blueness])
    image = np.empty((*haematoxylin.shape, 3), dtype=np.uint8)
    for channel, glass in enumerate((244.0, 243.0, 245.0)):
        density = haematoxylin * np.float32(-hue[channel])
        density += eosin * np.float32(-_EOSIN[channel] * staining.eosin)
        density += erythrocyte * np.float32(-_ERYTHROCYTE[channel])
        np.exp(density, out=density)
        density *= np.float32(glass)
        image[..., channel] = density  # glass is below 255, so nothing wraps
    return image

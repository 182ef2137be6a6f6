"""Simulated haematoxylin and eosin slides: a layout of tissue regions, and its drawing.

Everything is drawn as amounts of stain that absorb light (Beer-Lambert), so overlaps darken as they do in glass.
Lengths are micrometres where named `_um`; the drawing has 0.5 µm per pixel.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from scipy import fft, ndimage, sparse

MPP = 0.5
CELL_PX = 32  # side of a cell of the region layout
REGIONS = ("glass", "normal", "malignant", "lymphocyte", "vascular", "necrotic")
GLASS, NORMAL, MALIGNANT, LYMPHOCYTE, VASCULAR, NECROTIC = range(len(REGIONS))

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
class Nuclei:
    """Ellipses to draw, one per row: centre (px), semi-axes (px), angle (rad), amount of stain, irregularity."""

    x: Float32[np.ndarray, " nucleus"]
    y: Float32[np.ndarray, " nucleus"]
    major: Float32[np.ndarray, " nucleus"]
    minor: Float32[np.ndarray, " nucleus"]
    angle: Float32[np.ndarray, " nucleus"]
    stain: Float32[np.ndarray, " nucleus"]
    irregularity: Float32[np.ndarray, " nucleus"]  # relative amplitude of the outline's lobes

    def __len__(self) -> int:
        return len(self.x)


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


# Per region: nuclei per mm², mean radius and its log standard deviation, elongation, stain, irregularity. The malignant
# row holds the values of a tumour latent of minus and plus infinity.
_NUCLEI = {
    NORMAL: (750.0, 3.0, 0.12, 1.15, 1.25, 0.03),
    LYMPHOCYTE: (7500.0, 2.6, 0.08, 1.06, 2.1, 0.02),
    VASCULAR: (1500.0, 3.3, 0.15, 1.7, 1.45, 0.05),
    NECROTIC: (350.0, 1.8, 0.30, 1.2, 1.9, 0.10),
}
_MALIGNANT_NUCLEI = ((900.0, 3.2, 0.10, 1.20, 1.2, 0.03), (4600.0, 4.7, 0.30, 1.60, 1.6, 0.09))


def microenvironment_share(latent: float) -> float:
    """Returns the share of tissue that is lymphocyte-rich, vascular or necrotic: 4 to 50 %, growing with the latent."""
    return 0.04 + 0.46 / (1.0 + float(np.exp(-1.4 * latent)))


def draw_layout(
    height: int, width: int, *, microenvironment: float, generator: np.random.Generator
) -> UInt8[np.ndarray, "row column"]:
    """Returns the region of every 32-pixel cell, as an index into REGIONS.

    About two thirds of the slide is tissue and about four fifths of the tissue is tumour. Inside the tumour the three
    microenvironment regions cover `microenvironment_share` of the tissue; the rest is malignant.
    """
    shape = (-(-height // CELL_PX), -(-width // CELL_PX))
    tissue = _tissue_field(shape, generator) > 0
    n_tissue = int(tissue.sum())
    layout = np.where(tissue, np.uint8(NORMAL), np.uint8(GLASS))

    proximity = _tumour_proximity(shape, generator)
    _claim(layout, proximity, claims=NORMAL, region=MALIGNANT, cells=round(generator.uniform(0.76, 0.86) * n_tissue))
    total = microenvironment_share(microenvironment) * n_tissue
    regions = (NECROTIC, VASCULAR, LYMPHOCYTE)
    for region, share in zip(regions, generator.dirichlet((10.0, 10.0, 13.0)), strict=True):
        towards_core = 0.8 if region == NECROTIC else 0.0
        field = _smooth_noise(shape, 3.5, generator) + towards_core * proximity
        _claim(layout, field, claims=MALIGNANT, region=region, cells=round(share * total))
    return layout


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
    vessels = _place_vessels(layout, generator)
    nuclei = _place_nuclei(layout, tumour, vessels, generator)

    canvas = (height + 2 * _MARGIN_PX, width + 2 * _MARGIN_PX)
    inside = (slice(_MARGIN_PX, _MARGIN_PX + height), slice(_MARGIN_PX, _MARGIN_PX + width))
    lumen = np.zeros(canvas, dtype=np.float32)
    wall = np.zeros(canvas, dtype=np.float32)
    erythrocyte = np.zeros(canvas, dtype=np.float32)
    nuclear = np.zeros(canvas, dtype=np.float32)
    _stamp(wall, _grown(vessels, 3.0 / MPP))
    _stamp(lumen, vessels)
    _stamp(erythrocyte, _place_erythrocytes(vessels, generator))
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


# Layout


def _smooth_noise(
    shape: tuple[int, int], sigma: float, generator: np.random.Generator
) -> Float[np.ndarray, "row column"]:
    noise = ndimage.gaussian_filter(generator.standard_normal(shape), sigma, mode="reflect")
    return (noise - noise.mean()) / noise.std()


def _polar(shape: tuple[int, int], centre: Float[np.ndarray, " 2"]) -> tuple[np.ndarray, np.ndarray]:
    """Radius and angle of every cell around a centre; the slide spans -1 to 1 on both axes."""
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    return np.hypot(x - centre[0], y - centre[1]), np.arctan2(y - centre[1], x - centre[0])


def _tissue_field(shape: tuple[int, int], generator: np.random.Generator) -> Float[np.ndarray, "row column"]:
    """Positive in tissue: a lobed disc with an irregular rim."""
    radius, angle = _polar(shape, 0.04 * generator.standard_normal(2))
    outline = np.full(shape, 0.90)
    for lobes in (2, 3, 5):
        amplitude, phase = generator.uniform(0.02, 0.18 / lobes), generator.uniform(0, 2 * np.pi)
        outline += amplitude * np.cos(lobes * angle + phase)
    field = outline - radius + 0.04 * _smooth_noise(shape, 2.0, generator)
    y, x = np.meshgrid(np.linspace(-1, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    return np.minimum(field, 0.94 - np.maximum(np.abs(x), np.abs(y)))  # glass on all sides


def _tumour_proximity(shape: tuple[int, int], generator: np.random.Generator) -> Float[np.ndarray, "row column"]:
    radius, _ = _polar(shape, generator.uniform(-0.35, 0.35, size=2))
    return -2.0 * radius + 0.5 * _smooth_noise(shape, 5.0, generator)


def _claim(
    layout: UInt8[np.ndarray, "row column"],
    field: Float[np.ndarray, "row column"],
    *,
    claims: int,
    region: int,
    cells: int,
) -> None:
    """Turns the `cells` cells of region `claims` with the highest field into `region`, in place."""
    candidates = np.flatnonzero(layout == claims)
    chosen = candidates[np.argsort(-field.ravel()[candidates], kind="stable")[:cells]]
    layout.ravel()[chosen] = region


# Placement


def _scatter(
    layout: UInt8[np.ndarray, "row column"], region: int, per_mm2: float, generator: np.random.Generator
) -> Float[np.ndarray, "point 2"]:
    """Points (x, y) in a region at a density: one at random in each cell of a grid, so they seldom collide."""
    step = 1000.0 / (MPP * np.sqrt(per_mm2))
    rows, columns = (int(np.ceil(n * CELL_PX / step)) for n in layout.shape)
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    points = (grid + generator.uniform(-0.05, 1.05, size=grid.shape)) * step
    # A point belongs to the region of a place near by: borders between regions are blurred by about 10 µm.
    place = (points + generator.normal(scale=10.0, size=points.shape)) // CELL_PX
    column, row = place.astype(int).T
    valid = (column >= 0) & (row >= 0) & (column < layout.shape[1]) & (row < layout.shape[0])
    valid[valid] = layout[row[valid], column[valid]] == region
    return points[valid]


def _draw_ellipses(
    points: Float[np.ndarray, "nucleus 2"],
    *,
    radius_um: float,
    log_sd: float,
    elongation: float,
    stain: float,
    irregularity: float,
    generator: np.random.Generator,
    angle: Float[np.ndarray, " nucleus"] | None = None,
) -> Nuclei:
    n = len(points)
    radius = radius_um / MPP * np.exp(log_sd * np.clip(generator.standard_normal(n), -2.5, 2.5))
    ratio = np.sqrt(1.0 + (elongation - 1.0) * generator.gamma(3.0, 1.0 / 3.0, size=n))
    if angle is None:
        angle = generator.uniform(0, np.pi, size=n)
    # The section cuts some nuclei tangentially: those look small and pale.
    cut = np.where(generator.random(n) < 0.2, generator.uniform(0.45, 0.8, size=n), 1.0)
    amount = stain * cut * np.exp(0.12 * generator.standard_normal(n))
    lobes = irregularity * np.abs(generator.standard_normal(n))
    columns = (points[:, 0], points[:, 1], radius * ratio, radius / ratio, angle, amount, np.minimum(lobes, 0.2))
    return Nuclei(*(column.astype(np.float32) for column in columns))


def _place_nuclei(
    layout: UInt8[np.ndarray, "row column"], tumour: float, vessels: Nuclei, generator: np.random.Generator
) -> Nuclei:
    weight = 1.0 / (1.0 + np.exp(-1.2 * tumour))
    low, high = (np.array(row) for row in _MALIGNANT_NUCLEI)
    rows = dict(_NUCLEI) | {MALIGNANT: tuple((1.0 - weight) * low + weight * high)}
    groups = []
    for region, (density, radius_um, log_sd, elongation, stain, irregularity) in sorted(rows.items()):
        points = _scatter(layout, region, density, generator)
        points = points[_outside(points, vessels)]
        shape = {"radius_um": radius_um, "log_sd": log_sd, "elongation": elongation}
        groups.append(_draw_ellipses(points, **shape, stain=stain, irregularity=irregularity, generator=generator))
    debris = _scatter(layout, NECROTIC, 2500.0, generator)
    groups.append(
        _draw_ellipses(
            debris, radius_um=0.7, log_sd=0.4, elongation=1.3, stain=1.1, irregularity=0.1, generator=generator
        )
    )
    groups.append(_endothelium(vessels, generator))
    return _joined(groups)


def _place_vessels(layout: UInt8[np.ndarray, "row column"], generator: np.random.Generator) -> Nuclei:
    """Lumina: crowded in vascular regions, a few capillaries elsewhere."""
    crowded = _scatter(layout, VASCULAR, 330.0, generator)
    capillaries = np.concatenate([_scatter(layout, region, 12.0, generator) for region in (NORMAL, MALIGNANT)])
    groups = [
        _draw_ellipses(
            points,
            radius_um=radius_um,
            log_sd=log_sd,
            elongation=1.5,
            stain=1.0,
            irregularity=0.08,
            generator=generator,
        )
        for points, radius_um, log_sd in ((crowded, 10.0, 0.35), (capillaries, 5.0, 0.25))
    ]
    vessels = _joined(groups)
    limit = np.float32(56.0)  # with its wall it fits the margin
    return Nuclei(
        vessels.x,
        vessels.y,
        np.minimum(vessels.major, limit),
        np.minimum(vessels.minor, limit),
        vessels.angle,
        np.ones_like(vessels.stain),
        vessels.irregularity,
    )


def _on_ellipse(ellipses: Nuclei, index: np.ndarray, phase: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Points (x, y) at a phase on ellipses scaled by a factor."""
    u = ellipses.major[index] * scale * np.cos(phase)
    v = ellipses.minor[index] * scale * np.sin(phase)
    cosine, sine = np.cos(ellipses.angle[index]), np.sin(ellipses.angle[index])
    return np.stack([ellipses.x[index] + u * cosine - v * sine, ellipses.y[index] + u * sine + v * cosine], axis=-1)


def _endothelium(vessels: Nuclei, generator: np.random.Generator) -> Nuclei:
    """Flat nuclei along the walls, about one per 11 µm."""
    perimeter = 2 * np.pi * np.sqrt(vessels.major * vessels.minor)
    index = np.repeat(np.arange(len(vessels)), np.maximum(np.rint(perimeter * MPP / 11.0), 2).astype(int))
    phase = generator.uniform(0, 2 * np.pi, size=len(index))
    rim = 1.0 + 1.6 / MPP / np.sqrt(vessels.major[index] * vessels.minor[index])
    points = _on_ellipse(vessels, index, phase, rim)
    tangent = np.arctan2(vessels.minor[index] * np.cos(phase), -vessels.major[index] * np.sin(phase))
    angle = tangent + vessels.angle[index]
    return _draw_ellipses(
        points,
        radius_um=2.4,
        log_sd=0.15,
        elongation=2.8,
        stain=1.6,
        irregularity=0.05,
        generator=generator,
        angle=angle,
    )


def _place_erythrocytes(vessels: Nuclei, generator: np.random.Generator) -> Nuclei:
    """Round cells of 6 µm that fill a varying part of each lumen."""
    filling = 2.2 * generator.beta(1.5, 1.0, size=len(vessels))
    area = np.pi * vessels.major * vessels.minor * MPP**2
    index = np.repeat(np.arange(len(vessels)), np.rint(filling * area / 22.0).astype(int))
    scale = 0.88 * np.sqrt(generator.random(len(index)))
    points = _on_ellipse(vessels, index, generator.uniform(0, 2 * np.pi, size=len(index)), scale)
    return _draw_ellipses(
        points, radius_um=2.8, log_sd=0.08, elongation=1.15, stain=0.8, irregularity=0.02, generator=generator
    )


def _outside(points: Float[np.ndarray, "point 2"], vessels: Nuclei) -> np.ndarray:
    """True for points outside all vessels and their walls."""
    if len(vessels) == 0 or len(points) == 0:
        return np.ones(len(points), dtype=bool)
    taken = np.zeros(len(points), dtype=bool)
    order = np.argsort(points[:, 0], kind="stable")
    x = points[order, 0]
    for i in range(len(vessels)):
        reach = vessels.major[i] + 8.0
        near = order[np.searchsorted(x, vessels.x[i] - reach) : np.searchsorted(x, vessels.x[i] + reach)]
        dx, dy = points[near, 0] - vessels.x[i], points[near, 1] - vessels.y[i]
        cosine, sine = np.cos(vessels.angle[i]), np.sin(vessels.angle[i])
        u = (dx * cosine + dy * sine) / (vessels.major[i] + 7.0)
        v = (dy * cosine - dx * sine) / (vessels.minor[i] + 7.0)
        taken[near[u * u + v * v < 1.0]] = True
    return ~taken


def _grown(ellipses: Nuclei, by_px: float) -> Nuclei:
    grown = np.float32(by_px)
    return Nuclei(
        ellipses.x,
        ellipses.y,
        ellipses.major + grown,
        ellipses.minor + grown,
        ellipses.angle,
        ellipses.stain,
        ellipses.irregularity,
    )


def _joined(groups: list[Nuclei]) -> Nuclei:
    names = ("x", "y", "major", "minor", "angle", "stain", "irregularity")
    return Nuclei(*(np.concatenate([getattr(group, name) for group in groups]) for name in names))


# Drawing


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

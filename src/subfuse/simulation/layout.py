"""The layout of a simulated slide: which region of tissue lies where."""

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

MPP = 0.5
CELL_PX = 32  # side of a cell of the region layout
REGIONS = ("glass", "normal", "malignant", "lymphocyte", "vascular", "necrotic")
GLASS, NORMAL, MALIGNANT, LYMPHOCYTE, VASCULAR, NECROTIC = range(len(REGIONS))


def _microenvironment_share(latent: float) -> float:
    """Returns the share of tissue that is lymphocyte-rich, vascular or necrotic: 4 to 50 %, growing with the latent."""
    return 0.04 + 0.46 / (1.0 + float(np.exp(-1.4 * latent)))


def draw_layout(
    height: int, width: int, *, microenvironment: float, generator: np.random.Generator
) -> UInt8[np.ndarray, "row column"]:
    """Returns the region of every 32-pixel cell, as an index into REGIONS.

    About two thirds of the slide is tissue and about four fifths of the tissue is tumour. Inside the tumour the three
    microenvironment regions cover 4 to 50 % of the tissue, the more the higher the latent; the rest is malignant.
    """
    shape = (-(-height // CELL_PX), -(-width // CELL_PX))
    tissue = _tissue_field(shape, generator) > 0
    n_tissue = int(tissue.sum())
    layout = np.where(tissue, np.uint8(NORMAL), np.uint8(GLASS))

    proximity = _tumour_proximity(shape, generator)
    _claim(layout, proximity, claims=NORMAL, region=MALIGNANT, cells=round(generator.uniform(0.76, 0.86) * n_tissue))
    total = _microenvironment_share(microenvironment) * n_tissue
    regions = (NECROTIC, VASCULAR, LYMPHOCYTE)
    for region, share in zip(regions, generator.dirichlet((10.0, 10.0, 13.0)), strict=True):
        towards_core = 0.8 if region == NECROTIC else 0.0
        field = _smooth_noise(shape, 3.5, generator) + towards_core * proximity
        _claim(layout, field, claims=MALIGNANT, region=region, cells=round(share * total))
    return layout


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

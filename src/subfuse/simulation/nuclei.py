"""Where nuclei, vessels and erythrocytes of a simulated slide lie, and how they look."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8

from subfuse.simulation.layout import CELL_PX, LYMPHOCYTE, MALIGNANT, MPP, NECROTIC, NORMAL, VASCULAR


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


# Per region: nuclei per mm², mean radius and its log standard deviation, elongation, stain, irregularity. The malignant
# row holds the values of a tumour latent of minus and plus infinity.
_NUCLEI = {
    NORMAL: (750.0, 3.0, 0.12, 1.15, 1.25, 0.03),
    LYMPHOCYTE: (7500.0, 2.6, 0.08, 1.06, 2.1, 0.02),
    VASCULAR: (1500.0, 3.3, 0.15, 1.7, 1.45, 0.05),
    NECROTIC: (350.0, 1.8, 0.30, 1.2, 1.9, 0.10),
}
_MALIGNANT_NUCLEI = ((900.0, 3.2, 0.10, 1.20, 1.2, 0.03), (4600.0, 4.7, 0.30, 1.60, 1.6, 0.09))


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


def place_nuclei(
    layout: UInt8[np.ndarray, "row column"], tumour: float, vessels: Nuclei, generator: np.random.Generator
) -> Nuclei:
    """Returns the nuclei of all regions outside vessels; the malignant ones change with the tumour latent."""
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


def place_vessels(layout: UInt8[np.ndarray, "row column"], generator: np.random.Generator) -> Nuclei:
    """Returns the lumina: crowded in vascular regions, a few capillaries elsewhere."""
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


def place_erythrocytes(vessels: Nuclei, generator: np.random.Generator) -> Nuclei:
    """Returns round cells of 6 µm that fill a varying part of each lumen."""
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


def grown(ellipses: Nuclei, by_px: float) -> Nuclei:
    """Returns the ellipses with both semi-axes longer by `by_px` pixels."""
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

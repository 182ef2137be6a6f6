"""Where nuclei, vessels and erythrocytes lie: densities by region, and nothing of one within the other."""

import numpy as np
import pytest

from subfuse.simulation.layout import CELL_PX, GLASS, LYMPHOCYTE, MALIGNANT, MPP, NORMAL, VASCULAR
from subfuse.simulation.nuclei import Nuclei, grown, place_erythrocytes, place_nuclei, place_vessels

ROWS, COLUMNS = 60, 50
MM2 = ROWS * COLUMNS * (CELL_PX * MPP / 1000) ** 2
NO_VESSELS = Nuclei(*(np.zeros(0, np.float32) for _ in range(7)))


def whole(region: int) -> np.ndarray:
    return np.full((ROWS, COLUMNS), region, dtype=np.uint8)


def drawn(region: int, tumour: float = 0.0) -> Nuclei:
    return place_nuclei(whole(region), tumour, NO_VESSELS, np.random.default_rng(0))


def depth(points: Nuclei, ellipse: tuple[float, ...]) -> np.ndarray:
    """How far centres lie from that of an ellipse: 1 on its border, less within."""
    x, y, major, minor, angle = ellipse
    turned = (points.x - x + 1j * (points.y - y)) * np.exp(-1j * angle)
    return np.hypot(turned.real / major, turned.imag / minor)


def depths(points: Nuclei, ellipses: Nuclei) -> np.ndarray:
    return np.array([
        depth(points, ellipse)
        for ellipse in zip(ellipses.x, ellipses.y, ellipses.major, ellipses.minor, ellipses.angle, strict=True)
    ])  # (ellipse, point)  # fmt: skip


@pytest.mark.parametrize(("region", "per_mm2"), [(NORMAL, 750), (LYMPHOCYTE, 7500)])
def test_a_region_has_its_density_of_nuclei(region: int, per_mm2: int) -> None:
    assert len(drawn(region)) / MM2 == pytest.approx(per_mm2, rel=0.15)


def test_glass_has_no_nuclei() -> None:
    assert len(drawn(GLASS)) == 0
    layout = whole(GLASS)
    layout[:, 25:] = LYMPHOCYTE
    nuclei = place_nuclei(layout, 0.0, NO_VESSELS, np.random.default_rng(0))
    assert nuclei.x.min() > 25 * CELL_PX - 60  # borders are blurred by about ten pixels
    assert (nuclei.x < 25 * CELL_PX).mean() < 0.02


def test_malignant_nuclei_become_more_larger_and_less_alike_with_the_tumour_latent() -> None:
    low, high = drawn(MALIGNANT, -2.0), drawn(MALIGNANT, 2.0)
    radius = [np.sqrt(nuclei.major * nuclei.minor) for nuclei in (low, high)]
    assert 2 * len(low) < len(high)
    assert 1.2 * radius[0].mean() < radius[1].mean()
    assert 1.5 * np.log(radius[0]).std() < np.log(radius[1]).std()
    assert (low.major / low.minor).mean() < (high.major / high.minor).mean()


def test_vessels_crowd_in_vascular_regions_and_are_capillaries_elsewhere() -> None:
    crowded, capillaries = (place_vessels(whole(region), np.random.default_rng(0)) for region in (VASCULAR, NORMAL))
    assert len(crowded) > 10 * len(capillaries) > 0
    assert crowded.major.mean() > 1.5 * capillaries.major.mean()
    assert crowded.major.max() <= 56


def test_erythrocytes_lie_within_lumina() -> None:
    vessels = place_vessels(whole(VASCULAR), np.random.default_rng(0))
    erythrocytes = place_erythrocytes(vessels, np.random.default_rng(1))
    assert len(erythrocytes) > len(vessels)
    assert depths(erythrocytes, vessels).min(axis=0).max() < 1


def test_nuclei_lie_outside_a_lumen_and_flat_ones_along_its_wall() -> None:
    vessel = Nuclei(*(np.array([value], np.float32) for value in (800.0, 900.0, 40.0, 25.0, 0.7, 1.0, 0.0)))
    nuclei = place_nuclei(whole(LYMPHOCYTE), 0.0, vessel, np.random.default_rng(0))
    assert depths(nuclei, vessel).min() > 1
    of_wall = depths(nuclei, grown(vessel, 6.0))[0] < 1  # others stay seven pixels away
    assert of_wall.sum() > 5
    assert np.median((nuclei.major / nuclei.minor)[of_wall]) > 2


def test_growing_lengthens_both_axes_and_changes_nothing_else() -> None:
    vessels = place_vessels(whole(VASCULAR), np.random.default_rng(0))
    larger = grown(vessels, 6.0)
    np.testing.assert_allclose(larger.major, vessels.major + 6, rtol=1e-6)
    np.testing.assert_allclose(larger.minor, vessels.minor + 6, rtol=1e-6)
    for name in ("x", "y", "angle", "stain", "irregularity"):
        np.testing.assert_array_equal(getattr(larger, name), getattr(vessels, name))

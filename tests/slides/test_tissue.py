import numpy as np
import pytest
import shapely

from subfuse.slides import tissue as tissue_module
from subfuse.slides.tissue import TISSUE_MPP, find_tissue, stained_and_pen

pytest.importorskip("lazyslide")

HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.07, 0.99, 0.11)  # Ruifrok and Johnston 2001
INKS = {
    "blue": (30, 60, 160),
    "dark blue": (25, 25, 120),
    "light blue": (90, 150, 220),
    "green": (30, 130, 70),
    "black": (35, 32, 36),
}
TISSUE_BOX, PEN_BOX = (40, 30, 240, 170), (100, 80, 180, 110)  # left, top, right, bottom


def stained(height: int, width: int, *, haematoxylin: float, eosin: float, seed: int = 0) -> np.ndarray:
    """Tissue after Beer and Lambert: nuclei and cytoplasm of random density at 8 µm per pixel."""
    random = np.random.default_rng(seed)
    amounts = [random.gamma(4, strength / 4, (height, width, 1)) for strength in (haematoxylin, eosin)]
    absorbance = amounts[0] * HAEMATOXYLIN + amounts[1] * EOSIN
    return (250 * np.exp(-absorbance)).round().astype(np.uint8)


def overview(*, haematoxylin: float = 0.5, eosin: float = 0.4) -> np.ndarray:
    random = np.random.default_rng(1)
    image = (np.array((244, 242, 245)) + random.integers(-3, 4, (210, 290, 3))).astype(np.uint8)
    left, top, right, bottom = TISSUE_BOX
    image[top:bottom, left:right] = stained(bottom - top, right - left, haematoxylin=haematoxylin, eosin=eosin)
    return image


@pytest.mark.parametrize("haematoxylin", [0.2, 0.6, 1.2, 1.9])
@pytest.mark.parametrize("eosin", [0.0, 0.3, 1.2])
def test_tissue_is_outlined_and_never_taken_for_ink(haematoxylin: float, eosin: float) -> None:
    found = find_tissue(overview(haematoxylin=haematoxylin, eosin=eosin), mpp=TISSUE_MPP)

    assert found.pen.is_empty
    assert found.pen_share == 0
    shared = (
        found.outline.intersection(shapely.box(*TISSUE_BOX)).area / found.outline.union(shapely.box(*TISSUE_BOX)).area
    )
    assert shared > 0.97


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("cover", [1.0, 0.75])
def test_ink_on_tissue_is_left_out(ink: str, cover: float) -> None:
    image = overview()
    left, top, right, bottom = PEN_BOX
    under = image[top:bottom, left:right] / 255
    painted = np.array(INKS[ink]) * under**0.5 if cover < 1 else np.broadcast_to(INKS[ink], under.shape)
    image[top:bottom, left:right] = painted.astype(np.uint8)

    found = find_tissue(image, mpp=TISSUE_MPP)

    pen, box = shapely.box(*PEN_BOX), shapely.box(*TISSUE_BOX)
    assert found.outline.intersection(pen).area == 0
    assert found.pen.intersection(pen).area > 0.99 * pen.area
    assert found.pen.area < 1.3 * pen.area
    assert found.outline.area > 0.97 * (box.area - found.pen.area)
    assert found.pen_share == pytest.approx(found.pen.area / box.area, rel=0.02)


@pytest.mark.parametrize("ink", INKS)
def test_ink_on_glass_is_not_tissue(ink: str) -> None:
    image = np.full((150, 190, 3), 244, np.uint8)
    image[40:60, 30:150] = INKS[ink]

    found = find_tissue(image, mpp=TISSUE_MPP)

    assert found.outline.is_empty
    assert found.pen_share == 1.0


@pytest.mark.parametrize("colour", [(255, 255, 255), (244, 243, 245), (228, 226, 230), (0, 0, 0)])
def test_glass_and_unscanned_area_are_neither(colour: tuple[int, int, int]) -> None:
    noise = np.random.default_rng(0).integers(-2, 3, (120, 160, 3)) * (sum(colour) > 0)
    image = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)

    found = find_tissue(image, mpp=TISSUE_MPP)

    assert found.outline.is_empty
    assert found.pen.is_empty
    assert found.pen_share == 0.0


def test_dark_specks_stay_tissue() -> None:
    """Pigment and dense nuclei are as dark as ink but small."""
    image = overview()
    image[60:160:20, 60:220:20] = INKS["black"]

    found = find_tissue(image, mpp=TISSUE_MPP)

    assert found.pen.is_empty
    assert found.outline.area > 0.98 * shapely.box(*TISSUE_BOX).area


def test_the_same_image_gives_the_same_outline() -> None:
    first, again = (find_tissue(overview(), mpp=TISSUE_MPP) for _ in range(2))

    assert first.outline.equals_exact(again.outline, 0)


def test_otsu_agrees_with_an_independent_threshold_and_finds_nothing_on_empty_glass() -> None:
    from skimage.filters import threshold_otsu

    rng = np.random.default_rng(0)
    saturation = np.concatenate([rng.normal(6, 2, 6000), rng.normal(60, 12, 3000)]).clip(0, 255).astype(np.uint8)
    least = tissue_module._otsu(saturation)
    expected = threshold_otsu(saturation)
    np.testing.assert_array_equal(saturation > least, saturation > expected)
    assert 10 < least < 40

    glass = rng.normal(5, 2, 9000).clip(0, 255).astype(np.uint8)  # Otsu's threshold would halve it
    for nothing in (glass, glass[:0], np.full(50, 7, np.uint8)):
        assert tissue_module._otsu(nothing) == np.inf


def test_unscanned_area_does_not_move_otsus_threshold() -> None:
    image = np.full((200, 300, 3), (244, 243, 245), np.uint8)
    image[50:150, 20:120] = (232, 220, 228)
    alone = stained_and_pen(image, mpp=8.0, by_otsu=True)[0]
    assert alone[60:140, 30:110].all()
    assert alone.sum() == pytest.approx(100 * 100, rel=0.05)
    wide = np.concatenate([image, np.zeros((200, 2000, 3), np.uint8)], axis=1)
    np.testing.assert_array_equal(stained_and_pen(wide, mpp=8.0, by_otsu=True)[0][:, :300], alone)

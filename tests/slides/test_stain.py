"""Stain normalisation: slides of one tissue, stained and scanned in two ways, become alike."""

from pathlib import Path

import numpy as np
import pytest
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

from subfuse.errors import DataError
from subfuse.slides import stain
from subfuse.slides.stain import fit_stain, method_of, recorded_stain

H, E = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])  # Ruifrok and Johnston 2001
H2, E2 = np.array([0.75, 0.60, 0.28]), np.array([0.22, 0.92, 0.30])  # another laboratory's
PATH = Path("slide.svs")


def patches(haematoxylin: np.ndarray, eosin: np.ndarray, *, strength: float = 1.0, n: int = 6) -> list[np.ndarray]:
    """The same tissue after Beer and Lambert: nuclei, cytoplasm and empty glass between."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(n):
        nuclei = random.gamma(0.5, 1.0, (64, 48, 1)) * (random.random((64, 48, 1)) < 0.5)
        cytoplasm = random.gamma(2, 0.3, (64, 48, 1)) * (random.random((64, 48, 1)) < 0.8)
        absorbed = strength * (nuclei * haematoxylin + cytoplasm * eosin)
        image = 240 * np.exp(-absorbed)
        image[:8] = 240  # glass
        found.append(image.round().clip(0, 255).astype(np.uint8))
    return found


def difference(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return float(np.mean([np.abs(x.astype(float) - y).mean() for x, y in zip(a, b, strict=True)]))


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_slides_of_two_laboratories_become_alike(method: str) -> None:
    first, second = patches(H, E), patches(H2, E2, strength=0.7)
    before = difference(first, second)
    one, two = fit_stain(method, first, PATH), fit_stain(method, second, PATH)
    assert difference([one(i) for i in first], [two(i) for i in second]) < 0.6 * before


def test_one_image_is_normalised_as_the_library_does() -> None:
    """Which estimates the stains of every image anew; here it is stained everywhere."""
    random = np.random.default_rng(1)
    absorbed = random.gamma(3, 0.2, (80, 60, 1)) * H + random.gamma(3, 0.2, (80, 60, 1)) * E + 0.16
    image = (240 * np.exp(-absorbed)).round().clip(0, 255).astype(np.uint8)
    expected, _, _ = NumpyMacenkoNormalizer().normalize(image)
    found = fit_stain("macenko", [image], PATH)(image)
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - expected).max() <= 2


def tissue(seed: int, *, strength: float = 1.0) -> np.ndarray:
    """An image that is stained everywhere, with amounts of both stains that differ from pixel to pixel."""
    random = np.random.default_rng(seed)
    share = random.random((90, 70, 1))
    absorbed = strength * random.gamma(9, 0.1, (90, 70, 1)) * (share * H2 + (1 - share) * E2) + 0.16
    return (240 * np.exp(-absorbed)).round().clip(0, 255).astype(np.uint8)


def test_macenko_gives_the_stains_and_amounts_of_the_reference() -> None:
    """By the published reference, written out, and least squares of its own."""
    reference = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
    image = tissue(3, strength=0.8)
    found = fit_stain("macenko", [image], PATH)(image).reshape(-1, 3).astype(float)
    absorbed = -np.log((found + 0.5) / 240)
    amounts, off_plane, _, _ = np.linalg.lstsq(reference, absorbed.T, rcond=None)
    np.testing.assert_allclose(np.percentile(amounts, 99, axis=1), [1.9705, 1.0308], rtol=0.03)
    assert np.sqrt(off_plane.mean() / len(found)) < 0.01  # no other colour than of these two stains
    assert found.std() > 20


def test_reinhard_gives_stained_pixels_mean_and_spread_of_the_reference() -> None:
    """Before colours that no screen shows are cut off."""
    from skimage.color import rgb2lab

    image = tissue(4)
    colours = rgb2lab(image)
    normalise = fit_stain("reinhard", [image], PATH)
    expected = (colours - colours.mean(axis=(0, 1))) / colours.std(axis=(0, 1)) * (18.56, 14.89, 5.68) + (
        72.91,
        20.83,
        -4.95,
    )
    found = normalise(image)
    shown = ((found > 0) & (found < 255)).all(axis=2)
    assert shown.mean() > 0.4
    np.testing.assert_allclose(rgb2lab(found)[shown], expected[shown], atol=0.9)


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_patches_of_a_slide_are_normalised_alike_whatever_is_on_them(method: str) -> None:
    images = patches(H, E)
    normalise = fit_stain(method, images, PATH)
    parts = np.concatenate([normalise(images[0][:30]), normalise(images[0][30:])])
    np.testing.assert_array_equal(parts, normalise(images[0]))


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
@pytest.mark.parametrize(
    "sample",
    [
        [],
        [np.full((64, 64, 3), 244, np.uint8)],
        [np.full((64, 64, 3), (200, 60, 90), np.uint8)],
        [np.random.default_rng(0).normal((200, 60, 90), 1, (64, 64, 3)).round().astype(np.uint8)],  # as JPEG leaves it
    ],
)
def test_slides_without_two_stains_are_named(method: str, sample: list[np.ndarray]) -> None:
    with pytest.raises(DataError, match=r"slide\.svs: two stains that can be told apart are required") as caught:
        fit_stain(method, sample, PATH)
    assert "\n" not in str(caught.value)


def test_what_is_recorded_names_the_method_and_its_reference() -> None:
    records = {method: recorded_stain(method) for method in ("none", "macenko", "reinhard")}
    assert records["none"] is None
    stains = "[[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]]"
    assert records["macenko"] == (
        f'{{"method": "macenko", "reference": {{"stains": {stains}, "amounts": [1.9705, 1.0308]}}}}'
    )
    assert records["reinhard"] == (
        '{"method": "reinhard", "reference": {"lab_mean": [72.91, 20.83, -4.95], "lab_spread": [18.56, 14.89, 5.68]}}'
    )
    assert {method_of(record) for record in records.values()} == set(records)
    with pytest.raises(DataError, match=r"of this version is required\. Found 'else'"):
        method_of("else")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("stains", [(H2, E2), ((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581))])
def test_macenko_finds_the_two_stains_of_tissue_after_beer_and_lambert(
    seed: int, stains: tuple[np.ndarray, np.ndarray]
) -> None:
    random = np.random.default_rng(seed)
    share = random.random((20000, 1))
    absorbed = random.gamma(6, 0.15, (20000, 1)) * (share * np.array(stains[0]) + (1 - share) * np.array(stains[1]))
    found, _ = stain._stains((240 * np.exp(-absorbed) - 1).round().clip(0, 255).astype(np.uint8))
    expected = np.stack(stains, axis=1) / np.linalg.norm(stains, axis=1)
    np.testing.assert_allclose(found, expected, atol=0.015)


def test_pale_slides_are_normalised_too() -> None:
    image = tissue(5, strength=0.25)
    assert fit_stain("macenko", [image], PATH)(image).mean() < image.mean() - 20

import cv2
import numpy as np
import pytest

from subfuse.preparation.slides.feature_import import FeatureRecord
from subfuse.slides.review import QUALITY_COLUMNS, quality_table, quality_warnings, sharpness


def laplacian_variance(image: np.ndarray) -> float:
    """By hand: four neighbours minus four times the centre, mirrored at the edge, of rounded luma."""
    grey = np.round(image @ np.array([0.299, 0.587, 0.114]))
    padded = np.pad(grey, 1, mode="reflect")
    neighbours = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return float((neighbours - 4 * grey).var())


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    image = np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8)

    assert sharpness(image) == pytest.approx(laplacian_variance(image), rel=1e-3)


def test_blurring_lowers_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    blurred = [sharpness(cv2.GaussianBlur(image, (0, 0), sigma)) for sigma in (0.5, 1.0, 2.0)]

    assert sharpness(image) > blurred[0] > blurred[1] > blurred[2]
    assert sharpness(np.full((9, 9, 3), 80, np.uint8)) == 0


def test_notable_quality_is_worded() -> None:
    assert quality_warnings(pen_share=0.01, median_sharpness=500.0) == ()
    pen, blur = quality_warnings(pen_share=0.3, median_sharpness=12.0)
    assert pen.startswith("30%")
    assert "out of focus" in blur


def test_imported_slides_have_rows_with_what_is_known() -> None:
    rest = {"width_px": None, "height_px": None, "tissue_mm2": 2.5, "features": "f.h5", "layout": "clam", "source": "f",
            "mpp_source": "declared"}  # fmt: skip
    records = [
        FeatureRecord(
            name, "p", n_patches=3, mpp=0.5, patch_um=128.0, has_coordinates=True, warnings=("a", "b"), **rest
        )
        for name in ("b", "a")
    ]

    table = quality_table(records)

    assert tuple(table.columns) == QUALITY_COLUMNS
    assert table["slide_id"].tolist() == ["a", "b"]
    assert table["sharpness"].isna().all()
    assert table["warnings"].tolist() == ["a; b", "a; b"]
    assert quality_table([]).empty

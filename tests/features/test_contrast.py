"""Whether patches differ, against a comparison of every pair, and without reading more than it takes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from subfuse.features import contrast
from subfuse.features.contrast import contrast_of, read_contrast
from subfuse.features.store import SlideFeatures, write_features


def slide(features: np.ndarray) -> SlideFeatures:
    return SlideFeatures(
        features=features.astype(np.float16),
        coords=np.array([[512 * place, 0] for place in range(len(features))], dtype=np.int32),
        patch_size_level0=512,
        level0_mpp=0.25,
        target_mpp=0.5,
        encoder="uni",
        encoder_sha256="",
        slide_width_px=9000,
        slide_height_px=512,
    )


@given(arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 3)), elements=st.sampled_from([0.0, -0.0, 1.0])))
@settings(deadline=None)
def test_patches_are_flat_where_no_pair_of_several_differs(features: np.ndarray) -> None:
    found = contrast_of(features)
    differs = any((one != other).any() for one in features for other in features)
    assert found.n_patches == len(features)
    assert (found.shared is None) == differs
    assert found.is_flat == (len(features) > 1 and not differs)


def test_slides_that_share_one_vector_share_their_bytes() -> None:
    assert contrast_of(np.zeros((3, 2))).shared == contrast_of(np.full((5, 2), -0.0)).shared
    assert contrast_of(np.zeros((3, 2))).shared != contrast_of(np.ones((3, 2))).shared


@pytest.mark.parametrize("place", range(5))
def test_one_patch_that_differs_is_found_wherever_it_lies(tmp_path: Path, place: int) -> None:
    features = np.ones((5, 3))
    write_features(tmp_path / "flat.h5", slide(features), tile_px=256)
    features[place, 1] = 2.0
    write_features(tmp_path / "rich.h5", slide(features), tile_px=256)
    assert read_contrast(tmp_path / "flat.h5").is_flat
    assert not read_contrast(tmp_path / "rich.h5").is_flat


def test_patches_that_differ_are_told_by_few_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_features(tmp_path / "rich.h5", slide(np.arange(40.0).reshape(20, 2)), tile_px=256)
    monkeypatch.setattr(contrast, "read_features", None)
    assert not read_contrast(tmp_path / "rich.h5").is_flat

"""One vector per slide, from the right patch encoder."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("lazyslide_models")
from stand_in_encoders import Colours, Weighted, stand_in

from subfuse.errors import ConfigurationError, DataError
from subfuse.features.encoder import PatchEncoder, SlideEncoder
from subfuse.features.registered import patch_encoders as registered
from subfuse.features.registered.cards import slide_encoder_card
from subfuse.features.registered.slide_encoders import load_encoder
from subfuse.features.store import SlideFeatures


class FirstOnly(Weighted):
    """Reads the first two of the features."""

    slide_input_dim = 2


class Endless(Weighted):
    def encode_slide(self, embeddings, coords=None, **others):
        return {"embeddings": embeddings.mean(dim=1) / (embeddings.abs().sum() == 0).float()}


class Several(Weighted):
    def encode_slide(self, embeddings, coords=None, **others):
        return {"embeddings": embeddings}


class OnGrid(Weighted):
    """Wants patches on a grid of their distance, and returns a vector without a batch."""

    def encode_slide(self, embeddings, coords=None, **others):
        assert (coords % others["base_tile_size"] == 0).all()
        assert len(coords[0].unique(dim=0)) == coords.shape[1]
        return {"embeddings": embeddings[0].mean(dim=0)}


class NoDevice(Weighted):
    def encode_slide(self, embeddings, coords=None, **others):
        raise RuntimeError("needs a GPU\nof a kind")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "hub_is_reachable", lambda: True)


def slide(n: int = 5) -> SlideFeatures:
    random = np.random.default_rng(0)
    return SlideFeatures(
        features=random.normal(size=(n, 4)).astype(np.float16),
        coords=(random.permutation(100)[: 2 * n].reshape(n, 2) * 300).astype(np.int32),
        patch_size_level0=400, level0_mpp=0.25, target_mpp=0.5, encoder="ctranspath", encoder_sha256="a",
        slide_width_px=40000, slide_height_px=40000,
    )  # fmt: skip


def test_a_slide_is_encoded_from_features_and_places_of_its_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours, madeleine=Weighted)
    encoder = load_encoder("madeleine")
    assert isinstance(encoder, SlideEncoder)
    assert (encoder.name, encoder.patches.name, encoder.dim) == ("madeleine", "ctranspath", 4)
    given = slide()

    found = encoder.encode(given, spacing_px=300)

    weights = 1 + given.coords[:, :1] / 300
    expected = (given.features.astype(np.float64) * weights).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32


def test_names_of_patch_encoders_load_these(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours)
    encoder = load_encoder("ctranspath")
    assert isinstance(encoder, PatchEncoder)
    assert not isinstance(encoder, SlideEncoder)
    assert slide_encoder_card("ctranspath") is None
    assert slide_encoder_card("hf_hub:owner/titan") is None


def test_patches_of_another_encoder_or_without_places_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours, madeleine=Weighted)
    encoder, given = load_encoder("madeleine"), slide()
    assert isinstance(encoder, SlideEncoder)
    encoder.encode(replace(given, encoder="CTransPath"), spacing_px=300)  # another way to write it
    with pytest.raises(DataError, match=r"madeleine reads patches of ctranspath\. Found those of uni_v2"):
        encoder.encode(replace(given, encoder="uni_v2"), spacing_px=300)
    with pytest.raises(DataError, match=r"reads 4 features of ctranspath\. Found 3"):
        encoder.encode(replace(given, features=given.features[:, :3]), spacing_px=300)
    with pytest.raises(DataError, match="Found patches without places"):
        encoder.encode(replace(given, has_coordinates=False), spacing_px=300)


def test_an_encoder_may_read_a_part_of_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours, madeleine=FirstOnly)
    encoder = load_encoder("madeleine")
    assert encoder.dim == 2


def test_a_vector_without_a_batch_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours, madeleine=OnGrid)
    encoder, given = load_encoder("madeleine"), slide()
    np.testing.assert_allclose(
        encoder.encode(given, spacing_px=300), given.features.astype(float).mean(axis=0), atol=1e-3
    )


def test_the_hash_is_that_of_both_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours, madeleine=Weighted)
    first = load_encoder("madeleine").sha256
    assert load_encoder("madeleine").sha256 != load_encoder("ctranspath").sha256
    torch.manual_seed(0)
    for kind in (Colours, Weighted):
        init = kind.__init__
        with monkeypatch.context() as patch:
            patch.setattr(
                kind, "__init__", lambda self, init=init: (init(self), torch.nn.init.constant_(self.model.bias, 0.5))[0]
            )
            assert load_encoder("madeleine").sha256 != first


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        (Several, ConfigurationError, r"madeleine: one vector per slide is required\. Found an array \(1, 4, 4\)"),
        (NoDevice, ConfigurationError, r"madeleine cannot be run on cpu with features of ctranspath \(needs a GPU\)"),
        (Endless, DataError, "madeleine must return numbers"),
    ],
)
def test_what_is_no_vector_is_refused(kind: type, error: type, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours, madeleine=kind)
    with pytest.raises(error, match=words) as caught:
        load_encoder("madeleine").encode(slide(), spacing_px=300)
    assert "\n" not in str(caught.value)

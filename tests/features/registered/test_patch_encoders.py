"""Patch encoders by their names in lazyslide-models, with stand-ins for their weights."""

import numpy as np
import pytest
import torch

pytest.importorskip("lazyslide_models")
from stand_in_encoders import Colours, Weighted, stand_in

from subfuse.errors import ConfigurationError
from subfuse.features import patch_encoders
from subfuse.features.encoder import PatchEncoder
from subfuse.features.patch_encoders import load_patch_encoder
from subfuse.features.registered import patch_encoders as registered


class Gated(Colours):
    is_gated = True
    hf_url = "https://huggingface.co/owner/gated"
    license = "CC-BY-NC-4.0"

    def __init__(self) -> None:
        from unittest.mock import MagicMock

        from huggingface_hub.errors import GatedRepoError

        raise GatedRepoError("403", response=MagicMock())


class Broken(Colours):
    def __init__(self) -> None:
        raise KeyError("weights\nof several lines")


class Tokens(Colours):
    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean(dim=3)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered, "hub_is_reachable", lambda: True)


def test_a_name_of_the_registry_is_loaded_with_its_own_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours)
    encoder = load_patch_encoder("ctranspath")
    assert isinstance(encoder, PatchEncoder)
    assert (encoder.name, encoder.dim, len(encoder.sha256)) == ("ctranspath", 4, 64)
    images = np.random.default_rng(0).integers(0, 256, (19, 40, 50, 3), dtype=np.uint8)

    found = encoder.encode(images)

    expected = np.concatenate([images.mean(axis=(1, 2)) / 255, np.full((19, 1), 0.25)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(encoder.encode(images[7:8]), found[7:8])


def test_other_weights_have_another_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours)
    first = load_patch_encoder("ctranspath").sha256
    assert load_patch_encoder("ctranspath").sha256 == first
    init = Colours.__init__
    monkeypatch.setattr(
        Colours, "__init__", lambda self: (init(self), torch.nn.init.constant_(self.model.weight, 0.5))[0]
    )
    assert load_patch_encoder("ctranspath").sha256 != first


def test_a_gated_encoder_says_where_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Gated)
    with pytest.raises(
        ConfigurationError,
        match=r"is gated: agree to its terms at https://huggingface\.co/owner/gated \(CC-BY-NC-4\.0\)",
    ) as caught:
        load_patch_encoder("ctranspath")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_reachable", [True, False])
def test_weights_that_cannot_be_loaded_are_told_in_one_line(
    is_reachable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, ctranspath=Broken)
    monkeypatch.setattr(registered, "hub_is_reachable", lambda: is_reachable)
    reason = "weights" if is_reachable else "no network, and nothing in the local cache"
    with pytest.raises(
        ConfigurationError, match=f"Encoder ctranspath: its weights could not be loaded .*{reason}"
    ) as told:
        load_patch_encoder("ctranspath")
    assert "\n" not in str(told.value)


def test_one_vector_per_image_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Tokens)
    with pytest.raises(ConfigurationError, match=r"ctranspath: one vector per image .* \(1, 3, 224\) of 1 images"):
        load_patch_encoder("ctranspath")


def test_a_slide_encoder_is_no_patch_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours, madeleine=Weighted)
    with pytest.raises(ConfigurationError, match="madeleine encodes slides, from patches of ctranspath"):
        load_patch_encoder("madeleine")


@pytest.mark.parametrize(("name", "near"), [("uni-2", "uni2"), ("Conch_v15", r"conch_v1\.5"), ("virchov2", "virchow2")])
def test_names_near_to_unknown_ones_are_listed(name: str, near: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"Unknown patch encoder '{name}'.*Did you mean [^?]*\b{near}\b"):
        load_patch_encoder(name)


def test_names_of_timm_and_of_files_do_not_ask_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_encoders, "encoder_cards", lambda: pytest.fail("the registry is asked"))
    assert patch_encoders._card("resnet18") is None
    assert patch_encoders._card("resnet18.a1_in1k") is None
    assert patch_encoders._card("hf_hub:MahmoodLab/uni") is None
    assert patch_encoders._card("efficientnet-lite0") is None

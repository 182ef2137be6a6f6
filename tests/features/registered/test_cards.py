"""What is known of registered encoders before any is loaded."""

from pathlib import Path

import pytest

pytest.importorskip("lazyslide_models")
from stand_in_encoders import Colours, Weighted, stand_in

from subfuse.errors import ConfigurationError
from subfuse.features.registered import cards
from subfuse.features.registered.cards import encoder_cards, encoder_class


def test_encoders_of_patches_and_slides_are_listed_with_what_they_need() -> None:
    found = encoder_cards()
    assert len(found) > 40
    assert list(found) == sorted(found)
    of_slides = {name: card.patch_encoder for name, card in found.items() if card.encodes == "slides"}
    expected = {
        "titan": "conch_v1.5",
        "prism": "virchow",
        "chief-slide-encoder": "chief",
        "madeleine": "conch-madeleine",
        "gigapath-slide-encoder": "gigapath",
    }
    assert expected.items() <= of_slides.items()
    assert all(found[patches].encodes == "patches" for patches in of_slides.values())
    assert found["uni2"].is_gated
    assert not found["uni2"].for_commerce
    assert found["uni2"].licence == "CC-BY-NC-ND-4.0"
    assert found["uni2"].n_features == 1536
    assert found["phikon"].page == "https://huggingface.co/owkin/phikon"
    assert not {"grandqc-tissue", "instanseg", "hest-tissue-segmentation"} & set(found)


def test_what_is_registered_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(
        monkeypatch, ctranspath=Colours, weighted=Weighted, lonely=type("L", (Weighted,), {"vision_encoder": "no"})
    )
    found = encoder_cards()
    assert found["weighted"].licence == "MIT and CC-BY-NC-4.0"
    assert (found["weighted"].patch_encoder, found["ctranspath"].patch_encoder) == ("ctranspath", None)
    assert (found["weighted"].is_gated, found["ctranspath"].is_gated) == (True, False)
    assert "lonely" not in found  # nothing makes what it reads
    assert encoder_class(found["weighted"]) is Weighted


def test_packages_that_are_missing_are_named_and_those_of_the_patch_encoder_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = {"conch", "musk"}
    monkeypatch.setattr(cards, "find_spec", lambda name: None if name in absent else object())
    found = encoder_cards()
    assert found["uni"].missing == ()
    assert found["musk"].missing == ("pip install git+https://github.com/lilab-stanford/MUSK",)
    assert found["madeleine"].missing == found["conch-madeleine"].missing != ()
    with pytest.raises(ConfigurationError, match=r"Encoder conch needs packages .* Run: pip install git.*CONCH\.git\."):
        encoder_class(found["conch"])


def test_needs_are_those_of_registered_names() -> None:
    named = {name for _, names in cards._PACKAGES.values() for name in names}
    assert named <= set(encoder_cards())


def test_what_was_downloaded_before_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    card = encoder_cards()["phikon"]
    assert not card.is_cached
    (tmp_path / "models--owkin--phikon").mkdir()
    assert card.is_cached
    assert not encoder_cards()["chief"].is_cached  # has no page


def test_without_the_extra_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lazyslide_models", None)
    cards._registry.cache_clear()
    assert encoder_cards() == {}
    cards._registry.cache_clear()

"""Names of encoders: identifiers are file names, and several spellings are one encoder."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from subfuse.features.encoder import (
    _TILINGS,
    OFFLINE_ENCODER,
    PatchEncoder,
    encoder_id,
    encoder_tiling,
    is_same_encoder,
    split_name,
)
from subfuse.features.registered.cards import encoder_cards
from subfuse.slides.tissue import Tiling


@pytest.mark.parametrize(
    "name",
    [OFFLINE_ENCODER, "timm:vit_base_patch16_224.dino", "hf_hub:a/b@v2", "resnet18@/x/y z.pth", "/x/y z.pt", "v.2.ts"],
)
def test_identifier_is_a_file_name_and_stable(name: str) -> None:
    identifier = encoder_id(name)

    assert Path(identifier).name == identifier
    assert encoder_id(identifier) == identifier


@pytest.mark.parametrize(
    ("name", "short", "tile_px"),
    [
        ("hf_hub:paige-ai/Virchow2", "virchow2", 224),
        ("hf-hub:paige-ai/Virchow@v1", "virchow", 224),
        ("hf_hub:bioptimus/H-optimus-0", "h-optimus-0", 224),
        ("hf_hub:bioptimus/H-optimus-1", "h-optimus-1", 224),
        ("hf-hub:bioptimus/H0-mini", "h0-mini", 224),
        ("hf_hub:MahmoodLab/conch", "conch", 512),
        ("hf_hub:MahmoodLab/UNI2-h", "uni2", 256),
    ],
)
def test_a_name_on_the_hub_has_the_tiling_of_the_short_name(name: str, short: str, tile_px: int) -> None:
    assert encoder_tiling(name) == encoder_tiling(short) == Tiling(tile_px, 0.5)


def test_other_names_have_the_usual_tiling() -> None:
    for name in (OFFLINE_ENCODER, "timm:vit_base_patch16_224.dino", "hf_hub:a/b@virchow2", "resnet18@/x/virchow2.pth"):
        assert encoder_tiling(name) == Tiling(), name


def test_tilings_are_those_of_registered_encoders() -> None:
    pytest.importorskip("lazyslide_models")
    listed = [name for names in _TILINGS.values() for name in names]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(encoder_cards())


ENCODERS = [
    ("uni", "uni_v1", "UNI"),
    ("uni2", "uni_v2", "UNI2-h"),
    ("conch", "conch_v1"),
    ("conch_v15", "conch1_5"),
    ("phikon",),
]


def test_spellings_of_one_encoder_are_it_and_those_of_others_are_not() -> None:
    kinds = {name: kind for kind, names in enumerate(ENCODERS) for name in names}
    for name, other in itertools.product(kinds, repeat=2):
        assert is_same_encoder(name, other) == (kinds[name] == kinds[other]), (name, other)


@pytest.mark.parametrize(
    ("name", "architecture", "weights"),
    [
        ("resnet18@/x/y.pth", "resnet18", Path("/x/y.pth")),
        ("timm:resnet18@w.safetensors", "resnet18", Path("w.safetensors")),
        ("hf_hub:a/b@v2", "hf_hub:a/b@v2", None),  # a revision
        ("timm:resnet50.a1_in1k", "resnet50.a1_in1k", None),
    ],
)
def test_weights_on_disk_are_told_from_revisions(name: str, architecture: str, weights: Path | None) -> None:
    assert split_name(name) == (architecture, weights)


def test_whatever_has_the_four_names_is_an_encoder() -> None:
    class MeanColour:
        name, dim, sha256 = "mean-colour", 3, "ab"

        def encode(self, images: np.ndarray) -> np.ndarray:
            return images.mean(axis=(1, 2), dtype=np.float32)

    assert isinstance(MeanColour(), PatchEncoder)
    assert not isinstance(np.zeros(3), PatchEncoder)

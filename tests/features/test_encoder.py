"""Names of encoders: identifiers are file names, and several spellings are one encoder."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from subfuse.features.encoder import OFFLINE_ENCODER, PatchEncoder, encoder_id, is_same_encoder, split_name


@pytest.mark.parametrize(
    "name",
    [OFFLINE_ENCODER, "timm:vit_base_patch16_224.dino", "hf_hub:a/b@v2", "resnet18@/x/y z.pth", "/x/y z.pt", "v.2.ts"],
)
def test_identifier_is_a_file_name_and_stable(name: str) -> None:
    identifier = encoder_id(name)

    assert Path(identifier).name == identifier
    assert encoder_id(identifier) == identifier


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

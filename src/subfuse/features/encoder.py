"""What a patch encoder is and how it is named; encoders that can be loaded stand in `patch_encoders`."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from subfuse.slides.tissue import Tiling

BATCH = 128  # patches that are encoded at once, at most
OFFLINE_ENCODER = "efficientnet-lite0"  # ImageNet weights from the package index: proves plumbing, not pathology

_SYNONYMS = {  # letters and digits of a name -> of TRIDENT's
    "uni": "univ1",
    "uni2": "univ2",
    "uni2h": "univ2",
    "conch": "conchv1",
    "conch15": "conchv15",
    "provgigapath": "gigapath",
    "virchowfull": "virchow",
    "chiefctranspath": "chief",
    "phikon2": "phikonv2",
}
_WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_SCRIPT_SUFFIXES = (".pt", ".ts")


class _Encoder(Protocol):
    @property
    def name(self) -> str:
        """Identifier without path separators, part of the feature folder's name."""

    @property
    def dim(self) -> int:
        """Number of features."""

    @property
    def sha256(self) -> str:
        """Hash of the weights, of all networks that take part."""


@runtime_checkable
class PatchEncoder(_Encoder, Protocol):
    """What turns patch images into features; anything with these four names will do."""

    def encode(self, images: UInt8[np.ndarray, "batch height width 3"]) -> Float32[np.ndarray, "batch feature"]:
        """Returns one row of features per RGB image."""


@runtime_checkable
class QueueingEncoder(PatchEncoder, Protocol):
    """An encoder that can be given the next images before the features of the last ones are there."""

    def queue(
        self, images: UInt8[np.ndarray, "batch height width 3"]
    ) -> Callable[[], Float32[np.ndarray, "batch feature"]]:
        """Begins to encode, and returns what waits for the features."""


_TILINGS = {  # of names in lazyslide-models whose authors cut otherwise than `Tiling()`
    Tiling(512, 0.5): ("conch", "conch_v1.5", "titan"),
    Tiling(256, 1.0): ("chief", "chief-slide-encoder", "conch-madeleine", "madeleine"),
    Tiling(224, 0.5): (
        "h-optimus-0", "h-optimus-1", "h0-mini", "lunit-dino-s8-moozy", "moozy", "prism", "prism2", "virchow",
        "virchow2",
    ),
}  # fmt: skip


def encoder_tiling(name: str) -> Tiling:
    """Returns the patches that an encoder is given where the cohort file declares none: as it was trained on.

    A model of the hub is given those of the encoder of its name. Others have 256 px at 0.5 µm per pixel.

    Example:
        >>> str(encoder_tiling("titan")), str(encoder_tiling("uni2"))
        ('512 px at 0.5 µm per pixel', '256 px at 0.5 µm per pixel')
        >>> encoder_tiling("hf_hub:paige-ai/Virchow2") == encoder_tiling("virchow2")
        True
    """
    on_hub = re.fullmatch(r"hf[-_]hub:[^/]+/([^@]+)(?:@.*)?", name)
    name = name if on_hub is None else on_hub[1]
    return next(
        (tiling for tiling, names in _TILINGS.items() if any(is_same_encoder(name, known) for known in names)), Tiling()
    )


@runtime_checkable
class SlideEncoder(_Encoder, Protocol):
    """What turns the patches of a slide into one vector."""

    @property
    def patches(self) -> PatchEncoder:
        """What encodes the patches that it reads."""

    def encode(self, slide: Any, *, spacing_px: int) -> Float32[np.ndarray, " feature"]:
        """Returns the vector of a slide, given its `SlideFeatures` and the distance of patches in level-0 pixels."""


def encoder_id(name: str) -> str:
    """Returns the encoder's identifier in file names and feature files; applying it twice changes nothing.

    Example:
        >>> encoder_id("timm:resnet50.a1_in1k"), encoder_id("hf_hub:owner/uni"), encoder_id("resnet18@/data/v2.pth")
        ('resnet50.a1_in1k', 'hf_hub-owner-uni', 'resnet18@v2')
        >>> encoder_id("/data/mine.pt")
        'mine'
    """
    architecture, weights = split_name(name)
    script = script_file(name)
    if script is not None:
        identifier = script.stem
    else:
        identifier = architecture if weights is None else f"{architecture}@{weights.stem}"
    return re.sub(r"[^\w.@+-]+", "-", identifier)


def is_same_encoder(name: str, other: str) -> bool:
    """Returns whether two identifiers name one encoder, as TRIDENT, STAMP and the hub write it.

    Example:
        >>> is_same_encoder("uni_v2", "uni2"), is_same_encoder("conch_v15", "conch1_5"), is_same_encoder("uni", "uni2")
        (True, True, False)
    """
    return _usual_name(name) == _usual_name(other)


def _usual_name(name: str) -> str:
    letters = re.sub(r"[\W_]+", "", name.lower())
    return _SYNONYMS.get(letters, letters)


def split_name(name: str) -> tuple[str, Path | None]:
    """Returns the architecture and, for weights on disk, their file."""
    architecture, _, weights = name.removeprefix("timm:").partition("@")
    if Path(weights).suffix in _WEIGHT_SUFFIXES:
        return architecture, Path(weights)
    return name.removeprefix("timm:"), None  # a revision after @ belongs to the hub's name


def script_file(name: str) -> Path | None:
    """Returns the TorchScript file that a name is; None for every other name, weights on disk (`NAME@FILE`) included.

    Example:
        >>> script_file("mine.pt") == Path("mine.pt"), script_file("resnet18@mine.pt"), script_file("uni2")
        (True, None, None)
    """
    return Path(name) if "@" not in name and Path(name).suffix in _SCRIPT_SUFFIXES else None


def is_file(name: str) -> bool:
    """Returns whether an encoder's weights are a file that its name tells.

    Example:
        >>> is_file("mine.pt"), is_file("resnet18@mine.pth"), is_file("uni2")
        (True, True, False)
    """
    return script_file(name) is not None or split_name(name)[1] is not None

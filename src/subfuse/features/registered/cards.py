"""What lazyslide-models says of its encoders, before any is loaded: what they encode, their licence and needs."""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from subfuse.errors import ConfigurationError

_TITAN, _TITAN_PATCHES = "titan", "conch_v1.5"  # one class: the slide encoder, which brings its patch encoder
_PACKAGES = {  # beyond lazyslide-models: module -> how it is installed, and who needs it
    "conch": ("git+https://github.com/mahmoodlab/CONCH.git", ("conch", "conch-madeleine")),
    "environs": ("environs sacremoses", ("prism",)),
    "flash_attn": ("flash-attn --no-build-isolation", ("prism2",)),
    "gigapath": (
        "git+https://github.com/prov-gigapath/prov-gigapath",
        ("gigapath-slide-encoder", "gigapath-flash-slide-encoder"),
    ),
    "moozy": ("moozy", ("moozy",)),
    "musk": ("git+https://github.com/lilab-stanford/MUSK", ("musk",)),
    "open_clip": ("open_clip_torch", ("biomedclip", "omiclip", "quiltnet-b32", "quiltnet-b16", "quiltnet-b16-pmb")),
    "transformers": (
        "transformers",
        ("conceptclip", "genbio-pathfm", "hibou-b", "hibou-l", "keep", "mascaret", "medsiglip", "midnight", "musk",
         "phaet", "phikon", "phikonv2", "plip", "prism", "prism2", "rudolfv2", "rudolfv2-b", "rudolfv2-s", "titan",
         "conch_v1.5"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class EncoderCard:
    """One encoder."""

    name: str
    encodes: Literal["patches", "slides"]
    n_features: int | None  # None: not stated
    licence: str
    for_commerce: bool  # whether the licence allows it, as far as is stated
    is_gated: bool  # its page asks to agree to terms first
    page: str | None  # on the hub
    patch_encoder: str | None  # of a slide encoder: what its patches must be encoded with

    @property
    def missing(self) -> tuple[str, ...]:
        """How to install the packages that it needs and that are not here."""
        names = (self.name, self.patch_encoder)
        return tuple(
            f"pip install {install}"
            for module, (install, needed_by) in _PACKAGES.items()
            if set(needed_by) & set(names) and find_spec(module) is None
        )

    @property
    def is_cached(self) -> bool:
        """Whether something of its page was downloaded before."""
        if self.page is None:
            return False
        from huggingface_hub import constants

        folder = "models--" + "--".join(self.page.rstrip("/").split("/")[-2:])
        return (Path(constants.HF_HUB_CACHE) / folder).is_dir()


@lru_cache(maxsize=1)
def _registry() -> Any:
    """The registry; None without the extra `wsi`. It loads torch."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of libraries of its own
            from lazyslide_models import MODEL_REGISTRY
    except ImportError:
        return None
    return MODEL_REGISTRY


def encoder_cards() -> dict[str, EncoderCard]:
    """Returns all encoders of patches and of slides by name, sorted; none without the extra `wsi`.

    Nothing is loaded, and nothing is asked of any server.
    """
    registry = _registry() or {}
    found = {name: card for name in sorted(registry) if (card := _card(name, registry[name])) is not None}
    return {name: card for name, card in found.items() if card.patch_encoder is None or card.patch_encoder in found}


def slide_encoder_card(name: str) -> EncoderCard | None:
    """Returns the card of a slide encoder; None for names of anything else.

    Example:
        >>> slide_encoder_card("efficientnet-lite0") is None
        True
    """
    if any(mark in name for mark in ":@/"):  # of the hub, or of a file: lazyslide-models need not be asked
        return None
    card = encoder_cards().get(name)
    return card if card is not None and card.encodes == "slides" else None


def _card(name: str, kind: type) -> EncoderCard | None:
    """None for models that encode neither, such as those that find nuclei."""
    of_slides = hasattr(kind, "encode_slide") and name != _TITAN_PATCHES
    if not (of_slides or hasattr(kind, "encode_image")):
        return None
    patches = getattr(kind, "vision_encoder", None)
    licence = getattr(kind, "license", None) or "not stated"
    return EncoderCard(
        name=name,
        encodes="slides" if of_slides else "patches",
        n_features=getattr(kind, "encode_dim", None),
        licence=licence if isinstance(licence, str) else " and ".join(licence),
        for_commerce=bool(getattr(kind, "commercial", False)),
        is_gated=bool(getattr(kind, "is_gated", False)),
        page=getattr(kind, "hf_url", None),
        patch_encoder=(_TITAN_PATCHES if patches == _TITAN else patches) if of_slides else None,
    )


def encoder_class(card: EncoderCard) -> Any:
    """Returns the class behind a card.

    Raises:
        ConfigurationError: A package that it needs is missing.
    """
    if card.missing:
        raise ConfigurationError(
            f"Encoder {card.name} needs packages that are not here. Run: {' && '.join(card.missing)}."
        )
    return _registry()[card.name]

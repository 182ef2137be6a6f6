"""Encoders of patches and of whole slides that lazyslide-models knows by name."""

from subfuse.lazy import on_first_use

_NAMES = {
    "EncoderCard": "cards",
    "RegisteredSlideEncoder": "slide_encoders",
    "encoder_cards": "cards",
    "load_encoder": "slide_encoders",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)

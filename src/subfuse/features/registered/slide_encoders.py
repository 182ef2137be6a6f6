"""Slide encoders of lazyslide-models: features of one patch encoder in, one vector per slide out."""

import hashlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from subfuse.errors import ConfigurationError, DataError
from subfuse.features.encoder import PatchEncoder, SlideEncoder, encoder_id, is_same_encoder
from subfuse.features.hub_encoders import sha256_of_weights
from subfuse.features.patch_encoders import load_patch_encoder
from subfuse.features.registered.cards import EncoderCard, slide_encoder_card
from subfuse.features.registered.patch_encoders import built
from subfuse.features.store import SlideFeatures


class RegisteredSlideEncoder:
    """A slide encoder, and the patch encoder whose features it reads."""

    def __init__(self, card: EncoderCard, model: Any, patches: PatchEncoder, *, device: str | torch.device) -> None:
        self.name = encoder_id(card.name)
        self.patches = patches
        weights = sha256_of_weights(model.model)
        self.sha256 = hashlib.sha256(f"{weights} {patches.sha256}".encode()).hexdigest()
        self._device = torch.device(device)
        self._model = model.to(self._device)
        self._n_read = getattr(model, "slide_input_dim", None) or patches.dim  # of the features: the first ones
        self.dim = len(
            self._encoded(np.zeros((4, patches.dim), np.float32), np.indices((2, 2)).reshape(2, 4).T * 256, 256)
        )

    def encode(self, slide: SlideFeatures, *, spacing_px: int) -> Float32[np.ndarray, " feature"]:
        """Returns the vector of a slide.

        Args:
            slide: Its patches, of the encoder `patches`.
            spacing_px: Distance of neighbouring patches in level-0 pixels.

        Raises:
            DataError: The patches are of another encoder, have another number of features or no places, or the vector
                is not finite.
        """
        if not is_same_encoder(slide.encoder, self.patches.name):
            raise DataError(
                f"Slide encoder {self.name} reads patches of {self.patches.name}. Found those of {slide.encoder}. "
                f"Extract them with {self.patches.name}, or choose another slide encoder."
            )
        if slide.features.shape[1] != self.patches.dim:
            raise DataError(
                f"Slide encoder {self.name} reads {self.patches.dim} features of {self.patches.name}. Found "
                f"{slide.features.shape[1]}: a part of them, or of another version. Extract all of them."
            )
        if not slide.has_coordinates:
            raise DataError(f"Slide encoder {self.name} needs to know where patches lie. Found patches without places.")
        vector = self._encoded(slide.features.astype(np.float32), slide.coords, spacing_px)
        if not np.isfinite(vector).all():
            raise DataError(f"Slide encoder {self.name} must return numbers. Found a vector that is not finite.")
        return vector

    def _encoded(self, features: np.ndarray, coords: np.ndarray, spacing_px: int) -> Float32[np.ndarray, " feature"]:
        read = torch.as_tensor(features[None, :, : self._n_read], device=self._device)
        places = torch.as_tensor(np.ascontiguousarray(coords[None]), dtype=torch.long, device=self._device)
        spacing = {"base_tile_size": spacing_px, "patch_sizes": float(spacing_px)}  # as TITAN and MOOZY call it
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=self._device.type == "cuda"):
            found = torch.as_tensor(self._model.encode_slide(read, places, **spacing)["embeddings"])
        if found.numel() != found.shape[-1]:
            raise ConfigurationError(
                f"Slide encoder {self.name}: one vector per slide is required. Found an array {tuple(found.shape)}. "
                "Choose another encoder."
            )
        return found.reshape(-1).float().cpu().numpy()


def load_encoder(name: str, *, device: str | torch.device = "cpu") -> PatchEncoder | SlideEncoder:
    """Loads an encoder by name, of patches or of slides.

    Args:
        name: As for `load_patch_encoder`, or a slide encoder, see `encoder_cards`.
        device: Where it runs.

    Raises:
        ConfigurationError: As for `load_patch_encoder`; or a slide encoder fails on features of its patch encoder.
    """
    card = slide_encoder_card(name)
    if card is None:
        return load_patch_encoder(name, device=device)
    assert card.patch_encoder is not None  # see `encoder_cards`
    patches = load_patch_encoder(card.patch_encoder, device=device)
    model = built(card)
    try:
        return RegisteredSlideEncoder(card, model, patches, device=device)
    except (RuntimeError, ValueError, AssertionError) as error:  # of the models' own code
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"Slide encoder {name} cannot be run on {device} with features of {card.patch_encoder} ({reason}). Try "
            "another --device, or another encoder."
        ) from error

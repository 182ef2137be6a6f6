"""Patch encoders of lazyslide-models: images in, one feature vector per image out."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from subfuse.errors import ConfigurationError
from subfuse.features.encoder import BATCH, encoder_id
from subfuse.features.hub_encoders import hub_access, hub_is_reachable, sha256_of_weights
from subfuse.features.registered.cards import EncoderCard, encoder_class

_CPU_BATCH = 8


class RegisteredPatchEncoder:
    """A model of lazyslide-models, with the preprocessing that goes with it."""

    def __init__(self, name: str, model: Any, *, device: str | torch.device = "cpu") -> None:
        self.name = encoder_id(name)
        self.sha256 = sha256_of_weights(model.model)
        self._device = torch.device(device)
        self._transform = model.get_transform()
        self._model = model.to(self._device)
        self._batch = _CPU_BATCH if self._device.type == "cpu" else BATCH
        self.dim = self.encode(np.zeros((1, 224, 224, 3), np.uint8)).shape[1]

    def encode(self, images: UInt8[np.ndarray, "batch height width 3"]) -> Float32[np.ndarray, "batch feature"]:
        """Returns features, in float16 arithmetic on CUDA devices.

        Raises:
            ConfigurationError: The model returns something else than one vector per image.
        """
        parts = []
        for start in range(0, len(images), self._batch):
            batch = torch.stack([self._transform(image) for image in images[start : start + self._batch]])
            with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=self._device.type == "cuda"):
                features = torch.as_tensor(self._model.encode_image(batch.to(self._device)))
            if features.ndim != 2 or len(features) != len(batch):
                raise ConfigurationError(
                    f"Patch encoder {self.name}: one vector per image is required. Found an array "
                    f"{tuple(features.shape)} of {len(batch)} images. Choose another encoder."
                )
            parts.append(features.float().cpu())
        return torch.cat(parts).numpy()


def load_registered(card: EncoderCard, *, device: str | torch.device = "cpu") -> RegisteredPatchEncoder:
    """Loads a patch encoder; its weights come from the hub or its cache.

    Raises:
        ConfigurationError: As for `built`.
    """
    return RegisteredPatchEncoder(card.name, built(card), device=device)


def built(card: EncoderCard) -> Any:
    """Returns a model with its weights, frozen.

    Raises:
        ConfigurationError: A package is missing, its page asks to agree to terms, or the weights cannot be loaded.
    """
    kind = encoder_class(card)
    is_reachable = hub_is_reachable()
    with _told(card, is_reachable), hub_access(is_reachable), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the models' own libraries
        model = kind()
        model.model.requires_grad_(False)
        if not isinstance(model.model, torch.fx.GraphModule):  # an exported one is fixed as it is
            model.model.eval()
    return model


@contextmanager
def _told(card: EncoderCard, is_reachable: bool) -> Iterator[None]:
    """Turns whatever the hub's client and the models raise into one line."""
    from huggingface_hub.errors import GatedRepoError

    try:
        yield
    except GatedRepoError as error:
        raise ConfigurationError(
            f"Encoder {card.name} is gated: agree to its terms at {card.page} ({card.licence}), and set HF_TOKEN to a "
            "token of that account."
        ) from error
    except Exception as error:  # of any type: code of many authors runs here
        reason = str(error).strip().partition("\n")[0]
        if not is_reachable:
            reason = "no network, and nothing in the local cache"
        gate = f" Agree to its terms at {card.page} and set HF_TOKEN." if card.is_gated else ""
        raise ConfigurationError(
            f"Encoder {card.name}: its weights could not be loaded ({reason}). Connect.{gate} `subfuse encoders` lists "
            "others."
        ) from error

"""Small models under names of lazyslide-models, whose answers are known."""

from typing import Any

import pytest
import torch
from lazyslide_models import MODEL_REGISTRY, ImageModel, ModelTask, SlideEncoderModel

from subfuse.features.registered import cards


class Colours(ImageModel):
    """The mean of every channel of the pixels it is given, in 0 to 1, and its weight."""

    task = ModelTask.vision
    license = "MIT"
    commercial = True
    encode_dim = 4

    def __init__(self) -> None:
        self.model = torch.nn.Linear(1, 1)
        torch.nn.init.constant_(self.model.weight, 0.25)
        torch.nn.init.zeros_(self.model.bias)

    def get_transform(self) -> Any:
        from torchvision.transforms.v2 import Compose, ToDtype, ToImage

        return Compose([ToImage(), ToDtype(torch.float32, scale=True)])

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        means = image.mean(dim=(2, 3))
        return torch.cat([means, self.model.weight.expand(len(image), 1)], dim=1)


class Weighted(SlideEncoderModel):
    """The mean of the features, weighted by the column of a patch, counted in its distances from the next."""

    task = ModelTask.slide_encoder
    license = ("MIT", "CC-BY-NC-4.0")
    is_gated = True
    hf_url = "https://huggingface.co/owner/weighted"
    vision_encoder = "ctranspath"

    def __init__(self) -> None:
        self.model = torch.nn.Linear(2, 1)
        torch.nn.init.ones_(self.model.weight)

    def encode_slide(self, embeddings: torch.Tensor, coords: Any = None, **others: Any) -> Any:
        weights = 1.0 + coords[..., :1] / others["base_tile_size"]
        assert others["patch_sizes"] == others["base_tile_size"]
        assert embeddings.ndim == coords.ndim == 3
        return {"embeddings": (embeddings * weights).sum(dim=1) / weights.sum(dim=1)}


def stand_in(monkeypatch: pytest.MonkeyPatch, **kinds: type) -> None:
    """Registers models, by names with `_` for `-`, for the time of a test."""
    for name, kind in kinds.items():
        monkeypatch.setitem(MODEL_REGISTRY._data, name.replace("_", "-"), kind)
    cards._registry.cache_clear()

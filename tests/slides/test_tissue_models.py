"""A model of tissue on a picture of a slide: a stand-in that knows which pixels it was shown."""

import numpy as np
import pytest
import torch

from subfuse.errors import ConfigurationError

pytest.importorskip("lazyslide_models")
from lazyslide_models import MODEL_REGISTRY, SegmentationModel, SegmentationOutput

from subfuse.slides import tissue_models
from subfuse.slides.tissue_models import model_outline


class Greenish(SegmentationModel):
    """Finds what is green, of pictures at 10 µm per pixel."""

    classes = ("Background", "Tissue")

    def __init__(self) -> None:
        self.model = torch.nn.Identity()

    def get_transform(self) -> object:
        from torchvision.transforms.v2 import Compose, ToDtype, ToImage

        return Compose([ToImage(), ToDtype(torch.float32, scale=True)])

    def segment(self, image: torch.Tensor) -> SegmentationOutput:
        found = ((image[:, 1:2] > 0.5) & (image[:, :1] < 0.2)).float()
        return SegmentationOutput(probability_map=torch.cat([1 - found, found], dim=1), classes=self.classes)


class Unreachable(SegmentationModel):
    def __init__(self) -> None:
        raise OSError("cannot reach the hub\nat all")

    def segment(self, image: torch.Tensor) -> SegmentationOutput:
        raise NotImplementedError


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch):
    tissue_models._loaded.cache_clear()
    yield lambda kind: monkeypatch.setitem(MODEL_REGISTRY._data, "grandqc-tissue", kind)
    tissue_models._loaded.cache_clear()


@pytest.mark.parametrize("mpp", [10.0, 2.5])
def test_what_the_model_finds_is_outlined_in_pixels_of_the_picture(mpp: float, registered) -> None:
    registered(Greenish)
    scale = round(10 / mpp)
    image = np.full((60 * scale, 80 * scale, 3), 240, np.uint8)
    image[10 * scale : 40 * scale, 20 * scale : 50 * scale] = (10, 200, 10)
    image[5 * scale : 9 * scale, 60 * scale : 64 * scale] = (10, 200, 10)  # 40 µm wide: a speck

    outline = model_outline(image, mpp=mpp, model="grandqc-tissue")

    assert outline.bounds == pytest.approx((20 * scale, 10 * scale, 50 * scale, 40 * scale), abs=1.01 * scale)
    assert outline.area == pytest.approx(900 * scale**2, rel=0.08)


def test_empty_glass_has_no_outline(registered) -> None:
    registered(Greenish)
    assert model_outline(np.full((40, 50, 3), 240, np.uint8), mpp=10.0, model="grandqc-tissue").is_empty


def test_the_model_runs_on_the_device_that_is_asked_for(registered, monkeypatch) -> None:
    from lazyslide import segmentation

    registered(Greenish)
    asked = {}
    monkeypatch.setattr(segmentation, "tissue", lambda slide, **options: asked.update(options))
    image = np.full((40, 50, 3), 240, np.uint8)
    for device in ("cpu", "cuda:1"):
        assert model_outline(image, mpp=10.0, model="grandqc-tissue", device=device).is_empty
        assert asked["device"] == device


def test_weights_that_cannot_be_loaded_are_told_in_one_line(registered) -> None:
    registered(Unreachable)
    with pytest.raises(
        ConfigurationError, match=r"of grandqc-tissue could not be loaded \(cannot reach the hub\)\. Con"
    ):
        model_outline(np.full((40, 50, 3), 240, np.uint8), mpp=10.0, model="grandqc-tissue")

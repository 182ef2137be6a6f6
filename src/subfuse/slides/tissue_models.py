"""Tissue found by a segmentation model of lazyslide-models, on a picture of the whole slide."""

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt8

from subfuse.errors import ConfigurationError
from subfuse.slides.tissue import MIN_HOLE_UM2, MIN_TISSUE_UM2
from subfuse.slides.tissue_rule import TISSUE_MODELS


def model_outline(image: UInt8[np.ndarray, "height width 3"], *, mpp: float, model: str, device: str = "cpu") -> Any:
    """Returns the outline of the tissue in pixels of the image (a shapely geometry, perhaps empty).

    The model runs in overlapping windows, as lazyslide runs it.

    Args:
        image: The slide in RGB, at least as fine as the model was trained on, see `TISSUE_MODELS`.
        mpp: µm per pixel of the image.
        model: Its key in lazyslide-models.
        device: Where it runs, as PyTorch names it.

    Raises:
        ConfigurationError: The extra `wsi` is missing, or the model's weights cannot be loaded.
    """
    import shapely

    loaded = _loaded(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of spatialdata's own libraries, and where no tissue is found
        from lazyslide.segmentation import tissue
        from spatialdata import SpatialData
        from spatialdata.models import Image2DModel
        from wsidata import WSIData
        from wsidata.reader import SpatialDataImage2DReader

        picture = Image2DModel.parse(np.moveaxis(image, -1, 0), dims=("c", "y", "x"))
        slide = WSIData.from_spatialdata(SpatialData(), reader=SpatialDataImage2DReader(picture, key="overview"))
        slide.set_mpp(mpp)
        working = TISSUE_MODELS[model]
        tissue(
            slide,
            model=loaded,
            mpp=working,
            bbox_ratio=0.0,  # what touches the edge of the picture is tissue too
            min_area=max(1.0, MIN_TISSUE_UM2 / working**2),
            min_hole_area=max(1.0, MIN_HOLE_UM2 / working**2),
            device=device,
            key_added="tissue",
        )
    found = list(slide["tissue"].geometry) if "tissue" in slide.shapes else []
    return shapely.union_all([shapely.make_valid(shape) for shape in found])


@lru_cache(maxsize=1)
def _loaded(model: str) -> Any:
    try:
        from lazyslide_models import MODEL_REGISTRY
    except ImportError as error:
        raise ConfigurationError(
            f"Finding tissue with {model} needs lazyslide ({error}). Run: pip install 'subfuse[wsi]'."
        ) from error
    try:
        return MODEL_REGISTRY[model]()
    except Exception as error:  # the hub's client and torch raise their own types
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"slides.tissue: the weights of {model} could not be loaded ({reason}). Connect once, so that they are "
            "kept in the local cache, or use `tissue: fixed`."
        ) from error

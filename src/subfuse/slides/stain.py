"""Stain normalisation: patches as if they had been stained and scanned like a fixed reference."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, UInt8

from subfuse.errors import DataError

Stain = Literal["none", "macenko", "reinhard"]
Image = UInt8[np.ndarray, "height width 3"]

_WHITE = 240.0  # transmitted light
_LEAST_ABSORBANCE = 0.15  # of stained pixels, in every channel
_LEAST_PIXELS = 1000
_LEAST_SPREAD = 1.0  # of L*, a* and b*: what compression leaves of one colour is below it
_WORST_CONDITION = 100.0  # of the two stains; those of the reference have 2
_STAINS = np.array([[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])  # channel by haematoxylin and eosin
_AMOUNTS = np.array([1.9705, 1.0308])  # their 99th percentiles; both are torchstain's
_LAB_MEAN, _LAB_SPREAD = np.array([72.91, 20.83, -4.95]), np.array([18.56, 14.89, 5.68])
_REFERENCES = {  # fixed, so that nothing is learnt from patients
    "macenko": {"stains": _STAINS.tolist(), "amounts": _AMOUNTS.tolist()},
    "reinhard": {"lab_mean": _LAB_MEAN.tolist(), "lab_spread": _LAB_SPREAD.tolist()},
}


def recorded_stain(method: str) -> str | None:
    """Returns what is kept with the features: the method and its reference; None where colours are left as they are."""
    return None if method == "none" else json.dumps({"method": method, "reference": _REFERENCES[method]})


def method_of(recorded: str | None) -> str:
    """Returns the method of what `recorded_stain` returned.

    Raises:
        DataError: It is no such record, or has another reference.
    """
    found = next((method for method in get_args(Stain) if recorded_stain(method) == recorded), None)
    if found is None:
        raise DataError(f"a recorded stain normalisation of this version is required. Found {str(recorded)[:80]!r}.")
    return found


def fit_stain(method: str, sample: Sequence[Image], path: Path) -> Callable[[Image], Image]:
    """Returns what normalises the patches of one slide, whose stains are estimated over a sample of them together.

    Macenko et al. (2009) find the two stains in the plane of absorbance; torchstain estimates them. Its own
    normalisation would estimate them anew for each patch. Reinhard et al. (2001) shift and scale colours in L*a*b*,
    here by mean and spread of stained pixels.

    Args:
        method: "macenko" or "reinhard".
        sample: Patches of the slide.
        path: Of the slide, for messages.

    Raises:
        DataError: Too little of the sample is stained, or its stains cannot be told apart.
    """
    pixels = np.concatenate([image.reshape(-1, 3) for image in sample] or [np.empty((0, 3), np.uint8)])
    is_stained = (_absorbance(pixels) >= _LEAST_ABSORBANCE).all(axis=1)
    if np.count_nonzero(is_stained) < _LEAST_PIXELS:
        raise _not_estimated(path, f"{np.count_nonzero(is_stained)} stained pixels in {len(sample)} patches")
    colours = _lab(pixels[is_stained][:, None]).reshape(-1, 3)
    spread = colours.std(axis=0)
    if not (spread > _LEAST_SPREAD).all():
        raise _not_estimated(path, "one colour alone")
    if method == "reinhard":
        return partial(_reinhard, mean=colours.mean(axis=0), spread=spread)
    stains, amounts = _stains(pixels[is_stained])
    if np.linalg.cond(stains) > _WORST_CONDITION or not (amounts > 0).all():
        raise _not_estimated(path, "stains that are one")
    return partial(_macenko, inverse=np.linalg.pinv(stains), amounts=amounts)


def _stains(pixels: UInt8[np.ndarray, "pixel 3"]) -> tuple[Float[np.ndarray, "3 2"], Float[np.ndarray, "2"]]:
    """Absorbance of haematoxylin, which absorbs red more, and of eosin, and the 99th percentile of either's amount."""
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

    of_slide = NumpyMacenkoNormalizer()
    of_slide.fit(pixels, Io=_WHITE, beta=_LEAST_ABSORBANCE)
    return of_slide.HERef, of_slide.maxCRef


def _not_estimated(path: Path, found: str) -> DataError:
    return DataError(
        f"{path}: two stains that can be told apart are required where slides.stain normalises them. Found {found}. "
        "Leave the slide out, or remove `stain`."
    )


def _absorbance(pixels: UInt8[np.ndarray, "*axis 3"]) -> Float[np.ndarray, "*axis 3"]:
    return -np.log((pixels.astype(np.float64) + 1) / _WHITE)


def _macenko(image: Image, *, inverse: Float[np.ndarray, "2 3"], amounts: Float[np.ndarray, " 2"]) -> Image:
    found = _absorbance(image) @ inverse.T * (_AMOUNTS / amounts)
    return np.clip(_WHITE * np.exp(-found @ _STAINS.T), 0, 255).astype(np.uint8)


def _lab(image: Image) -> Float[np.ndarray, "height width 3"]:
    import cv2

    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _reinhard(image: Image, *, mean: Float[np.ndarray, " 3"], spread: Float[np.ndarray, " 3"]) -> Image:
    import cv2

    moved = ((_lab(image) - mean) / spread * _LAB_SPREAD + _LAB_MEAN).astype(np.float32)
    moved[..., 0] = moved[..., 0].clip(0, 100)  # whiter than white would be another hue
    return (cv2.cvtColor(moved, cv2.COLOR_LAB2RGB) * 255).round().astype(np.uint8)

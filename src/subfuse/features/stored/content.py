"""What the content of a feature file must be: finite, and what its hash says that it was written with."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32

from subfuse.errors import DataError

CONTENT_HASH = "content_sha256"  # of features, places and all other attributes; see `require_content`


def require_content(
    features: np.ndarray,
    coords: np.ndarray,
    attributes: Mapping[str, Any],
    path: Path,
    *,
    changed: Callable[[], DataError] | None = None,
) -> None:
    """Compares what was read from a file with the hash and the slide that it was written with.

    Args:
        features: Of the file.
        coords: Of the file.
        attributes: Of `coords`.
        path: The file.
        changed: Returns the error where features in another file can alone be at fault.

    Raises:
        DataError: Something changed since: a byte, a zeroed tail, an exchanged file. Names the file.
    """
    found = attributes.get(CONTENT_HASH)
    if found is None:
        words = "Found no hash of it, as in files of an earlier version"
    elif found != content_sha256(features, coords, attributes):
        if changed is not None:
            raise changed()
        words = "Found another one: bytes changed on the disk or on the way to it"
    elif attributes.get("slide_id") != path.stem:
        words = f"Found that of slide {attributes.get('slide_id')}"
    else:
        return
    raise DataError(
        f"{path}: the content with which the file was written is required. {words}. Run `subfuse prepare` again: it "
        f"{'adds it' if found is None else 'makes this slide anew and keeps the others'}."
    )


def content_sha256(features: np.ndarray, coords: np.ndarray, attributes: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of both arrays, with shape and type, and of all attributes but the hash itself."""
    digest = hashlib.sha256()
    for array in (features, coords):
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    plain = {name: getattr(value, "item", lambda value=value: value)() for name, value in attributes.items()}
    plain.pop(CONTENT_HASH, None)
    digest.update(json.dumps(plain, sort_keys=True).encode())
    return digest.hexdigest()


def require_finite(
    features: Float16[np.ndarray, "patch feature"] | Float32[np.ndarray, "patch feature"], path: Path
) -> None:
    """Raises a DataError where a feature is NaN or infinite, as float16 makes values beyond its range."""
    is_finite = np.isfinite(features).all(axis=1)
    if not is_finite.all():
        raise DataError(
            f"{path}: features must be finite and below 65504. Found {np.count_nonzero(~is_finite)} of "
            f"{len(features)} patches that are not, the first at row {np.argmin(is_finite)}. Extract the slide again."
        )

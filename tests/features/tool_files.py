"""Feature files as other tools write them, and how a test reads them."""

from pathlib import Path

import h5py
import numpy as np

from subfuse.features.other_tools import opened_features
from subfuse.features.store import SlideFeatures

N_PATCHES, N_FEATURES = 6, 4
FEATURES = np.random.default_rng(0).normal(size=(N_PATCHES, N_FEATURES)).astype(np.float32)
CORNERS = np.array([[0, 0], [512, 0], [1024, 0], [0, 512], [512, 512], [3000, 2048]])


def write_hdf5(path: Path, *, on_file: dict | None = None, on_coords: dict | None = None, **datasets) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
        file.attrs.update(on_file or {})
        if on_coords:
            file["coords"].attrs.update(on_coords)
    return path


def read(path: Path, **declared) -> tuple[SlideFeatures, str, tuple[str, ...]]:
    with opened_features(path, **declared) as file:
        return file.slide_features(path), file.layout, file.warnings

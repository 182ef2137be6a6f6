"""Patch features as other tools write them, one reader per layout; the content decides which layout a file has.

| layout | recognised by |
|---|---|
| subfuse, TRIDENT, CLAM | HDF5 with `features` and `coords` (level-0 pixels) |
| STAMP | HDF5 with `feats` or `patch_embeddings`, `coords` in µm |
| released code | HDF5 with `Res_feature`: no coordinates |
| CLAM tensor | `.pt` with one tensor; coordinates from `h5_files/<slide>.h5` beside its folder |
| wsidata | zarr store with a table of features of tiles |
"""

import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from subfuse.bounded_files import require_plausible_size, require_regular_file
from subfuse.errors import DataError, preview
from subfuse.features.encoder import is_same_encoder
from subfuse.features.feature_file import FeatureFile, bag_shape, without_coordinates
from subfuse.features.hdf5_files import damage_named, opened_hdf5
from subfuse.features.hdf5_layouts import read_hdf5
from subfuse.features.store import UNKNOWN_ENCODER
from subfuse.features.trident_job import encoder_of_folder, state_files
from subfuse.features.wsidata import read_wsidata
from subfuse.files import require_whole_tensors
from subfuse.identifiers import LONGEST_NAME, is_plain_label

_OTHER_CLASS = re.compile(r"Unsupported global: GLOBAL (\S+)")  # in what torch says of a file with more than tensors


@contextmanager
def opened_features(path: Path, *, mpp: float | None = None, encoder: str | None = None) -> Iterator[FeatureFile]:
    """Opens a feature file of any known layout; features are read only when asked for.

    Args:
        path: An HDF5 file, a `.pt` file or a zarr store.
        mpp: µm per level-0 pixel as declared; preferred to what the file records.
        encoder: Name of the encoder as declared: used where the file does not say, and to choose among several
            feature tables of a wsidata store.

    Raises:
        DataError: The file is missing, damaged, of an unknown layout, without patches, or its pixel size is unknown.
        ConfigurationError: The extra `wsi` is missing, for a zarr store.
    """
    path = Path(path)
    if path.is_dir():
        yield _named(read_wsidata(path, mpp, encoder), path, encoder)
    elif path.is_file() and (path.suffix.lower() == ".pt" or zipfile.is_zipfile(path)):
        with _opened_tensor(path, mpp) as file:
            yield _named(file, path, encoder)
    else:
        with opened_hdf5(path) as hdf5:
            yield _named(read_hdf5(hdf5, path, mpp), path, encoder)


def files_behind(path: Path) -> list[Path]:
    """Returns every file that `opened_features` may read for this one: what to watch for changes."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    beside = [_coordinates_of_tensor(path)] if path.suffix.lower() == ".pt" else []
    return [path, *(file for file in beside if file.exists()), *state_files(path)]


def _named(file: FeatureFile, path: Path, declared: str | None) -> FeatureFile:
    """Fills in the encoder: the file's own word, else the declared, else that of the folder's name (TRIDENT).

    Raises:
        DataError: The file's own word is no name.
    """
    if not is_plain_label(file.encoder):
        raise DataError(
            f"{path}: the encoder's name must be printable, at most {LONGEST_NAME} bytes. Found "
            f"{file.encoder[:40]!r} ({len(file.encoder)} characters). Extract the slide again."
        )
    of_folder = encoder_of_folder(path.parent.name)
    if file.encoder == UNKNOWN_ENCODER:
        named = replace(file, encoder=declared or of_folder or UNKNOWN_ENCODER)
        if declared is None or of_folder is None or is_same_encoder(declared, of_folder):
            return named
        note = f"the features are of encoder {declared}, as slides.encoder says; their folder is {path.parent.name}"
        return replace(named, warnings=(*file.warnings, note))
    other = declared or of_folder
    if other in (None, file.encoder):
        return file
    where = "slides.encoder" if declared else "the folder"
    note = f"the features are of encoder {file.encoder}, as their files say; {where} says {other}"
    return replace(file, warnings=(*file.warnings, note))


@contextmanager
def _opened_tensor(path: Path, mpp: float | None) -> Iterator[FeatureFile]:
    """One tensor as CLAM saves it; its coordinates are in the HDF5 file of the same name."""
    tensor = _loaded_tensor(path)
    shape = bag_shape(tuple(tensor.shape), path, f"a tensor {tuple(tensor.shape)}")

    def read() -> Any:
        require_whole_tensors(path)
        return tensor.float().numpy()

    sibling = _coordinates_of_tensor(path)
    if not sibling.exists():
        bare = without_coordinates("tensor", shape, read)
        yield replace(bare, warnings=(*bare.warnings, *_unread_places(path, sibling)))
        return
    with opened_hdf5(sibling) as file:
        found = read_hdf5(file, sibling, mpp)
        if found.shape != shape:
            raise DataError(
                f"{path}: its {shape[0]} patches x {shape[1]} features must be those of {sibling}. "
                f"Found {found.shape[0]} x {found.shape[1]} there. Extract the slide again."
            )
        yield replace(found, read=read, array=None)


def _coordinates_of_tensor(path: Path) -> Path:
    return path.parent.parent / "h5_files" / f"{path.stem}.h5"


def _unread_places(path: Path, sibling: Path) -> tuple[str, ...]:
    """Returns what is told of places that Slideflow writes beside its tensors, and CLAM in another folder."""
    if path.parent.name == "pt_files":
        return (f"CLAM writes the places of patches into `{sibling.parent.name}` beside `pt_files`: give both folders",)
    if not path.with_suffix(".index.npz").exists():
        return ()
    return (
        "places of patches in `<slide>.index.npz` (Slideflow) are not read: write them with the features into HDF5, as "
        "`coords` of the patches' upper left corners in level-0 pixels",
    )


def _loaded_tensor(path: Path) -> Any:
    """Loads without unpickling code; a file in the usual zip format is mapped, not read."""
    import torch

    require_regular_file(path, "feature file")
    required = "a complete file with one tensor (nothing but tensors is unpickled)"
    with damage_named(path, required):
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except pickle.UnpicklingError as error:
            other = _OTHER_CLASS.search(str(error))
            if other is None:
                raise
            raise DataError(
                f"{path}: one tensor is required, as nothing else is unpickled. Found {other[1]}. Save "
                "`torch.from_numpy(features)` where it is an array, or extract into HDF5."
            ) from error
    if not isinstance(loaded, torch.Tensor):
        keys = f" with {preview(loaded, limit=10)}" if isinstance(loaded, dict) else ""
        raise DataError(
            f"{path}: one tensor (patch, feature) is required. Found a {type(loaded).__name__}{keys}. "
            "Save the features alone, or use the HDF5 file."
        )
    if loaded.layout != torch.strided or loaded.is_quantized or loaded.is_complex() or loaded.device.type != "cpu":
        raise DataError(
            f"{path}: features must be plain real numbers. Found a tensor {loaded.dtype}, {loaded.layout}, on "
            f"{loaded.device}. Save `features.float().cpu()`."
        )
    require_plausible_size(path, "the tensor", loaded.numel(), loaded.element_size(), path.stat().st_size)
    return loaded

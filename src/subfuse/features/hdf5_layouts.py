"""Features in HDF5 as other tools lay them out: TRIDENT, CLAM, STAMP, this package, and the released code."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Num

from subfuse.errors import DataError, preview
from subfuse.features.feature_file import FeatureFile, bag_shape, unknown_mpp, without_coordinates
from subfuse.features.hdf5_files import (
    Attributes,
    hdf5_listing,
    is_held,
    stored_array,
)
from subfuse.features.patch_spacing import NO_PATCH_SIZE, spacing
from subfuse.features.store import UNKNOWN_ENCODER
from subfuse.features.stored.content import CONTENT_HASH, require_content
from subfuse.features.stored.in_place import ROWS, read_in_place
from subfuse.features.trident_job import recorded_mpp, unrecorded
from subfuse.slides.file_names import slide_id_of
from subfuse.slides.tissue import MPP_PLACE, disagreement, require_plausible_mpp, square_pixel

OF_PATIENTS = "STAMP, of patients"  # a vector of all slides of a patient
_NAMELESS = ("None", "none")  # TRIDENT's word for an encoder without a name
_ENCODER_NAMES = ("encoder", "extractor", "patch_encoder", "encoder_name", "feature_extractor", "model_name")
_PIXEL_SIZES = ("level0_mpp", "mpp", "mpp_x", "mpp_y")  # µm per level-0 pixel, the first that is there counts
_SLIDE_SIZES = (("slide_width_level0", "slide_height_level0"), ("level0_width", "level0_height"))
_STAMP_V1_PX, _STAMP_V1_UM = 224, 256.0  # STAMP before 2.0: coordinates in pixels of 256 µm / 224
_MICROMETRES = ("um", "µm", "\u03bcm")
_SAME_SCALE = 1.5  # nominal magnifications of scanners differ less from 10 / mpp


def is_of_one_slide(file: h5py.File) -> bool:
    """Returns whether a file is laid out as one of a single slide: with its features, or the places of its patches."""
    return any(is_held(file, name) for name in (*_HDF5_LAYOUTS, "coords"))


def read_hdf5(file: h5py.File, path: Path, mpp: float | None) -> FeatureFile:
    """Returns what an open HDF5 file holds, in whichever of the known layouts.

    Raises:
        DataError: Of no known layout, or of several; its content cannot be used.
    """
    found = [name for name in _HDF5_LAYOUTS if is_held(file, name)]
    if len(found) != 1:
        remedy = "See the layouts that `slides.features` reads in the documentation."
        if list(file) == ["coords"]:
            remedy = "These are places of patches alone: name the folder of features as slides.features."
        raise DataError(
            f"{path}: one dataset of features is required, named {', '.join(_HDF5_LAYOUTS)}. "
            f"Found: {hdf5_listing(file)}. {remedy}"
        )
    if is_held(file, ROWS):
        coords = stored_array(file, "coords", path)
        stay = read_in_place(file, path, coords[()], dict(coords.attrs))
        raise DataError(
            f"{path}: features must be stored in the file itself. Found that they stay in {stay.path}. Give that file, "
            "or its folder as slides.features."
        )
    return _HDF5_LAYOUTS[found[0]](file, stored_array(file, found[0], path), path, mpp)


def _read_trident_or_clam(file: h5py.File, features: h5py.Dataset, path: Path, mpp: float | None) -> FeatureFile:
    """Coordinates in level-0 pixels. TRIDENT records the patch size, CLAM leaves it to the spacing of the patches."""
    shape = _hdf5_shape(features, path, file)
    coords = stored_array(file, "coords", path) if is_held(file, "coords") else None
    attributes = Attributes([place for place in (coords, features, file) if place is not None], path)
    encoder, encoder_notes = _encoder(attributes)
    encoder_sha256 = attributes.text("encoder_sha256") or ""
    is_ours = "subfuse_version" in attributes
    dtype = features.dtype.type if is_ours else np.float16  # ours keep their precision
    read = _verified(features, coords, path) if is_ours and coords is not None else lambda: features[()]
    if coords is None or features.ndim == 1 or attributes.number("has_coordinates", least=0) == 0:
        bare = without_coordinates("HDF5", shape, read, features)
        notes = (*bare.warnings, *encoder_notes)
        return replace(bare, encoder=encoder, encoder_sha256=encoder_sha256, dtype=dtype, warnings=notes)
    _require_coords(coords, shape, path, file)
    level0_mpp, mpp_notes = _pixel_size(attributes, mpp, path)
    size, tile_px, size_notes = _patch_size(attributes, path)
    slide_size, slide_notes = _slide_size(attributes)
    return FeatureFile(
        layout="subfuse" if is_ours else "CLAM" if size is None else "TRIDENT",
        shape=shape,
        read=read,
        read_coords=lambda: _corners(coords, path),
        patch_size_level0=size,
        level0_mpp=level0_mpp,
        tile_px=tile_px,
        encoder=encoder,
        encoder_sha256=encoder_sha256,
        overlap_px=attributes.whole("overlap", least=0) or 0,
        slide_size_px=slide_size,
        bounds_corner=(
            attributes.whole("bounds_x_level0", least=0) or 0,
            attributes.whole("bounds_y_level0", least=0) or 0,
        ),
        warnings=(*mpp_notes, *size_notes, *slide_notes, *encoder_notes, *_named_otherwise(attributes, path)),
        dtype=dtype,
        array=features,
    )


def _verified(features: h5py.Dataset, coords: h5py.Dataset, path: Path) -> Callable[[], np.ndarray]:
    """Reads features that `write_features` wrote, and compares them with their hash."""

    def read() -> np.ndarray:
        values, attributes = features[()], dict(coords.attrs)
        if CONTENT_HASH in attributes:
            require_content(values, coords[()], attributes, path)
        return values

    return read


def _pixel_size(attributes: Attributes, declared: float | None, path: Path) -> tuple[float, tuple[str, ...]]:
    """µm per level-0 pixel, the declared one first, and what contradicts it in the file."""
    sizes = {name: size for name in _PIXEL_SIZES if (size := attributes.number(name)) is not None}
    recorded, x, y = sizes.get("level0_mpp", sizes.get("mpp")), sizes.get("mpp_x"), sizes.get("mpp_y")
    if recorded is None and declared is None and x is not None and y is not None:
        recorded = square_pixel(x, y, path)
    recorded = recorded or x or y or _of_job(path, is_needed=declared is None)
    mpp = recorded if declared is None else declared
    if mpp is None:
        found, level0 = preview(attributes.names(), limit=12), attributes.number("level0_magnification")
        about = f" ({level0:g}x is about {10 / level0:.3g} µm)" if level0 else ""
        told = f"only the attributes {found}; magnification is nominal{about}" if found else "no attributes"
        raise unknown_mpp(path, f"{told}{unrecorded(path)}")
    require_plausible_mpp(mpp, path)
    magnification = attributes.number("level0_magnification")
    notes = disagreement(declared=declared, recorded=recorded)
    notes += tuple(
        f"{mpp:g} µm per pixel is used, but the file's `{name}` says {size:g}"
        for name, size in sizes.items()
        if size != recorded and disagreement(declared=mpp, recorded=size)
    )
    if magnification is not None and not 1 / _SAME_SCALE < mpp * magnification / 10 < _SAME_SCALE:
        notes += (
            f"{mpp:g} µm per pixel is used, but the file calls it {magnification:g}x (about {10 / magnification:g})",
        )
    return mpp, notes


def _of_job(path: Path, *, is_needed: bool) -> float | None:
    """µm per level-0 pixel as the job folder of TRIDENT records it; damage there counts only where it is needed."""
    try:
        return recorded_mpp(path)
    except DataError:
        if is_needed:
            raise
        return None


def _patch_size(attributes: Attributes, path: Path) -> tuple[int | None, int | None, tuple[str, ...]]:
    """Side of a patch in level-0 pixels and in those of the encoder's images; None where the file does not tell."""
    size, tile_px = attributes.number("patch_size_level0"), attributes.whole("patch_size")
    scales = [attributes.number(name) for name in ("level0_magnification", "target_magnification", "downsample")]
    if size is None and tile_px is not None and scales[0] and scales[1]:
        size = tile_px * scales[0] / scales[1]
    elif size is None and tile_px is not None and scales[2]:  # CLAM's files of coordinates
        size = tile_px * scales[2]
    if size is not None:
        return max(1, round(size)), tile_px, ()
    if attributes.number("overlap", least=0):
        raise DataError(
            f"{path}: the attribute `patch_size_level0` is required where patches overlap. Found `overlap` "
            f"{attributes.number('overlap', least=0):g} alone. Write it into the file, or extract the slide again."
        )
    return None, None, (NO_PATCH_SIZE,)


def _read_stamp(file: h5py.File, features: h5py.Dataset, path: Path, mpp: float | None) -> FeatureFile:
    """Coordinates in µm since STAMP 2.0. One vector per slide or patient has none."""
    shape = _hdf5_shape(features, path, file)
    coords = stored_array(file, "coords", path) if is_held(file, "coords") else None
    attributes = Attributes([place for place in (file, features, coords) if place is not None], path)
    encoder, notes = _encoder(attributes)
    if coords is None:
        layout = OF_PATIENTS if attributes.text("feat_type") == "patient" else "STAMP"
        bare = without_coordinates(layout, shape, lambda: features[()], features)
        return replace(bare, encoder=encoder, warnings=(*bare.warnings, *notes))
    _require_coords(coords, shape, path, file)
    tile_um, tile_px, unit_um = _stamp_tile(coords, attributes, path, file), attributes.whole("tile_size_px"), 1.0
    if tile_um is None:  # the layout before 2.0
        tile_um, tile_px, unit_um = _STAMP_V1_UM, _STAMP_V1_PX, _STAMP_V1_UM / _STAMP_V1_PX
    # places in µm need no pixel size
    kept_mpp = (tile_um / tile_px if tile_px else 1.0) if mpp is None else require_plausible_mpp(mpp, path)
    pixels = f"pixels of the encoder's images ({kept_mpp:.4g} µm)" if tile_px else "µm"
    note = (
        f"the slide's own pixel size is not recorded: positions are kept in {pixels}. "
        f"Declare `mpp` in {MPP_PLACE} for outlines in level-0 pixels"
    )
    return FeatureFile(
        layout="STAMP",
        shape=shape,
        read=lambda: features[()],
        read_coords=lambda: _corners(coords, path) * (unit_um / kept_mpp),
        patch_size_level0=max(1, round(tile_um / kept_mpp)),
        level0_mpp=kept_mpp,
        tile_px=tile_px,
        encoder=encoder,
        warnings=notes if mpp else (note, *notes),
        array=features,
    )


def _stamp_tile(coords: h5py.Dataset, attributes: Attributes, path: Path, file: h5py.File) -> float | None:
    """Side of a tile in µm; None: the file has the layout of STAMP before 2.0, which recorded no unit."""
    unit = attributes.text("unit")
    in_um, size = attributes.number("tile_size_um"), attributes.number("tile_size")
    if unit in (None, *_MICROMETRES) and in_um is not None:
        return in_um
    if unit in _MICROMETRES and size is not None:
        return size
    if unit is None and round(size or spacing(_corners(coords, path), path)) == _STAMP_V1_PX:
        return None
    raise DataError(
        f"{path}: coordinates in µm are required, with `tile_size_um`, or `tile_size` and `unit` um, as STAMP writes. "
        f"Found: {hdf5_listing(file)}. Extract the slide again with a current STAMP."
    )


def _read_released(file: h5py.File, features: h5py.Dataset, path: Path, mpp: float | None) -> FeatureFile:
    """Features in list order. Nothing is known of their places."""
    return without_coordinates("released code", _hdf5_shape(features, path, file), lambda: features[()], features)


_HDF5_LAYOUTS: Mapping[str, Callable[[h5py.File, h5py.Dataset, Path, float | None], FeatureFile]] = {
    "features": _read_trident_or_clam,
    "feats": _read_stamp,
    "patch_embeddings": _read_stamp,
    "Res_feature": _read_released,
}


def _hdf5_shape(features: h5py.Dataset, path: Path, file: h5py.File) -> tuple[int, int]:
    if features.dtype.kind not in "fiu":
        raise DataError(f"{path}: features must be numbers. Found {features.dtype} in {features.name}.")
    return bag_shape(features.shape, path, hdf5_listing(file))


def _require_coords(coords: h5py.Dataset, shape: tuple[int, int], path: Path, file: h5py.File) -> None:
    if coords.shape in ((shape[0], 2), (1, shape[0], 2)) and coords.dtype.kind in "fiu":
        return
    raise DataError(
        f"{path}: `coords` (patch, 2) is required with one row for each of the {shape[0]} patches. "
        f"Found: {hdf5_listing(file)}. Extract the slide again."
    )


def _corners(coords: h5py.Dataset, path: Path) -> Num[np.ndarray, "patch 2"]:
    corners = coords[()].reshape(-1, 2).astype(np.float64)
    if not np.isfinite(corners).all():
        raise DataError(f"{path}: `coords` must be finite. Found NaN or infinity. Extract the slide again.")
    return corners


def _slide_size(attributes: Attributes) -> tuple[tuple[int, int] | None, tuple[str, ...]]:
    """Width and height in level-0 pixels, and what else the file says of them."""
    known = [(attributes.whole(width), attributes.whole(height)) for width, height in _SLIDE_SIZES]
    sizes = [(width, height) for width, height in known if width is not None and height is not None]
    others = [size for size in sizes if size != sizes[0]]
    notes = (
        f"a slide of {sizes[0][0]} x {sizes[0][1]} pixels is used, but the file also says {width} x {height}"
        for width, height in others
    )
    return sizes[0] if sizes else None, tuple(notes)


def _named_otherwise(attributes: Attributes, path: Path) -> tuple[str, ...]:
    """What TRIDENT calls the slide, where the file is called otherwise."""
    name = attributes.text("name")
    if name in (None, path.stem, slide_id_of(path.stem)):
        return ()
    return (f"the file is called {path.stem}, but says that its slide is {name}",)


def _encoder(attributes: Attributes) -> tuple[str, tuple[str, ...]]:
    """The encoder by the first attribute that names it, and what others say."""
    given = {name: attributes.text(name) for name in _ENCODER_NAMES}
    names = {name: value for name, value in given.items() if value and value not in _NAMELESS}
    if not names:
        return UNKNOWN_ENCODER, ()
    first, used = next(iter(names.items()))
    return used, tuple(
        f"the features are of encoder {used}, as `{first}` says; `{name}` says {other}"
        for name, other in names.items()
        if other.casefold() != used.casefold()
    )

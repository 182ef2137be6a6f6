"""Small slides in the containers of scanners, written from the descriptions of the formats: NDPI, DICOM, MRXS."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_LONG, _RATIONAL, _SIGNED, _FLOAT = 4, 5, 9, 11  # types of TIFF
_WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
_JPEG = "1.2.840.10008.1.2.4.50"
_ROOT = "1.2.826.0.1.3680043.8.498"
_SLIDE_ID = "0" * 32  # of MRXS

Pixels = UInt8[np.ndarray, "height width 3"]


def write_ndpi(path: Path, pixels: Pixels, *, mpp: float) -> None:
    """One level: a TIFF of one JPEG strip whose directory has offsets of 64 bits and Hamamatsu's own tags."""
    height, width = pixels.shape[:2]
    strip = _jpeg(pixels)
    resolution = struct.pack("<II", round(1e7 / mpp), 1000)  # pixels per cm
    start, extra_at = 16, 16 + len(strip)
    entries = [
        (256, _LONG, width), (257, _LONG, height), (258, _LONG, 8), (259, _LONG, 7), (262, _LONG, 6),
        (273, _LONG, start), (277, _LONG, 3), (278, _LONG, height), (279, _LONG, len(strip)),
        (282, _RATIONAL, extra_at), (283, _RATIONAL, extra_at), (296, _LONG, 3),
        (65420, _LONG, 1), (65421, _FLOAT, 20.0), (65424, _SIGNED, 0),  # NDPI, magnification, focal plane
    ]  # fmt: skip
    body = [struct.pack("<HHIf" if kind == _FLOAT else "<HHIi", tag, kind, 1, value) for tag, kind, value in entries]
    directory = struct.pack("<H", len(entries)) + b"".join(body) + bytes(8 + 4 * len(entries))
    header = b"II*\0" + struct.pack("<Q", extra_at + len(resolution)) + bytes(4)
    path.write_bytes(header + strip + resolution + directory)


def write_dicom(folder: Path, levels: Sequence[Pixels], *, mpp: float, tile: int = 256) -> None:
    """One file per level, from the finest on, of one series; every level is half as fine as that before."""
    folder.mkdir(parents=True)
    for number, pixels in enumerate(levels):
        kind = "ORIGINAL\\PRIMARY\\VOLUME\\NONE" if number == 0 else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"
        content = _dicom(pixels, number, kind, f"{2**number * mpp / 1000:.6f}", tile)
        (folder / f"level {len(levels) - number}.dcm").write_bytes(content)


def _dicom(pixels: Pixels, number: int, kind: str, spacing_mm: str, tile: int) -> bytes:
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
    corners = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
    frames = [_jpeg(padded[y : y + tile, x : x + tile]) for y, x in corners]
    instance = f"{_ROOT}.1.{number + 1}"
    meta = _element(2, 1, "OB", b"\0\1") + _element(2, 2, "UI", _WSI) + _element(2, 3, "UI", instance)
    meta += _element(2, 0x10, "UI", _JPEG) + _element(2, 0x12, "UI", _ROOT)
    spacing = _element(0x28, 0x30, "DS", f"{spacing_mm}\\{spacing_mm}")
    data = [
        _element(8, 8, "CS", kind), _element(8, 0x16, "UI", _WSI), _element(8, 0x18, "UI", instance),
        _element(8, 0x60, "CS", "SM"), _element(0x20, 0xD, "UI", f"{_ROOT}.2"), _element(0x20, 0xE, "UI", f"{_ROOT}.3"),
        _element(0x20, 0x9311, "CS", "TILED_FULL"),
        _element(0x28, 2, "US", 3), _element(0x28, 4, "CS", "YBR_FULL_422"), _element(0x28, 6, "US", 0),
        _element(0x28, 8, "IS", str(len(frames))), _element(0x28, 0x10, "US", tile), _element(0x28, 0x11, "US", tile),
        _element(0x28, 0x100, "US", 8), _element(0x28, 0x101, "US", 8), _element(0x28, 0x102, "US", 7),
        _element(0x28, 0x103, "US", 0),
        _element(0x48, 6, "UL", width), _element(0x48, 7, "UL", height),
        _sequence(0x5200, 0x9229, _sequence(0x28, 0x9110, spacing)),
        struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF),  # of unknown length: frames, then a delimiter
        _item(b""), *map(_item, frames), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
    ]  # fmt: skip
    return bytes(128) + b"DICM" + _element(2, 0, "UL", len(meta)) + meta + b"".join(data)


def _jpeg(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def _element(group: int, number: int, kind: str, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        value = struct.pack("<H" if kind == "US" else "<I", value)
    elif isinstance(value, str):
        value = value.encode() + (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
    length = struct.pack("<HI", 0, len(value)) if kind in ("OB", "SQ") else struct.pack("<H", len(value))
    return struct.pack("<HH2s", group, number, kind.encode()) + length + value


def _sequence(group: int, number: int, content: bytes) -> bytes:
    return _element(group, number, "SQ", _item(content))


def _item(content: bytes) -> bytes:
    content += bytes(len(content) % 2)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def write_mrxs(path: Path, pixels: Pixels, *, mpp: float, tile: int = 256) -> None:
    """One level: the file that is opened, and beside it a folder of description, index and tiles."""
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(_jpeg(pixels[::8, ::8]))
    rows, columns = pixels.shape[0] // tile, pixels.shape[1] // tile
    sections = {
        "GENERAL": {"SLIDE_VERSION": "01.02", "SLIDE_ID": _SLIDE_ID, "IMAGENUMBER_X": columns, "IMAGENUMBER_Y": rows,
                    "OBJECTIVE_MAGNIFICATION": 20, "CameraImageDivisionsPerSide": 1},
        "HIERARCHICAL": {"HIER_COUNT": 1, "NONHIER_COUNT": 0, "INDEXFILE": "Index.dat",
                         "HIER_0_NAME": "Slide zoom level", "HIER_0_COUNT": 1, "HIER_0_VAL_0_SECTION": "LEVEL"},
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
        "LEVEL": {"OVERLAP_X": 0, "OVERLAP_Y": 0, "MICROMETER_PER_PIXEL_X": mpp, "MICROMETER_PER_PIXEL_Y": mpp,
                  "IMAGE_FORMAT": "JPEG", "IMAGE_FILL_COLOR_BGR": 0xFFFFFF, "DIGITIZER_WIDTH": tile,
                  "DIGITIZER_HEIGHT": tile, "IMAGE_CONCAT_FACTOR": 0},
    }  # fmt: skip
    lines = [f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()) for name, keys in sections.items()]
    (folder / "Slidedat.ini").write_text("".join(lines))
    tiles = [
        _jpeg(pixels[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile]) for y in range(rows) for x in range(columns)
    ]
    (folder / "Data0000.dat").write_bytes(b"".join(tiles))
    starts = np.cumsum([0, *map(len, tiles)])
    records = [n for i, part in enumerate(tiles) for n in (i, int(starts[i]), len(part), 0)]
    head = b"01.02" + _SLIDE_ID.encode()
    at = len(head) + 8  # of the list of levels; then the level's list of pages, and its page of records
    index = [at, 0, at + 4, 0, at + 12, len(tiles), 0, *records]
    (folder / "Index.dat").write_bytes(head + struct.pack(f"<{len(index)}i", *index))

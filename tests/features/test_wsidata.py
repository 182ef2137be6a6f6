"""Zarr stores as wsidata writes them, with features of tiles."""

import json

import numpy as np
import pytest
import tifffile
import torch
from tool_files import read
from torchvision.transforms.v2 import Compose, ToDtype, ToImage
from wsidata_store import CORNERS, FEATURES, write_store

from subfuse.errors import DataError
from subfuse.features.other_tools import files_behind, opened_features


class Colours(torch.nn.Module):
    """The mean colour of a tile."""

    def forward(self, images):
        return images.mean(dim=(2, 3))


spatialdata = pytest.importorskip("spatialdata")
pytestmark = pytest.mark.filterwarnings("ignore")  # of zarr, anndata, dask and geopandas


def test_features_of_tiles_in_the_order_of_the_table(tmp_path):
    path = write_store(tmp_path / "s.zarr")

    with opened_features(path) as file:
        assert (file.layout, file.shape, file.overlap_px) == ("wsidata", (3, 5), 64)
        slide = file.slide_features(path)

    np.testing.assert_array_equal(slide.features, FEATURES[[2, 0, 1]].astype(np.float16))
    np.testing.assert_array_equal(slide.coords, CORNERS[[2, 0, 1]])
    assert (slide.patch_size_level0, slide.level0_mpp, slide.target_mpp, slide.encoder) == (512, 0.25, 0.5, "resnet50")
    assert (slide.slide_width_px, slide.slide_height_px) == (1100, 1600)
    assert len(files_behind(path)) > 5


def test_a_store_without_mpp_needs_it_declared(tmp_path):
    path = write_store(tmp_path / "s.zarr", mpp=None)
    with pytest.raises(DataError, match=r"s\.zarr.*Declare `mpp` in the slide table"), opened_features(path):
        pass
    with opened_features(path, mpp=0.3) as file:
        assert file.level0_mpp == 0.3
    path = write_store(tmp_path / "magnified.zarr", mpp=40.0)
    with pytest.raises(DataError, match="40 looks like a magnification"), opened_features(path):
        pass


def test_one_of_several_encoders_is_chosen_by_name(tmp_path):
    path = write_store(tmp_path / "s.zarr", encoders=("resnet50", "uni"))
    with pytest.raises(DataError, match=r"Found resnet50_tiles, uni_tiles.*slides\.encoder"), opened_features(path):
        pass
    with opened_features(path, encoder="uni") as file:
        assert file.encoder == "uni"


def test_an_incomplete_store_is_named(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    with (
        pytest.raises(DataError, match=r"empty\.zarr: a complete wsidata store"),
        opened_features(tmp_path / "empty.zarr"),
    ):
        pass
    path = write_store(tmp_path / "s.zarr")
    metadata = json.loads((path / "zarr.json").read_text())
    del metadata["attributes"]["tile_spec"]
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError, match=r"Found none among 1 tables\. Extract"), opened_features(path):
        pass


VECTOR = np.arange(7, dtype=np.float32)[None] / 7


def of_titan(**other):
    return {"encoder": "titan", "tile_key": "tiles", "features": VECTOR} | other


def test_vectors_of_the_whole_slide_as_lazyslide_aggregates_them(tmp_path):
    tifffile, lazyslide = pytest.importorskip("tifffile"), pytest.importorskip("lazyslide")
    from wsidata import open_wsi

    slide, path = tmp_path / "s.tiff", write_store(tmp_path / "s.zarr", order=(0, 1, 2), mpp=None)
    tifffile.imwrite(slide, np.zeros((1600, 1100, 3), np.uint8), tile=(256, 256), photometric="rgb")
    wsi = open_wsi(slide, store=str(path))
    wsi.shapes["tiles"]["tissue_id"] = [0, 0, 1]
    lazyslide.tl.feature_aggregation(wsi, "resnet50", encoder="mean")
    lazyslide.tl.feature_aggregation(wsi, "resnet50", encoder="median", agg_by="tissue_id")
    wsi.write()
    wsi.reader.detach_reader()

    mean = FEATURES.mean(axis=0, keepdims=True).astype(np.float16)
    for name in ("resnet50-mean", "resnet50_tiles/agg_slide"):  # needs no pixel size
        slide_features, layout, warnings = read(path, encoder=name)
        np.testing.assert_allclose(slide_features.features, mean, atol=1e-3)
        assert (slide_features.encoder, slide_features.has_coordinates, layout) == (name, False, "wsidata")
        assert warnings == ("one vector for the whole slide: no heat maps are drawn",)
    for name in ("median", "resnet50-median", "resnet50_tiles/agg_tissue_id"):  # of pieces of tissue: none of the slide
        with pytest.raises(DataError, match=r"whole slide by resnet50-mean \(resnet50_tiles/agg_slide\)"):
            read(path, encoder=name)


def test_features_of_tiles_come_first_and_vectors_beside_them_are_told(tmp_path):
    path = write_store(tmp_path / "s.zarr", aggregated={"agg_slide": of_titan()})
    for encoder in (None, "resnet50"):
        slide, _, warnings = read(path, encoder=encoder)
        assert slide.features.shape == (3, 5)
        assert "vectors of the whole slide by titan are not read; slides.encoder names which are" in warnings
    slide, _, _ = read(path, encoder="titan")
    np.testing.assert_array_equal(slide.features, VECTOR.astype(np.float16))
    assert (slide.encoder, read(path, encoder="TITAN")[0].encoder) == ("titan", "titan")


def test_vectors_by_one_encoder_are_told_apart_by_their_table(tmp_path):
    path = write_store(tmp_path / "s.zarr", encoders=("uni", "conch"), aggregated={"agg_slide": of_titan()})
    with pytest.raises(DataError, match=r"for encoder titan.*uni_tiles/agg_slide"):
        read(path, encoder="titan")
    assert read(path, encoder="uni_tiles/agg_slide")[0].features.shape == (1, 7)
    assert read(path, encoder="uni")[0].features.shape == (3, 5)


@pytest.mark.parametrize(
    ("features", "named"),
    [
        (np.ones((2, 7)), r"uni_tiles/agg_slide must be one vector of numbers\. Found float64 \(2, 7\)"),
        (np.array([["a", "b"]]), "one vector of numbers"),
        (np.full((1, 7), np.nan), "finite"),
        (np.ones((1, 0)), "at least one patch"),
    ],
)
def test_vectors_that_are_none_are_refused(tmp_path, features, named):
    path = write_store(tmp_path / "s.zarr", encoders=("uni",), aggregated={"agg_slide": of_titan(features=features)})
    with pytest.raises(DataError, match=named):
        read(path, encoder="titan")
    assert read(path, encoder="uni")[0].features.shape == (3, 5)


@pytest.mark.walk
def test_a_store_that_lazyslide_itself_makes(tmp_path):
    lazyslide, wsidata = pytest.importorskip("lazyslide"), pytest.importorskip("wsidata")
    pixels = np.full((1200, 1200, 3), 244, np.uint8)
    pixels[200:1000, 200:1000] = np.random.default_rng(0).integers((150, 60, 120), (250, 180, 220), (800, 800, 3))
    tifffile.imwrite(
        tmp_path / "s.tiff", pixels, tile=(256, 256), photometric="rgb",
        resolution=(20000, 20000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    opened = wsidata.open_wsi(tmp_path / "s.tiff", store=tmp_path / "s.zarr")
    lazyslide.pp.find_tissues(opened)
    lazyslide.pp.tile_tissues(opened, 128, mpp=1.0)
    transform = Compose([ToImage(), ToDtype(torch.float32, scale=True)])
    lazyslide.tl.feature_extraction(
        opened, model=Colours(), model_name="colours", transform=transform, num_workers=0, device="cpu"
    )
    lazyslide.tl.feature_aggregation(opened, "colours", encoder="mean")
    opened.write()
    opened.reader.detach_reader()
    with opened_features(tmp_path / "s.zarr", encoder="colours") as file:
        slide = file.slide_features(tmp_path / "s.zarr")
    assert (slide.level0_mpp, slide.patch_size_level0, slide.encoder) == (0.5, 256, "colours")
    assert len(slide.features) >= 9
    for (x, y), found in zip(slide.coords, slide.features, strict=True):
        expected = pixels[y : y + 256, x : x + 256].mean(axis=(0, 1)) / 255
        np.testing.assert_allclose(found, expected, atol=0.02)
    with opened_features(tmp_path / "s.zarr", encoder="colours-mean") as file:
        vector = file.slide_features(tmp_path / "s.zarr").features
    np.testing.assert_allclose(vector, slide.features.astype(float).mean(axis=0, keepdims=True), atol=0.01)

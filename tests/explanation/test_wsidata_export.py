import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from bright_slides import bright_slide, prepared_slide

from subfuse.errors import ConfigurationError, DataError
from subfuse.explanation import wsidata_export
from subfuse.explanation.wsidata_export import add_scores, write_patch_scores, write_wsidata
from subfuse.slides.source import SlideSource

pytest.importorskip("wsidata")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The image is not pyramidal:UserWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:spatialdata"),
]


@pytest.fixture
def slide(tmp_path):
    return bright_slide(tmp_path / "s.tiff", width=700, height=520, size=150, bright=(300, 150))


def test_lazyslide_plots_the_scores_of_the_store(tmp_path, slide):
    import matplotlib

    matplotlib.use("agg")
    import lazyslide
    import matplotlib.pyplot as plt
    from wsidata import open_wsi

    score = np.arange(len(slide.coords), dtype=float)
    write_wsidata(tmp_path / "s.zarr", tmp_path / "s.tiff", slide, {"tumour": score})
    write_wsidata(tmp_path / "s.zarr", tmp_path / "s.tiff", slide, {"stroma": -score})
    wsi = open_wsi(tmp_path / "s.tiff", store=str(tmp_path / "s.zarr"))
    tiles = wsi.shapes["subfuse_tiles"]
    np.testing.assert_array_equal(tiles["tumour"], score)  # the first writing is still there
    np.testing.assert_array_equal(tiles["stroma"], -score)
    np.testing.assert_array_equal(tiles.bounds[["minx", "miny"]], slide.coords)
    assert (tiles.area == 150**2).all()
    lazyslide.pl.tiles(wsi, tile_key="subfuse_tiles", color="tumour")
    plt.gcf().canvas.draw()
    plt.close("all")
    wsi.reader.detach_reader()


def test_existing_tiles_get_nan_where_there_is_no_score(tmp_path, slide):
    from wsidata import open_wsi

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wsi = open_wsi(tmp_path / "s.tiff", store=None)
    add_scores(wsi, slide, {"all": np.ones(len(slide.coords))}, tile_key="t")
    fewer = replace(slide, coords=slide.coords[2:], features=slide.features[2:])
    add_scores(wsi, fewer, {"some": np.arange(len(fewer.coords))}, tile_key="t")
    some = wsi.shapes["t"]["some"].to_numpy()
    assert np.isnan(some[:2]).all()
    np.testing.assert_array_equal(some[2:], np.arange(len(fewer.coords)))
    single = replace(slide, coords=slide.coords[:1], features=slide.features[:1])
    add_scores(wsi, single, {"one": np.array([7.0])}, tile_key="t")
    np.testing.assert_array_equal(wsi.shapes["t"]["one"], [7.0] + [np.nan] * (len(slide.coords) - 1))
    wsi.shapes["mixed"] = wsi.shapes["t"].copy()
    wsi.shapes["mixed"].loc[3, "geometry"] = wsi.shapes["t"].geometry[3].buffer(9.0, join_style="mitre")
    corner = wsi.shapes["mixed"].bounds.loc[3, ["minx", "miny"]].astype(int)
    moved = replace(
        slide, coords=np.where(np.arange(len(slide.coords))[:, None] == 3, corner, slide.coords).astype(np.int32)
    )
    add_scores(wsi, moved, {"mixed": np.ones(len(slide.coords))}, tile_key="mixed")
    np.testing.assert_array_equal(np.flatnonzero(wsi.shapes["mixed"]["mixed"].isna()), [3])  # a larger tile
    with pytest.raises(ValueError, match="x must have one score for each"):
        add_scores(wsi, slide, {"x": np.ones(2)}, tile_key="t")
    with pytest.raises(DataError, match="Found none recorded"):
        add_scores(wsi, replace(slide, has_coordinates=False), {"x": np.ones(len(slide.coords))}, tile_key="t")
    with pytest.raises(DataError, match="none of them"):
        add_scores(wsi, replace(slide, patch_size_level0=149), {"x": np.ones(len(slide.coords))}, tile_key="t")
    with pytest.raises(DataError, match="must be the explained one"):
        add_scores(wsi, replace(slide, slide_width_px=9), {"x": np.ones(len(slide.coords))})
    wsi.reader.detach_reader()


def test_a_store_ends_in_zarr_and_needs_wsidata(tmp_path, slide, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in \.zarr"):
        write_wsidata(tmp_path / "s.store", tmp_path / "s.tiff", slide, {})
    monkeypatch.setitem(sys.modules, "wsidata", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'subfuse\[wsi\]'"):
        write_wsidata(tmp_path / "s.zarr", tmp_path / "s.tiff", slide, {})


def test_scores_of_a_task_are_written_slide_by_slide(tmp_path, slide, monkeypatch):
    table = tmp_path / "grade" / "patches.csv"
    table.parent.mkdir()
    table.write_text("slide_id,x,y,tumour,total\ns,0,0,0.5,1\nt,0,0,2,3\ns,150,0,-4,-5\n")
    features = tuple(prepared_slide(tmp_path, slide, name) for name in ("s", "t"))
    places = {name: SlideSource(name, "p", tmp_path / f"{name}.tiff", 0.5) for name in ("s", "t")}
    written = []

    def write(store, path, found, scores):
        np.testing.assert_array_equal(found.coords, slide.coords)
        written.append((store.name, path.name, {name: values.tolist() for name, values in scores.items()}))

    monkeypatch.setattr(wsidata_export, "write_wsidata", write)
    write_patch_scores(table, features, places, tmp_path)
    assert written == [
        ("s.zarr", "s.tiff", {"grade_tumour": [0.5, -4.0], "grade_total": [1.0, -5.0]}),
        ("t.zarr", "t.tiff", {"grade_tumour": [2.0], "grade_total": [3.0]}),
    ]
    with pytest.raises(DataError, match="Not found: the disk is elsewhere"):
        write_patch_scores(table, features, {"s": "the disk is elsewhere"}, tmp_path)
    with pytest.raises(DataError, match="Not found: it is not among"):
        write_patch_scores(table, features, {}, tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    with pytest.raises(DataError, match="Found images"):
        write_patch_scores(table, features, {"s": SlideSource("s", "p", folder, 0.5)}, tmp_path)

import warnings

import numpy as np
import pytest
from bright_slides import bright_slide

from subfuse.errors import DataError
from subfuse.explanation.wsidata_export import add_scores, write_wsidata

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
    from dataclasses import replace

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
    with pytest.raises(DataError, match="none of them"):
        add_scores(wsi, replace(slide, patch_size_level0=149), {"x": np.ones(len(slide.coords))}, tile_key="t")
    with pytest.raises(DataError, match="must be the explained one"):
        add_scores(wsi, replace(slide, slide_width_px=9), {"x": np.ones(len(slide.coords))})
    wsi.reader.detach_reader()

"""Damaged binary files: every reader ends with a result or with one line of ours, whatever the bytes.

HDF5's own library can loop for ever on damaged bytes, and nothing within the process ends that: what leads to it is
looked for first.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tool_files import CORNERS, FEATURES, write_hdf5
from transcription import random_released
from wsidata_store import write_store

from damage import Reader, check_reader, rounds
from expression_sections import expression_section
from small_cohort import slide_features
from subfuse.expression.reading import read_expression
from subfuse.expression.table import ExpressionTable, read_expression_h5ad, write_expression
from subfuse.features.other_tools import opened_features
from subfuse.features.store import (
    read_attributes,
    read_features,
    read_matching,
    read_places,
    read_sample,
    write_features,
)
from subfuse.runs.released_checkpoint import convert_file, load_converted
from subfuse.slides.opening import opened_slide
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import Tiling
from subfuse.training.checkpoint import Checkpoint, TrainingState, copy_weights, random_state
from test_fuzzed_tables import rows_of_features

pytestmark = [pytest.mark.faults, pytest.mark.walk]

SLIDE = slide_features(np.random.default_rng(0), 0.5, 6)
TRIDENT = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20}
LOG = [{"epoch": 0, "loss": 0.5}]
STAMP = {"unit": "um", "tile_size_um": 256.0, "tile_size_px": 224, "extractor": "mahmood-uni", "feat_type": "tile"}


def own(path: Path) -> None:
    """Where the content is verified, it is that which was written."""
    found = read_features(path, verify=True)
    assert found.features.tobytes() == SLIDE.features.tobytes()
    assert found.coords.tobytes() == SLIDE.coords.tobytes()
    assert (found.level0_mpp, found.encoder) == (SLIDE.level0_mpp, SLIDE.encoder)
    read_attributes(path, verify=True)


def own_unverified(path: Path) -> None:
    read_matching(path, {"encoder": "fake"})
    read_sample(path, 4)
    read_places(path)


def features(path: Path) -> None:
    with opened_features(path, mpp=0.25) as file:
        file.slide_features(path)


def hdf5(**content: object) -> Callable[[Path], object]:
    return lambda path: write_hdf5(path, **content)


def whole_tensor(path: Path) -> None:
    """Where there are checksums, the features are those that were written."""
    with opened_features(path) as file:
        found = file.slide_features(path)
    np.testing.assert_array_equal(found.features, FEATURES.astype(np.float16))


def tensor(*, zipped: bool) -> Callable[[Path], object]:
    return lambda path: torch.save(torch.from_numpy(FEATURES), path, _use_new_zipfile_serialization=zipped)


def anndata_file(path: Path) -> None:
    import anndata

    obs = pd.DataFrame({"centre": ["a", "b", "a"]}, index=["A", "B", "C"])
    data = anndata.AnnData(np.arange(12, dtype=np.float32).reshape(3, 4) + 1, obs=obs, uns={"unit": "tpm"})
    data.layers["counts"] = data.X.copy()
    data.write_h5ad(path)


def anndata_expression(path: Path) -> object:
    return read_expression(expression_section(table=path, format="h5ad", unit="tpm"))


def prepared_expression(path: Path) -> None:
    values = pd.DataFrame(np.ones((3, 2), np.float32), index=list("ABC"), columns=["EGFR", "TP53"])
    write_expression(path, ExpressionTable(values, "tpm", "log2(TPM + 1)", {"table": "e.csv"}))


def images(kind: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        folder.mkdir()
        noise = np.random.default_rng(0)
        Image.fromarray(noise.integers(60, 200, (80, 90, 3), dtype=np.uint8)).save(folder / f"1.{kind}")

    return write


def slide(path: Path) -> None:
    with opened_slide(SlideSource("s", "p", path, 0.5), Tiling(tile_px=64, mpp=0.5)) as opened:
        patches = [patch for part in list(opened.parts())[:4] for patch in opened.read(part)]
        opened.tissue(np.array([[patch.x, patch.y] for patch in patches], dtype=int).reshape(-1, 2))
        opened.picture(0, 0, opened.width_px, opened.height_px, size=(32, 32))
        opened.thumbnail()
        assert opened.warnings is not None
        assert 0 <= opened.pen_share() <= 1


def tiff(description: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        import tifffile

        image = np.full((512, 512, 3), 240, np.uint8)
        image[100:400, 60:420] = np.random.default_rng(0).integers(80, 200, (300, 360, 3))
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
        with tifffile.TiffWriter(path) as file:
            file.write(image, description=description, **options)
            file.write(np.ascontiguousarray(image[::4, ::4]), subfiletype=1, **options)

    return write


def released(path: Path) -> None:
    torch.save(random_released(n_tumour=7, n_micro=11, n_classes=3, patch_dim=8), path)


def convert(path: Path) -> None:
    convert_file(path, path.parent / "ours")
    shutil.rmtree(path.parent / "ours")


def converted(folder: Path) -> None:
    released(folder.parent / "released.pth")
    convert_file(folder.parent / "released.pth", folder)


def resumed(path: Path) -> None:
    """What is read is what was written."""
    model, optimizer = unfinished()
    expected = copy_weights(model)
    state, _ = Checkpoint(path, {"seed": 0}).load(model, optimizer, rank=0)
    for weights in (state.best_weights, copy_weights(model)):
        assert all(torch.equal(weights[name], value) for name, value in expected.items())
    assert state.log == LOG


def unfinished() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def checkpoint(path: Path) -> None:
    model, optimizer = unfinished()
    state = TrainingState(best_weights=copy_weights(model), log=list(LOG))
    Checkpoint(path, {"seed": 0}).save(state, model, optimizer, [random_state(torch.device("cpu"))])


READERS = {
    "own features": Reader("s.h5", lambda path: write_features(path, SLIDE, tile_px=256), own),
    "own features, unverified": Reader("s.h5", lambda path: write_features(path, SLIDE, tile_px=256), own_unverified),
    "CLAM": Reader("s.h5", hdf5(features=FEATURES, coords=CORNERS), features),
    "TRIDENT": Reader("s.h5", hdf5(features=FEATURES, coords=CORNERS, on_coords=TRIDENT), features),
    "STAMP": Reader("s.h5", hdf5(feats=FEATURES, coords=CORNERS * 0.5, on_file=STAMP), features),
    "released code": Reader("s.h5", hdf5(Res_feature=FEATURES[None]), features),
    "tensor": Reader("s.pt", tensor(zipped=True), whole_tensor),
    "tensor of an old version": Reader("s.pt", tensor(zipped=False), features),
    "Parquet": Reader(
        "f.parquet",
        lambda path: pd.DataFrame({"slide_id": ["s1", "s2"], "area": [1.5, 2], "n": [3, 4]}).to_parquet(path),
        rows_of_features,
    ),
    "AnnData": Reader("e.h5ad", anndata_file, anndata_expression),
    "prepared expression": Reader("e.h5ad", prepared_expression, read_expression_h5ad),
    "PNG images": Reader("tiles", images("png"), slide),
    "JPEG images": Reader("tiles", images("jpg"), slide),
    "Aperio slide": Reader("s.svs", tiff("Aperio Image Library v11.2.1 \r\n512x512|AppMag = 20|MPP = 0.5"), slide),
    "TIFF slide": Reader("s.tiff", tiff("a slide"), slide),
    "released checkpoint": Reader("r.pth", released, convert),
    "converted checkpoint": Reader("ours", converted, load_converted),
    "unfinished training": Reader("last.ckpt", checkpoint, resumed),
}


@pytest.mark.parametrize("reader", list(READERS))
def test_damaged_files_end_in_a_line_of_ours(tmp_path, reader):
    check_reader(READERS[reader], tmp_path, rounds(12))


@pytest.mark.filterwarnings("ignore")  # of zarr, anndata, dask and geopandas
def test_damaged_stores_end_in_a_line_of_ours(tmp_path):
    pytest.importorskip("spatialdata")
    check_reader(Reader("s.zarr", write_store, features), tmp_path, rounds(12))

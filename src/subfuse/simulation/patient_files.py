"""The files of one simulated patient: slides as pyramidal TIFF, expression as GDC STAR counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from subfuse.errors import ConfigurationError
from subfuse.files import atomic_path, write_table, write_text
from subfuse.simulation.genes import GeneModel, draw_counts, star_table
from subfuse.simulation.layout import CELL_PX, MPP, REGIONS, draw_layout
from subfuse.simulation.plan import PatientJob
from subfuse.simulation.slide import Staining, draw_slide

_TILE_PX = 256
_LEVELS = (1, 4, 16)  # downsampling
_SIDES_PX = (1930, 2190)  # of a slide, from and below


def tifffile_module() -> Any:
    """Returns tifffile.

    Raises:
        ConfigurationError: It, or what compresses the tiles, is not installed.
    """
    try:
        import imagecodecs  # noqa: F401  # compresses the tiles
        import tifffile
    except ImportError as error:
        raise ConfigurationError(
            f"Writing slides requires tifffile and imagecodecs. Found: {error}. Run pip install 'subfuse[wsi]'."
        ) from error
    return tifffile


def write_patient(job: PatientJob) -> str:
    """Writes the files of a patient that are not there yet, each from its own seed; returns the patient."""
    staining_seed, *file_seeds = job.seed.spawn(1 + len(job.slide_ids) + len(job.samples))
    staining = Staining.draw(np.random.default_rng(staining_seed))
    for slide_id, seed in zip(job.slide_ids, file_seeds[: len(job.slide_ids)], strict=True):
        path, regions = job.out / "slides" / f"{slide_id}.tiff", job.out / "truth" / "regions" / f"{slide_id}.csv"
        if not (path.exists() and regions.exists()):
            _write_slide(path, regions, job.slide_view, staining, np.random.default_rng(seed))
    for sample, seed in zip(job.samples, file_seeds[len(job.slide_ids) :], strict=True):
        path = job.out / "expression" / sample.folder / sample.file_name
        if not path.exists():
            _write_star(path, job.genes, job.expression_view, np.random.default_rng(seed))
    return job.patient_id


def _write_slide(
    path: Path,
    regions: Path,
    view: tuple[float, float],
    staining: Staining,
    generator: np.random.Generator,
) -> None:
    height, width = generator.integers(*_SIDES_PX, size=2).tolist()
    tumour, microenvironment = view
    layout = draw_layout(height, width, microenvironment=microenvironment, generator=generator)
    image = draw_slide(layout, height, width, tumour=tumour, staining=staining, generator=generator)
    row, column = np.indices(layout.shape)
    table = {"x": column.ravel() * CELL_PX, "y": row.ravel() * CELL_PX, "size": CELL_PX}
    write_table(regions, pd.DataFrame(table | {"region": np.array(REGIONS)[layout.ravel()]}))
    _write_pyramid(path, image)


def _write_pyramid(path: Path, image: UInt8[np.ndarray, "height width 3"]) -> None:
    """Writes a tiled TIFF with downsampled levels that OpenSlide reads, its resolution in pixels per centimetre."""
    tifffile = tifffile_module()
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary) as tiff:
        for level, factor in enumerate(_LEVELS):
            per_cm = 1e4 / (MPP * factor)
            tiff.write(
                _downsampled(image, factor),
                photometric="rgb",
                tile=(_TILE_PX, _TILE_PX),
                compression="jpeg",
                compressionargs={"level": 80},
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),  # OpenSlide takes reduced images as levels
                metadata=None,
                software="subfuse",
            )


def _downsampled(image: UInt8[np.ndarray, "height width 3"], factor: int) -> UInt8[np.ndarray, "row column 3"]:
    """The mean over squares; what does not fill a square is cut off, as scanners do."""
    if factor == 1:
        return image
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    image = image[: rows * factor, : columns * factor]
    total = np.zeros((rows, columns, 3), dtype=np.uint32)
    for line, place in np.ndindex(factor, factor):
        total += image[line::factor, place::factor]
    return ((total + factor**2 // 2) // factor**2).astype(np.uint8)


def _write_star(path: Path, genes: GeneModel, view: tuple[float, float], generator: np.random.Generator) -> None:
    counts = draw_counts(genes, view, generator)
    table = star_table(genes, counts, generator)
    total = int(counts.sum())
    unassigned = {"N_unmapped": 0.05, "N_multimapping": 0.09, "N_noFeature": 0.04, "N_ambiguous": 0.06}
    lines = ["# gene-model: GENCODE v36", "\t".join(table.columns)]
    for name, share in unassigned.items():
        reads = int(generator.poisson(share * total))
        lines.append(f"{name}\t\t\t{reads}\t{reads}\t{reads}\t\t\t")
    rows = table.to_csv(sep="\t", header=False, index=False, float_format="%.4f", lineterminator="\n")
    write_text(path, "\n".join(lines) + "\n" + rows)

"""A tiny run for the viewer: eight patients, three real slides, one epoch; made once per test process."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml

from subfuse.data.cohort import read_cohort
from subfuse.data.preparation import prepare
from subfuse.evaluation.cross_validation import cross_validate
from subfuse.runs import load_run
from subfuse.training.settings import ArchitectureSettings, TrainingSettings

HOSTILE = "<script>alert(1)</script>"
GENES = tuple(f"GENE{i:02d}" for i in range(14))
N_PATIENTS = 12
SLIDES = {"slide-a": "P01", "slide-b": "P01", "slide-c": HOSTILE, "slide-lost": "P03"}
WIDTH, HEIGHT = 1100, 830  # of slide-a


@pytest.fixture(scope="session")
def viewer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder; the first patient of `explained_patient` is explained."""
    root = tmp_path_factory.getbasetemp() / "viewer"
    if not (root / "run" / "predictions.csv").exists():
        make_run(root)
    return root / "run"


def make_run(root: Path) -> None:
    generator = np.random.default_rng(0)
    write_cohort(root / "cohort", generator)
    prepare(root / "cohort" / "cohort.yaml", root / "prepared")
    (root / "cohort" / "slides" / "slide-lost.tiff").unlink()  # as on another machine
    cohort = read_cohort(root / "prepared")
    brief = ArchitectureSettings(embed_dim=16, max_grid=6, table_size=16)
    settings = TrainingSettings(epochs=1, accelerator="cpu")
    models = ["subspace", "snn"]
    tasks = ["survival", "grade"]
    cross_validate(cohort, task=tasks, models=models, out=root / "run", training=settings, architecture=brief)
    load_run(root / "run").explain(cohort, "P01")


def write_cohort(folder: Path, generator: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    identifiers = [HOSTILE, *(f"P{i:02d}" for i in range(1, N_PATIENTS))]
    latent = generator.normal(size=N_PATIENTS)
    pd.DataFrame(
        {
            "patient_id": identifiers,
            "time_days": np.round(400 * np.exp(-latent)) + 1,
            "event": np.arange(N_PATIENTS) % 3 != 0,
            "grade": np.where(np.arange(N_PATIENTS) % 2, "G2", "G4"),
            "age": generator.integers(30, 80, N_PATIENTS),
        }
    ).to_csv(folder / "patients.csv", index=False)
    values = np.exp(generator.normal(size=(N_PATIENTS, len(GENES))) + latent[:, None]) * 50
    table = pd.DataFrame(values.round(3), index=identifiers, columns=list(GENES))
    table.rename_axis("patient_id").drop(index="P03").to_csv(folder / "expression.csv")
    (folder / "tumour.gmt").write_text("one\t\t" + "\t".join(GENES[:6]) + "\n")
    (folder / "microenvironment.gmt").write_text("two\t\t" + "\t".join(GENES[5:12]) + "\n")
    slides = pd.DataFrame({"slide_id": list(SLIDES), "patient_id": list(SLIDES.values())})
    slides.to_csv(folder / "slides.csv", index=False)
    (folder / "slides").mkdir()
    for number, name in enumerate(SLIDES):
        write_slide(folder / "slides" / f"{name}.tiff", generator, WIDTH - 80 * number, HEIGHT)
    (folder / "cohort.yaml").write_text(yaml.safe_dump(COHORT))


COHORT = {
    "name": "tiny",
    "patients": {"table": "patients.csv"},
    "slides": {"table": "slides.csv", "folder": "slides"},
    "expression": {"table": "expression.csv", "unit": "tpm"},
    "gene_sets": {"tumour": "tumour.gmt", "microenvironment": "microenvironment.gmt"},
    "tasks": {"survival": {"time": "time_days", "event": "event"}, "grade": {"column": "grade"}},
    "covariates": ["age"],
    "splits": {"folds": 2, "stratify": ["grade"]},
}


def write_slide(path: Path, generator: np.random.Generator, width: int, height: int) -> None:
    """A tiled pyramid at 0.5 µm per pixel: pink noise on the left, glass on the right."""
    image = np.full((height, width, 3), 240, np.uint8)
    tissue = np.array((200, 90, 160)) + generator.integers(-40, 40, size=(height - 120, 600, 3))
    image[60 : height - 60, 40:640] = tissue.astype(np.uint8)
    with tifffile.TiffWriter(path) as tiff:
        for level, factor in enumerate((1, 4)):
            tiff.write(
                np.ascontiguousarray(image[::factor, ::factor]),
                photometric="rgb",
                tile=(256, 256),
                compression="jpeg",
                resolution=(20000 / factor, 20000 / factor),
                resolutionunit="CENTIMETER",
                subfiletype=int(level > 0),
                metadata=None,
            )

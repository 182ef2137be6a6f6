"""A tiny run for the viewer: eight patients, three real slides, one epoch; made once per test process."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from PIL import Image

from small_cohort import unchecked
from subfuse.cohort.cohort import read_cohort
from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.cohort.marker import mark_complete
from subfuse.features.store import SlideFeatures, write_features
from subfuse.preparation.plan import plan_cohort
from subfuse.preparation.prepared import write_prepared
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.run import load_run
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

HOSTILE = "<img src=x onerror=alert(1)>"
GENES = tuple(f"GENE{i:02d}" for i in range(14))
N_PATIENTS = 12
SLIDES = {"slide-a": "P01", "slide-b": "P01", "slide-c": HOSTILE, "slide-lost": "P03"}
WIDTH, HEIGHT = 1100, 830  # of slide-a


def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder; patient P01 is explained."""
    root = tmp_path_factory.getbasetemp() / "viewer"
    if not (root / "run" / "predictions.csv").exists():
        with unchecked():
            make_run(root)
    return root / "run"


def make_run(root: Path) -> None:
    generator = np.random.default_rng(0)
    write_cohort(root / "cohort", generator)
    write_prepared_folder(root / "prepared", root / "cohort" / "cohort.yaml", generator)
    (root / "cohort" / "slides" / "slide-lost.tiff").unlink()  # as on another machine
    cohort = read_cohort(root / "prepared")
    cross_validate(
        cohort,
        task=["survival", "grade"],
        models=["subspace", "snn"],
        out=root / "run",
        plan=TrainingPlan(
            training=TrainingSettings(epochs=1),
            architecture=ArchitectureSettings(embed_dim=16, max_grid=6, table_size=16),
        ),
    )
    folder = load_run(root / "run").explain(cohort, "P01")
    points = {"slide_id": "slide-a", "subspace": ["tumour", "microenvironment"], "group": 0, "x": [300, 500], "y": 400}
    pd.DataFrame(points).to_csv(folder / "survival" / "points.csv", index=False)


def write_prepared_folder(out: Path, cohort_path: Path, generator: np.random.Generator) -> None:
    """What `prepare` writes, with random features: no encoder has to be loaded."""
    cohort_file = read_cohort_file(cohort_path)
    plan = plan_cohort(cohort_file)
    folder = out / "wsi" / "20x_256px_0px_overlap"
    records = []
    for source in plan.slides:
        image = Image.fromarray(tifffile.imread(source.path))
        path = folder / "features_random" / f"{source.slide_id}.h5"
        write_features(path, random_features(generator, *image.size), tile_px=256)
        image.thumbnail((400, 400))
        (folder / "thumbnails").mkdir(exist_ok=True)
        image.save(folder / "thumbnails" / f"{source.slide_id}.jpg")
        features = path.relative_to(out).as_posix()
        records.append({"slide_id": source.slide_id, "patient_id": source.patient_id, "features": features})
    write_prepared(out, cohort_file, plan, pd.DataFrame(records))
    mark_complete(out, {"encoder": "random", "encoder_sha256": "0" * 64, "patch_dim": 5})


def random_features(generator: np.random.Generator, width: int, height: int) -> SlideFeatures:
    """Patches of 256 px over the tissue."""
    y, x = np.mgrid[60 : height - 256 : 256, 40:500:256]
    coords = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int32)
    return SlideFeatures(
        features=generator.normal(size=(len(coords), 5)).astype(np.float16),
        coords=coords,
        patch_size_level0=256,
        level0_mpp=0.5,
        target_mpp=0.5,
        encoder="random",
        encoder_sha256="0" * 64,
        slide_width_px=width,
        slide_height_px=height,
    )


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

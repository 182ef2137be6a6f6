"""A cohort as most users have it: features that TRIDENT extracted, RNA, a clinical table, covariates; no image."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import yaml

GENES = tuple(f"GENE{i:02d}" for i in range(16))
N_PATIENTS, PATCH_DIM = 16, 8
WITHOUT_RNA, WITHOUT_SLIDES, TWO_SLIDES = "PT-01", "PT-02", "PT-03"
FEATURES = Path("trident") / "20x_256px_0px_overlap" / "features_uni_v1"
CONTENT = {
    "name": "trident",
    "patients": {"table": "patients.csv"},
    "slides": {"table": "slides.csv", "features": FEATURES.as_posix()},
    "expression": {"table": "expression.csv", "unit": "tpm"},
    "gene_sets": {"tumour": "tumour.gmt", "microenvironment": "microenvironment.gmt"},
    "tasks": {
        "survival": {"time": "time_days", "event": "event"},
        "grade": {"column": "grade", "classes": ["G2", "G4"], "ordinal": True},
        "diagnosis": {"column": "diagnosis"},
    },
    "covariates": ["age", "gender"],
    "splits": {"folds": 2, "validation": 0.25, "stratify": ["grade"]},
}


def trident_cohort(folder: Path, *, seed: int = 0, site: str = "PT", outcomes: bool = True, **content: object) -> Path:
    """Writes the cohort and returns its `cohort.yaml`. One latent drives outcomes, expression and features.

    One patient has no RNA, one no slide, one two slides of different sizes. Other sites have other patients.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    patients = [f"{site}-{i:02d}" for i in range(N_PATIENTS)]
    names = {name: name.replace("PT", site) for name in (WITHOUT_RNA, WITHOUT_SLIDES, TWO_SLIDES)}
    latent = np.where(np.arange(N_PATIENTS) % 2, 1.0, -1.0) + 0.3 * random.normal(size=N_PATIENTS)
    _write_patients(folder / "patients.csv", patients, latent, random, outcomes=outcomes)
    slides = []
    for patient, value in zip(patients, latent.tolist(), strict=True):
        for k in range({names[WITHOUT_SLIDES]: 0, names[TWO_SLIDES]: 2}.get(patient, 1)):
            slides.append({"slide_id": f"{patient}_{k}", "patient_id": patient, "mpp": 0.25})
            write_trident(folder / FEATURES / f"{patient}_{k}.h5", random, value, columns=3 + k)
    pd.DataFrame(slides).to_csv(folder / "slides.csv", index=False)
    expression = pd.DataFrame([expression_of(random, value) for value in latent], index=patients, columns=list(GENES))
    expression.rename_axis("patient_id").drop(index=names[WITHOUT_RNA]).to_csv(folder / "expression.csv")
    (folder / "tumour.gmt").write_text("one\t\t" + "\t".join(GENES[:6]) + "\n")
    (folder / "microenvironment.gmt").write_text("two\t\t" + "\t".join(GENES[4:14]) + "\n")
    path = folder / "cohort.yaml"
    path.write_text(yaml.safe_dump(CONTENT | content, sort_keys=False))
    return path


def write_trident(path: Path, random: np.random.Generator, latent: float, *, columns: int = 3) -> None:
    """Writes the features of one slide with the datasets and attributes of TRIDENT; patches start away from 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    index = np.arange(int(random.integers(6, 12)))
    features = random.normal(size=(len(index), PATCH_DIM)).astype(np.float32)
    features[:, 0] += latent
    with h5py.File(path, "w") as file:
        file["features"] = features
        file["features"].attrs.update({"name": path.stem, "encoder": "uni_v1"})
        file["coords"] = 1024 + 512 * np.stack([index % columns, index // columns], axis=1).astype(np.int64)
        file["coords"].attrs.update(
            {"name": path.stem, "patch_size": 256, "patch_size_level0": 512, "overlap": 0,
             "level0_magnification": 40, "target_magnification": 20, "level0_width": 6000 + 512 * columns,
             "level0_height": 5000}
        )  # fmt: skip


def expression_of(random: np.random.Generator, latent: float) -> np.ndarray:
    """Returns TPM of one patient; the first genes rise with the latent."""
    values = np.exp(random.normal(size=len(GENES)) + latent * (np.arange(len(GENES)) < 3))
    return (1e6 * values / values.sum()).round(2)


def _write_patients(
    path: Path, patients: list[str], latent: np.ndarray, random: np.random.Generator, *, outcomes: bool
) -> None:
    n = len(patients)
    table = pd.DataFrame(
        {
            "patient_id": patients,
            "time_days": np.round(600 * np.exp(-latent + 0.2 * random.normal(size=n))) + 1,
            "event": np.arange(n) % 4 != 0,
            "grade": np.where(latent > 0, "G4", "G2"),
            "diagnosis": np.where(latent + random.normal(size=n) > 0, "glioblastoma", "astrocytoma"),
            "age": random.integers(30, 80, n),
            "gender": np.where(np.arange(n) % 3 == 0, "f", "m"),
        }
    )
    (table if outcomes else table[["patient_id", "age", "gender"]]).to_csv(path, index=False)

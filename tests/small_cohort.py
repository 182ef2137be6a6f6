"""Small cohorts in memory, which most tests share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch

import process_pool  # noqa: F401  one server of processes, whichever test is the first to need it
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.features.store import SlideFeatures, write_features

torch.set_num_threads(1)  # tests run in one process per core


@contextmanager
def unchecked() -> Iterator[None]:
    """What is made here for several modules is made as in a walk."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def make_cohort(tmp_path: Path) -> Callable[..., Cohort]:
    """Builds small cohorts in memory, with feature files on disk."""

    def build(n_patients: int = 24, *, n_genes: int = 10, patch_dim: int = 6, seed: int = 0) -> Cohort:
        """One latent drives grade and survival; it shows in the first gene and in every patch's first feature.

        The first patient has no slide, the second no expression, the third two slides.
        """
        random = np.random.default_rng(seed)
        patients = []
        for i in range(n_patients):
            latent = random.normal()
            n_slides = 0 if i == 0 else 2 if i == 2 else 1
            slides = [tmp_path / "features" / f"slide-{i:03d}-{k}.h5" for k in range(n_slides)]
            for path in slides:
                write_features(path, slide_features(random, latent, patch_dim), tile_px=256)
            expression = random.normal(size=n_genes).astype(np.float32)
            expression[0] += 2 * latent
            patients.append(
                Patient(
                    patient_id=f"P{i:03d}",
                    cohort="small",
                    slides=tuple(slides),
                    expression=None if i == 1 else expression,
                    time_days=float(np.exp(6 - latent + 0.3 * random.normal())),
                    event=bool(random.random() < 0.7),
                    labels={"grade": "G4" if latent > 0 else "G2"},
                )
            )
        genes = tuple(f"GENE{i}" for i in range(n_genes))
        return Cohort(
            name="small",
            patients=tuple(patients),
            genes=genes,
            expression_unit="log2_tpm",
            gene_sets={"tumour": genes[:4], "microenvironment": genes[3:9]},
            pathways={"first": genes[:2], "second": genes[2:4], "third": genes[3:9]},
            tasks={"survival": TaskSpec(time="time_days", event="event"), "grade": TaskSpec(column="grade")},
            encoder="fake",
            encoder_sha256="0" * 64,
            patch_dim=patch_dim,
            patch_um={path: 128.0 for patient in patients for path in patient.slides},
        )

    return build


def slide_features(random: np.random.Generator, latent: float, patch_dim: int) -> SlideFeatures:
    """A slide of 5 to 14 patches in rows of four."""
    n = int(random.integers(5, 15))
    features = random.normal(size=(n, patch_dim)).astype(np.float16)
    features[:, 0] += 2 * latent
    coords = np.stack([np.arange(n) % 4, np.arange(n) // 4], axis=1).astype(np.int32) * 256
    return SlideFeatures(
        features=features,
        coords=coords,
        patch_size_level0=256,
        level0_mpp=0.5,
        target_mpp=0.5,
        encoder="fake",
        encoder_sha256="0" * 64,
        slide_width_px=1100,
        slide_height_px=1300,
    )


def with_covariates(cohort: Cohort) -> Cohort:
    """The cohort with age and gender; of the fourth patient nothing is known, of the fifth no age."""
    random = np.random.default_rng(1)
    known = [
        {"age": f"{random.integers(30, 80)}", "gender": "Male" if random.random() < 0.5 else "female"} for _ in cohort
    ]
    known[3], known[4] = {}, {"gender": "male"}
    patients = tuple(replace(p, covariates=values) for p, values in zip(cohort, known, strict=True))
    return replace(cohort, patients=patients, covariates=("age", "gender=male"))


def deal_folds(cohort: Cohort, n_folds: int = 2) -> tuple[Fold, ...]:
    """Folds by position: every third of the other patients validates."""
    ids = [patient.patient_id for patient in cohort]
    folds = []
    for k in range(n_folds):
        others = [p for i, p in enumerate(ids) if i % n_folds != k]
        folds.append(Fold(tuple(others[1::3] + others[2::3]), tuple(others[::3]), tuple(ids[k::n_folds])))
    return tuple(folds)

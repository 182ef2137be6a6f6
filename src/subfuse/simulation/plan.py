"""What is to be written for every patient of a simulated cohort."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from subfuse.simulation.genes import GeneModel
from subfuse.simulation.patients import MODALITIES, SyntheticPatients

STAR_SUFFIX = ".rna_seq.augmented_star_gene_counts.tsv"
SITES = ("SA", "SB", "SC", "SD")  # contributing hospitals, the second part of the identifiers


@dataclass(frozen=True)
class PatientJob:
    """What one worker needs to write one patient's files."""

    out: Path
    patient_id: str
    slide_view: tuple[float, float]  # tumour, microenvironment
    expression_view: tuple[float, float]
    slide_ids: tuple[str, ...]
    samples: tuple["Sample", ...]
    genes: GeneModel
    seed: np.random.SeedSequence


@dataclass(frozen=True)
class Sample:
    """One count file: identifiers as in the GDC sample sheet."""

    sample_id: str
    sample_type: str
    folder: str
    file_name: str


def plan_jobs(
    out: Path,
    truth: SyntheticPatients,
    genes: GeneModel,
    seeds: Sequence[np.random.SeedSequence],
    identifiers: np.random.Generator,
) -> list[PatientJob]:
    """Returns one job per patient, with the slides and count files that the patient has."""
    n = len(seeds)
    jobs = []
    for i, seed in enumerate(seeds):
        patient_id = f"TCGA-{SITES[i % len(SITES)]}-{i + 1:04d}"
        n_slides = 0 if i == n - 1 else 1 + int(identifiers.random() < 0.35)
        # The recurrent sample comes first, so a reader that takes the first file of a patient is wrong.
        kinds = () if i == n - 2 else (("02A", "Recurrent Tumor"), ("01A", "Primary Tumor"))[int(i > 0) :]
        jobs.append(
            PatientJob(
                out,
                patient_id,
                slide_view=tuple(truth.views[i, MODALITIES.index("slide")].tolist()),
                expression_view=tuple(truth.views[i, MODALITIES.index("expression")].tolist()),
                slide_ids=tuple(f"{patient_id}-01Z-00-DX{k + 1}" for k in range(n_slides)),
                samples=tuple(_sample(patient_id, code, kind, identifiers) for code, kind in kinds),
                genes=genes,
                seed=seed,
            )
        )
    return jobs


def _sample(patient_id: str, code: str, sample_type: str, identifiers: np.random.Generator) -> Sample:
    return Sample(
        f"{patient_id}-{code}", sample_type, str(draw_uuid(identifiers)), f"{draw_uuid(identifiers)}{STAR_SUFFIX}"
    )


def draw_uuid(generator: np.random.Generator) -> uuid.UUID:
    """Returns a random identifier as the GDC gives them."""
    return uuid.UUID(bytes=generator.bytes(16), version=4)

"""Patients and cohorts as every later stage sees them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from subfuse.data.cohort_file import TaskSpec


@dataclass(frozen=True)
class Patient:
    """The unit of splitting, prediction and statistics. None means unknown, never zero."""

    patient_id: str
    cohort: str
    slides: tuple[Path, ...] = ()  # feature files, sorted by slide identifier; empty if there is no slide
    expression: Float[np.ndarray, " gene"] | None = None  # in Cohort.genes order, in Cohort.expression_unit
    time_days: float | None = None  # from diagnosis to event or last contact
    event: bool | None = None  # True: the event was observed; False: right-censored
    labels: Mapping[str, str] = field(default_factory=dict)  # every other clinical column that is known
    site: str | None = None  # contributing hospital


@dataclass(frozen=True)
class Cohort:
    """Patients sorted by identifier, with what they share. Patch features stay on disk until a bag is drawn."""

    name: str
    patients: tuple[Patient, ...]
    genes: tuple[str, ...]
    expression_unit: str | None
    gene_sets: Mapping[str, tuple[str, ...]]  # subspace -> gene names, all of them on `genes`
    tasks: Mapping[str, TaskSpec]
    encoder: str | None = None
    encoder_sha256: str | None = None
    patch_dim: int | None = None
    root: Path | None = None  # the prepared folder

    def __len__(self) -> int:
        return len(self.patients)

    def __iter__(self) -> Iterator[Patient]:
        return iter(self.patients)

    def select(self, patient_ids: Collection[str]) -> "Cohort":
        """Returns the cohort of these patients; unknown identifiers are an error."""
        wanted = set(patient_ids)
        missing = wanted - {patient.patient_id for patient in self.patients}
        if missing:
            raise KeyError(f"patient_ids must be in cohort {self.name!r}. Not found: {sorted(missing)[:5]}.")
        return replace(self, patients=tuple(p for p in self.patients if p.patient_id in wanted))

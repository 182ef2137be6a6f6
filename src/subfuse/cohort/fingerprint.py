"""What results are made from, as hashes: inputs and outcomes of patients, kind by kind."""

import hashlib
from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path

from subfuse.cohort.cohort import Patient
from subfuse.cohort.task import TaskSpec
from subfuse.features.store import recorded_hash
from subfuse.files import sha256_of_json


def fingerprint_of(
    patients: Iterable[Patient],
    *,
    modalities: Collection[str],
    task: TaskSpec | None = None,
    column: str | None = None,
) -> dict[str, str]:
    """Returns a SHA-256 of each kind of input that a model reads of these patients, in their order.

    Slides enter by name and by the hash that was written with their features: features are not read again.

    Args:
        patients: Whose inputs.
        modalities: What the model reads: of slides, expression and covariates.
        task: Its outcomes enter too; None: they play no part.
        column: What it reads instead of covariates.

    Raises:
        DataError: A feature file is gone or damaged.
    """
    listed = list(patients)
    found = {"patients": sha256_of_json([[patient.patient_id, patient.cohort] for patient in listed])}
    if task is not None:
        found["outcomes"] = sha256_of_json([list(patient.outcome(task)) for patient in listed])
    if "slides" in modalities:
        found["slides"] = sha256_of_json([[(p.stem, _hash_at(p)) for p in patient.slides] for patient in listed])
    if "expression" in modalities:
        found["expression"] = _sha256_of_expression(listed)
    if column is not None:
        found["covariates"] = sha256_of_json([patient.columns.get(column) for patient in listed])
    elif set(modalities) != {"slides"}:
        found["covariates"] = sha256_of_json([sorted(patient.covariates.items()) for patient in listed])
    return found


def _sha256_of_expression(patients: Iterable[Patient]) -> str:
    digest = hashlib.sha256()
    for patient in patients:
        digest.update(b"none" if patient.expression is None else patient.expression.tobytes())
    return digest.hexdigest()


def _hash_at(features: Path) -> str:
    """Returns the recorded hash of a feature file, which is opened once as long as it stays as it is."""
    found = features.stat()
    return _cached_hash(features, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=100_000)
def _cached_hash(features: Path, modified_ns: int, n_bytes: int) -> str:
    return recorded_hash(features)

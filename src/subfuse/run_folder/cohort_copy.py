"""The copy of what a report tells about a run's cohort, so that a run can be read without the prepared folder."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from subfuse.cohort.cohort import Cohort, changed_patients, read_patients
from subfuse.cohort.marker import COHORT_FILE
from subfuse.errors import preview
from subfuse.files import atomic_path, read_json
from subfuse.run_folder import names
from subfuse.run_folder.tables import read_columns

_TABLES: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # and the columns of each, see `read_columns`
    names.PATIENTS: {"names": ("patient_id",), "counts": ("n_slides",)},
    names.EXCLUSIONS: {"names": ("level", "reason"), "text": ("id",)},
    names.SLIDES: {"names": ("slide_id",), "counts": ("n_patches",)},
    names.SLIDE_QUALITY: {"names": ("slide_id",)},
    names.GENE_SET_COVERAGE: {
        "names": ("subspace",),
        "text": ("missing", "overlap"),
        "numbers": ("n_genes", "n_found", "fraction"),
    },
    names.HARMONISATION: {
        "names": ("cohort", "reference", "gene_set"),
        "text": ("missing",),
        "numbers": ("n_shared", "n_genes", "shift", "shift_max", "ks"),
    },
}
_OF_PATIENTS = (names.PATIENTS, COHORT_FILE)  # of a prepared folder: told by patient, and what no model reads
_CONTACT_SHEETS = 6  # shown in the report


def copy_cohort(cohort: Cohort, run: Path) -> None:
    """Copies what a report tells about the cohort; what the cohort does not have any more is removed."""
    if cohort.root is None:
        return
    sheets = sorted(cohort.root.glob(f"wsi/*/{names.CONTACT_SHEETS}/*.jpg"))[:_CONTACT_SHEETS]
    copies = {name: cohort.root / name for name in (*_TABLES, names.PROVENANCE)}
    copies |= {f"{names.CONTACT_SHEETS}/{path.name}": path for path in sheets}
    for path in contact_sheets(run):
        if f"{names.CONTACT_SHEETS}/{path.name}" not in copies:
            path.unlink()
    for name, source in copies.items():
        if source.exists():
            with atomic_path(run / names.COHORT / name) as temporary:
                shutil.copyfile(source, temporary)
        else:
            (run / names.COHORT / name).unlink(missing_ok=True)


def contact_sheets(run: Path) -> list[Path]:
    """Returns the pictures of slides that were copied."""
    return sorted((run / names.COHORT / names.CONTACT_SHEETS).glob("*.jpg"))


def read_run_cohort(run: Path) -> dict[str, pd.DataFrame]:
    """Returns the tables that were copied, by their names without `.csv`; empty where the cohort had none.

    Raises:
        DataError: A table lacks a column, or holds something else in one.
    """
    return {Path(name).stem: read_columns(run / names.COHORT / name, **columns) for name, columns in _TABLES.items()}


def read_run_patients(run: Path) -> pd.DataFrame | None:
    """Returns the patients of a run's cohort; None where they were not copied. See `read_patients`."""
    return read_patients(run / names.COHORT) if (run / names.COHORT / names.PATIENTS).exists() else None


def changed_since(run: Path, prepared: Path) -> str:
    """Returns what of a prepared cohort is not what the run was made from; empty where nothing is known to differ.

    Raises:
        DataError: A table of either cannot be read.
    """
    marks = [folder / names.PROVENANCE for folder in (run / names.COHORT, prepared)]
    if not all(mark.exists() for mark in marks):
        return ""
    before, now = (read_json(mark).get("files") for mark in marks)
    if not before or not now or before == now:
        return ""
    patients = read_run_patients(run)
    told = [] if patients is None else changed_patients(patients, read_patients(prepared))
    others = [name for name in {**before, **now} if name not in _OF_PATIENTS and before.get(name) != now.get(name)]
    others = list(dict.fromkeys("folds" if name.startswith("splits/") else name for name in others))
    return "; ".join([*told, *([f"other {preview(others)}"] if others else [])])

"""Leakage: the same person, slide or expression on both sides of a split."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.audit.findings import Finding
from subfuse.cohort.cohort import Cohort
from subfuse.errors import DataError, preview
from subfuse.evaluation.predictions import FOLD
from subfuse.features.store import read_sample
from subfuse.identifiers import patient_of_barcode

_DUPLICATE_CORRELATION = 0.99  # of two patients' gene-wise standardised expression
_TELLING = 0.9999  # correlation of unrelated patients above which genes tell nobody apart
_DRAWN = 2000  # unrelated patients who are drawn, two million pairs
_OF_SPECTRUM = 500  # patients from whom is learned in how many directions genes vary
_HASHED_PATCHES = 256
_BLOCK = 1024  # patients compared with all others at a time
_WHY = "A model recognises what it has seen: results on such patients say nothing about new ones."
_MODEL = ["task", "model", *FOLD]


def check_patients(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    """Returns the table without test rows of persons who were also trained or validated on, and findings.

    Persons are patients; samples of one TCGA patient are one person.

    Raises:
        DataError: Nobody is left whom a task could be audited on.
    """
    person = table["patient_id"].map(patient_of_barcode)
    is_test = table["split"] == "test"
    if is_test.all():
        found = "patients across splits: cannot be checked, there are no rows of training or validation patients"
        return table, [Finding("note", "patient leakage", found, _WHY, "Add rows of split train and validation.")]
    keys = pd.MultiIndex.from_frame(table[_MODEL].assign(person=person))
    leaked = is_test & keys.isin(keys[~is_test])
    findings = []
    for task, rows in table[is_test].groupby("task", sort=False):
        if leaked[rows.index].all():
            raise DataError(
                f"patients whom its model did not train on are required. Found all {person[rows.index].nunique()} "
                f"tested persons of task {task} in training or validation of the same fold. Split by patient and train "
                "again; or, where rows of several folds are one table, say which by a column fold."
            )
    if leaked.any():
        found = (
            f"{person[leaked].nunique()} persons are tested by models that trained or were chosen on them "
            f"({preview(sorted(person[leaked].unique()), 3)}; folds of {preview(table.loc[leaked, 'model'].unique())})"
        )
        remedy = "Split by patient and train again. Their test rows are left out of everything below."
        findings.append(Finding("failure", "patient leakage", found, _WHY, remedy))
    else:
        found = f"none of {person.nunique()} persons is on both sides of a fold"
        findings.append(Finding("ok", "patient leakage", found))
    return table[~leaked].reset_index(drop=True), [*findings, *_tested_often(table[~leaked])]


def _tested_often(table: pd.DataFrame) -> Iterator[Finding]:
    tested = table[table["split"] == "test"]
    person = tested["patient_id"].map(patient_of_barcode)
    often = tested.assign(person=person).groupby(["task", "model", "repeat", "person"]).size() > 1
    if often.any():
        n_often = often[often].index.get_level_values("person").nunique()
        yield Finding(
            "note",
            "patient leakage",
            f"{n_often} persons are tested by several folds of a repeat",
            "Their results are not independent; intervals here count every patient once.",
            "Expected for an external cohort; otherwise let each patient be tested once.",
        )


def check_slides(cohort: Cohort, assignment: pd.DataFrame) -> list[Finding]:
    """Returns findings on slides that several patients share, by the content of their feature files.

    Compared are number and places of the patches and the features of the first of them: the same slide under two
    names has both in common.

    Args:
        cohort: The cohort.
        assignment: Columns repeat, fold, split, patient_id.
    """
    owners: dict[str, list[tuple[str, str]]] = {}
    for patient in cohort:
        for path in patient.slides:
            owners.setdefault(_fingerprint(path), []).append((patient.patient_id, path.stem))
    if not owners:
        return []
    shared = [found for found in owners.values() if len({patient for patient, _ in found}) > 1]
    twice = [found for found in owners.values() if len(found) > 1 and found not in shared]
    findings = _duplicates("slide leakage", "the same slide", [[p for p, _ in found] for found in shared], assignment)
    if twice:
        names = preview([" = ".join(name for _, name in found) for found in twice], 3)
        findings.append(
            Finding(
                "note",
                "slide leakage",
                f"{len(twice)} patients have the same slide twice ({names})",
                "It counts double.",
                "List it once.",
            )
        )
    return findings or [Finding("ok", "slide leakage", f"{len(owners)} slides, no two of them the same")]


def check_expression(cohort: Cohort, assignment: pd.DataFrame) -> list[Finding]:
    """Returns findings on patients with nearly the same expression: correlation above 0.99 after scaling every gene.

    Where genes rise and fall together, unrelated patients correlate as highly: then more is asked, see `chance_limit`.

    Args:
        cohort: The cohort.
        assignment: Columns repeat, fold, split, patient_id.
    """
    measured = [patient for patient in cohort if patient.expression is not None]
    if len(measured) < 3:
        return []
    values = np.stack([patient.expression for patient in measured if patient.expression is not None])
    values = values[:, _varies(values)]
    limit = chance_limit(values)
    if limit > _TELLING:
        found = (
            f"near-duplicate expression: cannot be checked, {values.shape[1]} genes that differ between "
            f"{len(measured)} patients tell too little: unrelated patients would be as alike"
        )
        return [Finding("note", "expression leakage", found, _WHY)]
    ids = [patient.patient_id for patient in measured]
    pairs = [[ids[i], ids[j]] for i, j in near_duplicates(values, above=max(_DUPLICATE_CORRELATION, limit))]
    found = f"{len(measured)} expression profiles, no two of them nearly the same"
    return _duplicates("expression leakage", "nearly the same expression", pairs, assignment) or [
        Finding("ok", "expression leakage", found)
    ]


def chance_limit(values: Float[np.ndarray, "patient gene"]) -> float:
    """Returns how highly unrelated patients may correlate by chance, as `near_duplicates` correlates them.

    The highest correlation among 2000 patients that are drawn from a normal distribution with the variances that the
    profiles have along their principal directions. So it counts in how many directions genes tell patients apart, and
    how much, rather than genes: a hundred genes of two pathways tell as little as two.
    """
    profiles = _profiles(values)
    profiles = profiles[np.linspace(0, len(profiles) - 1, min(len(profiles), _OF_SPECTRUM)).astype(int)]
    products = profiles @ profiles.T if len(profiles) < profiles.shape[1] else profiles.T @ profiles
    spread = np.sqrt(np.clip(np.linalg.eigvalsh(products), 0.0, None))
    if not spread.any():
        return 1.0
    drawn = np.random.default_rng(0).normal(size=(_DRAWN, len(spread))) * spread
    drawn = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    correlation = drawn @ drawn.T
    np.fill_diagonal(correlation, -1.0)
    return float(correlation.max())


def near_duplicates(values: Float[np.ndarray, "patient gene"], *, above: float) -> list[tuple[int, int]]:
    """Returns pairs of rows that correlate above a limit after standardising every gene.

    Without that, any two patients correlate highly, since some genes are high in everybody.
    """
    standard = _profiles(values)
    standard = standard / np.maximum(np.linalg.norm(standard, axis=1, keepdims=True), 1e-12)
    pairs = []
    for start in range(0, len(standard), _BLOCK):
        correlation = standard[start : start + _BLOCK] @ standard.T
        rows, columns = np.nonzero(correlation > above)
        pairs += [(int(i) + start, int(j)) for i, j in zip(rows, columns, strict=True) if i + start < j]
    return pairs


def _profiles(values: Float[np.ndarray, "patient gene"]) -> Float[np.ndarray, "patient varying_gene"]:
    """Returns genes of mean 0 and spread 1 over patients, then patients of mean 0 over genes; those that vary."""
    values = values[:, _varies(values)]
    if not values.size:
        return values
    mean, spread = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
    standard = (values - mean.astype(values.dtype)) / spread.astype(values.dtype)
    return standard - standard.mean(axis=1, keepdims=True)


def _varies(values: Float[np.ndarray, "patient gene"]) -> Bool[np.ndarray, " gene"]:
    """Returns which genes differ between patients; a mean that is rounded gives others a spread too."""
    return values.max(axis=0) > values.min(axis=0)


def _duplicates(check: str, what: str, groups: Sequence[Sequence[str]], assignment: pd.DataFrame) -> list[Finding]:
    """Returns a failure for groups of patients that cross a split and a warning for the others."""
    crossing = [group for group in groups if _crosses(group, assignment)]
    findings = []
    for level, found in (("failure", crossing), ("warning", [group for group in groups if group not in crossing])):
        if found:
            where = "in training and test of a fold" if level == "failure" else "on one side of every fold"
            names = preview([" = ".join(group) for group in found], 3)
            remedy = "Find out which is right and exclude the others, or give them one patient_id."
            findings.append(
                Finding(
                    "failure" if level == "failure" else "warning",
                    check,
                    f"{len(found)} groups of patients have {what}, {where} ({names})",
                    _WHY,
                    remedy,
                )
            )
    return findings


def _crosses(patients: Sequence[str], assignment: pd.DataFrame) -> bool:
    rows = assignment[assignment["patient_id"].isin(patients)]
    sides = (rows["split"] == "test").groupby([rows[name] for name in FOLD]).nunique()
    return bool((sides > 1).any())


def _fingerprint(path: Path) -> str:
    slide = read_sample(path, _HASHED_PATCHES)
    content = hashlib.sha256(slide.coords.astype(np.int64).tobytes())
    content.update(slide.features.astype(np.float32).tobytes())
    return content.hexdigest()

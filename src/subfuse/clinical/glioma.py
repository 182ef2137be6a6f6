"""Diagnosis of adult diffuse gliomas by the WHO classification of 2021, with the reason for every patient.

Source: Louis et al., Neuro-Oncology 2021 (WHO CNS5), as used for the labels of subspace fusion.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from subfuse.clinical.source import DiagnosisRule
from subfuse.errors import ConfigurationError, DataError, preview

WHO2021_CLASSES = ("GBM_IDHwt", "Astro_G4", "Astro_G2-3", "Oligo_codel")
DERIVED_COLUMNS = ("diagnosis", "diagnosis_basis", "subtype")
Deletion = Literal["homozygous", "hemizygous", "none"]

_WILDTYPE = re.compile(r"wt$|wildtype")
_MUTANT = re.compile(r"mut|r132|r172")
_NEGATION = re.compile(r"no|un|neg|absent")
_INTACT_1P19Q = re.compile(
    r"(?:no|non|not|un|without)(?:1p19q)?(?:co)?del|intact|retained|^(?:no|false|0|wt|negative)$"
)
_CODELETED = re.compile(r"codel|^(?:yes|true|1|positive|deleted)$")
_DELETIONS: Mapping[str, Deletion] = {
    "homozygous": "homozygous", "homozygousdeletion": "homozygous", "homozygouslydeleted": "homozygous",
    "homdel": "homozygous", "deepdeletion": "homozygous", "deepdel": "homozygous",
    "hemizygous": "hemizygous", "hemizygousdeletion": "hemizygous", "hemizygousloss": "hemizygous",
    "hetloss": "hemizygous", "heterozygousdeletion": "hemizygous", "shallowdeletion": "hemizygous",
    "intact": "none", "diploid": "none", "neutral": "none", "nodeletion": "none", "notdeleted": "none",
    "retained": "none", "none": "none", "wt": "none", "wildtype": "none", "gain": "none", "amplification": "none",
    "amp": "none",
}  # fmt: skip
_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4}
_ADULT_DIFFUSE = re.compile(r"astrocyt|oligodendro|oligoastro|glioblastoma|gliosarcoma|glioma|^gbm$|^lgg$|^hgg$")
_OTHER_GLIOMAS = re.compile(
    r"pilocytic|pilomyxoid|xantho|subependymal|ganglio|angiocentric|chordoid|infant|midline|pediatric|paediatric|ependym"
)


@dataclass(frozen=True)
class GliomaMarkers:
    """What a diagnosis rests on. None means unknown."""

    is_idh_mutant: bool | None = None
    is_codeleted: bool | None = None  # 1p and 19q, both arms
    cdkn2a: Deletion | None = None  # of CDKN2A/B
    grade: int | None = None  # 1 to 4, histological
    histology: str | None = None  # as the table words it


def who2021_diagnosis(
    markers: GliomaMarkers, *, cdkn2a: Literal["homozygous", "any_loss"] = "homozygous"
) -> tuple[str | None, str]:
    """Returns the class, None where a marker that decides is unknown, and what it rests on.

    IDH-wildtype: glioblastoma. IDH-mutant with 1p/19q codeletion: oligodendroglioma. Other IDH-mutant: astrocytoma, of
    grade 4 if the histological grade is 4 or CDKN2A is deleted, else of grade 2 to 3. Only markers that can change the
    outcome must be known. A histology of glioblastoma stands for grade 4 where the grade is unknown. A histology that
    is not an adult-type diffuse glioma has no class here; an unknown one is not held against the patient.

    Relative to the WHO: every IDH-wildtype diffuse glioma counts as glioblastoma, as in the labels of the paper. The
    WHO also asks for necrosis, microvascular proliferation, TERT promoter mutation, EGFR amplification or +7/−10.

    Args:
        markers: Of one patient.
        cdkn2a: Which deletion makes an astrocytoma grade 4: `homozygous` (WHO) or `any_loss` (one copy suffices, the
            rule of the paper's released labels).

    Example:
        >>> who2021_diagnosis(GliomaMarkers(is_idh_mutant=True, is_codeleted=True))
        ('Oligo_codel', 'IDH-mutant, 1p/19q codeleted')
    """
    if markers.histology is not None and not is_adult_diffuse_glioma(markers.histology):
        return None, f"unknown: {markers.histology} is not an adult-type diffuse glioma"
    if markers.is_idh_mutant is None:
        return None, "unknown: IDH is missing"
    if not markers.is_idh_mutant:
        return "GBM_IDHwt", "IDH-wildtype"
    if markers.is_codeleted is None:
        return None, "unknown: IDH-mutant, 1p/19q is missing"
    if markers.is_codeleted:
        return "Oligo_codel", "IDH-mutant, 1p/19q codeleted"
    return _astrocytoma(markers, cdkn2a)


def _astrocytoma(markers: GliomaMarkers, cdkn2a: Literal["homozygous", "any_loss"]) -> tuple[str | None, str]:
    basis = "IDH-mutant, 1p/19q intact"
    grade = markers.grade
    if grade is None and markers.histology is not None and "glioblastoma" in markers.histology.lower():
        return "Astro_G4", f"{basis}, histology of glioblastoma"
    if grade == 4:
        return "Astro_G4", f"{basis}, grade 4"
    decisive = ("homozygous",) if cdkn2a == "homozygous" else ("homozygous", "hemizygous")
    if markers.cdkn2a in decisive:
        return "Astro_G4", f"{basis}, CDKN2A {markers.cdkn2a} deletion"
    if markers.cdkn2a is None:
        return None, f"unknown: {basis}, CDKN2A is missing"
    if grade is None:
        return None, f"unknown: {basis}, grade is missing"
    if grade == 1:
        return None, f"unknown: {basis}, grade 1 is not a grade of astrocytoma, IDH-mutant"
    found = "hemizygous deletion of CDKN2A does not count" if markers.cdkn2a == "hemizygous" else "CDKN2A not deleted"
    return "Astro_G2-3", f"{basis}, grade {grade}, {found}"


def who2021_subtype(markers: GliomaMarkers) -> str | None:
    """Returns glioblastoma, astrocytoma or oligodendroglioma, which needs IDH and 1p/19q only; None where unknown.

    Example:
        >>> who2021_subtype(GliomaMarkers(is_idh_mutant=True, is_codeleted=False))
        'astrocytoma'
    """
    if markers.histology is not None and not is_adult_diffuse_glioma(markers.histology):
        return None
    if markers.is_idh_mutant is None or (markers.is_idh_mutant and markers.is_codeleted is None):
        return None
    if not markers.is_idh_mutant:
        return "glioblastoma"
    return "oligodendroglioma" if markers.is_codeleted else "astrocytoma"


def is_adult_diffuse_glioma(histology: str) -> bool:
    """Returns whether a histology is a glioma of the kind that IDH and 1p/19q classify.

    Example:
        >>> is_adult_diffuse_glioma("Mixed glioma"), is_adult_diffuse_glioma("Pilocytic astrocytoma")
        (True, False)
    """
    words = histology.lower()
    return bool(_ADULT_DIFFUSE.search(words)) and not _OTHER_GLIOMAS.search(words)


def read_idh(cell: str) -> bool:
    """Returns True for IDH-mutant, False for wild type: `Mutant`, `IDH1 R132H`, `IDHmut-codel`, `WT`, `IDHwt`.

    Raises:
        ValueError: Neither word, or a negation (`R132H negative` leaves other mutations open). A bare 1 or `positive`
            does not say of what.
    """
    letters = _letters(cell).replace("noncodel", "")
    is_mutant, is_wildtype = bool(_MUTANT.search(letters)), bool(_WILDTYPE.search(letters))
    if is_mutant == is_wildtype or _NEGATION.search(letters):
        raise ValueError("IDH must be wildtype (WT) or mutant")
    return is_mutant


def read_codeletion(cell: str) -> bool | None:
    """Returns whether 1p and 19q are codeleted: `codel`, `IDHmut-codel`, `yes`; `non-codel`, `intact`, `no`.

    Returns:
        None for `IDHwt` of tables that name both markers in one column: it says nothing on 1p/19q.

    Raises:
        ValueError: None of these words.
    """
    letters = _letters(cell)
    if _INTACT_1P19Q.search(letters):
        return False
    if _CODELETED.search(letters) and not _NEGATION.search(letters):
        return True
    if letters.endswith(("idhwt", "idhwildtype")):
        return None
    raise ValueError("1p/19q must be codel (codeleted) or non-codel (intact)")


def read_cdkn2a(cell: str) -> Deletion:
    """Returns what is lost of CDKN2A: GISTIC −2 homozygous, −1 hemizygous, 0 or more none; or such words.

    Raises:
        ValueError: Neither. A bare `deleted` or `loss` does not say of how many copies.
    """
    try:
        copies = float(cell)
    except ValueError:
        deletion = _DELETIONS.get(_letters(cell))
    else:
        levels: dict[float, Deletion] = {-2: "homozygous", -1: "hemizygous", 0: "none", 1: "none", 2: "none"}
        deletion = levels.get(copies)
    if deletion is None:
        raise ValueError(
            "CDKN2A must be a GISTIC level (-2 to 2), or homozygous deletion, hemizygous deletion or intact"
        )
    return deletion


def read_grade(cell: str) -> int | None:
    """Returns the grade of `G3`, `Grade III`, `WHO grade 3`, `3`; None for GX and GB, which name no grade.

    Raises:
        ValueError: None of these.
    """
    letters = _letters(cell.removesuffix(".0"))
    if letters in ("gx", "gb"):
        return None
    found = re.fullmatch(r"(?:who|cns)*(?:grade|g)?(iv|i{1,3}|[1-4])", letters)
    if found is None:
        raise ValueError("grade must be 1 to 4, such as G2, Grade III or 4")
    return _ROMAN.get(found[1]) or int(found[1])


def _letters(cell: str) -> str:
    return re.sub(r"[^a-z0-9]", "", cell.lower())


_READERS: Mapping[str, Callable[[str], Any]] = {
    "idh": read_idh,
    "codeletion_1p19q": read_codeletion,
    "cdkn2a": read_cdkn2a,
    "grade": read_grade,
    "histology": str,
}


def derive_diagnosis(patients: pd.DataFrame, rule: DiagnosisRule) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns the patients with the columns diagnosis, diagnosis_basis and subtype, and a note that counts them.

    Raises:
        ConfigurationError: A declared column is absent, there is no column of IDH, or the patients have one of the
            derived columns already.
        DataError: A word that is not understood. Names column and words.
    """
    taken = [name for name in DERIVED_COLUMNS if name in patients]
    if taken:
        raise ConfigurationError(
            f"patients.derive.diagnosis: {preview(taken)} would be derived but is a column of the patients already. "
            "Leave it out of patients.columns, or name it otherwise."
        )
    columns = _marker_columns(patients, rule)
    cells = {marker: _read_marker(patients[column], marker) for marker, column in columns.items()}
    unknown = [None] * len(patients)
    markers = [
        GliomaMarkers(*values) for values in zip(*(cells.get(marker, unknown) for marker in _READERS), strict=True)
    ]
    derived = [who2021_diagnosis(one, cdkn2a=rule.cdkn2a) for one in markers]
    table = patients.assign(
        diagnosis=pd.Series([name for name, _ in derived], index=patients.index, dtype=object),
        diagnosis_basis=pd.Series([basis for _, basis in derived], index=patients.index, dtype=object),
        subtype=pd.Series([who2021_subtype(one) for one in markers], index=patients.index, dtype=object),
    )
    return table, (_note(table, rule),)


def _marker_columns(patients: pd.DataFrame, rule: DiagnosisRule) -> dict[str, str]:
    declared = rule.columns.model_dump(exclude_none=True)
    for marker, column in declared.items():
        if column not in patients:
            raise ConfigurationError(
                f"patients.derive.diagnosis.columns.{marker}: {column!r} must be a column of the patients. They have "
                f"{preview(patients.columns, limit=20)}. Add it to patients.columns or patients.labels."
            )
    columns = {marker: marker for marker in _READERS if marker in patients} | declared
    if "idh" not in columns:
        raise ConfigurationError(
            f"patients.derive.diagnosis: a column `idh` is required. The patients have "
            f"{preview(patients.columns, limit=20)}. Add it to patients.columns or patients.labels."
        )
    return columns


def _read_marker(cells: pd.Series, marker: str) -> list[Any]:
    values: dict[str, Any] = {}
    unclear, wanted = [], ""
    for cell in cells.dropna().unique():
        try:
            values[cell] = _READERS[marker](cell)
        except ValueError as error:
            unclear.append(cell)
            wanted = str(error)
    if unclear:
        raise DataError(
            f"patients.derive.diagnosis, column {cells.name}: {wanted}. Found {preview(unclear)}. Correct or empty the "
            "cells."
        )
    return [None if pd.isna(cell) else values[cell] for cell in cells]


def _note(table: pd.DataFrame, rule: DiagnosisRule) -> str:
    counts = ", ".join(f"{name}: {(table['diagnosis'] == name).sum()}" for name in WHO2021_CLASSES)
    deletion = rule.cdkn2a.replace("_", " ")
    reasons = table.loc[table["diagnosis"].isna(), "diagnosis_basis"].str.removeprefix("unknown: ").value_counts()
    unknown = f"; unknown for {reasons.sum()}: {preview(f'{reason} ({n})' for reason, n in reasons.items())}"
    return f"diagnosis by WHO 2021, CDKN2A {deletion}: {counts}{unknown if len(reasons) else ''}"

"""How many patients of a draft have slides and expression, by the identifiers in its tables and folders."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from subfuse.bounded_files import open_bounded
from subfuse.cohort.cohort_file import CohortFile
from subfuse.errors import SubfuseError
from subfuse.identifiers import describe_mismatch, patient_of_barcode, same_but_for_spelling
from subfuse.preparation.slides.slide_table import read_slides
from subfuse.recognition.yaml_lines import PROBLEM, remark
from subfuse.settings import BLANK
from subfuse.tables import read_text_table

_TEXTS = (None, "plain", "xena", "cbioportal")  # formats of expression whose names stand in a text table


def overlap_lines(patient_ids: Collection[str], lines: Iterable[str], base: Path) -> list[str]:
    """Returns comments on how many patients have slides, and how many expression; problems where nobody has.

    Args:
        patient_ids: Of the table of patients.
        lines: The sections `slides` and `expression` of the draft, with what is blank in them.
        base: The folder that their paths are relative to.
    """
    content = yaml.safe_load("\n".join(lines)) or {}
    found = {"slides": _with_slides, "expression": _with_expression}
    told, problems = [], []
    for name, owners_in in found.items():
        if name not in content:
            continue
        section = {key: value for key, value in content[name].items() if value not in (None, BLANK)}
        names = owners_in(section, frozenset(patient_ids), base.resolve())
        if names is None:
            continue
        n_known = len(names & set(patient_ids))
        told.append(f"{n_known} have {name}")
        if not n_known:
            shown = describe_mismatch(patient_ids, {f"{name} of": names}, of_ours="patients")
            problems.append(remark(f"{PROBLEM}no patient has {name}: {shown}", indent=0))
    return [remark(f"by their identifiers, {' and '.join(told)}", indent=0), *problems] if told else []


def _with_slides(section: Mapping[str, Any], patient_ids: frozenset[str], base: Path) -> set[str] | None:
    """Returns the patients that slides are of, and names of slides where they are nobody's; None if that is open."""
    content = {"name": "draft", "patients": {"table": "none"}, "slides": section}
    try:
        slides = CohortFile.model_validate(content, context={"base": base}).slides
        assert slides is not None
        read, left_out, _ = read_slides(slides, patient_ids)
    except (ValidationError, SubfuseError):
        return None
    return {slide.patient_id for slide in read} or set(left_out.loc[left_out["level"] == "slide", "id"])


def _with_expression(section: Mapping[str, Any], patient_ids: frozenset[str], base: Path) -> set[str] | None:
    """Returns the names of a text table's columns or rows, whichever are more patients; None for other sources.

    Of a table that has expression beside other columns, the cells of that of patients.
    """
    if "table" not in section or "sample_sheet" in section or section.get("format") not in _TEXTS:
        return None
    try:
        if "gene_suffix" in section:
            return {
                patient_of_barcode(name) for name in read_text_table(base / section["table"])[section["patient_column"]]
            }
        columns, rows = _names_in(base / section["table"])
    except (SubfuseError, OSError):
        return None
    sides = [{patient_of_barcode(name) for name in names} for names in (columns, rows)]
    return max(sides, key=lambda names: (len(names & patient_ids), len(same_but_for_spelling(names, patient_ids))))


def _names_in(path: Path) -> tuple[list[str], list[str]]:
    """Returns the cells of the header, and the first of every line below it."""
    header: list[str] = []
    rows = []
    with open_bounded(path) as file:
        for line in file:
            if line.startswith(b"#"):
                continue
            text = line.decode("utf-8-sig", errors="replace").rstrip("\r\n")
            if not header:
                separator = next((mark for mark in "\t;" if mark in text), ",")
                header = [cell.strip('" ') for cell in text.split(separator)]
            else:
                rows.append(re.split(separator, text, maxsplit=1)[0].strip('" '))
    return header, rows

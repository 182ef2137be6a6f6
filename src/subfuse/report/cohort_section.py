"""The cohort in the report: the flow of patients, exclusions, gene-set coverage."""

from typing import Any

import pandas as pd

from subfuse.errors import preview
from subfuse.report.elements import PlainTable
from subfuse.report.run_files import RunFiles
from subfuse.report.statements import excluded_patients, has_expression, has_slides


def cohort_section(run: RunFiles) -> dict[str, Any]:
    """Returns the flow of patients, the exclusions by reason and the gene-set coverage."""
    exclusions, coverage = run.cohort["exclusions"], run.cohort["gene_set_coverage"]
    return {
        "flow": _flow(run),
        "exclusions": None if exclusions.empty else _exclusion_table(exclusions),
        "no_exclusions": "Nothing was excluded."
        if (run.folder / "cohort" / "exclusions.csv").exists()
        else "The run keeps no list of exclusions.",
        "coverage": coverage.fillna("").to_dict("records"),
    }


def _flow(run: RunFiles) -> list[dict[str, Any]]:
    patients, exclusions = run.cohort["patients"], run.cohort["exclusions"]
    if patients.empty:
        return [_box(run.predictions["patient_id"].nunique(), "patients with predictions")]
    excluded = len(excluded_patients(exclusions) - set(patients["patient_id"]))
    boxes = []
    if len(exclusions):
        boxes = [_box(len(patients) + excluded, "patients found"), _box(excluded, "excluded", removed=True)]
    boxes.append(_box(len(patients), "in the cohort"))
    if {"n_slides", "has_expression"} <= set(patients.columns):
        slides, expression = has_slides(patients), has_expression(patients)
        n_slides = int(patients["n_slides"].fillna(0).sum())
        boxes += [
            _box(int(slides.sum()), f"with slides ({n_slides} slides)"),
            _box(int(expression.sum()), "with expression"),
            _box(int((slides & expression).sum()), "with both"),
        ]
    if "n_patches" in run.cohort["slides"]:
        boxes.append(_box(int(run.cohort["slides"]["n_patches"].sum()), "patches"))
    return boxes


def _box(count: int, label: str, *, removed: bool = False) -> dict[str, Any]:
    return {"count": f"{count:,}".replace(",", "\u202f"), "label": label, "removed": removed}


def _exclusion_table(exclusions: pd.DataFrame) -> PlainTable:
    grouped = exclusions.groupby(["level", "reason"], sort=False)["id"].agg(["size", list]).reset_index()
    grouped = grouped.sort_values(["level", "size"], ascending=[True, False], key=_levels_first, kind="stable")
    rows = [
        (str(row["level"]), str(row["reason"]), str(row["size"]), preview(sorted(row["list"]), limit=4))
        for _, row in grouped.iterrows()
    ]
    return PlainTable(("Level", "Reason", "Count", "Which"), rows, frozenset({"Count"}))


def _levels_first(column: pd.Series) -> pd.Series:
    order = {"patient": 0, "slide": 1, "expression": 2, "gene": 3}
    return column.map(lambda level: order.get(level, 4)) if column.name == "level" else column

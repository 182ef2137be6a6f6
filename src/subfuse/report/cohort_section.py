"""The cohort in the report: flow of patients, exclusions, quality of the slides, expression and gene sets."""

from typing import Any

import numpy as np
import pandas as pd

from subfuse.errors import counted, preview
from subfuse.expression.gene_sets import few_measured
from subfuse.report.patient_section import PictureBudget, contact_sheets
from subfuse.report.run_files import RunFiles
from subfuse.report.statements import PlainTable, Section
from subfuse.run_folder.names import COHORT, CONTACT_SHEETS, EXCLUSIONS

_QUALITY_NAMES = {
    "n_patches": "Patches",
    "tissue_mm2": "Tissue, mm²",
    "mpp": "Resolution, µm per pixel",
    "patch_um": "Side of a patch, µm",
    "pen_share": "Share left out as pen marks",
    "sharpness": "Sharpness (variance of the Laplacian)",
    "sharpness_mpp": "Sharpness measured at, µm per pixel",
    "width_px": "Width, pixels",
    "height_px": "Height, pixels",
}
_PARTS = {
    "exclusions": "exclusions",
    "quality": "quality of the slides",
    "harmonisation": "expression of the cohorts",
    "coverage": "genes measured",
    "sheets": "pictures of slides",
}
_SHIFTS = {"shift": "Shift, median", "shift_max": "Shift, largest", "ks": "KS"}


def cohort_section(run: RunFiles, pictures: PictureBudget) -> Section:
    """Returns the flow of patients, exclusions by reason, slide quality, harmonisation and gene-set coverage."""
    exclusions = run.cohort["exclusions"]
    sheets = contact_sheets(run, pictures)
    content = {
        "flow": _flow(run),
        "exclusions": None if exclusions.empty else _exclusion_table(exclusions),
        "quality": _quality_table(slide_table(run)),
        "warnings": _warning_table(slide_table(run)),
        "harmonisation": _harmonisation_table(run.cohort["harmonisation"]),
        "coverage": run.cohort["gene_set_coverage"].fillna("").to_dict("records"),
        "sheets": sheets,
    }
    parts = [name for part, name in _PARTS.items() if content[part]]
    hidden = len(run.contact_sheets) - len(sheets)
    more = [f"{hidden} more pictures of slides in the run's folder {COHORT}/{CONTACT_SHEETS}/."] if hidden else []
    few = few_measured(run.cohort["gene_set_coverage"])
    notes = [*([] if content["exclusions"] else [_no_exclusions(run)]), *_renamed(run.cohort["renamed"]), *few, *more]
    gist = f"Flow of patients{', ' if parts else ''}{', '.join(parts)}"
    return Section("cohort", "Cohort", gist, "cohort.html.j2", content | {"notes": notes})


def _no_exclusions(run: RunFiles) -> str:
    is_kept = (run.folder / COHORT / EXCLUSIONS).exists()
    return "Nothing was excluded." if is_kept else "The run keeps no list of exclusions."


def _renamed(table: pd.DataFrame) -> list[str]:
    names = preview(table["id"], 3) if len(table) else ""
    verb = "is an earlier symbol" if len(table) == 1 else "are earlier symbols"
    return [f"{names} {verb}; the approved ones are shown ({COHORT}/{EXCLUSIONS})."] if names else []


def slide_table(run: RunFiles) -> pd.DataFrame:
    """Returns one row per prepared slide with all that is known of its quality; empty if the run keeps none."""
    slides, quality = run.cohort["slides"], run.cohort["slide_quality"]
    if slides.empty or quality.empty or "slide_id" not in quality:
        return slides if quality.empty else quality
    added = [column for column in quality if column == "slide_id" or column not in slides]
    return slides.merge(quality[added], on="slide_id", how="outer", validate="one_to_one")


def _flow(run: RunFiles) -> list[dict[str, Any]]:
    patients, flow = run.cohort["patients"], run.flow
    if patients.empty:
        return [_box(flow.used, "patient", "with predictions")]
    boxes = []
    if len(run.cohort["exclusions"]):
        boxes = [
            _box(flow.used + flow.excluded, "patient", "found"),
            _box(flow.excluded, "", "excluded", removed=True),
        ]
    boxes.append(_box(flow.used, "", "in the cohort"))
    if "cohort" in patients and patients["cohort"].nunique() > 1:
        boxes += [_box(count, "", f"of {name}") for name, count in patients["cohort"].value_counts().items()]
    words = {"slides": f"with slides ({counted(flow.n_slides or 0, 'slide')})"}
    boxes += [_box(count, "", words.get(name, f"with {name}")) for name, count in flow.having.items()]
    if run.cohort["slides"].get("n_patches", pd.Series(dtype=int)).any():
        boxes.append(_box(int(run.cohort["slides"]["n_patches"].sum()), "patch", "", plural="patches"))
    return boxes


def _box(count: int, noun: str, words: str, *, plural: str | None = None, removed: bool = False) -> dict[str, Any]:
    noun = noun if count == 1 or not noun else plural or f"{noun}s"
    label = f"{noun} {words}".strip()
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


def _quality_table(slides: pd.DataFrame) -> PlainTable | None:
    """Returns one row per measure of the slides; a measure without a name here keeps that of its column."""
    columns = ("Measure", "Slides", "Lowest", "Median", "Highest", "Lowest in")
    rows = []
    for name in slides.select_dtypes("number").columns:
        values = slides[name].to_numpy(dtype=float)
        known = np.isfinite(values)
        if not known.any():
            continue
        lowest = str(slides["slide_id"].iloc[int(np.nanargmin(np.where(known, values, np.nan)))])
        spread = [_amount(value) for value in np.quantile(values[known], [0, 0.5, 1])]
        measure = _QUALITY_NAMES.get(str(name), str(name).replace("_", " ").capitalize())
        varies = len(np.unique(values[known])) > 1
        rows.append((measure, f"{known.sum()} of {len(slides)}", *spread, lowest if varies else ""))
    return PlainTable(columns, rows, frozenset(columns[1:5])) if rows else None


def _amount(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f") if abs(value) >= 1000 else f"{value:.4g}"


def _warning_table(slides: pd.DataFrame) -> PlainTable | None:
    if "warnings" not in slides or slides["warnings"].isna().all():
        return None
    grouped = slides.dropna(subset=["warnings"]).groupby("warnings", sort=False)["slide_id"].agg(list)
    rows = [(str(words), str(len(names)), preview(sorted(names), limit=4)) for words, names in grouped.items()]
    return PlainTable(("Warning", "Slides", "Which"), rows, frozenset({"Slides"}))


def _harmonisation_table(table: pd.DataFrame) -> PlainTable | None:
    if table.empty:
        return None
    columns = ("Cohort", "Against", "Gene set", "Shared genes", *_SHIFTS.values(), "Missing")
    rows = [
        (
            str(row["cohort"]),
            str(row["reference"]),
            str(row["gene_set"]),
            f"{row['n_shared']} of {row['n_genes']}",
            *("unknown" if pd.isna(row[name]) else f"{row[name]:.2f}" for name in _SHIFTS),
            "none" if pd.isna(row["missing"]) else str(row["missing"]),
        )
        for row in table.to_dict("records")
    ]
    return PlainTable(columns, rows, frozenset(columns[3:7]))

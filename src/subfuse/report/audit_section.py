"""The audit in the report: findings by level, and the tables they are based on, from audit.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from subfuse.report.elements import PlainTable
from subfuse.report.statements import counted, metric_name, model_name, number, p_text, singular

LEVEL_NAMES = {
    "failure": "Failures",
    "warning": "Warnings",
    "note": "Notes and what was not checked",
    "ok": "Checked, nothing found",
}
_MEASURES = {
    "expected_calibration_error": "Calibration error",
    "brier": "Brier",
    "integrated_brier": "Integrated Brier",
    "one_calibration_p": "1-calibration, p",
    "d_calibration_p": "D-calibration, p",
}
_COMPARISONS = {"per_sd": "per SD of risk", "high_vs_low": "high against low risk"}


NO_AUDIT = (
    "This run was not audited. `subfuse audit` looks for leakage, tests whether fusion helps and whether "
    "probabilities come true."
)


def audit_section(audit: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what the report shows of the content of a run's audit.json; that there is none without one.

    Texts are given as they are: the template escapes them.
    """
    if audit is None:
        return {"lede": NO_AUDIT, "levels": [], "tables": []}
    tables = audit.get("tables", {})
    shown = [_fusion(tables.get("fusion", [])), _calibration(tables.get("calibration", [])),
             _hazards(tables.get("hazard_ratios", []))]  # fmt: skip
    return {
        "lede": _lede(audit.get("counts", {})),
        "levels": [level for name in LEVEL_NAMES if (level := _level(name, audit["findings"])) is not None],
        "tables": [table for table in shown if table is not None],
    }


def _lede(counts: Mapping[str, int]) -> str:
    found = [counted(counts.get(level, 0), level) for level in ("failure", "warning", "note")]
    settled = "" if not counts.get("failure") else " Do not use these results before the failures are settled."
    return f"{', '.join(found)}, {counts.get('ok', 0)} passed.{settled}"


def _level(level: str, findings: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    chosen = [finding for finding in findings if finding["level"] == level]
    if not chosen:
        return None
    is_read = level in ("failure", "warning")
    columns = ("Task", "Check", "Found", *(("Why it matters", "Remedy") if is_read else ()))
    keys = ("check", "found", *(("why", "remedy") if is_read else ()))
    rows = [(_task(finding), *(singular(str(finding[key])) for key in keys)) for finding in chosen]
    return {"name": LEVEL_NAMES[level], "table": PlainTable(columns, rows), "open": is_read, "count": len(chosen)}


def _task(row: Mapping[str, Any]) -> str:
    return str(row.get("task") or "all").capitalize()


def _fusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Model", "Against", "Metric", "Difference", "95 % interval", "p adjusted")
    body = [
        (
            _task(row),
            model_name(str(row["model"])),
            f"{model_name(str(row['reference']))} ({row['reference_is']})",
            metric_name(str(row["metric"])),
            _number(row["difference"], signed=True),
            f"{_number(row['lower'], signed=True)} to {_number(row['upper'], signed=True)}",
            "" if row["p_adjusted"] is None else p_text(row["p_adjusted"]).removeprefix("p ").removeprefix("= "),
        )
        for row in rows
    ]
    caption = "Positive favours the model; with a modality shuffled between patients, negative means that it is used."
    return _table("Does fusion help", caption, columns, body, first_number=4)


def _calibration(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Model", "Measure", "As predicted", "Recalibrated")
    body = [
        (
            _task(row),
            model_name(str(row["model"])),
            _MEASURES.get(str(row["measure"]), str(row["measure"]))
            + (f", day {row['horizon_days']:.0f}" if row["horizon_days"] is not None else ""),
            _number(row["before"]),
            _number(row["after"]),
        )
        for row in rows
        if row["before"] is not None
    ]
    caption = "Of test patients; recalibrated on validation patients. A small p says that the probabilities are wrong."
    return _table("Calibration", caption, columns, body, first_number=3)


def _hazards(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Model", "Hazard ratio of", "Adjusted for", "Ratio", "95 % interval", "Patients", "Events")
    body = [
        (
            _task(row),
            model_name(str(row["model"])),
            _COMPARISONS.get(str(row["comparison"]), str(row["comparison"])),
            str(row["adjusted_for"]),
            _number(row["hazard_ratio"]),
            f"{_number(row['lower'])} to {_number(row['upper'])}",
            str(row["n_patients"]),
            str(row["n_events"]),
        )
        for row in rows
        if row["hazard_ratio"] is not None
    ]
    caption = "Cox model of test patients; risks are scaled, and thresholds chosen, by training patients."
    return _table("Hazard ratios", caption, columns, body, first_number=4)


def _table(
    title: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, first_number: int
) -> dict[str, Any] | None:
    if not rows:
        return None
    return {"title": title, "caption": caption, "table": PlainTable(columns, rows, frozenset(columns[first_number:]))}


def _number(value: float | None, *, signed: bool = False) -> str:
    return "undefined" if value is None else number(float(value), signed=signed)

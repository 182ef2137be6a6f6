"""The audit in the report: findings by level and kind, and the tables they are based on, from audit.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from subfuse.report.statements import PlainTable, counted, metric_name, model_name, number, p_text, singular

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
_FEW_FINDINGS = 3  # are shown at once
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
    shown = {"name": LEVEL_NAMES[level], "count": len(chosen)}
    if level in ("failure", "warning"):
        kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for finding in chosen:
            kinds.setdefault((finding["check"], finding["why"]), []).append(finding)
        return shown | {"kinds": [_kind(alike) for alike in kinds.values()]}
    rows = [(_task(finding), finding["check"], singular(str(finding["found"]))) for finding in chosen]
    return shown | {"table": PlainTable(("Task", "Check", "Found"), rows)}


def _kind(findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns findings of one check that matter for the same reason; a remedy of all of them is said once."""
    first, remedies = findings[0], {finding["remedy"] for finding in findings}
    columns = ("Task", "Found", *(("Remedy",) if len(remedies) > 1 else ()))
    keys = ("found", *(("remedy",) if len(remedies) > 1 else ()))
    rows = [(_task(finding), *(singular(str(finding[key])) for key in keys)) for finding in findings]
    return {
        "name": str(first["check"]).capitalize(),
        "of": _concerned([(_task(finding), _model_of(finding)) for finding in findings]),
        "why": " ".join(part for part in (first["why"], *(remedies if len(remedies) == 1 else ())) if part),
        "count": counted(len(findings), "finding"),
        "table": PlainTable(columns, rows),
        "open": len(findings) <= _FEW_FINDINGS or first["level"] == "failure",
    }


def _model_of(finding: Mapping[str, Any]) -> str:
    return model_name(finding["model"]) if finding.get("model") else ""


def _concerned(pairs: Sequence[tuple[str, str]]) -> str:
    """Returns tasks with their models: `Grade: SNN, ABMIL; Survival: SNN`."""
    tasks: dict[str, dict[str, None]] = {}
    for task, model in pairs:
        tasks.setdefault(task, {}).update({model: None} if model else {})
    return "; ".join(f"{task}: {', '.join(models)}" if models else task for task, models in tasks.items())


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
            "" if row["p_adjusted"] is None else _p(row["p_adjusted"]),
        )
        for row in rows
    ]
    caption = (
        "Positive favours the model; with a modality shuffled between patients, negative means that it is used. "
        "p adjusted (Holm) over all comparisons of a task; of shuffled modalities, not adjusted."
    )
    return _table("Does fusion help", caption, columns, body, first_number=4)


def _calibration(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Model", "Measure", "As predicted", "Recalibrated", "By isotonic regression")
    measured = [row for row in rows if row["before"] is not None]
    body = [
        (
            _task(row),
            model_name(str(row["model"])),
            _MEASURES.get(str(row["measure"]), str(row["measure"]))
            + (f", day {row['horizon_days']:.0f}" if row["horizon_days"] is not None else ""),
            *(_measured(row, name) for name in ("before", "after", "after_isotonic")),
        )
        for row in measured
    ]
    caption = (
        "Of test patients; recalibrated on validation patients by temperature (classes) or by level and slope "
        "(survival curves), and by isotonic regression. A small p says that the probabilities are wrong."
    )
    table = _table("Calibration", caption, columns, body, first_number=3)
    if table is None:
        return None
    notes = [*_undefined(measured, "after", "reason"), *_undefined(measured, "after_isotonic", "reason_isotonic")]
    return table | {"notes": notes}


def _measured(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return _p(value) if value is not None and str(row["measure"]).endswith("_p") else _number(value)


def _undefined(rows: Sequence[Mapping[str, Any]], value: str, reason: str) -> list[str]:
    """Returns one line per reason why a value is undefined, with the tasks and models that it concerns."""
    concerned: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if row.get(value) is None and row.get(reason):
            concerned.setdefault(singular(str(row[reason])), []).append((_task(row), model_name(str(row["model"]))))
    return [f"{_concerned(pairs)}: {text}" for text, pairs in concerned.items()]


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
    table = PlainTable(columns, rows, frozenset(columns[first_number:]))
    return {"title": title, "caption": caption, "table": table, "notes": []}


def _p(value: float) -> str:
    return p_text(value).removeprefix("p ").removeprefix("= ")


def _number(value: float | None, *, signed: bool = False) -> str:
    return "undefined" if value is None else number(float(value), signed=signed)

"""The audit in the report: findings by level and kind, and the tables they are based on, from audit.json."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from subfuse.evaluation.metrics import duration, metric_title, number, p_value_text, signed_interval
from subfuse.report.statements import PlainTable, Section, counted, singular, titled
from subfuse.training.models import model_title

_MEASURES = {
    "one_calibration_p": "1-calibration, p",
    "d_calibration_p": "D-calibration, p",
}
_COMPARISONS = {"per_sd": "per SD of risk", "high_vs_low": "high against low risk"}
_REST = {"note": "Notes, and what was not checked", "ok": "Checked, nothing found"}

NO_AUDIT = (
    "This run was not audited. `subfuse audit` looks for leakage, tests whether fusion helps and whether "
    "probabilities come true."
)


def audit_section(audit: Mapping[str, Any] | None) -> Section | None:
    """Returns what the report shows of the content of a run's audit.json; None without one.

    Failures are open, warnings folded by kind, notes and passed checks folded into one table each. Texts are given as
    they are: the template escapes them.
    """
    if audit is None:
        return None
    tables, counts = audit.get("tables", {}), audit.get("counts", {})
    parts = {"added_value": _added, "held_out_sites": _held_out, "fusion": _fusion, "strata": _strata, "pairs": _pairs,
             "confounders": _confounders, "calibration": _calibration, "decision_curves": _decisions,
             "hazard_ratios": _hazards}  # fmt: skip
    shown = [table_of(tables.get(name, [])) for name, table_of in parts.items()]
    content = {
        "lede": _lede(counts),
        "kinds": [*serious_kinds(audit["findings"]), *_rest(audit["findings"])],
        "tables": [table for table in shown if table is not None],
    }
    gist = ", ".join(counted(counts.get(level, 0), level) for level in ("failure", "warning", "note"))
    return Section("audit", "Audit", f"{gist}, {counts.get('ok', 0)} passed", "audit.html.j2", content)


def _lede(counts: Mapping[str, int]) -> str:
    if counts.get("failure"):
        return "Do not use these results before the failures are settled."
    if counts.get("warning"):
        return "No failure. Warnings change how a result is read."
    return "Nothing found that stands against these results."


def serious_kinds(findings: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields failures, then warnings, by check and reason."""
    for level in ("failure", "warning"):
        kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for finding in findings:
            if finding["level"] == level:
                kinds.setdefault((finding["check"], finding["why"]), []).append(finding)
        yield from (_kind(alike) for alike in kinds.values())


def _kind(findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns findings of one check that matter for the same reason; a remedy of all of them is said once."""
    first, remedies = findings[0], {finding["remedy"] for finding in findings}
    columns = ("Task", "Found", *(("Remedy",) if len(remedies) > 1 else ()))
    keys = ("found", *(("remedy",) if len(remedies) > 1 else ()))
    rows = [(_task(finding), *(singular(str(finding[key])) for key in keys)) for finding in findings]
    concerned = _concerned([(_task(finding), _model(finding)) for finding in findings])
    return {
        "level": first["level"],
        "name": str(first["check"]).capitalize(),
        "gist": f"{counted(len(findings), str(first['level']))} · {concerned}",
        "why": " ".join(part for part in (first["why"], *(remedies if len(remedies) == 1 else ())) if part),
        "table": PlainTable(columns, rows),
        "open": first["level"] == "failure",
    }


def _rest(findings: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields what is no warning: one table of notes, one of checks that found nothing."""
    for level, name in _REST.items():
        chosen = [finding for finding in findings if finding["level"] == level]
        rows = [(_task(finding), str(finding["check"]), singular(str(finding["found"]))) for finding in chosen]
        checks = ", ".join(f"{check} {count}" for check, count in Counter(row[1] for row in rows).items())
        if rows:
            table = PlainTable(("Task", "Check", "Found"), rows)
            yield {"name": name, "gist": checks, "why": "", "table": table, "open": False}


def _model(finding: Mapping[str, Any]) -> str:
    return model_title(finding["model"]) if finding.get("model") else ""


def _concerned(pairs: Sequence[tuple[str, str]]) -> str:
    """Returns tasks with their models: `Grade: SNN, ABMIL; Survival: SNN`."""
    tasks: dict[str, dict[str, None]] = {}
    for task, model in pairs:
        tasks.setdefault(task, {}).update({model: None} if model else {})
    return "; ".join(f"{task}: {', '.join(models)}" if models else task for task, models in tasks.items())


def _task(row: Mapping[str, Any]) -> str:
    return titled(str(row.get("task") or "all"))


def _added(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Model", "Added to", "Weights from", "Metric", "Difference", "95 % interval", "p adjusted")
    body = [
        (
            _task(row),
            model_title(str(row["model"])),
            model_title(str(row["trivial"])),
            str(row["fitted_on"]) or "nowhere",
            metric_title(str(row["metric"])),
            _number(row["difference"], signed=True),
            str(row["reason"]) if row["lower"] is None else _interval(row),
            "" if row["p_adjusted"] is None else p_value_text(row["p_adjusted"]),
        )
        for row in rows
    ]
    caption = (
        "Of both predictions combined, against the best trivial model alone, which reads nothing but columns of the "
        "patients' table. p adjusted (Holm) over the models of the task."
    )
    return _table("What models add to a trivial one", caption, columns, body, first_number=5, of="model")


def _interval(row: Mapping[str, Any]) -> str:
    return signed_interval(*(np.nan if row[name] is None else row[name] for name in ("lower", "upper")))


def _held_out(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Model", "Metric", "Random folds", "Hospitals held out", "Gap", "95 % interval")
    body = [
        (
            _task(row),
            model_title(str(row["model"])),
            metric_title(str(row["metric"])),
            *(_number(row[name]) for name in ("random_folds", "held_out")),
            _number(row["gap"], signed=True),
            str(row["reason"] or "no interval") if row["lower"] is None else _interval(row),
        )
        for row in rows
    ]
    caption = (
        "Of patients tested in both. A gap above zero is what random folds promise beyond hospitals that a model never "
        "saw; the interval is about patients, not about hospitals."
    )
    return _table("Whole hospitals held out", caption, columns, body, first_number=3, of="model")


def _fusion(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Model", "Against", "Metric", "Difference", "95 % interval", "p adjusted")
    body = [
        (
            _task(row),
            model_title(str(row["model"])),
            f"{model_title(str(row['reference']))} ({row['reference_is']})",
            metric_title(str(row["metric"])),
            _number(row["difference"], signed=True),
            _interval(row),
            "" if row["p_adjusted"] is None else p_value_text(row["p_adjusted"]),
        )
        for row in rows
    ]
    caption = (
        "Positive favours the model; with a modality shuffled between patients, negative means that it is used. "
        "p adjusted (Holm) over all comparisons of a task; of shuffled modalities, not adjusted."
    )
    return _table("Does fusion help", caption, columns, body, first_number=4, of="comparison")


def _strata(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Column", "Stratum", "Metric", "Value", "95 % interval", "Patients", "Events", "p adjusted")
    body = [
        (
            _task(row),
            str(row["column"]),
            str(row["stratum"]),
            metric_title(str(row["metric"])),
            _number(row["value"]),
            str(row["reason"]) if row["lower"] is None else f"{_number(row['lower'])} to {_number(row['upper'])}",
            str(row["n_patients"]),
            "" if row["n_events"] is None else str(row["n_events"]),
            "" if row["p_adjusted"] is None else p_value_text(row["p_adjusted"]),
        )
        for row in rows
    ]
    model = model_title(str(rows[0]["model"])) if rows else ""
    caption = (
        f"{model} among patients who are alike in a column, ranked within fold; an AUC over the classes that the "
        "stratum has. p adjusted (Holm): whether the strata of the column differ."
    )
    return _table("Within strata and subgroups", caption, columns, body, first_number=4, of="group")


def _pairs(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Column", "Pairs", "Share", "C-index", "Contribution", "Number")
    body = [
        (
            _task(row),
            str(row["column"]),
            f"within {row['stratum']}" if row["stratum"] == row["other"] else f"{row['stratum']} with {row['other']}",
            f"{row['share']:.0%}",
            _number(row["c_index"]),
            _number(row["contribution"]),
            str(row["n_pairs"]),
        )
        for row in rows
    ]
    caption = "Of which pairs the C-index is made: share times C-index is the contribution; contributions add up to it."
    return _table("Pairs behind the C-index", caption, columns, body, first_number=3, of="kind")


def _confounders(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Column", "Input", "AUC", "AUC, patients alike", "p", "Of the outcome", "p ", "Of predictions",
               "p  ", "Values", "Patients", "Shows most in")  # fmt: skip
    body = [
        (
            _task(row),
            str(row["column"]),
            str(row["input"]).capitalize(),
            _number(row["auc"]),
            _number(row["auc_within"]),
            "" if row["p_within"] is None else p_value_text(row["p_within"]),
            f"{row['outcome_share']:.0%}",
            p_value_text(row["p_outcome"]),
            f"{row['prediction_share']:.0%}",
            p_value_text(row["p_prediction"]),
            str(row["n_values"]),
            str(row["n_patients"]),
            str(row["strongest"]),
        )
        for row in rows
    ]
    caption = (
        "How well inputs tell hospital or batch of patients whom the classifier did not see, among all and among those "
        "alike in outcome and strata; which share of the outcome they explain, and of the main model's predictions "
        "among patients alike. p by permutation."
    )
    return _table("Hospital and batch", caption, columns, body, first_number=3, of="input")


def _calibration(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Model", "Measure", "As predicted", "Recalibrated", "By isotonic regression")
    measured = [row for row in rows if row["before"] is not None]
    body = [
        (
            _task(row),
            model_title(str(row["model"])),
            (_MEASURES.get(str(row["measure"])) or metric_title(str(row["measure"])))
            + (f" at {duration(row['horizon_days'])}" if row["horizon_days"] is not None else ""),
            *(_measured(row, name) for name in ("before", "after", "after_isotonic")),
        )
        for row in measured
    ]
    caption = (
        "Of test patients; recalibrated on validation patients by temperature (classes) or by level and slope "
        "(survival curves), and by isotonic regression. A small p speaks against the probabilities."
    )
    table = _table("Calibration", caption, columns, body, first_number=3, of="measure")
    if table is None:
        return None
    notes = [*_undefined(measured, "after", "reason"), *_undefined(measured, "after_isotonic", "reason_isotonic")]
    return table | {"notes": notes}


def _decisions(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Model", "Outcome", "Threshold", "Net benefit", "Of treating all", "Against all or nobody",
               "95 % band", "Against", "Difference", "95 % band ")  # fmt: skip
    body = [
        (
            _task(row),
            model_title(str(row["model"])),
            str(row["outcome"]),
            f"{row['threshold']:.2f}",
            _number(row["net_benefit"]),
            *(_number(row[name], signed=True) for name in ("treat_all", "against_default")),
            _ends(row, "lower_default", "upper_default"),
            model_title(str(row["reference"])) if row["against_reference"] is not None else "",
            _number(row["against_reference"], signed=True) if row["against_reference"] is not None else "",
            _ends(row, "lower", "upper"),
        )
        for row in rows
        if row["net_benefit"] is not None and round(row["threshold"] * 100) % 10 == 0
    ]
    caption = (
        "Worth of treating test patients whose probability reaches a threshold: the share of patients rightly treated, "
        "less the wrongly treated at the odds of the threshold; treating nobody is worth 0. Every second threshold, "
        "with bands that hold 95 % of whole curves."
    )
    return _table("Decision curves", caption, columns, body, first_number=3, of="threshold")


def _ends(row: Mapping[str, Any], lower: str, upper: str) -> str:
    known = row[lower] is not None
    return f"{_number(row[lower], signed=True)} to {_number(row[upper], signed=True)}" if known else ""


def _measured(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return p_value_text(value) if value is not None and str(row["measure"]).endswith("_p") else _number(value)


def _undefined(rows: Sequence[Mapping[str, Any]], value: str, reason: str) -> list[str]:
    """Returns one line per reason why a value is undefined, with the tasks and models that it concerns."""
    concerned: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if row.get(value) is None and row.get(reason):
            concerned.setdefault(singular(str(row[reason])), []).append((_task(row), model_title(str(row["model"]))))
    return [f"{_concerned(pairs)}: {text}" for text, pairs in concerned.items()]


def _hazards(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    columns = ("Task", "Model", "Hazard ratio of", "Adjusted for", "Ratio", "95 % interval", "Patients", "Events")
    body = [
        (
            _task(row),
            model_title(str(row["model"])),
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
    return _table("Hazard ratios", caption, columns, body, first_number=4, of="ratio")


def _table(
    title: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, first_number: int, of: str
) -> dict[str, Any] | None:
    if not rows:
        return None
    table = PlainTable(columns, rows, frozenset(columns[first_number:]))
    return {"title": title, "gist": counted(len(rows), of), "caption": caption, "table": table, "notes": []}


def _number(value: float | None, *, signed: bool = False) -> str:
    return "undefined" if value is None else number(float(value), signed=signed)

"""The tables of an audit in the report: for each its columns, and what fills them from a row of audit.json."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from subfuse.audit.findings import concerned
from subfuse.audit.modalities.available import BOTH
from subfuse.errors import counted
from subfuse.evaluation.metrics import duration, metric_title, number, p_value_text, signed_interval
from subfuse.report.statements import PlainTable, singular, titled
from subfuse.training.models import model_title

_Row = Mapping[str, Any]
_Cell = Callable[[_Row], str]
_MEASURES = {"one_calibration_p": "1-calibration, p", "d_calibration_p": "D-calibration, p"}
_SLOPES = {
    "calibration_slope": "slope",
    "calibration_in_the_large": "level (log odds)",
    "observed_to_expected": "observed over expected",
}
_COMPARISONS = {"per_sd": "per SD of risk", "high_vs_low": "high against low risk"}


@dataclass(frozen=True)
class _Table:
    title: str
    columns: Mapping[str, _Cell]
    first_number: int  # place of the first column of numbers
    of: str  # what a row is
    caption: str
    is_shown: Callable[[_Row], bool] = lambda row: True
    notes: Callable[[Sequence[_Row]], list[str]] = lambda rows: []


def audit_tables(tables: Mapping[str, Sequence[_Row]]) -> Iterator[dict[str, Any]]:
    """Yields what the report shows of the tables of audit.json: those that have rows, in the order of the report."""
    for name, table in _TABLES.items():
        rows = [row for row in tables.get(name, []) if table.is_shown(row)]
        if rows:
            cells = [tuple(cell(row) for cell in table.columns.values()) for row in rows]
            columns = tuple(table.columns)
            yield {
                "title": table.title,
                "gist": counted(len(rows), table.of),
                "caption": table.caption.format(model=model_title(str(rows[0].get("model")))),
                "table": PlainTable(columns, cells, frozenset(columns[table.first_number :])),
                "notes": table.notes(rows),
            }


def task_of(row: _Row) -> str:
    """Returns the title of the task of a row or finding, `All` where it is of every task."""
    return titled(str(row.get("task") or "all"))


def _text(name: str) -> _Cell:
    return lambda row: "" if row[name] is None else str(row[name])


def _model(name: str) -> _Cell:
    return lambda row: model_title(str(row[name]))


def _number(name: str, *, signed: bool = False) -> _Cell:
    return lambda row: "undefined" if row.get(name) is None else number(float(row[name]), signed=signed)


def _share(name: str) -> _Cell:
    return lambda row: f"{row[name]:.0%}"


def _p(name: str) -> _Cell:
    return lambda row: "" if row[name] is None else p_value_text(row[name])


def _interval(row: _Row) -> str:
    return signed_interval(*(np.nan if row[name] is None else row[name] for name in ("lower", "upper")))


def _interval_or_reason(row: _Row) -> str:
    return str(row["reason"] or "no interval") if row["lower"] is None else _interval(row)


def _unsigned_interval(row: _Row) -> str:
    return str(row["reason"]) if row["lower"] is None else f"{_number('lower')(row)} to {_number('upper')(row)}"


def _band(lower: str, upper: str) -> _Cell:
    return lambda row: "" if row[lower] is None else signed_interval(row[lower], row[upper])


def _metric(row: _Row) -> str:
    return metric_title(str(row["metric"]))


def _pair(row: _Row) -> str:
    return f"within {row['stratum']}" if row["stratum"] == row["other"] else f"{row['stratum']} with {row['other']}"


def _measure(row: _Row) -> str:
    measure = str(row["measure"])
    at = "" if row["horizon_days"] is None else f" at {duration(row['horizon_days'])}"
    return (_MEASURES.get(measure) or metric_title(measure)) + at


def _measured(name: str) -> _Cell:
    """Returns the cell of a measure of calibration, which may be a p-value."""
    return lambda row: (_p if str(row["measure"]).endswith("_p") and row.get(name) is not None else _number)(name)(row)


def _interval_of(lower: str, upper: str) -> _Cell:
    return lambda row: "" if row[lower] is None else f"{_number(lower)(row)} to {_number(upper)(row)}"


def _undefined(rows: Sequence[_Row]) -> list[str]:
    """Returns one line per reason why a value is undefined, with the tasks and models that it concerns."""
    lines = []
    for value, reason in (("p_before", "reason_p"), ("after", "reason"), ("after_isotonic", "reason_isotonic")):
        alike: dict[str, list[tuple[str, str]]] = {}
        for row in rows:
            if row.get(value) is None and row.get(reason):
                alike.setdefault(singular(str(row[reason])), []).append((task_of(row), model_title(str(row["model"]))))
        lines += [f"{concerned(pairs)}: {text}" for text, pairs in alike.items()]
    return lines


def _of_reference(cell: _Cell) -> _Cell:
    return lambda row: "" if row["against_reference"] is None else cell(row)


_OF_MODEL: dict[str, _Cell] = {"Task": task_of, "Model": _model("model")}
_DIFFERENCE: dict[str, _Cell] = {"Metric": _metric, "Difference": _number("difference", signed=True)}
_TABLES = {
    "added_value": _Table(
        "What models add to a trivial one",
        {
            **_OF_MODEL,
            "Added to": _model("trivial"),
            "Weights from": lambda row: str(row["fitted_on"]) or "nowhere",
            **_DIFFERENCE,
            "95 % interval": _interval_or_reason,
            "p adjusted": _p("p_adjusted"),
        },
        first_number=5,
        of="model",
        caption="Of both predictions combined, against the best trivial model alone, which reads nothing but columns "
        "of the patients' table; of the main model against the clinical one too. p adjusted (Holm) over the models "
        "added to the same one.",
    ),
    "held_out_sites": _Table(
        "Whole hospitals held out",
        {
            **_OF_MODEL,
            "Metric": _metric,
            "Random folds": _number("random_folds"),
            "Hospitals held out": _number("held_out"),
            "Gap": _number("gap", signed=True),
            "95 % interval": _interval_or_reason,
        },
        first_number=3,
        of="model",
        caption="Of patients tested in both. A gap above zero is what random folds promise beyond hospitals that a "
        "model never saw; the interval is about patients, not about hospitals.",
    ),
    "fusion": _Table(
        "Does fusion help",
        {
            **_OF_MODEL,
            "Against": lambda row: f"{model_title(str(row['reference']))} ({row['reference_is']})",
            **_DIFFERENCE,
            "95 % interval": _interval,
            "p adjusted": _p("p_adjusted"),
        },
        first_number=4,
        of="comparison",
        caption="Positive favours the model; with a modality shuffled between patients, negative means that it is "
        "used. p adjusted (Holm) over all comparisons of a task; of shuffled modalities, not adjusted.",
    ),
    "available": _Table(
        "Where a modality is missing",
        {
            **_OF_MODEL,
            "From": lambda row: str(row["available"]).capitalize(),
            "Metric": _metric,
            "Value": _number("value"),
            "Difference": lambda row: "" if row["available"] == BOTH else _number("difference", signed=True)(row),
            "95 % interval": lambda row: "" if row["available"] == BOTH else _interval_or_reason(row),
            "Patients": _text("n_patients"),
        },
        first_number=4,
        of="row",
        caption="Test patients who have slides and expression, predicted from both and, by the same models, with one "
        "of them hidden; the difference is from both, with the interval of the paired bootstrap.",
    ),
    "strata": _Table(
        "Within strata and subgroups",
        {
            "Task": task_of,
            "Column": _text("column"),
            "Stratum": _text("stratum"),
            "Metric": _metric,
            "Value": _number("value"),
            "95 % interval": _unsigned_interval,
            "Patients": _text("n_patients"),
            "Events": _text("n_events"),
            "Pairs": lambda row: "" if row.get("n_pairs") is None else str(row["n_pairs"]),
            "p adjusted": _p("p_adjusted"),
        },
        first_number=4,
        of="group",
        caption="{model} among patients who are alike in a column, ranked within fold; an AUC over the classes that "
        "the stratum has. p adjusted (Holm): whether the strata of the column differ.",
    ),
    "pairs": _Table(
        "Pairs behind the C-index",
        {
            "Task": task_of,
            "Column": _text("column"),
            "Pairs": _pair,
            "Share": _share("share"),
            "C-index": _number("c_index"),
            "Contribution": _number("contribution"),
            "Number": _text("n_pairs"),
        },
        first_number=3,
        of="kind",
        caption="Of which pairs the C-index is made: share times C-index is the contribution; contributions add up to "
        "it.",
    ),
    "confounders": _Table(
        "Hospital and batch",
        {
            "Task": task_of,
            "Column": _text("column"),
            "Input": lambda row: str(row["input"]).capitalize(),
            "AUC": _number("auc"),
            "AUC, patients alike": _number("auc_within"),
            "p": _p("p_within"),
            "Of the outcome": _share("outcome_share"),
            "p ": _p("p_outcome"),
            "Of predictions": _share("prediction_share"),
            "p  ": _p("p_prediction"),
            "Values": _text("n_values"),
            "Patients": _text("n_patients"),
            "Shows most in": _text("strongest"),
        },
        first_number=3,
        of="input",
        caption="How well inputs tell hospital or batch of patients whom the classifier did not see, among all and "
        "among those alike in outcome and strata; which share of the outcome they explain, and of the main model's "
        "predictions among patients alike. p by permutation. Embeddings are those of the main model, within each fold.",
    ),
    "calibration": _Table(
        "Calibration",
        {
            **_OF_MODEL,
            "Measure": _measure,
            "As predicted": _measured("before"),
            "Recalibrated": _measured("after"),
            "By isotonic regression": _measured("after_isotonic"),
        },
        first_number=3,
        of="measure",
        caption="Of test patients; recalibrated on validation patients by temperature (classes) or by level and slope "
        "(survival curves), and by isotonic regression. A small p speaks against the probabilities.",
        is_shown=lambda row: row["before"] is not None,
        notes=_undefined,
    ),
    "calibration_slopes": _Table(
        "Calibration slope and level",
        {
            **_OF_MODEL,
            "Outcome": lambda row: str(row["outcome"]) or f"event by {duration(row['horizon_days'])}",
            "Measure": lambda row: _SLOPES[str(row["measure"])],
            "As predicted": _number("before"),
            "95 % interval": _interval_of("lower", "upper"),
            "Recalibrated": _number("after"),
            "95 % interval ": _interval_of("lower_after", "upper_after"),
        },
        first_number=4,
        of="measure",
        caption="Of test patients. A slope below 1: probabilities are too extreme. A level below 0, or fewer events "
        "than expected (below 1): they are too high. Of more than two classes each against the rest.",
        is_shown=lambda row: row["before"] is not None,
    ),
    "decision_curves": _Table(
        "Decision curves",
        {
            **_OF_MODEL,
            "Outcome": _text("outcome"),
            "Threshold": lambda row: f"{row['threshold']:.2f}",
            "Net benefit": _number("net_benefit"),
            "Of treating all": _number("treat_all", signed=True),
            "Against all or nobody": _number("against_default", signed=True),
            "95 % band": _band("lower_default", "upper_default"),
            "Against": _of_reference(_model("reference")),
            "Difference": _of_reference(_number("against_reference", signed=True)),
            "95 % band ": _band("lower", "upper"),
        },
        first_number=3,
        of="threshold",
        caption="Worth of treating test patients whose probability reaches a threshold: the share of patients rightly "
        "treated, less the wrongly treated at the odds of the threshold; treating nobody is worth 0. Every second "
        "threshold, with bands that hold 95 % of whole curves.",
        is_shown=lambda row: row["net_benefit"] is not None and round(row["threshold"] * 100) % 10 == 0,
    ),
    "conformal": _Table(
        "Promises and how often they hold",
        {
            **_OF_MODEL,
            "Patients of": lambda row: f"{row['column']} {row['stratum']}".strip() or "all",
            "Promised": _share("promised"),
            "Held": _share("coverage"),
            "95 % interval": lambda row: (
                f"{row['lower']:.0%} to {row['upper']:.0%}" if row["lower"] is not None else "no interval"
            ),
            "Classes or days": lambda row: f"{row['size']:.3g}",
            "Patients": _text("n_patients"),
        },
        first_number=3,
        of="group",
        caption="Conformal prediction from validation patients: sets that hold the true class (and the mean number of "
        "their classes), and days to which patients live (and their median).",
        is_shown=lambda row: row["coverage"] is not None,
    ),
    "hazard_ratios": _Table(
        "Hazard ratios",
        {
            **_OF_MODEL,
            "Hazard ratio of": lambda row: _COMPARISONS.get(str(row["comparison"]), str(row["comparison"])),
            "Adjusted for": _text("adjusted_for"),
            "Ratio": _number("hazard_ratio"),
            "95 % interval": lambda row: f"{_number('lower')(row)} to {_number('upper')(row)}",
            "Patients": _text("n_patients"),
            "Events": _text("n_events"),
        },
        first_number=4,
        of="ratio",
        caption="Cox model of test patients; risks are scaled, and thresholds chosen, by training patients.",
        is_shown=lambda row: row["hazard_ratio"] is not None,
    ),
}

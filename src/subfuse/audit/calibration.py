"""Whether probabilities are true, and whether it is worth acting on them."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from subfuse.audit.audited_task import AuditedTask
from subfuse.audit.findings import SIGNIFICANCE, Finding, Level
from subfuse.errors import listed
from subfuse.evaluation.benefit.conformal import PROMISED, conformal_table, promise_of
from subfuse.evaluation.benefit.decision_curves import decision_curves
from subfuse.evaluation.calibration_slopes import LEVEL, RATIO, SLOPE
from subfuse.evaluation.metrics import duration, number, p_text
from subfuse.evaluation.predictions import TaskPredictions
from subfuse.training.models import main_model, model_title

CHECK = "calibration"
_DECISIONS = "decision curves"
_PROMISES = "promised coverage"
CLEAR = 0.001  # there are several tests per model and several models: 0.05 alone is weak
_WHY_DECISIONS = "A model changes decisions for the better only where it beats treating everybody alike."
_WHY_PROMISES = "A set or bound that holds less often than it promises misleads more than none."
_WHY = "A probability that is not true misleads whoever acts on it, however well patients are ranked."


def calibration_findings(table: pd.DataFrame, slopes: pd.DataFrame) -> list[Finding]:
    """Returns one finding per task and model; where probabilities are off, in which way.

    Args:
        table: Of `calibration_table`.
        slopes: Of `slope_table`, for the same predictions.
    """
    ways = {of: _ways(rows) for of, rows in slopes.groupby(["task", "model"], sort=False)}
    return [
        finding
        for (task, model), rows in table.groupby(["task", "model"], sort=False)
        for finding in _of_model(str(task), str(model), rows.set_index("measure"), ways.get((task, model), []))
    ]


def decision_findings(task: AuditedTask, trivial: str | None) -> tuple[list[Finding], pd.DataFrame]:
    """Returns at which thresholds it is worth to act on the main model, and its `decision_curves`.

    Worth is a net benefit whose band, of 95 % for the whole curve, is above that of treating all and of nobody.

    Args:
        task: Rows of all models and splits.
        trivial: The clinical model, or without one the best of hospital and batch, whose curve is shown beside: what
            else one would act on. None without any.
    """
    model = task.main
    if model == trivial:
        return [], pd.DataFrame()
    models = [model] if trivial is None else [model, trivial]
    table = decision_curves(task, models, reference=trivial, n_bootstrap=task.n_bootstrap, seed=task.seed)
    own = table[table["model"] == model]
    told = own.dropna(subset=["lower_default"])
    if told.empty:
        reason = own["reason"].dropna()
        detail = f"cannot be told, {reason.iloc[0] if len(reason) else 'no interval'}"
        return [Finding.of_model("note", _DECISIONS, detail, _WHY_DECISIONS, task=task.name, model=model)], table
    parts = [_decisions_text(str(outcome), rows, trivial) for outcome, rows in told.groupby("outcome", sort=False)]
    level: Level = "ok" if (told["lower_default"] > 0).any() else "note"
    found, why = f"acting on {model_title(model)} is {'; '.join(parts)}", "" if level == "ok" else _WHY_DECISIONS
    return [Finding(level, _DECISIONS, found, why, task=task.name, model=model)], table


def promise_findings(task: AuditedTask, columns: pd.DataFrame) -> tuple[list[Finding], pd.DataFrame]:
    """Returns whether the main model's sets of classes or bounds of survival hold as often as promised, and the table.

    Less often is a warning, by a one-sided test at 2.5 %; in a stratum a note, at 2.5 % divided by their number.

    Args:
        task: Rows of all models and splits.
        columns: Strata, by cohort and patient_id.
    """
    model = task.main
    table = conformal_table(task, model, columns)
    overall, *of_strata = table.to_dict("records")
    if np.isnan(overall["coverage"]):
        detail = f"nothing can be promised, {overall['reason']}"
        return [Finding.of_model("note", _PROMISES, detail, _WHY_PROMISES, task=task.name, model=model)], table
    promise = promise_of(task)
    share = f"{overall['coverage']:.0%} ({overall['lower']:.0%} to {overall['upper']:.0%})"
    detail = (
        f"{promise.what} that promise {PROMISED:.0%} hold for {share} of {overall['n_patients']} patients, "
        f"{promise.size.format(overall['size'])}"
    )
    short = [
        f"{row['coverage']:.0%} of {row['column']} {row['stratum']}"
        for row in of_strata
        if row["p_value"] < SIGNIFICANCE / 2 / len(of_strata)
    ]
    detail += f"; less often for {listed(short)}" if short else ""
    if overall["p_value"] < SIGNIFICANCE / 2:  # one side
        remedy = "Do not promise it before more validation patients have set it."
        found = Finding.of_model("warning", _PROMISES, detail, _WHY_PROMISES, remedy, task=task.name, model=model)
        return [found], table
    level: Level = "note" if short else "ok"
    why = _WHY_PROMISES if short else ""
    return [Finding.of_model(level, _PROMISES, detail, why, task=task.name, model=model)], table


def without_probabilities(task: TaskPredictions) -> list[Finding]:
    """Returns what is not asked of a task of numbers: they are no probabilities."""
    found = (
        "not checked, as numbers are predicted and no probabilities; nor are decision curves and promised coverage. "
        "R², the mean absolute error and the plot of predicted against measured numbers tell how far off they are"
    )
    return [Finding.of_model("note", CHECK, found, task=task.name, model=main_model(task.models))]


def _decisions_text(outcome: str, rows: pd.DataFrame, trivial: str | None) -> str:
    worth, beyond = rows[rows["lower_default"] > 0], rows[rows["lower"] > 0]
    if worth.empty:
        return f"not shown to be worth more than treating all or nobody at any threshold for {outcome}"
    text = f"worth more than treating all or nobody at thresholds {_thresholds(worth)} for {outcome}"
    if trivial is None:
        return text
    return f"{text}, and more than {model_title(trivial)} at {_thresholds(beyond) if len(beyond) else 'none'}"


def _thresholds(rows: pd.DataFrame) -> str:
    """Returns thresholds in words; neighbours as a range."""
    steps = (rows["threshold"] * 20).round().astype(int)
    runs = [run["threshold"] for _, run in rows.groupby((steps.diff() != 1).cumsum())]
    return ", ".join(f"{run.min():.2f}" if len(run) == 1 else f"{run.min():.2f} to {run.max():.2f}" for run in runs)


def _ways(slopes: pd.DataFrame) -> list[str]:
    """Returns in words how probabilities of one model are off, where an interval says so."""
    words = {
        SLOPE: (1.0, "too extreme", "too timid", "slope {}"),
        LEVEL: (0.0, "too high", "too low", "log odds {}"),
        RATIO: (1.0, "risk too high", "risk too low", "observed over expected events {}"),
    }
    found = []
    for row in slopes.to_dict("records"):
        right, if_below, if_above, numbers = words[row["measure"]]
        of = f" for {row['outcome']}" if row["outcome"] else ""
        value, *interval = (number(row[name], signed=row["measure"] == LEVEL) for name in ("before", "lower", "upper"))
        if row["upper"] < right or row["lower"] > right:
            way = if_below if row["upper"] < right else if_above
            found.append(f"{way}{of} ({numbers.format(value)}, {' to '.join(interval)})")
    return found


def _of_model(task: str, model: str, rows: pd.DataFrame, ways: Sequence[str]) -> Iterator[Finding]:
    if rows["before"].isna().all():
        yield Finding.of_model(
            "note", CHECK, f"cannot be checked, {rows['reason'].iloc[0]}", _WHY, task=task, model=model
        )
        return
    p_value, text = _classification(rows) if "brier" in rows.index else _survival(rows)
    if p_value is None:
        yield Finding.of_model("note", CHECK, f"not tested, {text}", _WHY, task=task, model=model)
        return
    if p_value >= SIGNIFICANCE:
        yield Finding.of_model("ok", CHECK, text, task=task, model=model)
        return
    evidence = "clear" if p_value < CLEAR else "some"
    detail = f"{evidence} evidence that probabilities are off, {text}{f'; {listed(ways)}' if ways else ''}"
    if rows["after"].notna().any():
        short = "recalibrate before use"
        remedy = f"Recalibrate on validation patients ({rows['method'].iloc[0]}) before using the probabilities."
    else:
        short = "do not use them" if evidence == "clear" else "check them before use"
        begin = "Do not use the probabilities" if evidence == "clear" else "Check the probabilities on more patients"
        remedy = f"{begin}: they cannot be recalibrated here, for want of validation patients."
    yield Finding.of_model("warning", CHECK, detail, _WHY, remedy, task=task, model=model, short=short)


def _classification(rows: pd.DataFrame) -> tuple[float | None, str]:
    """Returns the p-value of true probabilities, None of too few patients, and the numbers."""
    error, brier = rows.loc["expected_calibration_error"], rows.loc["brier"]
    after = (
        f"; after recalibration {error['after']:.3f} and {brier['after']:.3f}"
        if np.isfinite(error["after"])
        else f"; {error['reason']}"
    )
    if np.isfinite(error["after_isotonic"]):
        after += f", by isotonic regression {error['after_isotonic']:.3f} and {brier['after_isotonic']:.3f}"
    is_tested = np.isfinite(error["p_before"])
    tested = f" ({p_text(float(error['p_before']))} if probabilities were true)" if is_tested else ""
    text = f"expected calibration error {error['before']:.3f}{tested}, Brier {brier['before']:.3f}{after}"
    return (float(error["p_before"]), text) if is_tested else (None, f"{error['reason_p']}; {text}")


def _survival(rows: pd.DataFrame) -> tuple[float | None, str]:
    """Returns the p-value of the tests of the curves (Bonferroni), None where none could be made, and the numbers."""
    one, distribution = rows.loc["one_calibration_p"], rows.loc["d_calibration_p"]
    tests = {f"1-calibration at {duration(float(one['horizon_days']))}": one, "D-calibration": distribution}
    known = {name: row for name, row in tests.items() if np.isfinite(row["before"])}
    parts = [
        f"{name} {p_text(float(row['before']))}"
        + (f", after recalibration {p_text(float(row['after']))}" if np.isfinite(row["after"]) else "")
        for name, row in known.items()
    ]
    joint = min(1.0, len(known) * min((float(row["before"]) for row in known.values()), default=1.0))
    if len(known) > 1:
        parts.append(f"both together {p_text(joint)}")
    brier = rows.loc["integrated_brier"]
    if np.isfinite(brier["before"]):
        after = f", after recalibration {brier['after']:.3f}" if np.isfinite(brier["after"]) else ""
        parts.append(f"integrated Brier {brier['before']:.3f}{after}")
    if rows["after"].isna().all() and rows["reason"].notna().any():
        parts.append(str(rows["reason"].dropna().iloc[0]))
    if not known:
        return None, "; ".join([str(one["reason"]), *parts])
    return joint, "; ".join(dict.fromkeys(parts))

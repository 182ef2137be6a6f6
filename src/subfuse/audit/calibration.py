"""What a calibration table says in words."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from subfuse.audit.findings import Finding
from subfuse.evaluation.floors import LEAST_CALIBRATED
from subfuse.evaluation.metrics import duration
from subfuse.training.models import model_title

CHECK = "calibration"
SIGNIFICANCE = 0.05
CLEAR = 0.001  # there are several tests per model and several models: 0.05 alone is weak
_WHY = "A probability that is not true misleads whoever acts on it, however well patients are ranked."


def calibration_findings(table: pd.DataFrame) -> list[Finding]:
    """Returns one finding per task and model of a table of `calibration_table`."""
    return [
        finding
        for (task, model), rows in table.groupby(["task", "model"], sort=False)
        for finding in _of_model(str(task), str(model), rows.set_index("measure"))
    ]


def _of_model(task: str, model: str, rows: pd.DataFrame) -> Iterator[Finding]:
    title = model_title(model)
    if rows["before"].isna().all():
        found = f"{title}: cannot be checked, {rows['reason'].iloc[0]}"
        yield Finding("note", CHECK, found, _WHY, task=task, model=model)
        return
    p_value, text = _classification(rows) if "brier" in rows.index else _survival(rows)
    n_patients = int(rows["n_patients"].iloc[0])
    if p_value is None or n_patients < LEAST_CALIBRATED:
        few = f"{n_patients} patients, {LEAST_CALIBRATED} are needed; " if n_patients < LEAST_CALIBRATED else ""
        yield Finding("note", CHECK, f"{title}: not tested, {few}{text}", _WHY, task=task, model=model)
        return
    if p_value >= SIGNIFICANCE:
        yield Finding("ok", CHECK, f"{title}: {text}", task=task, model=model)
        return
    evidence = "clear" if p_value < CLEAR else "some"
    found = f"{title}: {evidence} evidence that probabilities are off, {text}"
    yield Finding("warning", CHECK, found, _WHY, _remedy(rows, evidence), task, model)


def _remedy(rows: pd.DataFrame, evidence: str) -> str:
    if rows["after"].notna().any():
        return f"Recalibrate on validation patients ({rows['method'].iloc[0]}) before using the probabilities."
    begin = "Do not use the probabilities" if evidence == "clear" else "Check the probabilities on more patients"
    return f"{begin}: they cannot be recalibrated here. Raise `splits.validation`."


def _classification(rows: pd.DataFrame) -> tuple[float, str]:
    """Returns the p-value of true probabilities, and the numbers."""
    error, brier = rows.loc["expected_calibration_error"], rows.loc["brier"]
    after = (
        f"; after recalibration {error['after']:.3f} and {brier['after']:.3f}"
        if np.isfinite(error["after"])
        else f"; {error['reason']}"
    )
    if np.isfinite(error["after_isotonic"]):
        after += f", by isotonic regression {error['after_isotonic']:.3f} and {brier['after_isotonic']:.3f}"
    text = (
        f"expected calibration error {error['before']:.3f} (p = {error['p_before']:.2g} if probabilities were true), "
        f"Brier {brier['before']:.3f}{after}"
    )
    return float(error["p_before"]), text


def _survival(rows: pd.DataFrame) -> tuple[float | None, str]:
    """Returns the p-value of the tests of the curves (Bonferroni), None where none could be made, and the numbers."""
    one, distribution = rows.loc["one_calibration_p"], rows.loc["d_calibration_p"]
    tests = {f"1-calibration at {duration(float(one['horizon_days']))}": one, "D-calibration": distribution}
    known = {name: row for name, row in tests.items() if np.isfinite(row["before"])}
    parts = [
        f"{name} p = {row['before']:.2g}"
        + (f", after recalibration {row['after']:.2g}" if np.isfinite(row["after"]) else "")
        for name, row in known.items()
    ]
    brier = rows.loc["integrated_brier"]
    if np.isfinite(brier["before"]):
        after = f", after recalibration {brier['after']:.3f}" if np.isfinite(brier["after"]) else ""
        parts.append(f"integrated Brier {brier['before']:.3f}{after}")
    if rows["after"].isna().all() and rows["reason"].notna().any():
        parts.append(str(rows["reason"].dropna().iloc[0]))
    if not known:
        return None, "; ".join([str(one["reason"]), *parts])
    return min(1.0, len(known) * min(float(row["before"]) for row in known.values())), "; ".join(dict.fromkeys(parts))

"""The first screen of the report: who was studied, one card per task, and what to heed before use."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from subfuse.audit.calibration import CHECK as CALIBRATION
from subfuse.audit.confounding.held_out_sites import CHECK as HELD_OUT
from subfuse.audit.disguised_outcomes import CHECK as DISGUISED
from subfuse.audit.nulls import LABEL_NULL
from subfuse.audit.simple_baselines import ADDED_VALUE, AGAINST_CLINICAL, TRIVIAL_BASELINE
from subfuse.cohort.cohort import used_of_listed
from subfuse.errors import counted, preview
from subfuse.evaluation.intervals import POOLED
from subfuse.evaluation.metrics import CHANCE, metric_title, number, p_text, signed_interval
from subfuse.evaluation.regression.outcome import NumberOutcome
from subfuse.report.run_files import RunFiles
from subfuse.report.statements import (
    ToldBenefit,
    benefit_told,
    best_models,
    headline_of,
    inputs_of,
    mixture_told,
    model_label,
    outcomes,
    singular,
    titled,
    trivial_label,
    with_level,
)
from subfuse.training.models import modalities_of, model_title

_VERDICTS = {
    "better": "Fusion helps.",
    "worse": "Fusion does not help: one modality alone is better.",
    "open": "Fusion is not shown to help.",
    "untested": "Whether fusion helps could not be tested.",
}

_BEYOND = {  # checks of the audit that ask for more than a number above chance
    TRIVIAL_BASELINE: "Against no biology",
    ADDED_VALUE: "Added value",
    AGAINST_CLINICAL: "Clinical model",
    HELD_OUT: "Hospitals held out",
}
_Tone = Literal["good", "open", "bad"]


@dataclass(frozen=True)
class Line:
    """A line of a card: a heading and its sentence."""

    heading: str
    sentence: str


@dataclass(frozen=True)
class Bar:
    """A value with its interval, drawn on a common scale; all three as shares of its width."""

    name: str
    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class TaskCard:
    """What a reader must know of one task; the rest is in its section."""

    anchor: str  # of the task's section
    title: str
    size: str
    metric: str
    model: str
    value: str
    is_defined: bool
    interval: str  # in words; empty where the value is undefined
    meaning: str
    bars: tuple[Bar, ...]
    chance: float  # on the scale of the bars
    verdict: str
    leads: bool  # the verdict comes before the number
    tone: _Tone
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Caution:
    """What the audit says of the whole run, in one line."""

    tone: _Tone
    sentence: str
    is_detailed: bool  # the report has a section of the audit


def task_card(run: RunFiles, task: str, *, anchor: str) -> TaskCard:
    """Returns one task: its headline metric, what it is compared with, and the verdict."""
    metrics = run.metrics[run.metrics["task"] == task]
    headline, main = headline_of(metrics), run.main_model(task)
    rows = metrics[metrics["metric"] == headline].set_index("model")
    row = dict(rows.loc[main]) if main in rows.index else {"value": np.nan, "lower": np.nan, "upper": np.nan}
    benefit = benefit_told(run.audit, task=task, model=main)
    bars, chance = _bars(rows, [main, *([benefit.unimodal] if benefit else [])])
    unrelated = unrelated_sentence(run, task)
    verdict, tone = _verdict(main, benefit, unrelated)
    return TaskCard(
        anchor=anchor,
        title=titled(task),
        size=tested_sentence(run, task, main),
        metric=metric_title(headline),
        model=model_title(main),
        value=number(row["value"]),
        is_defined=not np.isnan(row["value"]),
        interval="" if np.isnan(row["value"]) else with_level(row["lower"], row["upper"]).replace("95 %", "95\u00a0%"),
        meaning=_meaning(headline, row["value"]),
        bars=bars,
        chance=chance,
        verdict=verdict,
        leads=bool(unrelated),
        tone=tone,
        lines=tuple(_lines(run, task, row=row, metrics=metrics, benefit=benefit)),
    )


def _lines(
    run: RunFiles, task: str, *, row: Mapping[str, Any], metrics: pd.DataFrame, benefit: ToldBenefit | None
) -> Iterator[Line]:
    headline, main = headline_of(metrics), run.main_model(task)
    if isinstance(row.get("reason"), str) and np.isnan(row["lower"]):  # what is left out of an interval is a detail
        yield Line("Remark", singular(row["reason"]))
    rows = metrics[metrics["metric"] == headline]
    if benefit is not None:
        value = "".join(f" {number(known)}" for known in rows.loc[rows["model"] == benefit.unimodal, "value"])
        yield Line("Best single modality", f"{model_label(benefit.unimodal, run.covariates)}{value}")
        n_tested = len(run.test_predictions(task, main))
        common = "" if benefit.n_patients >= n_tested else f"; of the {benefit.n_patients} patients whom both predict"
        yield Line("Difference", _evidence(benefit).replace("p = ", "p\u00a0=\u00a0") + common)
    trivial = _trivial(run, task)
    if trivial:
        value = "".join(f" {number(known)}" for known in rows.loc[rows["model"] == trivial, "value"])
        yield Line("Best without biology", f"{trivial_label(trivial, run.covariates)}{value}")
    for check, heading in _BEYOND.items():
        if (found := _finding(run, task, check)) is not None:
            text = _in_few_words(found)
            is_named_above = bool(trivial) and check != AGAINST_CLINICAL
            yield Line(heading, text.replace(model_title(trivial), "it") if is_named_above else text)
    allowed = allowed_inputs(run, task)
    if allowed:
        yield Line("Outcome in disguise?", f"{preview(allowed, 2)}; allowed by name")
    mixture = mixture_told(run.details(task, main))
    if mixture:
        yield Line("Linear path", mixture)
    best = best_models(metrics).get(headline, set())
    if best and main not in best and not (benefit and benefit.unimodal in best):
        highest = rows[rows["model"].isin(best)].iloc[0]
        yield Line("Highest of all", f"{model_label(highest['model'], run.covariates)} {number(highest['value'])}")
    if headline != NumberOutcome.headline:
        yield Line("Probabilities", _calibration(_finding(run, task, CALIBRATION)))
        return
    errors = metrics[(metrics["model"] == main) & metrics["metric"].isin(["r2", "mae"])].to_dict("records")
    told = [f"{metric_title(row['metric'])} {number(row['value'])}" for row in errors]
    yield Line("How far off", ", ".join(told))


def _trivial(run: RunFiles, task: str) -> str:
    """Returns the trivial model that the main one is compared with; empty without."""
    rows = run.audit["tables"].get("added_value", ()) if run.audit else ()
    wanted = (task, run.main_model(task))
    return next((str(row["trivial"]) for row in rows if (row["task"], row["model"]) == wanted), "")


def allowed_inputs(run: RunFiles, task: str) -> list[str]:
    """Returns the inputs of a task that may be its outcome in disguise and were allowed by name.

    Where no audit looked at the inputs of this task, these are all that were allowed.
    """
    found = [finding for finding in _findings(run) if (finding["check"], finding["task"]) == (DISGUISED, task)]
    allowed = [str(finding["short"]) for finding in found if finding["level"] == "note" and finding.get("short")]
    return allowed if found else list(run.config.get("allow_inputs", ()))


def _in_few_words(finding: Mapping[str, Any]) -> str:
    """Returns what was found in the words that a card has room for; an audit of an earlier version has all alone."""
    return singular(str(finding.get("short") or finding["found"]))


def _verdict(model: str, benefit: ToldBenefit | None, unrelated: str) -> tuple[str, _Tone]:
    tones: dict[str, _Tone] = {"better": "good", "worse": "bad"}
    if unrelated:
        return unrelated, "bad"
    if benefit is not None:
        return _VERDICTS[benefit.verdict], tones.get(benefit.verdict, "open")
    return _untested(model), "open"


def _untested(model: str) -> str:
    if len(modalities_of(model)) == 1:
        return "No model here uses both modalities."
    return "Whether fusion helps was not tested."


def _bars(rows: pd.DataFrame, models: list[str]) -> tuple[tuple[Bar, ...], float]:
    """Returns the intervals of two models on one scale, and where chance is on it; none unless both are known."""
    found = rows[rows.index.isin(models)].loc[:, ["value", "lower", "upper"]].astype(float).dropna()
    if len(models) < 2 or len(found) < len(models):
        return (), 0.0
    low, high = min(CHANCE, found["lower"].min()), found["upper"].max()
    scaled = (found - low) / max(high - low, 1e-9)
    bars = (Bar(model_title(model), *(round(float(share), 4) for share in scaled.loc[model])) for model in models)
    return tuple(bars), round((CHANCE - low) / max(high - low, 1e-9), 4)


def cohort_sentence(run: RunFiles) -> str:
    """Returns how many patients of the clinical table are used, with which data, and how they were tested."""
    flow = run.flow
    names = {"slides": "with slides", "expression": "with gene expression", "both": "with both"}
    data = ", ".join(f"{count} {names[name]}" for name, count in flow.having.items())
    patients = singular(used_of_listed(flow.used, flow.used + flow.excluded))
    lacking = [task for task in run.config.get("tasks", ()) if task not in run.tasks] if run.is_external else []
    without = f" Nobody can be evaluated for {preview(lacking)}: see the remarks." if lacking else ""
    return f"{patients}{f': {data}' if data else ''}; {_tested_how(run, flow.used)}.{without}"


def tested_sentence(run: RunFiles, task: str, model: str) -> str:
    """Returns how many test patients of a task a model predicts, of those whom any model does, and their outcomes."""
    tested = run.test_predictions(task, model)
    of_any = run.predictions[(run.predictions["task"] == task) & (run.predictions["split"] == "test")]
    untested = len(of_any.drop_duplicates(["cohort", "patient_id"])) - len(tested)
    has_failed = len(run.failures) > 0 and (run.failures[["task", "model"]] == [task, model]).all(axis=1).any()
    absent = run.flow.absent
    alone = run.covariates if "expression" in absent else ()  # beside genes, covariates are no profile of their own
    inputs = inputs_of(model, alone, absent=absent).removesuffix(" only")
    why = "not predicted, see failed jobs" if has_failed or not inputs else f"without {inputs}"
    return outcomes(tested, untested=untested, why=why)


def patients_of_run(run: RunFiles) -> list[str]:
    """Returns `cohort_sentence`, and per task how many of these patients the main model predicts; see its card."""
    lines = [cohort_sentence(run)]
    for task in run.tasks:
        main = run.main_model(task)
        lines.append(f"{task}: {tested_sentence(run, task, main)}")
    return lines


def _tested_how(run: RunFiles, n_used: int) -> str:
    tested = run.predictions.loc[run.predictions["split"] == "test", ["repeat", "fold", "cohort", "patient_id"]]
    n_tested = len(tested.drop_duplicates(["cohort", "patient_id"]))
    tested = tested[["repeat", "fold"]].drop_duplicates()
    n_repeats = tested["repeat"].nunique()
    if run.is_external:
        return f"an external cohort, predicted by the finished models of {run.config['trained']}"
    who = "each is" if n_tested == n_used else f"{n_tested} of them are"
    how = f"{who} predicted by models that never saw them"
    if len(tested) < 2:
        return how
    repeats = f", {counted(n_repeats, 'time')} over" if n_repeats > 1 else ""
    return f"{how}, in {len(tested) // n_repeats} folds{repeats}"


def measured_on(run: RunFiles, metrics: pd.DataFrame) -> str:
    """Returns on whom the metrics of a task, or of all, were measured, and how folds are put together."""
    if run.is_external:
        return "Of the mean of the models of all folds, on the external cohort"
    tested = run.predictions[run.predictions["split"] == "test"]
    if len(tested[["repeat", "fold"]].drop_duplicates()) < 2:
        return "On the test patients of one fold"
    pooled = [metric_title(name) for name in POOLED if name in set(metrics["metric"])]
    return "Mean over test folds" + (f" ({' and '.join(pooled)}: folds pooled)" if pooled else "")


def unrelated_sentence(run: RunFiles, task: str) -> str:
    """Returns that the main model's predictions are not shown to be related to the outcome; empty where they are."""
    found = _finding(run, task, LABEL_NULL)
    return str(found["why"]) if found is not None and found["level"] in ("warning", "failure") else ""


def _meaning(headline: str, value: float) -> str:
    """Returns a headline metric in pairs of patients; empty where it is undefined or another metric."""
    who = {
        "c_index": "Of two patients, the one with the earlier event gets the higher risk",
        "concordance": "Of two patients, the one with the higher value gets the higher prediction",
        "auc": "Of two patients, the one who has a class gets the higher probability of it",
    }
    if headline not in who or np.isnan(value):
        return ""
    return f"{who[headline]} in {value:.0%} of pairs (chance: 50%).".replace("%", "\u00a0%")


def fusion_sentence(run: RunFiles, task: str) -> str:
    """Returns whether the main model is better than the best model of one modality."""
    model = run.main_model(task)
    benefit = benefit_told(run.audit, task=task, model=model)
    if benefit is None:
        return _untested(model)
    unimodal = model_label(benefit.unimodal, run.covariates)
    if benefit.verdict == "untested":
        better = f"{model_title(model)} is better than the best single modality, {unimodal}"
        return f"Whether {better}, could not be tested: {benefit.reason or 'the difference is undefined'}."
    is_what = {"better": "is better than", "worse": "is worse than", "open": "is not shown to be better than"}
    return (
        f"{model_title(model)} {is_what[benefit.verdict]} the best single modality, {unimodal} ({_evidence(benefit)})."
    )


def beyond_sentences(run: RunFiles, task: str) -> list[str]:
    """Returns what was found of the main model beside trivial ones and in hospitals held out, where asked."""
    found = (_finding(run, task, check) for check in _BEYOND)
    texts = [singular(str(finding["found"])) for finding in found if finding is not None]
    return [f"{text[:1].upper()}{text[1:]}." for text in texts]


def _evidence(benefit: ToldBenefit) -> str:
    if benefit.verdict == "untested":
        gain = "" if np.isnan(benefit.gain) else f"{number(benefit.gain, signed=True)}, "
        return f"{gain}not tested: {benefit.reason or 'undefined'}"
    interval = f"95 % interval {signed_interval(benefit.lower, benefit.upper)}"
    return f"{number(benefit.gain, signed=True)}, {interval}, adjusted {p_text(benefit.p_adjusted)}"


def calibration_sentence(run: RunFiles, task: str) -> str:
    """Returns what the audit says of the main model's probabilities, with the numbers; empty where there are none."""
    found = _finding(run, task, CALIBRATION)
    if headline_of(run.metrics[run.metrics["task"] == task]) == NumberOutcome.headline:
        return ""
    detail = "" if found is None else singular(str(found.get("detail") or found["found"]))
    if found is not None and found["level"] == "note":  # it says itself that they were not tested
        return f"Probabilities: {detail}."
    return f"Probabilities: {_calibration(found)}{f' ({detail})' if detail else ''}."


def _calibration(found: Mapping[str, Any] | None) -> str:
    """Returns the verdict on the main model's probabilities, in few words."""
    if found is None:
        return "not tested"
    advice = found.get("short") or "check them before use"
    words = {"ok": "no sign that they are off", "warning": f"signs that they are off: {advice}"}
    return words.get(found["level"], "not tested")


def _finding(run: RunFiles, task: str, check: str) -> Mapping[str, Any] | None:
    """Returns what a check found of the main model of a task; None where it was not made."""
    wanted = (check, task, run.main_model(task))
    return next((f for f in _findings(run) if (f["check"], f["task"], f.get("model")) == wanted), None)


def _findings(run: RunFiles) -> list[Mapping[str, Any]]:
    return list(run.audit.get("findings", ())) if run.audit else []


def caution(run: RunFiles) -> Caution:
    """Returns what to heed before the results are used."""
    is_measured = any(f["check"] == HELD_OUT and f["level"] != "note" for f in _findings(run))
    is_tried = run.is_external or run.holds_out_sites or is_measured
    external = "" if is_tried else " Patients of other hospitals may be predicted worse."
    if run.audit is None:
        untested = "This run was not audited for leakage and other mistakes: run `subfuse audit` on it."
        return Caution("open", untested + external, is_detailed=False)
    failures = [finding for finding in _findings(run) if finding["level"] == "failure"]
    if failures:
        found = "; ".join(
            dict.fromkeys(f"{finding['check']}: {singular(str(finding['found']))}" for finding in failures)
        )
        return Caution("bad", f"Do not use these results before this is settled: {found}.", is_detailed=True)
    n_warnings = sum(finding["level"] == "warning" for finding in _findings(run))
    return Caution(
        "open", f"The audit found no failure and {counted(n_warnings, 'warning')}.{external}", is_detailed=True
    )

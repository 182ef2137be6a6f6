"""Names, numbers and verdicts of the report in plain words."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup, escape

from subfuse.audit.fusion import Verdict, verdict_of
from subfuse.cohort.covariates import column_of
from subfuse.errors import counted, listed, preview
from subfuse.evaluation.metrics import LOWER_IS_BETTER, duration, number
from subfuse.evaluation.predictions import HEADLINES, competing_events, predicted_classes
from subfuse.evaluation.regression.columns import VALUE, holds_values
from subfuse.training.models import modalities_of, model_title


@dataclass(frozen=True)
class Drawn:
    """A figure with what surrounds it."""

    svg: Markup
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class PlainTable:
    """A table of texts; `numeric` names the right-aligned columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Section:
    """A section of the report, folded under its heading; `gist` says in few words what opens."""

    anchor: str
    title: str
    gist: str
    template: str
    content: Mapping[str, Any]


def prose(text: str) -> Markup:
    """Returns text as HTML, in which only words between backticks are marked up: they are shown as code.

    Example:
        >>> print(prose("<b> run `subfuse audit`"))
        &lt;b&gt; run <code>subfuse audit</code>
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def flattened(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Returns nested settings as pairs of dotted key and text."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in flattened(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(str(item) for item in value))]
    return [(name, "none" if value is None else str(value))]


_MODALITY_NAMES = {
    frozenset({"slides"}): "slides only",
    frozenset({"expression"}): "expression only",
    frozenset({"covariates"}): "covariates only",
    frozenset({"site"}): "hospital only",
    frozenset({"batch"}): "batch only",
}

_ONE_OF_MANY = re.compile(
    r"(?<![\w.,:/+−-])1 "
    r"((?:test )?patient|slide|event|fold|repeat|gene|input|model|person|failure|warning|note|year|day)s\b"
)


@dataclass(frozen=True)
class ToldBenefit:
    """The main model against the best model that uses one modality; positive values favour the main model."""

    unimodal: str
    gain: float
    lower: float
    upper: float
    p_adjusted: float
    n_patients: int  # whom both models predict
    reason: str | None = None  # why a number is undefined

    @property
    def verdict(self) -> Verdict:
        """The verdict of the audit."""
        return verdict_of(lower=self.lower, upper=self.upper, p_adjusted=self.p_adjusted)


def model_label(model: str, covariates: Sequence[str] = ()) -> str:
    """Returns a model's name with what it reads, where it uses one modality.

    Args:
        model: The model.
        covariates: Those of the run, which models see beside expression.
    """
    return (
        f"{model_title(model)} ({inputs_of(model, covariates)})"
        if len(modalities_of(model)) == 1
        else model_title(model)
    )


def trivial_label(model: str, covariates: Sequence[str]) -> str:
    """Returns the name of a model that reads the patients' columns alone, the clinical one with the columns.

    Example:
        >>> trivial_label("clinical", ["age", "idh=mutant", "idh=wildtype"]), trivial_label("site", ["age"])
        ('Clinical model (age, idh)', 'Hospital alone')
    """
    columns = list(dict.fromkeys(map(column_of, covariates))) if "covariates" in modalities_of(model) else []
    return f"{model_title(model)}{f' ({preview(columns, 6)})' if columns else ''}"


def inputs_of(model: str, covariates: Sequence[str] = (), *, absent: Collection[str] = ()) -> str:
    """Returns what a model reads, in words; empty for a model that the package does not know.

    Args:
        model: The model.
        covariates: Those of the run, which models see beside expression.
        absent: Modalities that no patient of the run has.

    Example:
        >>> inputs_of("cox"), inputs_of("cox", ["age"]), inputs_of("subspace", ["age"], absent=["expression"])
        ('expression only', 'expression and covariates', 'slides and covariates')
    """
    reads = modalities_of(model)
    beside = covariates and "expression" in reads
    named = [name for name in ("slides", "expression") if name in reads - set(absent)] + ["covariates"] * bool(beside)
    if len(named) < 2:
        return _MODALITY_NAMES.get(frozenset(named) or reads, "")
    return f"{', '.join(named[:-1])} and {named[-1]}"


def mixture_told(details: Sequence[Mapping[str, Any]]) -> str:
    """Returns how much the networks of a model say beside their linear paths; empty where none was to have one.

    Args:
        details: Of the model of each fold, as recorded when it was trained.

    Example:
        >>> mixture_told([{"network_share": 0.25}, {"network_share": 0.0}, {"network_share": 0.0}])
        'share of the network 0.08 in the mean; in 2 of 3 folds it is the linear model alone'
    """
    shares = [float(found["network_share"]) for found in details if "network_share" in found]
    networks = [found for found in details if "chosen_epochs" in found]  # linear models have none
    lacking = sum(
        "network_share" not in found and found.get("training", {}).get("linear_path", False) for found in networks
    )
    n = counted(len(details), "fold")
    parts = [f"share of the network {np.mean(shares):.2f}{' in the mean' if len(shares) > 1 else ''}"] if shares else []
    if 0 in shares:
        parts.append(f"in {shares.count(0)} of {n} it is the linear model alone")
    if lacking:
        parts.append(f"in {lacking} of {n} it has no line, for want of 10 events or patients outside the largest class")
    return "; ".join(parts)


def headline_of(metrics: pd.DataFrame) -> str:
    """Returns the metric by which a task is summarised."""
    measured = list(metrics["metric"])
    return next((metric for metric in HEADLINES if metric in measured), measured[0])


def best_models(metrics: pd.DataFrame) -> dict[str, set[str]]:
    """Returns, by metric, the models with the best value of one task; several if tied, none if undefined."""
    best = {}
    for metric, rows in metrics.dropna(subset=["value"]).groupby("metric", sort=False):
        extreme = rows["value"].min() if metric in LOWER_IS_BETTER else rows["value"].max()
        best[str(metric)] = set(rows.loc[rows["value"] == extreme, "model"])
    return best


def benefit_told(audit: Mapping[str, Any] | None, *, task: str, model: str) -> ToldBenefit | None:
    """Returns the audit's comparison of a model with the best single modality; None where there is none."""
    rows = audit["tables"].get("fusion", ()) if audit else ()
    wanted = (task, model, "best single modality")
    row = next((row for row in rows if (row["task"], row["model"], row["reference_is"]) == wanted), None)
    if row is None:
        return None
    gain, lower, upper, p_adjusted = (
        np.nan if row[name] is None else float(row[name]) for name in ("difference", "lower", "upper", "p_adjusted")
    )
    n_patients, reason = int(row["n_patients"]), row.get("reason")
    return ToldBenefit(str(row["reference"]), gain, lower, upper, p_adjusted, n_patients, reason)


def titled(name: str) -> str:
    """Returns a task's name as a heading: as the user wrote it, with a first capital where it has none at all.

    Example:
        >>> titled("survival"), titled("WHO Grad")
        ('Survival', 'WHO Grad')
    """
    return name.capitalize() if name.islower() else name


def singular(text: str) -> str:
    """Returns a text in which `1 patients` and the like read `1 patient`.

    Example:
        >>> singular("1 patients and 11 folds, 0.1 events")
        '1 patient and 11 folds, 0.1 events'
    """
    return _ONE_OF_MANY.sub(r"1 \1", text)


def interval_text(lower: float, upper: float) -> str:
    """Returns `0.612 to 0.780`, or that there is none."""
    return "no interval" if np.isnan([lower, upper]).any() else f"{number(lower)} to {number(upper)}"


def with_level(lower: float, upper: float) -> str:
    """Returns `95 % interval 0.612 to 0.780`, or that there is none."""
    interval = interval_text(lower, upper)
    return interval if np.isnan([lower, upper]).any() else f"95 % interval {interval}"


def outcomes(tested: pd.DataFrame, *, untested: int = 0, why: str = "") -> str:
    """Returns how many test patients a task has, and their events, classes or numbers.

    Args:
        tested: One row per patient whom a model predicts.
        untested: How many other models predict beyond them.
        why: Why this model does not predict them, in words.
    """
    n_tested = counted(len(tested), "test patient")
    if untested:
        n_tested = f"{len(tested)} of {counted(len(tested) + untested, 'test patient')} ({untested} {why})"
    if tested.get("time_days", pd.Series(dtype=float)).notna().any():
        n_events = int((tested["event"].astype(str) == "True").sum())
        observed = duration(tested["time_days"].median())
        competing = competing_events(tested)
        others = "" if competing is None else f", {int(competing.sum())} of other causes"
        return f"{n_tested}, {counted(n_events, 'event')}{others}; median observed time {observed}."
    if holds_values(tested):
        value = tested[VALUE]
        return f"{n_tested}; {value.min():.4g} to {value.max():.4g}, median {value.median():.4g}."
    counts = tested["label"].value_counts().reindex(predicted_classes(tested), fill_value=0)
    return f"{n_tested}; {listed(f'{name}: {count}' for name, count in counts.items())}."

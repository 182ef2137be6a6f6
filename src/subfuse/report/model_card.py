"""The model card of a run, as Markdown, from the run's files alone."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from subfuse import __version__
from subfuse.errors import counted, preview
from subfuse.evaluation.metrics import metric_title, number
from subfuse.report.audit_section import serious_kinds
from subfuse.report.provenance_section import command
from subfuse.report.run_files import RunFiles
from subfuse.report.statements import headline_of, inputs_of, mixture_told, singular, titled, with_level
from subfuse.report.summary import (
    allowed_inputs,
    beyond_sentences,
    calibration_sentence,
    caution,
    fusion_sentence,
    measured_on,
    patients_of_run,
    unrelated_sentence,
)
from subfuse.run_folder.names import CONFIG, REPORT
from subfuse.training.models import model_title

_READS_MARKDOWN = re.compile(r"([\\`*_\[\]|~#])")
_LEVELS = {"expression": "expression profile"}
_INTENDED = """\
For research on data like that described above: comparing methods, and asking which tissue and which genes a prediction
rests on. Research use only; not a medical device. Not for diagnosis, prognosis or treatment of patients, nor for
cohorts of other diseases, stains or scanners without validation of one's own. Contributions, genes and heat maps
describe the model, not causes of disease."""
_LIMITS = (
    "Cross-validation estimates how well patients of the same sources are predicted, not those of other hospitals.",
    "Intervals reflect the sampling of test patients, not the choice of a model among several or of their settings.",
)


def model_card(run: RunFiles) -> str:
    """Returns the card: the verdict, the model, its data, use, limits, metrics, how to repeat it.

    Names from data are escaped, so that none acts as markup.
    """
    parts: list[tuple[str, Iterator[str]]] = [
        ("In short", _in_short(run)),
        ("The model", _model(run)),
        ("Data", _data(run)),
        ("Intended use", iter(_INTENDED.splitlines())),
        ("Limits", _limits(run)),
        ("Metrics", _metrics(run)),
        ("To reproduce", _reproduce(run)),
    ]
    head = f"# Model card: {escaped(run.title)}\n\n**Research use only. Not a medical device.**\n"
    body = "\n".join(f"## {title}\n\n" + "\n".join(lines) + "\n" for title, lines in parts)
    return f"{head}\n{body}\nWritten by subfuse {__version__}. Figures: {REPORT} beside this file.\n"


def escaped(value: object) -> str:
    r"""Returns text of one line in which nothing is Markdown or HTML.

    Example:
        >>> print(escaped("<b> a*b"))
        &lt;b&gt; a\*b
    """
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _READS_MARKDOWN.sub(r"\\\1", text)


def _in_short(run: RunFiles) -> Iterator[str]:
    yield f"- {escaped(caution(run).sentence)}"
    for task in run.tasks:
        table = run.metrics[run.metrics["task"] == task]
        main, headline = run.main_model(task), headline_of(table)
        rows = table[(table["model"] == main) & (table["metric"] == headline)].to_dict("records")
        measured = " ".join(f"{model_title(main)}, {_measured(row)}." for row in rows)
        parts = (
            unrelated_sentence(run, task),
            measured,
            fusion_sentence(run, task),
            *beyond_sentences(run, task),
            calibration_sentence(run, task),
            _allowed_sentence(run, task),
        )
        yield f"- {escaped(titled(task))}: {escaped(' '.join(part for part in parts if part))}"


def _allowed_sentence(run: RunFiles, task: str) -> str:
    names = allowed_inputs(run, task)
    return f"Inputs allowed by name that may be the outcome in disguise: {preview(names, 10)}." if names else ""


def _measured(row: Mapping[Any, Any]) -> str:
    return f"{metric_title(row['metric'])} {number(row['value'])}, {with_level(row['lower'], row['upper'])}"


def _model(run: RunFiles) -> Iterator[str]:
    for task in run.tasks:
        name = run.main_model(task)
        reads = inputs_of(name, run.covariates, absent=run.flow.absent) or "unknown inputs"
        yield f"- {escaped(task)}: {escaped(model_title(name))} ({reads}){_trained(run, task, name)}"
        mixture = mixture_told(run.details(task, name))
        if mixture:
            yield f"  It is mixed with a linear model of the same inputs: {escaped(mixture)}."
    others = [model_title(str(name)) for name in dict.fromkeys(run.metrics["model"])]
    yield f"- Models compared on the same folds: {escaped(', '.join(others))}."
    for title, section in (("Sizes", "architecture"), ("Training", "training")):
        settings = run.config.get(section) or {}
        if settings:
            told = ", ".join(f"{key} {value}" for key, value in settings.items())
            yield f"- {title} (`{section}` of {CONFIG}): {escaped(told)}."


def _trained(run: RunFiles, task: str, model: str) -> str:
    """Returns what the first trained model of a task says about itself, and where its weights are."""
    found = (job.description(run.folder) for job in run.jobs(task, model))
    described = next((description for description in found if description is not None), None)
    if described is None:
        trained = run.config.get("trained")
        return f"; its weights are in {escaped(trained)}." if trained else "; its weights are not in this folder."
    n_genes = {name: len(genes) for name, genes in described.get("recipe", {}).get("gene_sets", {}).items()}
    genes = f"; genes per subspace: {', '.join(f'{name} {n}' for name, n in n_genes.items())}" if n_genes else ""
    encoder = f"; patch encoder {described['encoder']}" if described.get("encoder") else ""
    unit = f"; expression in {described['expression_unit']}" if described.get("expression_unit") else ""
    return escaped(f"{genes}{unit}{encoder}; one model per fold in {task}/{model}/.")


def _data(run: RunFiles) -> Iterator[str]:
    patients, slides, flow = run.cohort["patients"], run.cohort["slides"], run.flow
    yield from (f"- {escaped(line)}" for line in patients_of_run(run))
    for column, noun in (("cohort", "cohort"), ("site", "site")):
        if column in patients and patients[column].notna().any():
            names = patients[column].value_counts()
            yield f"- {counted(len(names), noun)}: {escaped(preview(f'{name} ({n})' for name, n in names.items()))}."
    for name, count in flow.having.items() if "both" in flow.having else ():
        if name != "both" and count < flow.used:
            yield f"- {counted(flow.used - count, 'patient')} without {name}."
    if slides.get("n_patches", pd.Series(dtype=int)).any():
        yield f"- {counted(len(slides), 'slide')}; patches: {int(slides['n_patches'].sum())}."
    if run.prepared.get("tiling"):
        tiling = run.prepared["tiling"]
        yield f"- Patches: {escaped(', '.join(f'{key} {value}' for key, value in tiling.items()))}."
    exclusions = run.cohort["exclusions"]
    for (level, reason), rows in exclusions.groupby(["level", "reason"], sort=False) if len(exclusions) else ():
        yield f"- Excluded: {counted(len(rows), _LEVELS.get(str(level), str(level)))}, {escaped(reason)}."


def _limits(run: RunFiles) -> Iterator[str]:
    tests_others = run.is_external or run.holds_out_sites
    yield from (f"- {limit}" for limit in _LIMITS if not (tests_others and limit.startswith("Cross-validation")))
    if not run.flow.absent:
        yield "- Predictions of patients who lack a modality rest on what is left."
    yield from (f"- {escaped(note)}" for note in run.provenance.get("notes", ()))
    if run.audit is None:
        yield "- This run was not audited (`subfuse audit`)."
        return
    for kind in serious_kinds(run.audit["findings"]):
        told = list(dict.fromkeys(kind["told"]))
        is_failure, is_one = kind["level"] == "failure", len(told) == 1
        found = "; ".join(told) if is_failure or is_one else f"for example {told[0]}"
        yield f"- {escaped(kind['name'])}, {escaped(kind['gist'])}{f': {escaped(found)}' if found else ''}."


def _metrics(run: RunFiles) -> Iterator[str]:
    yield f"{measured_on(run, run.metrics)}, 95 % bootstrap interval over patients."
    for task in run.tasks:
        table = run.metrics[run.metrics["task"] == task]
        main, headline = run.main_model(task), headline_of(table)
        yield f"\n### {escaped(task)}\n"
        yield from _table(
            ("Metric", escaped(model_title(main)), "95 % interval", "Remark"),
            [_metric_cells(row) for row in table[table["model"] == main].to_dict("records")],
        )
        yield ""
        of_headline = table[table["metric"] == headline].sort_values("value", ascending=False, kind="stable")
        rows = [(escaped(model_title(row["model"])), *_metric_cells(row)[1:]) for row in of_headline.to_dict("records")]
        yield from _table(("Model", escaped(metric_title(headline)), "95 % interval", "Remark"), rows)


def _metric_cells(row: Mapping[Any, Any]) -> tuple[str, str, str, str]:
    has_interval = not np.isnan([row["lower"], row["upper"]]).any()
    interval = f"{number(row['lower'])} to {number(row['upper'])}" if has_interval else "none"
    reason = row["reason"] if isinstance(row["reason"], str) else ""
    return escaped(metric_title(row["metric"])), number(row["value"]), interval, escaped(singular(reason))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _reproduce(run: RunFiles) -> Iterator[str]:
    text = command(run)
    if text:
        yield "```\n" + text.replace("```", "") + "\n```"
    else:
        yield "The run keeps no command."
    versions = run.provenance.get("versions") or {}
    if versions:
        yield f"\nVersions: {escaped(', '.join(f'{name} {value}' for name, value in versions.items()))}."
    folds = run.config.get("folds")
    if isinstance(folds, list):
        yield f"\nFolds, sha256: {', '.join(str(fold)[:16] for fold in folds)}."
    yield f"\nFull hashes, settings and splits: {REPORT}, section Provenance, and {CONFIG}."

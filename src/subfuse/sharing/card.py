"""The card of shared models: what the hub reads at its head, and for people what a run may tell of itself in public."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import yaml

from subfuse import __version__
from subfuse.errors import counted
from subfuse.evaluation.metrics import metric_title, number
from subfuse.evaluation.predictions import holds_risks
from subfuse.evaluation.regression.columns import holds_values
from subfuse.report.audit_section import serious_kinds
from subfuse.report.model_card import escaped
from subfuse.report.run_files import RunFiles
from subfuse.report.statements import inputs_of, titled, with_level
from subfuse.report.summary import (
    beyond_sentences,
    calibration_sentence,
    fusion_sentence,
    measured_on,
    tested_sentence,
    unrelated_sentence,
)
from subfuse.run_folder.job import Job
from subfuse.training.models import modalities_of, model_title

_UNKNOWN = "subfuse models"  # where a run does not name its cohort
_USE = """\
For research on patients like those described above. Research use only; **not a medical device**. Not for diagnosis,
prognosis or treatment of patients, and not for other diseases, stains or scanners without validation of one's own.
Contributions, genes and heat maps describe the model, not causes of disease."""
_PREDICT = """\
```bash
pip install subfuse
subfuse predict {place} {files}
```

`{place}` is this folder, or `hf://OWNER/NAME` once it is on the hub; a folder needs no network. The models do not know
whom they were trained on: predictions of these patients look better than they are."""
_OPTIONS = {"slides": "--slide SLIDE", "expression": "--expression EXPRESSION"}


def sharing_card(run: RunFiles, jobs: Sequence[Job], *, license: str) -> str:
    """Returns the card of a run's models, as Markdown with front matter; names from data are escaped.

    What it says is of groups of patients: neither notes nor findings that may name one are repeated.

    Args:
        run: The run.
        jobs: Which of its models are shared.
        license: Of the models, as the hub calls it.
    """
    pairs = list(dict.fromkeys((job.task, job.model) for job in jobs))
    title = str(run.config.get("cohort") or _UNKNOWN)
    head = yaml.safe_dump(_front_matter(run, pairs, title, license), sort_keys=False, allow_unicode=True)
    parts = {
        "The models": _models(run, jobs, pairs),
        "How good they are": _results(run, pairs),
        "What the audit found": _audit(run, pairs),
        "Intended use": iter(_USE.splitlines()),
        "To predict": iter(_how(pairs).splitlines()),
    }
    body = "\n".join(f"## {name}\n\n" + "\n".join(lines) + "\n" for name, lines in parts.items())
    licence = "Licence: not stated by who exported this (`other`)." if license == "other" else f"Licence: {license}."
    return (
        f"---\n{head}---\n\n# {escaped(title)}\n\n**Research use only. Not a medical device.**\n\n{body}\n"
        f"{escaped(licence)} Exported by subfuse {__version__}.\n"
    )


def _front_matter(run: RunFiles, pairs: Sequence[tuple[str, str]], title: str, license: str) -> dict[str, Any]:
    reads = set().union(*(modalities_of(model) for _, model in pairs))
    kinds = {_kind(run, task) for task, _ in pairs}
    named = {"slides": "histopathology", "expression": "gene-expression"}
    tags = ["subfuse", "computational-pathology", *(named[name] for name in named if name in reads), *sorted(kinds)]
    head: dict[str, Any] = {"license": license, "library_name": "subfuse", "pipeline_tag": "other", "tags": tags}
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "cohort"
    results = [
        {
            "task": {"type": "other", "name": f"{titled(task)}: {model_title(model)}"},
            "dataset": {"type": slug, "name": title},
            "metrics": [
                {"type": row["metric"], "name": metric_title(row["metric"]), "value": round(float(row["value"]), 4)}
                for row in _told(run, task, model)
            ],
        }
        for task, model in pairs
    ]
    results = [result for result in results if result["metrics"]]
    return head | ({"model-index": [{"name": title, "results": results}]} if results else {})


def _told(run: RunFiles, task: str, model: str) -> list[dict[str, Any]]:
    """Returns the metrics with an interval: those without have too few patients."""
    table = run.metrics[(run.metrics["task"] == task) & (run.metrics["model"] == model)]
    rows = [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
    return [row for row in rows if np.isfinite([row["value"], row["lower"], row["upper"]]).all()]


def _kind(run: RunFiles, task: str) -> str:
    rows = run.predictions[run.predictions["task"] == task]
    if holds_values(rows):
        return "regression"
    return "survival-analysis" if holds_risks(rows) else "classification"


def _models(run: RunFiles, jobs: Sequence[Job], pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    for task, model in pairs:
        reads = inputs_of(model, run.covariates, absent=run.flow.absent) or "unknown inputs"
        described = next(job for job in jobs if (job.task, job.model) == (task, model)).description(run.folder) or {}
        n_models = sum((job.task, job.model) == (task, model) for job in jobs)
        parts = [f"{model_title(model)} ({reads})", f"{counted(n_models, 'model')}, one for each fold"]
        if described.get("expression_unit") and "expression" in modalities_of(model):
            parts.append(f"{counted(len(described['genes']), 'gene')}, {described['expression_unit']}")
        if described.get("encoder") and "slides" in modalities_of(model):
            parts.append(f"patch encoder {described['encoder']}")
        yield f"- {escaped(titled(task))}: {escaped('; '.join(parts))}. {escaped(tested_sentence(run, task, model))}"


def _results(run: RunFiles, pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield f"{measured_on(run, run.metrics)}; 95 % bootstrap interval over patients."
    for task, model in pairs:
        rows = _told(run, task, model)
        yield f"\n- {escaped(titled(task))}, {escaped(model_title(model))}:"
        yield from (
            f"  - {metric_title(row['metric'])} {number(row['value'])}, {with_level(row['lower'], row['upper'])}"
            for row in rows
        )
        if not rows:
            yield "  - too few test patients for a number with an interval"


def _audit(run: RunFiles, pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    if run.audit is None:
        yield "The run was not audited."
        return
    for task, model in pairs:
        if model == run.main_model(task):
            said = (
                unrelated_sentence(run, task),
                fusion_sentence(run, task),
                *beyond_sentences(run, task),
                calibration_sentence(run, task),
            )
            yield f"- {escaped(titled(task))}: {escaped(' '.join(part for part in said if part))}"
    for kind in serious_kinds(run.audit["findings"]):  # what was found may name patients
        yield f"- {escaped(kind['name'])}, {escaped(kind['gist'])}."
    yield "\nNo other finding is a failure or a warning. How each check works: `docs/evaluation.md` of subfuse."


def _how(pairs: Sequence[tuple[str, str]]) -> str:
    reads = set().union(*(modalities_of(model) for _, model in pairs))
    files = " ".join(option for name, option in _OPTIONS.items() if name in reads) or "--cohort PREPARED"
    return _PREDICT.format(place="FOLDER", files=files)

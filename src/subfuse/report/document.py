"""The report of a run as one HTML file that needs nothing else, offline and for years."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from subfuse import __version__
from subfuse.files import write_text
from subfuse.report.audit_section import audit_section
from subfuse.report.cohort_section import cohort_section
from subfuse.report.drawing import numbered
from subfuse.report.model_card import model_card
from subfuse.report.patient_section import PictureBudget, contact_sheets, patients_section
from subfuse.report.provenance_section import provenance_section, training_section
from subfuse.report.reliance_section import reliance_section
from subfuse.report.run_files import RunFiles, read_run
from subfuse.report.statements import prose
from subfuse.report.summary import summary
from subfuse.report.task_section import task_section

TEMPLATES = Path(__file__).parent / "templates"


def write_report(run: Path) -> Path:
    """Writes `report.html` and `MODEL_CARD.md` into a run folder, from its files alone; no model is run.

    Needs predictions.csv and metrics.csv. Everything else is shown where it exists, and said to be absent elsewhere:
    config.yaml, provenance.json, comparisons.csv, audit.json, failures.csv, cohort/ (patients, exclusions, slides,
    slide_quality, harmonisation, gene_set_coverage, contact_sheets, provenance), <task>/<model>/fold_<k>/log.csv, and
    explanations/ of patients and of the cohort as `subfuse.explanation` writes them. The same files give the same
    report.

    Args:
        run: The run folder.

    Returns:
        The path of the report.

    Raises:
        DataError: A required file is missing.
    """
    files = read_run(Path(run))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    places = count(1)
    environment.filters["prose"] = prose
    environment.filters["placed"] = lambda svg: Markup(numbered(str(svg), next(places)))
    html = environment.get_template("report.html.j2").render(_content(files))
    path = files.folder / "report.html"
    write_text(path, html)
    write_text(files.folder / "MODEL_CARD.md", model_card(files))
    return path


def _content(run: RunFiles) -> dict[str, Any]:
    pictures = PictureBudget()
    tasks = [task_section(run, task, index=index) for index, task in enumerate(run.tasks, start=1)]
    explanations = patients_section(run, pictures)  # before the contact sheets: they matter more
    return {
        "version": __version__,
        "title": run.title,
        "date": str(run.provenance.get("date", ""))[:10],
        "contents": _contents(tasks, explanations["patients"]),
        "summary": summary(run),
        "cohort": cohort_section(run) | contact_sheets(run, pictures),
        "tasks": tasks,
        "reliance": reliance_section(run),
        "explanations": explanations,
        "audit": audit_section(run.audit),
        "training": training_section(run),
        "provenance": provenance_section(run),
    }


def _contents(tasks: Sequence[Mapping[str, Any]], patients: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns the entries of the contents list: anchor and title."""
    entries = [("summary", "Summary"), ("cohort", "Cohort")]
    entries += [(f"task-{task['index']}", task["title"]) for task in tasks]
    entries.append(("reliance", "What models rely on"))
    if patients:
        entries.append(("patients", "Explained patients"))
    entries += [("audit", "Audit"), ("training", "Training"), ("provenance", "Provenance")]
    return [{"anchor": anchor, "title": name} for anchor, name in entries]

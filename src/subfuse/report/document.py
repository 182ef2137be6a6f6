"""The report of a run as one HTML file that needs nothing else, offline and for years."""

import logging
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from subfuse import __version__
from subfuse.errors import preview
from subfuse.execution import Attempts
from subfuse.files import remove_parts, write_text
from subfuse.report.audit_section import NO_AUDIT, audit_section
from subfuse.report.cohort_section import cohort_section
from subfuse.report.figures.drawing import numbered
from subfuse.report.model_card import model_card
from subfuse.report.patient_section import PictureBudget, patients_section
from subfuse.report.provenance_section import changed_sentence, provenance_section, training_section
from subfuse.report.reliance_section import reliance_section
from subfuse.report.run_files import RunFiles, read_run
from subfuse.report.statements import Section, prose
from subfuse.report.summary import caution, cohort_sentence, task_card
from subfuse.report.task_section import task_section
from subfuse.run_folder.names import MODEL_CARD, REPORT

logger = logging.getLogger(__name__)

_TEMPLATES = Path(__file__).parent / "templates"
_ABSENT = {
    "reliance": "What models rely on was not computed: `subfuse explain` without a patient explains the whole cohort.",
    "audit": NO_AUDIT,
    "training": "This run keeps no training log.",
}


def write_report(run: Path) -> Path:
    """Writes `report.html` and `MODEL_CARD.md` into a run folder, from its files alone; no model is run.

    Where the prepared cohort is not any more what the run was made from, that is said.

    Needs predictions.csv and metrics.csv. Everything else is shown where it exists, and said to be absent elsewhere:
    config.yaml, provenance.json, comparisons.csv, audit.json, failures.csv, cohort/ (patients, exclusions, slides,
    slide_quality, harmonisation, gene_set_coverage, contact_sheets, provenance), <task>/<model>/fold_<k>/log.csv, and
    explanations/ of patients and of the cohort as `subfuse.explanation` writes them. The same files give the same
    report.

    Returns:
        The path of the report.

    Raises:
        ConfigurationError: The folder is no run.
        DataError: metrics.csv is missing.
    """
    files = read_run(Path(run))
    remove_parts(files.folder)
    if files.lost:
        logger.warning("%s: %s", files.folder, _lost_sentence(files))
    if files.changed:
        logger.warning("%s: %s", files.folder, changed_sentence(files))
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    places = count(1)
    environment.filters["prose"] = prose
    environment.filters["placed"] = lambda svg: Markup(numbered(str(svg), next(places)))
    attempts = Attempts()
    card = files.folder / MODEL_CARD
    card.unlink(missing_ok=True)
    with attempts.attempt("model card"):
        write_text(card, model_card(files))
    html = environment.get_template("report.html.j2").render(_content(files, attempts))
    path = files.folder / REPORT
    write_text(path, html)
    return path


def _lost_sentence(run: RunFiles) -> str:
    return (
        f"files of the run are missing: {preview(run.lost)}. The report is made of the rest. Repeat the command that "
        "wrote them, or copy the run again from where it was made."
    )


def _content(run: RunFiles, attempts: Attempts) -> dict[str, Any]:
    sections = list(_sections(run, attempts))
    shown = {section.anchor for section in sections}
    missing = [f"Not explained: {row.what}: {row.reason}" for row in run.failed_explanations.itertuples()]
    missing += [f"{row.what}: {row.reason}" for row in run.failed_results.itertuples()]
    missing += [f"Note: {_lost_sentence(run)}"] if run.lost else []
    missing += [f"Note: {note}" for note in run.provenance.get("notes", ())]
    missing += [f"Not shown: {row.what}: {row.reason}" for row in attempts.table().itertuples()]
    return {
        "version": __version__,
        "title": run.title,
        "date": str(run.provenance.get("date", ""))[:10],
        "patients": cohort_sentence(run),
        "caution": caution(run),
        "cards": [task_card(run, task, anchor=f"task-{index}") for index, task in enumerate(run.tasks, start=1)],
        "sections": sections,
        "absent": [*missing, *(text for anchor, text in _ABSENT.items() if anchor not in shown)],
    }


def _sections(run: RunFiles, attempts: Attempts) -> Iterator[Section]:
    """Yields what opens below the cards, without the sections that have no content in this run, or fail."""
    pictures = PictureBudget()
    patients: Section | None = None
    with attempts.attempt("explained patients"):
        patients = patients_section(run, pictures, attempts)  # before the contact sheets: they matter more
    with attempts.attempt("cohort"):
        yield cohort_section(run, pictures)
    for index, task in enumerate(run.tasks, start=1):
        with attempts.attempt(f"task {task}"):
            yield task_section(run, task, index=index)
    with attempts.attempt("what models rely on"):
        if parts := reliance_section(run):
            gist = "Subspaces, modalities and genes over all patients, and whether the explanations are true"
            yield Section("reliance", "What models rely on", gist, "reliance.html.j2", {"parts": parts})
    if patients is not None:
        yield patients
    with attempts.attempt("audit"):
        if audit := audit_section(run.audit):
            yield audit
    with attempts.attempt("training"):
        if training := training_section(run):
            yield training
    with attempts.attempt("provenance"):
        yield provenance_section(run)

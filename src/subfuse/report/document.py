"""The report of a run as one HTML file that needs nothing else, offline and for years."""

import base64
import io
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from subfuse import __version__
from subfuse.files import write_text
from subfuse.report.audit_section import audit_section
from subfuse.report.cohort_section import cohort_section
from subfuse.report.elements import flattened
from subfuse.report.patient_section import explained_patient
from subfuse.report.run_files import Explanation, RunFiles, read_run
from subfuse.report.statements import summary
from subfuse.report.task_section import task_section
from subfuse.report.training_section import training_section

MAX_PICTURE_BYTES = 11_000_000  # of all pictures as text, so that the report stays below 15 MB
PICTURE_WIDTH_PX = 900
MAX_CONTACT_SHEETS = 6
TEMPLATES = Path(__file__).parent / "templates"


def write_report(run: Path) -> Path:
    """Writes `report.html` into a run folder, from the run's files alone; no model is run.

    Needs predictions.csv and metrics.csv. Everything else is shown where it exists: config.yaml, provenance.json,
    comparisons.csv, audit.json, failures.csv, cohort/{patients,exclusions,slides,gene_set_coverage}.csv,
    cohort/contact_sheets/*.jpg, <task>/<model>/fold_<k>/log.csv, and folders below explanations/ as
    `subfuse.explanation.patient` writes them. The same files give the same report.

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
    html = environment.get_template("report.html.j2").render(_content(files))
    path = files.folder / "report.html"
    write_text(path, html)
    return path


def _content(run: RunFiles) -> dict[str, Any]:
    pictures = PictureBudget()
    known = dict(run.provenance)
    command = known.pop("command", run.config.get("command", ""))
    described = {key: run.config[key] for key in ("cohort", "seed", "models") if key in run.config}
    explanations = _explanations(run, pictures)  # before the contact sheets: they matter more
    return {
        "version": __version__,
        "title": str(run.config.get("cohort", run.folder.resolve().name)),
        "date": str(known.get("date", "")),
        "summary": summary(run),
        "cohort": cohort_section(run) | _contact_sheets(run, pictures),
        "tasks": [task_section(run, task, index=index) for index, task in enumerate(run.tasks, start=1)],
        "explanations": explanations,
        "audit": audit_section(run.folder),
        "training": training_section(run),
        "command": command if isinstance(command, str) else shlex.join(str(part) for part in command),
        "provenance": flattened(described | known),
    }


class PictureBudget:
    """Turns picture files into data addresses until they would make the report too large."""

    def __init__(self) -> None:
        self.spent = 0
        self.left_out = 0

    def embed(self, path: Path) -> str | None:
        """Returns the picture as a data address, at most `PICTURE_WIDTH_PX` wide; None if it is left out."""
        from PIL import Image

        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        if picture.width > PICTURE_WIDTH_PX:
            height = max(1, round(picture.height * PICTURE_WIDTH_PX / picture.width))
            picture = picture.resize((PICTURE_WIDTH_PX, height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=85, optimize=True)
        address = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        if self.spent + len(address) > MAX_PICTURE_BYTES:
            self.left_out += 1
            return None
        self.spent += len(address)
        return address


def _explanations(run: RunFiles, pictures: PictureBudget) -> dict[str, Any]:
    patients = [
        explained_patient(run, explanation) | {"maps": list(_heat_maps(explanation, pictures))}
        for explanation in run.explanations
    ]
    note = f"{pictures.left_out} more heat maps are in the run's folder explanations/." if pictures.left_out else ""
    return {"patients": patients, "note": note}


def _heat_maps(explanation: Explanation, pictures: PictureBudget) -> Iterator[Mapping[str, str]]:
    for name, slide, path in explanation.heat_maps():
        source = pictures.embed(path)
        if source is not None:
            part = "all subspaces" if name == "total" else name
            alt = f"Heat map of slide {slide}: where {part} raises or lowers the score."
            yield {"source": source, "alt": alt, "caption": f"{part}, slide {slide}"}


def _contact_sheets(run: RunFiles, pictures: PictureBudget) -> dict[str, Any]:
    shown = []
    for path in run.contact_sheets[:MAX_CONTACT_SHEETS]:
        source = pictures.embed(path)
        if source is not None:
            shown.append({"source": source, "name": path.stem})
    hidden = len(run.contact_sheets) - len(shown)
    note = f"{hidden} more contact sheets are in the run's folder cohort/contact_sheets/." if hidden else ""
    return {"sheets": shown, "sheets_note": note}

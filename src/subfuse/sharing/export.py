"""`subfuse export`: what is needed to predict, and nothing of the patients of the run."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from subfuse import __version__
from subfuse.errors import ConfigurationError, preview
from subfuse.features.encoder import script_file, split_name
from subfuse.files import holds_files, require_place, write_json, write_text
from subfuse.report.run_files import read_run
from subfuse.run_folder.job import Job
from subfuse.run_folder.names import CARD, REFERENCE
from subfuse.runs.job_model import load_job
from subfuse.runs.run import Run, load_run
from subfuse.sharing.card import sharing_card
from subfuse.sharing.manifest import SharedExpression, write_manifest
from subfuse.slides.tissue_rule import folder_of_outlines
from subfuse.training.models import BATCH, SITE, main_model, modalities_of

_KEPT_DETAILS = ("training", "position_bias_error", "n_train", "n_validation")
_OF_PATCHES = ("requested_encoder", "slide_encoder", "tiling", "stain", "tissue")
_OUTLINES = "geojson:outlines"  # of a person, wherever they are


def export_run(
    run_folder: Path | str,
    out: Path | str,
    *,
    tasks: Sequence[str] = (),
    models: Sequence[str] = (),
    license: str = "other",
) -> Path:
    """Writes the models of a run into a new folder; returns it.

    Beside the weights of every fold there is what predictions are read beside (`Reference`), how inputs are to be made,
    and a card for readers and the Hugging Face hub. There are no identifiers, predictions, outcomes, folds or paths of
    the run. A folder that is not complete is not there at all.

    Args:
        run_folder: A finished run.
        out: The folder, which must be empty or absent.
        tasks: Which tasks; all by default.
        models: Which models; by default the main one of every task.
        license: Identifier of the licence in the card, as the hub knows it.

    Raises:
        ConfigurationError: The folder holds something, the run is none or has no such task or model, or the model reads
            names of hospitals or batches.
        DataError: A file of the run is missing or damaged.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or holds_files(out)):
        found = "other files" if out.is_dir() else "a file"
        raise ConfigurationError(f"{out} must be an empty or a new folder. Found {found}. Choose another one.")
    require_place(out)
    run = load_run(run_folder, device="cpu")
    jobs = _chosen(run, tasks, models)
    card = sharing_card(read_run(run.folder), jobs, license=license)
    prepared, expression = _prepared(run.prepared), run.expression_inputs()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name[:40]}.") as parts:
        folder = Path(parts) / "shared"
        for job in jobs:
            _write_job(run, job, folder)
        write_text(folder / CARD, card)
        write_manifest(
            folder,
            jobs,
            version=__version__,
            prepared=prepared,
            expression=None
            if expression is None
            else SharedExpression(unit=expression.unit, aliases=dict(expression.aliases)),
        )
        shutil.rmtree(out, ignore_errors=True)  # empty folders
        folder.rename(out)
    return out


def _chosen(run: Run, tasks: Sequence[str], models: Sequence[str]) -> list[Job]:
    """Returns the jobs to share, refusing a task or a model that the run has not."""
    for task in tasks or (None,):
        for model in models or (None,):
            next(run.jobs(task=task, model=model))
    done = [job for job in run.jobs() if not tasks or job.task in tasks]
    names = {task: models or (main_model([job.model for job in done if job.task == task]),) for task in _tasks(done)}
    jobs = [job for job in done if job.model in names[job.task]]
    local = sorted({job.model for job in jobs if modalities_of(job.model) & (SITE | BATCH)})
    if local:
        raise ConfigurationError(
            f"{preview(local)} knows hospitals or batches of the run by name, which are not shared. Choose another "
            "--model."
        )
    return jobs


def _tasks(jobs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(job.task for job in jobs))


def _write_job(run: Run, job: Job, folder: Path) -> None:
    fitted = load_job(job, run.folder, run.config)
    details = {name: fitted.details[name] for name in _KEPT_DETAILS if name in fitted.details}
    place = job.folder(folder)
    replace(fitted, details=details).save(place)
    write_json(place / REFERENCE, run.reference(job, fitted).model_dump(mode="json", exclude_none=True))


def _prepared(prepared: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how slides became patches; files of weights and outlines of tissue without their place."""
    found = {name: prepared[name] for name in _OF_PATCHES if prepared.get(name) is not None}
    requested = str(found.get("requested_encoder", ""))
    architecture, weights = split_name(requested)
    if weights is not None:
        found["requested_encoder"] = f"{architecture}@{weights.name}"
    elif (script := script_file(requested)) is not None:
        found["requested_encoder"] = script.name
    if "tissue" in found:
        rules = [str(rule) for rule in found["tissue"]]
        found["tissue"] = [rule if folder_of_outlines(rule) is None else _OUTLINES for rule in rules]
    return found

"""Explanations of a run: those that exist, and one more in a process of its own."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pandas as pd

from subfuse.errors import DataError, SubfuseError
from subfuse.execution import ctrl_c_held, end_with_parent
from subfuse.explanation import colour_limit
from subfuse.files import read_json
from subfuse.run_folder.explanations import explained, explanation_name, read_explained
from subfuse.run_folder.names import EXPLANATION
from subfuse.serve.schema import ExplanationInfo, GeneRow, Job, LedgerRow, PatchScores

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExplanationShelf:
    """The explanations below a run folder. They are found by their content; names of patients never make a path."""

    folder: Path
    _known: dict[Path, tuple[int, dict[str, Any]]] = field(default_factory=dict)  # time of change, content

    def find(self, patient_id: str, task: str) -> Path | None:
        """Returns the folder of an explanation, or None."""
        return self._index().get((patient_id, task))

    def patients(self, task: str) -> set[str]:
        """Returns the patients with an explanation of a task."""
        return {patient for patient, of_task in self._index() if of_task == task}

    def tasks(self, patient_id: str) -> list[str]:
        """Returns the tasks that a patient has explanations of."""
        return sorted(task for patient, task in self._index() if patient == patient_id)

    def _index(self) -> dict[tuple[str, str], Path]:
        found = {}
        for folder in explained(self.folder):
            content = self._content(folder / EXPLANATION)
            if {"patient_id", "task"} <= content.keys():
                found[str(content["patient_id"]), str(content["task"])] = folder
        return found

    def _content(self, path: Path) -> dict[str, Any]:
        changed = path.stat().st_mtime_ns
        if self._known.get(path, (0, {}))[0] != changed:
            try:
                self._known[path] = (changed, read_json(path))
            except DataError as error:  # as if it were not there: the others are shown
                logger.warning(error)
                self._known[path] = (changed, {})
        return self._known[path][1]


def read_explanation(folder: Path, *, genes_per_subspace: int) -> ExplanationInfo:
    """Returns ledger and strongest genes of an explanation.

    Raises:
        DataError: Its files are not those of an explanation.
    """
    with _damage_named(folder):
        explanation = read_explained(folder)
        content, genes = explanation.content, explanation.genes
        strongest = genes.loc[genes["contribution"].abs().sort_values(ascending=False, kind="stable").index]
        shown = strongest.groupby("subspace", sort=False).head(genes_per_subspace)
        return ExplanationInfo(
            patient_id=content["patient_id"],
            task=content["task"],
            model=content["model"],
            fold=content["fold"],
            score=content["score"],
            score_name=explanation.score_name,
            ledger=[LedgerRow(**{name: row[name] for name in LedgerRow.model_fields}) for row in content["ledger"]],
            gap=content.get("gap", {}),
            genes=[GeneRow.model_validate(row) for row in shown.to_dict("records")],
            n_genes=len(genes),
            slides=[slide for slide in content.get("slides", []) if slide not in content.get("not_drawn", {})],
        )


def read_patch_scores(folder: Path, slide_id: str, *, patch_size_px: int) -> PatchScores | None:
    """Returns the scores of one slide's patches, or None if the explanation has none of it.

    Raises:
        DataError: Its files are not those of an explanation.
    """
    with _damage_named(folder):
        explanation = read_explained(folder)
        table = explanation.patches()
        if table.empty or slide_id not in set(table["slide_id"]):
            return None
        names = [str(name) for name in table.columns if name not in ("slide_id", "x", "y")]
        of_slide = table[table["slide_id"] == slide_id]
        if of_slide["x"].isna().any():  # the places of the patches are not known
            return None
        return PatchScores(
            slide_id=slide_id,
            patch_size_px=patch_size_px,
            x=of_slide["x"].astype(int).tolist(),
            y=of_slide["y"].astype(int).tolist(),
            scores={name: of_slide[name].astype(float).tolist() for name in names},
            limits=_limits(table[names], explanation.content.get("gap", {})),
            points=_sampled_points(explanation.points(), slide_id),
        )


@contextmanager
def _damage_named(folder: Path) -> Iterator[None]:
    """Turns what wrong content of an explanation raises into a DataError that names its folder."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(
            f"{folder}: an explanation as `subfuse explain` writes it is required. Found: {problem[:200]}. Explain the "
            "patient again."
        ) from error


def _limits(scores: pd.DataFrame, subspaces: Mapping[str, Any]) -> dict[str, float]:
    """Subspaces and their sum share a limit, as in the heat maps, over all slides of the patient."""
    together = [name for name in scores if name in subspaces]
    shared = colour_limit(*(scores[name].to_numpy(float) for name in together)) if together else None
    limits = {}
    for name in map(str, scores):
        own = colour_limit(scores[name].to_numpy(float))
        limits[name] = shared if shared is not None and name in (*together, "total") else own
    return limits


def _sampled_points(table: pd.DataFrame, slide_id: str) -> dict[str, list[list[float]]]:
    if table.empty:
        return {}
    of_slide = table[table["slide_id"] == slide_id]
    return {
        str(subspace): rows[["x", "y"]].to_numpy(float).tolist()
        for subspace, rows in of_slide.groupby("subspace", sort=False)
    }


class ExplanationWorker:
    """Makes one explanation at a time in a process of its own, which ends with the viewer, whatever it is doing."""

    def __init__(self, shelf: ExplanationShelf, *, explain: Callable[[str, Path], object], n_tasks: int) -> None:
        """Takes where explanations are, what makes one of a patient in a folder, and of how many tasks.

        The process is started afresh: `explain` must be a module-level function, or a partial one.
        """
        self._shelf = shelf
        self._explain = explain
        self._n_tasks = n_tasks
        self._jobs: dict[str, Job] = {}
        self._running: _Running | None = None
        self._lock = threading.Lock()

    def start(self, patient_id: str) -> Job | None:
        """Starts an explanation, or returns the one of this patient that runs; None if another patient's runs."""
        with self._lock:
            running = self._settled()
            if running is not None:
                return self._jobs[running.job_id] if running.patient_id == patient_id else None
            job = Job(
                job_id=str(len(self._jobs) + 1),
                patient_id=patient_id,
                state="running",
                done=0,
                total=self._n_tasks,
                error=None,
            )
            self._running = _started(job, self._explain, self.folder_of(patient_id))
            self._jobs[job.job_id] = job
            return job

    def status(self, job_id: str) -> Job | None:
        """Returns a job with the number of tasks that are done, or None."""
        with self._lock:
            running = self._settled()
            job = self._jobs.get(job_id)
            if job is None or running is None or running.job_id != job_id:
                return job
            return job.model_copy(update={"done": running.n_written()})

    def stop(self) -> None:
        """Ends the explanation that runs; files appear complete or not at all."""
        with self._lock:
            if self._running is not None:
                self._running.process.terminate()
                self._running.process.join()
                self._settled()

    def folder_of(self, patient_id: str) -> Path:
        """Returns the folder of a patient's explanations: the one that exists, else that of `subfuse explain`."""
        existing = next((self._shelf.find(patient_id, task) for task in self._shelf.tasks(patient_id)), None)
        if existing is not None:
            return existing.parent
        return self._shelf.folder / explanation_name(patient_id)

    def _settled(self) -> "_Running | None":
        """Returns what runs; notes the end of what ran."""
        running = self._running
        if running is None or running.process.is_alive():
            return running
        error = running.error()
        update = {"state": "done" if error is None else "failed", "error": error, "done": running.n_written()}
        self._jobs[running.job_id] = self._jobs[running.job_id].model_copy(update=update)
        self._running = None
        return None


@dataclass(frozen=True)
class _Running:
    """The process of a job."""

    job_id: str
    patient_id: str
    folder: Path
    started_ns: int
    process: BaseProcess
    answer: Connection  # holds why the explanation failed

    def n_written(self) -> int:
        """Returns how many tasks have been explained since the start."""
        written = self.folder.glob(f"*/{EXPLANATION}")
        return sum(path.stat().st_mtime_ns >= self.started_ns for path in written)

    def error(self) -> str | None:
        """Returns why the process that has ended failed; None if it did not."""
        if self.process.exitcode == 0:
            return None
        try:
            return str(self.answer.recv())
        except EOFError:
            return f"the process ended early ({self.process.exitcode}): stopped, or out of memory."


def _started(job: Job, explain: Callable[[str, Path], object], folder: Path) -> _Running:
    context = get_context("spawn")  # a fork of a process with threads can hang
    answer, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_explained, args=(os.getpid(), explain, job.patient_id, folder, sender), daemon=True
    )
    started_ns = time.time_ns()
    with ctrl_c_held():
        process.start()
    sender.close()
    return _Running(job.job_id, job.patient_id, folder, started_ns, process, answer)


def _explained(
    parent: int, explain: Callable[[str, Path], object], patient_id: str, folder: Path, answer: Connection
) -> None:
    """Explains in a process of its own, which ends with its parent; says why it failed, and ends with 1."""
    end_with_parent(parent)
    try:
        explain(patient_id, folder)
    except SubfuseError as problem:
        error = str(problem)
    except Exception as problem:  # the page must say that it failed
        logger.exception("explaining %s failed", patient_id)
        error = f"unexpected {type(problem).__name__}: {problem}. The log of `subfuse serve` has the details."
    else:
        return
    answer.send(error)
    raise SystemExit(1)

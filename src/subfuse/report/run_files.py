"""What a report is made of: the files of a run, read once; optional ones may be absent."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from subfuse.errors import DataError
from subfuse.exclusions import RENAMED
from subfuse.execution import Attempts
from subfuse.run_folder.cohort_copy import changed_since, contact_sheets, read_run_cohort
from subfuse.run_folder.explanations import (
    FAILED_EXPLANATIONS,
    CohortExplanation,
    Explanation,
    explained,
    explained_tasks,
    explanations_of,
    lost_of_explanations,
    read_explained,
    read_explained_task,
)
from subfuse.run_folder.job import Job, jobs_of, lost_of_jobs
from subfuse.run_folder.layout import read_audit, read_config, read_provenance, require_run
from subfuse.run_folder.names import COHORT, COMPARISONS, FAILED_RESULTS, FAILURES, METRICS, PREDICTIONS, STUDENTS
from subfuse.run_folder.tables import read_optional, read_predictions, read_result, require_own_predictions
from subfuse.training.models import main_model

Read = TypeVar("Read")


@dataclass(frozen=True)
class PatientFlow:
    """Who of the clinical table is used, and with what: one count for all that is told of a run."""

    used: int  # patients of the prepared cohort; where the run keeps no table of them, those with predictions
    excluded: int  # other patients of the clinical table
    n_slides: int | None  # of the patients used; None where the run keeps no table of them
    having: Mapping[str, int]  # patients with slides, expression, both; a modality that nobody has is left out

    @classmethod
    def count(cls, patients: pd.DataFrame, exclusions: pd.DataFrame, predictions: pd.DataFrame) -> "PatientFlow":
        """Counts patients.csv and exclusions.csv of the prepared cohort; both may be empty."""
        if patients.empty:
            return cls(predictions["patient_id"].nunique(), 0, None, {})
        listed = exclusions.loc[exclusions["level"] == "patient", "id"] if len(exclusions) else ()
        excluded = set(listed) - set(patients["patient_id"])
        if not {"n_slides", "has_expression"} <= set(patients.columns):
            return cls(len(patients), len(excluded), None, {})
        n_slides = patients["n_slides"].fillna(0).astype(int)
        slides, expression = n_slides > 0, patients["has_expression"].astype(str) == "True"
        having = {"slides": int(slides.sum()), "expression": int(expression.sum())}
        having |= {"both": int((slides & expression).sum())} if all(having.values()) else {}
        return cls(len(patients), len(excluded), int(n_slides.sum()), {name: n for name, n in having.items() if n})

    @property
    def absent(self) -> tuple[str, ...]:
        """Modalities that nobody has."""
        return tuple(name for name in ("slides", "expression") if self.having and name not in self.having)


@dataclass(frozen=True)
class RunFiles:
    """A run folder in memory."""

    folder: Path
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    prepared: Mapping[str, Any]  # provenance of the prepared cohort; empty where it was not copied into the run
    predictions: pd.DataFrame
    metrics: pd.DataFrame
    comparisons: pd.DataFrame
    students: pd.DataFrame  # beside their teachers; empty where no model was taught
    failures: pd.DataFrame
    cohort: Mapping[str, pd.DataFrame]  # see `read_run_cohort`; and `renamed`
    contact_sheets: tuple[Path, ...]
    explanations: tuple[Explanation, ...]
    cohort_explanations: tuple[CohortExplanation, ...]
    failed_results: pd.DataFrame  # what, reason
    failed_explanations: pd.DataFrame  # what, reason
    changed: str  # what of the prepared cohort is not what the run was made from; empty where nothing is known to be
    lost: tuple[str, ...]  # files that belong to what is there, and are not
    audit: Mapping[str, Any] | None  # content of audit.json; None: the run was not audited

    @property
    def title(self) -> str:
        """What the run is called: by its cohort, else by its folder."""
        return str(self.config.get("evaluated") or self.config.get("cohort") or self.folder.resolve().name)

    @property
    def is_external(self) -> bool:
        """True where the finished models of another run were measured on an external cohort."""
        return "trained" in self.config

    @property
    def holds_out_sites(self) -> bool:
        """True where all models were tested on patients of hospitals alone that they did not train on."""
        patients, rows = self.cohort["patients"], self.predictions
        if "site" not in patients or patients["site"].isna().any():
            return False
        site = rows["patient_id"].map(patients.set_index("patient_id")["site"])
        tested = (rows["split"] == "test").groupby([rows["task"], rows["model"], rows["repeat"], rows["fold"], site])
        return site.nunique() > 1 and bool((tested.nunique() == 1).all())

    @property
    def covariates(self) -> tuple[str, ...]:
        """Covariates that models see beside expression."""
        return tuple(self.config.get("covariates") or ())

    @property
    def flow(self) -> PatientFlow:
        """How many patients of the clinical table are used, and with what."""
        return PatientFlow.count(self.cohort["patients"], self.cohort["exclusions"], self.predictions)

    @property
    def tasks(self) -> list[str]:
        """Tasks that have metrics, in the order of the configuration."""
        measured = list(dict.fromkeys(self.metrics["task"]))
        named = [task for task in self.config.get("tasks", ()) if task in measured]
        return named + [task for task in measured if task not in named]

    def main_model(self, task: str) -> str:
        """Returns the model that a task is told of: subspace fusion, or the first without it."""
        return main_model(self.metrics.loc[self.metrics["task"] == task, "model"].tolist())

    def jobs(self, task: str, model: str) -> list[Job]:
        """Returns the jobs of one model, of every fold and repeat."""
        table = self.predictions
        return [job for job, _ in jobs_of(table[(table["task"] == task) & (table["model"] == model)])]

    def details(self, task: str, model: str) -> list[Mapping[str, Any]]:
        """Returns what was recorded when the models of one name were trained, of each whose `model.json` is there."""
        described = (job.description(self.folder) for job in self.jobs(task, model))
        return [found.get("details", {}) for found in described if found is not None]

    def test_predictions(self, task: str, model: str) -> pd.DataFrame:
        """Returns the out-of-fold predictions of one model, first repeat: one row per patient."""
        table = self.predictions
        chosen = (table["task"] == task) & (table["model"] == model) & (table["split"] == "test")
        return table[chosen & (table["repeat"] == table["repeat"].min())].reset_index(drop=True)


def read_run(folder: Path) -> RunFiles:
    """Reads a run folder.

    Raises:
        ConfigurationError: The folder is no run.
        DataError: `metrics.csv` is missing, or a table is damaged: lacks a column, holds something else in one, or is
            not what was written.
    """
    folder = Path(folder)
    if not (folder / PREDICTIONS).exists():
        require_run(folder)
    require_own_predictions(folder)
    metrics = read_result(folder, METRICS)
    if "task" not in metrics:  # no file, or an empty one
        raise DataError(
            f"{folder / METRICS}: required for a report, not found or empty. Run `subfuse crossval` or `subfuse "
            "evaluate` with --out set to this folder again."
        )
    attempts = Attempts()
    explanations = _read_each(folder, explained(explanations_of(folder)), read_explained, attempts)
    of_cohort = _read_each(folder, explained_tasks(folder), read_explained_task, attempts)
    predictions, config = read_predictions(folder / PREDICTIONS), read_config(folder)
    lost = [*lost_of_jobs(folder, predictions), *lost_of_explanations(folder)]
    return RunFiles(
        folder=folder,
        config=config,
        provenance=read_provenance(folder),
        prepared=read_provenance(folder / COHORT),
        predictions=predictions,
        metrics=metrics,
        comparisons=read_result(folder, COMPARISONS),
        students=read_result(folder, STUDENTS),
        failures=read_result(folder, FAILURES),
        cohort=_read_cohort(folder),
        contact_sheets=tuple(contact_sheets(folder)),
        explanations=explanations,
        cohort_explanations=of_cohort,
        failed_results=read_result(folder, FAILED_RESULTS),
        failed_explanations=pd.concat([read_optional(folder / FAILED_EXPLANATIONS), attempts.table()]),
        changed=_changed(folder, config),
        lost=tuple(path.relative_to(folder).as_posix() for path in lost),
        audit=read_audit(folder),
    )


def _changed(folder: Path, config: Mapping[str, Any]) -> str:
    prepared = config.get("prepared")
    try:
        return "" if prepared is None else changed_since(folder, (folder / prepared).resolve())
    except DataError as error:  # a report needs no more than the run
        return str(error)


def _read_cohort(folder: Path) -> dict[str, pd.DataFrame]:
    """Returns the tables of the cohort; what is used under another name apart from what is excluded."""
    tables = read_run_cohort(folder)
    listed = tables["exclusions"]
    is_renamed = listed.get("level", pd.Series(dtype=object)) == RENAMED
    return tables | {"exclusions": listed[~is_renamed], "renamed": listed[is_renamed]}


def _read_each(
    run: Path, folders: Sequence[Path], read: Callable[[Path], Read], attempts: Attempts
) -> tuple[Read, ...]:
    """Reads each of the folders in a run; those that cannot be read are noted."""
    found = []
    for folder in folders:
        with attempts.attempt(folder.relative_to(run).as_posix()):
            found.append(read(folder))
    return tuple(found)

"""Trained runs: load one, predict new patients, explain one patient or the cohort."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subfuse.cohort.cohort import Cohort, Patient, read_cohort, read_patients
from subfuse.cohort.task import TaskSpec
from subfuse.devices import AUTO, chosen_device
from subfuse.errors import ConfigurationError, DataError, listed
from subfuse.evaluation.recalibration import recalibrated_classes, recalibrated_survival
from subfuse.evaluation.survival.horizons import with_horizons
from subfuse.execution import Attempts, Progress
from subfuse.explanation.cohort.cohort_explanation import explain_cohort
from subfuse.explanation.cohort.fold_explanation import FoldModel, model_folder
from subfuse.explanation.patient import explain_patient
from subfuse.explanation.tile_gallery import locate_slides
from subfuse.explanation.wsidata_export import write_patch_scores
from subfuse.files import remove_parts, require_place
from subfuse.identifiers import composed, spelt_otherwise
from subfuse.run_folder.cohort_copy import changed_since, copy_cohort
from subfuse.run_folder.explanations import explanation_name, explanations_of
from subfuse.run_folder.job import Job, jobs_of
from subfuse.run_folder.layout import (
    TRAIN_AGAIN,
    add_to_provenance,
    claim_folder,
    read_config,
    read_provenance,
    remove_results,
    require_run,
    require_run_place,
)
from subfuse.run_folder.names import COHORT, PATCHES, PATIENTS, PREDICTIONS
from subfuse.run_folder.tables import order_columns, prediction_table, read_predictions, stack_predictions
from subfuse.runs.compatibility import check_compatible, check_patches
from subfuse.runs.external_validation import (
    external_predictions,
    risk_percentile,
    told_of_known,
    without_unknown_classes,
)
from subfuse.runs.job_model import load_job
from subfuse.runs.job_warnings import told_once
from subfuse.runs.results import write_results
from subfuse.runs.timing import explaining_seconds
from subfuse.training.fitted_model import FittedModel
from subfuse.training.models import MAIN_MODEL, main_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished cross-validation on disk."""

    folder: Path
    config: dict[str, Any]
    predictions: pd.DataFrame
    device: str = AUTO  # where its models predict and are explained

    @property
    def cohort_folder(self) -> Path:
        """Folder of the prepared cohort the run was trained on."""
        self._require_models()
        prepared = self.config.get("prepared")
        if prepared is None:
            raise ConfigurationError(f"{self.folder} was trained on a cohort without a folder. Pass the cohort itself.")
        return (self.folder / prepared).resolve()

    @property
    def _preparation(self) -> dict[str, Any]:
        """How the cohort was prepared that the run was trained on; empty where that is not known."""
        return read_provenance(self.folder / COHORT)

    def cohort(self) -> Cohort:
        """Returns the prepared cohort the run was trained on."""
        return read_cohort(self.cohort_folder)

    def _changes(self, cohort: Cohort) -> list[str]:
        """Returns a note where the run's own cohort was prepared again since, with other content."""
        if cohort.root is None or self.config.get("prepared") is None or cohort.root.resolve() != self.cohort_folder:
            return []
        changed = changed_since(self.folder, cohort.root)
        remedy = f"{TRAIN_AGAIN}: what depends on it is done again"
        return (
            [f"{cohort.root} has changed since {self.folder} was made from it ({changed}). {remedy}"] if changed else []
        )

    def jobs(self, *, model: str | None = None, task: str | None = None) -> Iterator[Job]:
        """Yields the finished jobs, of one model or task if named.

        Raises:
            ConfigurationError: There is none.
        """
        self._require_models()
        done = [job for job, _ in jobs_of(self.predictions)]
        chosen = [job for job in done if model in (None, job.model) and task in (None, job.task)]
        if not chosen:
            models = sorted({job.model for job in done if task in (None, job.task)})
            of_task = f" for task {task}" if task else ""
            remedy = (
                f"Name one that it has with --model (model= in Python): {', '.join(models)}"
                if models
                else f"Its tasks: {listed(sorted({job.task for job in done})) or 'none'}"
            )
            raise ConfigurationError(f"{self.folder} has no model {model or 'at all'}{of_task}. {remedy}.")
        yield from chosen

    def _require_models(self) -> None:
        if self.config.get("trained") is not None:
            raise ConfigurationError(
                f"{self.folder} evaluates {self.config['trained']} and holds no models of its own. "
                f"Give {self.config['trained']}, with the cohort."
            )

    def fitted(self, job: Job) -> FittedModel:
        """Returns the trained model of a job, on the run's device.

        Raises:
            ConfigurationError: This machine has no such device.
            DataError: Its files are missing or damaged, or are those of another job.
        """
        return load_job(job, self.folder, self.config).to(chosen_device(self.device))

    def predict(self, cohort: Cohort, *, model: str | None = None, task: str | None = None) -> pd.DataFrame:
        """Returns predictions as `predict_with_notes`, and logs the notes."""
        predictions, notes = self.predict_with_notes(cohort, model=model, task=task)
        _log_notes(notes)
        return predictions

    def predict_with_notes(
        self, cohort: Cohort, *, model: str | None = None, task: str | None = None
    ) -> tuple[pd.DataFrame, list[str]]:
        """Returns predictions of every fold's model, and notes on what the cohort has otherwise than in training.

        Columns are those of `predictions.csv`, `risk_percentile` and `reason`.

        A patient that the run knows is predicted only by the models that did not train on it (split `test`); a new
        patient by the models of all folds (split `new`), see `mean_predictions`. No outcome is needed. Risks of
        different folds' models have different scales: compare `risk_percentile`, the share (0 to 100) of the model's
        training patients with a lower risk. Survival is that of `HORIZONS_DAYS`, see `with_horizons`. Beside
        probabilities stand those recalibrated on the model's validation patients (`recalibrated_...`), where they
        suffice.

        Raises:
            DataError: The cohort's genes, unit or encoder are not those of training, or no patient can be predicted.
        """
        jobs = list(self.jobs(model=model, task=task))
        models = [self.fitted(job) for job in jobs]
        pairs = list(zip(jobs, models, strict=True))
        check_patches(models, self._preparation, cohort)
        said = ((job, note) for job, fitted in pairs for note in check_compatible(fitted, cohort))
        notes = told_once(said, everyone=jobs)
        notes = [*self._changes(cohort), *notes]
        tables = [self._predict(job, fitted, cohort) for job, fitted in pairs]
        tables = [table for table in tables if len(table)]
        if not tables:
            raise DataError(
                f"cohort {cohort.name!r} has no patient that these models can predict: every patient was used to train "
                "them, or lacks what they read: a modality, or a word (such as the hospital) that training had."
            )
        return stack_predictions(tables), notes

    def evaluate(self, cohort: Cohort, out: Path, *, seed: int = 0) -> pd.DataFrame:
        """Validates every model of the run on another cohort, with everything fitted frozen; returns the metrics.

        Writes the tables of a run folder into `out`, so that it can be reported and audited. See
        `external_predictions` for how the models of the folds are combined. Patients whom the run knows are left out.

        Raises:
            ConfigurationError: `out` holds something else.
            DataError: The cohort does not fit the models, or has no new patient with a known outcome.
        """
        require_run_place(out)
        predicted, notes = self.predict_with_notes(cohort)
        predicted, left_out = without_unknown_classes(predicted)
        notes = [*told_of_known([p.patient_id for p in cohort], self.predictions), *notes, *left_out]
        _log_notes(notes)
        predictions = external_predictions(predicted, self.predictions)
        claim_folder(out, {**self.config, "prepared": None, "trained": str(self.folder), "evaluated": cohort.name})
        remove_results(out, self.config["tasks"])
        copy_cohort(cohort, out)
        tasks = {name: TaskSpec(**task) for name, task in self.config.get("tasks", {}).items()}
        metrics, _ = write_results(out, predictions, tasks, seed=seed)
        add_to_provenance(out, {"notes": list(notes)})
        return metrics

    def explain(
        self,
        cohort: Cohort,
        patient_id: str,
        out: Path | None = None,
        *,
        model: str = MAIN_MODEL,
        stores: Path | None = None,
    ) -> Path:
        """Explains one patient; returns the folder with heat maps, genes, patches and the ledger of every task.

        A task that fails does not keep the others from being explained.

        Args:
            cohort: The run's own cohort, or another one.
            patient_id: The patient.
            out: Folder; by default PATIENT in RUN/explanations, for another than the main model in
                RUN/explanations_MODEL.
            model: Model of the run.
            stores: Folder of wsidata stores, `<slide>.zarr`, to which the patch scores of the patient's slides are
                added as `<task>_<subspace>` for lazyslide; those that do not exist are made.

        Raises:
            ConfigurationError: Nothing can be written in one of the folders.
            DataError: The patient is not in the cohort, the cohort does not fit the models, a task could not be
                explained, or a slide that is to be stored cannot be found or opened.
        """
        patient = {composed(p.patient_id): p for p in cohort}.get(composed(patient_id))
        if patient is None:
            raise DataError(f"patient {patient_id!r} is not in cohort {cohort.name!r}{_place_of(patient_id, cohort)}")
        patient_id = patient.patient_id
        out = self._explanations(model) / explanation_name(patient_id) if out is None else Path(out)
        require_place(out)
        if stores is not None:
            require_place(stores)
        remove_parts(out)
        places = locate_slides(cohort.select([patient_id]))
        attempts, said = Attempts(), list[tuple[Job, str]]()
        alone = cohort.select([patient_id])
        candidates = list(self.jobs(model=model))
        tasks = dict.fromkeys(job.task for job in candidates)
        jobs = {name: self._held_out_job(patient_id, model=model, task=name) for name in tasks}
        for name, job in jobs.items():
            with attempts.attempt(name):
                fitted = self.fitted(job)
                check_patches([fitted], self._preparation, alone)
                said += [(job, note) for note in check_compatible(fitted, alone)]
                aligned = next(iter(fitted.align(alone)))
                explain_patient(fitted, aligned, out / name, fold=job.fold_index, places=places)
        notes = [*self._changes(cohort), *told_once(said, everyone=jobs.values())]
        if len(candidates) > len(jobs) and not self._knows_any(alone):
            folds = listed(sorted({f"fold {job.fold_index}" for job in jobs.values()}))
            notes.append(
                f"{patient_id}: of the run's models, that of {folds} is explained. Its prediction may differ from the "
                "mean of all models, which `subfuse predict` gives"
            )
        _log_notes(notes)
        attempts.raise_for_failures()
        if stores is not None:
            for found in sorted(out.glob(f"*/{PATCHES}")):
                write_patch_scores(found, patient.slides, places, stores)
        return out

    def explain_cohort(
        self,
        cohort: Cohort,
        out: Path | None = None,
        *,
        model: str = MAIN_MODEL,
        workers: int = 1,
        scheduler: str | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Explains what a model relies on over the cohort, task by task; returns the folder.

        Every patient is explained by the models that did not train on it: genes, subspaces, modalities, enrichment and
        how faithful the attributions are. Patients of the run's own cohort who were in no fold, as their outcome is
        unknown, are dealt out to the models, so that everybody is explained by one of every repeat. See
        `subfuse.explanation.cohort.cohort_explanation.explain_cohort` for the files.
        Repeating the call goes on where it was interrupted.

        Args:
            cohort: The run's own cohort, or another one.
            out: Folder; `cohort` by default, where `explain` puts patients, and of a cohort without a patient of the
                run `cohort-NAME`, which the report of the run does not show.
            model: Model of the run.
            workers: Local processes.
            scheduler: Address of a running Dask scheduler, instead of local processes.
            progress: Called after the model of each fold.

        Raises:
            ConfigurationError: Nothing can be written in the folder.
            DataError: The cohort does not fit the models, or has no patient to explain.
        """
        is_own = out is None and self._knows_any(cohort)
        name = COHORT if is_own else f"{COHORT}-{explanation_name(cohort.name)}"
        out = self._explanations(model) / name if out is None else Path(out)
        require_place(out)
        remove_parts(out)
        jobs = [(job, load_job(job, self.folder, self.config)) for job in self.jobs(model=model)]
        check_patches([fitted for _, fitted in jobs], self._preparation, cohort)
        said = ((job, note) for job, fitted in jobs for note in check_compatible(fitted, cohort))
        _log_notes([*self._changes(cohort), *told_once(said, everyone=[job for job, _ in jobs])])
        models = [self._tested(job, fitted, cohort) for job, fitted in jobs]
        explain_cohort(
            models, out, gene_sets=cohort.pathways, device=self.device, workers=workers, scheduler=scheduler,
            progress=progress,
        )  # fmt: skip
        if is_own:
            folders = [(tested.fitted.task, model, model_folder(tested, out)) for tested in models]
            add_to_provenance(self.folder, {"explaining_seconds": explaining_seconds(folders)})
        return out

    def _explanations(self, model: str) -> Path:
        """Returns where explanations of a model are: apart from those of the main one, which report and viewer show."""
        is_main = model == main_model(list(self.predictions["model"]))
        return explanations_of(self.folder, None if is_main else model)

    def _tested(self, job: Job, fitted: FittedModel, cohort: Cohort) -> FoldModel:
        unseen, tested = self._unseen(job, fitted, cohort)
        if not self._knows_any(cohort):
            return FoldModel(job.fold_name, fitted, tuple(unseen))
        folds = sorted({j.fold_index for j in self.jobs(model=job.model, task=job.task) if j.repeat == job.repeat})
        others = [patient.patient_id for patient in unseen if patient.patient_id not in tested]
        chosen = tested.union(others[folds.index(job.fold_index) :: len(folds)])
        return FoldModel(job.fold_name, fitted, tuple(p for p in unseen if p.patient_id in chosen))

    def _knows_any(self, cohort: Cohort) -> bool:
        return not set(self.predictions["patient_id"]).isdisjoint(p.patient_id for p in cohort)

    def _unseen(self, job: Job, fitted: FittedModel, cohort: Cohort) -> tuple[list[Patient], set[str]]:
        """Returns the patients that a job's model did not train on, as it reads them, and who of the run it tested."""
        rows, everyone = self._rows(job), set(self._known(job.task, job.model)["patient_id"])
        tested = set(rows.loc[rows["split"] == "test", "patient_id"])
        return [p for p in fitted.align(cohort) if p.patient_id in tested or p.patient_id not in everyone], tested

    def _held_out_job(self, patient_id: str, *, model: str, task: str) -> Job:
        known = self._known(task, model)
        held_out = known[(known["patient_id"] == patient_id) & (known["split"] == "test")]
        if len(held_out):
            return Job(task, model, int(held_out["fold"].iloc[0]), int(held_out["repeat"].iloc[0]))
        return next(self.jobs(model=model, task=task))

    def _known(self, task: str, model: str) -> pd.DataFrame:
        table = self.predictions
        return table[(table["task"] == task) & (table["model"] == model)]

    def _rows(self, job: Job) -> pd.DataFrame:
        known = self._known(job.task, job.model)
        return known[(known["fold"] == job.fold_index) & (known["repeat"] == job.repeat)]

    def _predict(self, job: Job, fitted: FittedModel, cohort: Cohort) -> pd.DataFrame:
        unseen, tested = self._unseen(job, fitted, cohort)
        patients = [patient for patient in unseen if fitted.usable(patient)]
        table = prediction_table(fitted.predict(patients), patients, fitted.task_spec)
        table["split"] = ["test" if p.patient_id in tested else "new" for p in patients]
        table = table.assign(task=job.task, model=job.model, repeat=job.repeat, fold=job.fold_index)
        rows = self._rows(job)
        validation = rows[rows["split"] == "validation"]
        if not fitted.task_spec.is_survival:
            table = recalibrated_classes(table, validation, fitted.objective.classes)
            return order_columns(table.assign(risk=np.nan, risk_percentile=np.nan))
        trained = rows[rows["split"] == "train"].dropna(subset=["risk"])
        table["risk_percentile"] = risk_percentile(table["risk"].to_numpy(float), np.sort(trained["risk"].to_numpy()))
        return order_columns(recalibrated_survival(table, with_horizons(table, trained), validation))


def load_run(folder: Path | str, *, device: str = AUTO) -> Run:
    """Returns a finished run, whose models predict and are explained on a device, see `chosen_device`.

    Raises:
        ConfigurationError: The folder is not one, or this machine has no such device.
        DataError: `config.yaml` or `predictions.csv` cannot be read, or the latter is not what was written.
    """
    folder = Path(folder)
    require_run(folder)
    chosen_device(device)  # is there
    return Run(folder, read_config(folder), read_predictions(folder / PREDICTIONS), device)


def _place_of(patient_id: str, cohort: Cohort) -> str:
    """Returns where a patient is who is not in the cohort, or what is spelt like it, and what to do."""
    if cohort.root is not None:
        others = read_patients(cohort.root).set_index("patient_id")["cohort"]
        if patient_id in others:
            return f", but in {others[patient_id]} of the same folder. Choose it with --role {others[patient_id]}."
    like = spelt_otherwise([patient_id], [p.patient_id for p in cohort]).get(patient_id, "")
    return f"{like}. See its {PATIENTS}."


def _log_notes(notes: Iterable[str]) -> None:
    for line in notes:
        logger.warning(line)

"""Trained runs: load one, predict new patients, explain one patient or the cohort."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from subfuse.cohort.cohort import Cohort, read_cohort, read_patients, read_resolved
from subfuse.cohort.marker import COHORT_FILE
from subfuse.cohort.task import TaskSpec
from subfuse.devices import AUTO, chosen_device
from subfuse.errors import ConfigurationError, DataError, listed, preview
from subfuse.execution import Attempts, Progress
from subfuse.explanation.cohort.cohort_explanation import explain_cohort
from subfuse.explanation.cohort.fold_explanation import FoldModel, model_folder
from subfuse.explanation.patient import explain_patient
from subfuse.explanation.tile_gallery import locate_slides
from subfuse.explanation.wsidata_export import write_patch_scores
from subfuse.expression.gene_names import read_aliases
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
from subfuse.run_folder.tables import read_predictions
from subfuse.runs.compatibility import check_compatible, check_patches
from subfuse.runs.external_validation import (
    external_predictions,
    told_of_known,
    without_unknown_classes,
)
from subfuse.runs.job_model import load_job
from subfuse.runs.job_warnings import told_once
from subfuse.runs.prediction.predictor import ExpressionInputs, Predictor, log_notes
from subfuse.runs.prediction.reference import Reference
from subfuse.runs.results import write_results
from subfuse.runs.timing import explaining_seconds
from subfuse.training.fitted_model import FittedModel
from subfuse.training.models import MAIN_MODEL, main_model


@dataclass(frozen=True)
class Run(Predictor):
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
    def prepared(self) -> dict[str, Any]:
        """How the cohort was prepared that the run was trained on; empty where that is not known."""
        return read_provenance(self.folder / COHORT)

    def expression_inputs(self) -> ExpressionInputs | None:
        """Returns how the run's cohort says expression is to be read; None where its folder is gone.

        Raises:
            DataError: The cohorts of its folder have several units.
        """
        if self.config.get("prepared") is None or not (self.cohort_folder / COHORT_FILE).exists():
            return None
        members = read_resolved(self.cohort_folder).members
        sections = [m.expression for m in members if m.role == "develop" and m.expression is not None]
        if len({section.unit for section in sections}) > 1:
            raise DataError(
                f"{self.folder}: one unit of expression is required to read a file of one patient. The run's cohorts "
                f"have {preview([str(section.unit) for section in sections])}. Prepare a cohort and use --cohort."
            )
        if not sections:
            return None
        aliases = sections[0].aliases
        return ExpressionInputs(sections[0].unit, {} if aliases is None else read_aliases(aliases))

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

    def _finished(self) -> list[Job]:
        self._require_models()
        return [job for job, _ in jobs_of(self.predictions)]

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

    def reference(self, job: Job, fitted: FittedModel) -> Reference:
        """Returns what predictions of a job's model are read beside, from those of its own patients."""
        rows = self._rows(job)
        if fitted.task_spec.is_survival:
            return Reference.of_survival(rows, has_curve=bool(fitted.objective.survival_days))
        if fitted.task_spec.is_regression:
            return Reference()
        return Reference.of_classes(rows, fitted.objective.classes)

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
        log_notes(notes)
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
                check_patches([fitted], self.prepared, alone)
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
        log_notes(notes)
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
        check_patches([fitted for _, fitted in jobs], self.prepared, cohort)
        said = ((job, note) for job, fitted in jobs for note in check_compatible(fitted, cohort))
        log_notes([*self._changes(cohort), *told_once(said, everyone=[job for job, _ in jobs])])
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

    def _own_predictions(self) -> pd.DataFrame:
        return self.predictions

    def _seen(self, job: Job) -> tuple[set[str], set[str]]:
        rows, everyone = self._rows(job), set(self._known(job.task, job.model)["patient_id"])
        tested = set(rows.loc[rows["split"] == "test", "patient_id"])
        return everyone - tested, tested

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

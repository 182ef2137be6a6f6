"""Trained models that predict patients, be they those of a run or shared ones."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subfuse.cohort.cohort import Cohort, Patient
from subfuse.errors import ConfigurationError, DataError, listed
from subfuse.evaluation.predictions import EXPECTED_CHANGE, UNLIKE
from subfuse.evaluation.regression.target_range import notes_of_range
from subfuse.expression.source import ExpressionUnit
from subfuse.run_folder.job import Job
from subfuse.run_folder.tables import order_columns, prediction_table, stack_predictions
from subfuse.runs.compatibility import check_compatible, check_patches
from subfuse.runs.job_warnings import told_once
from subfuse.runs.prediction.reference import Reference
from subfuse.runs.prediction.spread import with_spread
from subfuse.runs.prediction.unlike import unlike_cells, unlike_notes
from subfuse.training.fitted_model import FittedModel
from subfuse.training.models import main_model

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExpressionInputs:
    """How the expression of a cohort was read, and a file of a new patient is."""

    unit: ExpressionUnit | None  # None: that of training
    aliases: Mapping[str, str] = field(default_factory=dict)  # earlier symbol to approved one, beside the built-in ones


class Predictor(ABC):
    """Models of all folds, tasks and names that are in one folder.

    A subclass knows where its models and their references are, and which patients they were trained on.
    """

    folder: Path
    device: str  # where the models predict

    @property
    @abstractmethod
    def prepared(self) -> Mapping[str, Any]:
        """How slides of training became patches: requested_encoder, tiling, stain, tissue; without what is unknown."""

    @abstractmethod
    def expression_inputs(self) -> ExpressionInputs | None:
        """Returns how expression of training was read; None where that is not known.

        Raises:
            DataError: It was read in several units.
        """

    @abstractmethod
    def fitted(self, job: Job) -> FittedModel:
        """Returns the trained model of a job, on the device.

        Raises:
            ConfigurationError: This machine has no such device.
            DataError: Its files are missing or damaged.
        """

    @abstractmethod
    def reference(self, job: Job, fitted: FittedModel) -> Reference:
        """Returns what predictions of a job's model are read beside."""

    @abstractmethod
    def _finished(self) -> list[Job]:
        """Returns all jobs that have a model."""

    def _seen(self, job: Job) -> tuple[set[str], set[str]]:
        """Returns whom a job's model was developed on, and whom it tested; shared models do not know."""
        return set(), set()

    def _own_predictions(self) -> pd.DataFrame:
        """Returns the predictions of the patients that the models were developed on; shared models have none."""
        return pd.DataFrame()

    def _changes(self, cohort: Cohort) -> list[str]:
        """Returns a note where the cohort is one that the models know, with other content."""
        return []

    @property
    def default_model(self) -> str | None:
        """The model that a new patient is predicted by where none is named: the main one; None: all."""
        return main_model([job.model for job in self._finished()])

    def jobs(self, *, model: str | None = None, task: str | None = None) -> Iterator[Job]:
        """Yields the finished jobs, of one model or task if named.

        Raises:
            ConfigurationError: There is none.
        """
        done = self._finished()
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

    def predict(self, cohort: Cohort, *, model: str | None = None, task: str | None = None) -> pd.DataFrame:
        """Returns predictions as `predict_with_notes`, and logs the notes."""
        predictions, notes = self.predict_with_notes(cohort, model=model, task=task)
        log_notes(notes)
        return predictions

    def predict_with_notes(
        self, cohort: Cohort, *, model: str | None = None, task: str | None = None
    ) -> tuple[pd.DataFrame, list[str]]:
        """Returns predictions of every fold's model, and notes on what the cohort has otherwise than in training.

        Columns are those of `predictions.csv`, `risk_percentile` and `reason`.

        A patient that the run knows is predicted only by the models that did not train on it (split `test`); a new
        patient by the models of all folds (split `new`), see `mean_predictions`. No outcome is needed. Risks of
        different folds' models have different scales: compare `risk_percentile`, where a risk lies (0 to 100) among
        those of the model's training patients, see `RiskScale`. Survival is that of `HORIZONS_DAYS`, see
        `with_horizons`. Beside probabilities stand those recalibrated on the model's validation patients
        (`recalibrated_...`), where they suffice.

        Raises:
            DataError: The cohort's genes, unit or encoder are not those of training, or no patient can be predicted.
        """
        pairs = [(job, self.fitted(job)) for job in self.jobs(model=model, task=task)]
        check_patches([fitted for _, fitted in pairs], self.prepared, cohort)
        said = ((job, note) for job, fitted in pairs for note in check_compatible(fitted, cohort))
        notes = [*self._changes(cohort), *told_once(said, everyone=[job for job, _ in pairs])]
        tables = [self._predict(job, fitted, cohort) for job, fitted in pairs]
        tables = [table for table in tables if len(table)]
        if not tables:
            raise DataError(
                f"cohort {cohort.name!r} has no patient that these models can predict: every patient was used to train "
                "them, or lacks what they read: a modality, or a word (such as the hospital) that training had."
            )
        predictions = stack_predictions(tables)
        of_values = notes_of_range(predictions, self._own_predictions())
        return predictions, [*notes, *of_values, *unlike_notes(predictions)]

    def _unseen(self, job: Job, fitted: FittedModel, cohort: Cohort) -> tuple[list[Patient], set[str]]:
        """Returns the patients that a job's model did not train on, as it reads them, and who of them it tested."""
        developed, tested = self._seen(job)
        return [p for p in fitted.align(cohort) if p.patient_id not in developed], tested

    def _predict(self, job: Job, fitted: FittedModel, cohort: Cohort) -> pd.DataFrame:
        unseen, tested = self._unseen(job, fitted, cohort)
        patients = [patient for patient in unseen if fitted.usable(patient)]
        reference = self.reference(job, fitted)

        def read(predicted: pd.DataFrame) -> pd.DataFrame:
            table = prediction_table(predicted, patients, fitted.task_spec)
            table["split"] = ["test" if p.patient_id in tested else "new" for p in patients]
            table = table.assign(task=job.task, model=job.model, repeat=job.repeat, fold=job.fold_index)
            if fitted.task_spec.is_survival:
                return reference.beside_survival(table)
            if fitted.task_spec.is_regression:
                return table.assign(risk=np.nan, risk_percentile=np.nan)
            return reference.beside_classes(table, fitted.objective.classes)

        networks = fitted.predict_networks(patients) if patients and fitted.recipe.members > 1 else []
        predicted, logits = fitted.predict_with_logits(patients)
        table = with_spread(read(predicted), [read(each) for each in networks])
        change = {} if fitted.effect is None else {EXPECTED_CHANGE: fitted.expected_change(patients, logits)}
        return order_columns(table.assign(**change, **{UNLIKE: unlike_cells(fitted.unlike(patients))}))


def log_notes(notes: Iterable[str]) -> None:
    """Logs notes as warnings."""
    for line in notes:
        logger.warning(line)

"""What a job of a run is made from: whatever of it changes, the job is done again."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from subfuse import __version__
from subfuse.cohort.bags import class_names
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.fingerprint import fingerprint_of
from subfuse.cohort.fold import Fold
from subfuse.errors import DataError, preview
from subfuse.files import sha256_of_json
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import read_config, remove_results
from subfuse.run_folder.names import PREDICTIONS
from subfuse.runs.job_model import load_job
from subfuse.training.models import MODELS, column_read, modalities_of
from subfuse.training.settings import TrainingPlan

logger = logging.getLogger(__name__)


def job_inputs(cohort: Cohort, fold: Fold, job: Job, plan: TrainingPlan) -> dict[str, str]:
    """Returns what decides a job's weights and predictions, by name: hashes, and the version of the package."""
    task = cohort.tasks[job.task]
    known = {patient.patient_id: patient for patient in cohort}
    patients = [known[name] for side in (fold.train, fold.validation, fold.test) for name in side if name in known]
    settings = [plan.training.model_dump(mode="json"), plan.architecture.model_dump(mode="json")]
    return {
        "version": __version__,
        "settings": sha256_of_json([*settings, job.seed(plan.seed), plan.search]),
        "fold": fold.sha256,
        "task": sha256_of_json([task.model_dump(mode="json"), *class_names(cohort.patients, task)]),
        "genes": sha256_of_json(
            [
                cohort.genes,
                cohort.expression_unit,
                repr(cohort.expression_basis),
                dict(cohort.gene_sets),
                dict(cohort.pathways),
                cohort.covariates,
            ]
        ),
        "encoder": str(cohort.encoder_sha256),
        **fingerprint_of(
            patients, modalities=_seen_in_training(job.model), task=task, column=column_read(job.model, cohort)
        ),
    }


def _seen_in_training(model: str) -> frozenset[str]:
    """Returns what a model reads, and what its teacher does."""
    taught_by = MODELS[model].taught_by
    return modalities_of(model) | (frozenset() if taught_by is None else modalities_of(taught_by))


def begin_jobs(out: Path, inputs: Mapping[Job, Mapping[str, str]]) -> list[Job]:
    """Returns the jobs that are to be done, with nothing left in their folders that was made from other inputs.

    Results of the run that rest on such files are removed first, and it is logged how many jobs are done again and why;
    so are predictions that are not what was written, and models without predictions that cannot be read.

    Args:
        out: Run folder.
        inputs: What every job of the run is made from now.
    """
    changed = {job: names for job in inputs if (names := job.changed_inputs(out, inputs[job]))}
    if changed:
        reasons = Counter(name for names in changed.values() for name in names)
        counted = ", ".join(f"{name} ({count})" for name, count in reasons.items())
        logger.warning("%d of %d jobs are done again. Changed since: %s", len(changed), len(inputs), counted)
        remove_results(out, {job.task for job in changed})
    for job, now in inputs.items():
        job.begin(out, now)
        if job.is_finished(out):
            job.finish(out)
    _keep_what_was_written(out, list(inputs))
    return [job for job in inputs if not job.is_finished(out)]


def _keep_what_was_written(out: Path, jobs: Sequence[Job]) -> None:
    """Removes predictions of jobs that were changed since, and models without predictions that are damaged."""
    changed = [job for job in jobs if job.is_finished(out) and job.remove_changed_predictions(out)]
    if changed:
        (out / PREDICTIONS).unlink(missing_ok=True)  # made of them
        logger.warning(
            "%d of %d jobs are predicted again: their predictions.csv is not what was written (%s)",
            len(changed),
            len(jobs),
            preview(map(str, changed)),
        )
    for job in (job for job in jobs if job.is_trained(out) and not job.is_finished(out)):
        try:
            load_job(job, out, read_config(out))
        except DataError as error:
            logger.warning("%s is trained again. %s", job, error)
            job.remove_files(out)

"""What fitted models make of patients before their head: embeddings of test patients, by the model of their fold."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from subfuse.audit.audited_task import AuditedTask
from subfuse.audit.fitting import TrainedJob
from subfuse.cohort.cohort import Cohort
from subfuse.training.models import is_linear

Embeddings = Mapping[str, Float[np.ndarray, " column"]]  # by patient_id


def embeddings_of_tested(task: AuditedTask, jobs: Sequence[TrainedJob], cohort: Cohort) -> Embeddings:
    """Returns the main model's embeddings of the test patients of the first repeat; nobody's of a linear model.

    Those of different folds are of different networks: their columns have nothing in common.

    Args:
        task: Rows of all models and splits.
        jobs: Finished jobs.
        cohort: The prepared cohort.

    Raises:
        DataError: A model or a feature file is missing or damaged.
    """
    if is_linear(task.main):  # its embedding would be its prediction
        return {}
    from subfuse.training.stored_model import load_fitted  # loads torch, which tables do not need

    tested = task.tested_by(task.main)
    first = int(tested["repeat"].min())
    there = {patient.patient_id for patient in cohort}
    found: dict[str, Float[np.ndarray, " column"]] = {}
    for job in jobs:
        if (job.job.task, job.job.model, job.job.repeat) != (task.name, task.main, first):
            continue
        fitted = load_fitted(job.folder)
        patients = [p for p in fitted.align(cohort.select(there.intersection(job.ids("test")))) if fitted.usable(p)]
        found |= dict(zip((p.patient_id for p in patients), fitted.embeddings(patients), strict=True))
    return found

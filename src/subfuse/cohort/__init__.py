"""A cohort: its file, its patients, tasks, folds and bags."""

from subfuse.lazy import on_first_use

_NAMES = {
    "BagBatch": "batches",
    "Cohort": "cohort",
    "CohortFile": "cohort_file",
    "Fold": "fold",
    "Patient": "cohort",
    "TaskSpec": "task",
    "read_cohort": "cohort",
    "read_cohort_file": "cohort_file",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)

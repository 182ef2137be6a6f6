"""A cohort: its file, its patients, tasks, folds and bags."""

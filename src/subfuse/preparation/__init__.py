"""From a cohort file to a prepared folder: tissue, patches, features, expression, labels, folds."""

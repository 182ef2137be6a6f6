"""Models that are asked for read something that somebody of the cohort has."""

from collections.abc import Sequence

from subfuse.cohort.cohort import Cohort
from subfuse.errors import ConfigurationError, listed
from subfuse.training.models import column_read, modalities_of

_GIVEN_BY = {
    "slides": "`slides`", "expression": "`expression`", "covariates": "`covariates`",
    "site": "`site` in patients.columns", "batch": "`batch`",
}  # fmt: skip


def require_inputs(models: Sequence[str], cohort: Cohort) -> None:
    """Refuses models for which nobody of the cohort has anything that they read.

    Raises:
        ConfigurationError: Names the model, what it reads, and where that is declared.
    """
    there = {
        "slides": any(patient.slides for patient in cohort),
        "expression": bool(cohort.covariates) or any(patient.expression is not None for patient in cohort),
        "covariates": bool(cohort.covariates),
        **{name: any(column_read(name, cohort) in patient.columns for patient in cohort) for name in ("site", "batch")},
    }
    for model in models:
        reads = sorted(modalities_of(model))
        if not any(there[name] for name in reads):
            raise ConfigurationError(
                f"models: {model} reads {' and '.join(reads)}, which nobody of {cohort.name} has. Declare "
                f"{listed(_GIVEN_BY[name] for name in reads)} in the cohort file, or leave the model out."
            )

"""Models that are asked for read something that somebody of the cohort has."""

from collections.abc import Sequence

from subfuse.cohort.cohort import Cohort
from subfuse.errors import ConfigurationError, listed
from subfuse.training.models import BATCH, COVARIATES, EXPRESSION, SITE, SLIDES, column_read, modalities_of

_GIVEN_BY = {
    "slides": "`slides`", "expression": "`expression`", "covariates": "`covariates`",
    "site": "`site` in patients.columns", "batch": "`batch`",
}  # fmt: skip


def require_inputs(models: Sequence[str], cohort: Cohort) -> None:
    """Refuses models for which nobody of the cohort has anything that they read.

    Raises:
        ConfigurationError: Names the model, what it reads, and where that is declared.
    """
    covariates = COVARIATES if cohort.covariates else frozenset()
    there = {
        "slides": SLIDES if any(patient.slides for patient in cohort) else frozenset(),
        "expression": EXPRESSION if any(p.expression is not None for p in cohort) or covariates else frozenset(),
        "covariates": covariates,
        **{
            name: of if any(column_read(name, cohort) in patient.columns for patient in cohort) else frozenset()
            for name, of in (("site", SITE), ("batch", BATCH))
        },
    }
    available = frozenset().union(*there.values())
    for model in models:
        reads = sorted(modalities_of(model))
        if available.isdisjoint(reads):
            raise ConfigurationError(
                f"models: {model} reads {' and '.join(reads)}, which nobody of {cohort.name} has. Declare "
                f"{listed(_GIVEN_BY[name] for name in reads)} in the cohort file, or leave the model out."
            )

"""Below how many patients a statistic says nothing, and is not given."""

import pandas as pd

# Patients of the rarest class, or patients with an event, among those tested. Of four there are 35 different bootstrap
# samples, of which the usual ones are so few that a 2.5 % quantile is the draw of one of them; of five, 126.
LEAST = 5
# Patients of whom calibration is tested: the error has 15 bins, and of fewer patients it is the chance of each bin.
LEAST_CALIBRATED = 20
# Events by the horizon, so that the groups of 1-calibration, and D-calibration, have some.
LEAST_CALIBRATED_EVENTS = 10
# Events, or patients of the rarest class, of a subgroup that is tested against others: of fewer, the bootstrap knows
# too little of the variance, and subgroups that do not differ seem to.
LEAST_COMPARED = 15
# Validation patients, and events for survival, to fit one or two numbers of a recalibration on.
LEAST_VALIDATION = 10
# Events, or patients outside the largest class, to fit a linear path on; and of validation patients who choose a
# network's share beside it and when its training stops. With fewer, chance chooses.
LEAST_CHOOSING = 10
# Validation patients to fit a function of free shape on; with fewer it follows chance.
LEAST_ISOTONIC = 200
# Test patients of a class, and events, with which a task is worth a claim: fewer are a warning, not a refusal.
LEAST_OF_CLASS, LEAST_EVENTS = 10, 20
# Patients of a site that enters the association of site and outcome.
LEAST_OF_SITE = 5
# Patients of a stratum that is shown; smaller ones are joined.
LEAST_OF_STRATUM = 10
# Patients of a category in an adjusted hazard ratio; smaller ones are joined.
LEAST_OF_CATEGORY = 5
# Mean rank correlation of the genes' strength between the models of the folds, from which on they agree on the genes.
STABLE = 0.5
# Patients over whom genes are ranked; of fewer, the order depends on who is among them.
LEAST_EXPLAINED = 20


def too_few_calibrated(n_patients: int) -> str | None:
    """Returns why calibration is not told of so few test patients; None where they suffice."""
    few = f"{n_patients} test patients, {LEAST_CALIBRATED} are needed"
    return few if n_patients < LEAST_CALIBRATED else None


def too_few_at(horizon_days: float, tested: pd.DataFrame) -> str | None:
    """Returns why test patients are too few for an interval of the AUC at a horizon; None where they suffice.

    Args:
        horizon_days: Patients with an event by then are told from those who were followed beyond it.
        tested: Rows of test patients of a survival task, each patient once.
    """
    is_later = tested["time_days"] > horizon_days
    counts = {"with an event by": tested["event"].astype(bool) & ~is_later, "followed beyond": is_later}
    which, n = min(((which, int(found.sum())) for which, found in counts.items()), key=lambda found: found[1])
    return f"{n} test patients {which} day {horizon_days:.0f}, {LEAST} are needed" if n < LEAST else None

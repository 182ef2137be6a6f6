"""Objectives as JSON values, and back."""

from collections.abc import Mapping
from typing import Any

from subfuse.objective.classification import ClassificationObjective
from subfuse.objective.losses import Consistency
from subfuse.objective.objective import Objective
from subfuse.objective.ordered import CumulativeLogitObjective
from subfuse.objective.regression import RegressionObjective
from subfuse.objective.survival import CoxObjective, DiscreteHazardObjective

_KINDS: tuple[type[Objective], ...] = (
    ClassificationObjective,
    CumulativeLogitObjective,
    DiscreteHazardObjective,
    CoxObjective,
    RegressionObjective,
)
_OBJECTIVES = {kind.name: kind for kind in _KINDS}


def objective_from_dict(description: Mapping[str, Any]) -> Objective:
    """Returns the objective described by `Objective.to_dict`.

    Raises:
        ValueError: Its name is unknown.

    Example:
        >>> objective_from_dict(DiscreteHazardObjective([365.0, 730.0]).to_dict()).survival_days
        (365.0, 730.0)
    """
    settings = dict(description)
    name = settings.pop("name", None)
    if name not in _OBJECTIVES:
        raise ValueError(f"name of an objective must be one of {', '.join(_OBJECTIVES)}. Found {name!r}.")
    own = {key: settings.pop(f"consistency_{key}") for key in ("weight", "of") if f"consistency_{key}" in settings}
    return _OBJECTIVES[name](**settings, consistency=Consistency(**own))

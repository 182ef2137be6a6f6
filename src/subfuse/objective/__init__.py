"""Objectives: what a task's logits mean, how they are trained and how confident a subspace is."""

from subfuse.objective.losses import Consistency, consistency_loss, cox_nll, discrete_hazard_nll
from subfuse.objective.objectives import (
    ClassificationObjective,
    CoxObjective,
    DiscreteHazardObjective,
    Loss,
    Objective,
    Prediction,
    objective_from_dict,
)

__all__ = [
    "ClassificationObjective",
    "Consistency",
    "CoxObjective",
    "DiscreteHazardObjective",
    "Loss",
    "Objective",
    "Prediction",
    "consistency_loss",
    "cox_nll",
    "discrete_hazard_nll",
    "objective_from_dict",
]

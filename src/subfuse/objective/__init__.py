"""Objectives: what a task's logits mean, how they are trained and how confident a subspace is."""

from subfuse.objective.classification import ClassificationObjective
from subfuse.objective.losses import Consistency, consistency_loss, cox_nll, discrete_hazard_nll
from subfuse.objective.objective import Loss, Objective, Prediction
from subfuse.objective.ordered import CumulativeLogitObjective
from subfuse.objective.regression import RegressionObjective
from subfuse.objective.stored import objective_from_dict
from subfuse.objective.survival import CoxObjective, DiscreteHazardObjective

__all__ = [
    "ClassificationObjective",
    "Consistency",
    "CoxObjective",
    "CumulativeLogitObjective",
    "DiscreteHazardObjective",
    "Loss",
    "Objective",
    "Prediction",
    "RegressionObjective",
    "consistency_loss",
    "cox_nll",
    "discrete_hazard_nll",
    "objective_from_dict",
]

"""How good the predictions are, how certain that is, and which patients are at high risk."""

from subfuse.evaluation.metrics import Metric, classification_metrics, survival_metrics, truncation_time
from subfuse.evaluation.risk_groups import kaplan_meier, log_rank, risk_groups
from subfuse.evaluation.uncertainty import compare_models, evaluate_predictions

__all__ = [
    "Metric",
    "classification_metrics",
    "compare_models",
    "evaluate_predictions",
    "kaplan_meier",
    "log_rank",
    "risk_groups",
    "survival_metrics",
    "truncation_time",
]

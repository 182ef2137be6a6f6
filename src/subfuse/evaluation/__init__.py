"""How good the predictions are, how certain that is, and which patients are at high risk."""

from subfuse.evaluation.calibration.measures import calibration_table, reliability_table
from subfuse.evaluation.comparisons import compare_models
from subfuse.evaluation.intervals import evaluate_predictions
from subfuse.evaluation.metrics import Metric, classification_metrics, survival_metrics, truncation_time
from subfuse.evaluation.survival.hazard_ratios import hazard_ratios
from subfuse.evaluation.survival.risk_groups import kaplan_meier, log_rank, risk_groups

__all__ = [
    "Metric",
    "calibration_table",
    "classification_metrics",
    "compare_models",
    "evaluate_predictions",
    "hazard_ratios",
    "kaplan_meier",
    "log_rank",
    "reliability_table",
    "risk_groups",
    "survival_metrics",
    "truncation_time",
]

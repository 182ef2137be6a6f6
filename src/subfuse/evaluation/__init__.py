"""How good the predictions are, how certain that is, and which patients are at high risk."""

from subfuse.evaluation.audit import audit_predictions, audit_run
from subfuse.evaluation.calibration import calibration_table, reliability_table
from subfuse.evaluation.findings import Audit, Finding
from subfuse.evaluation.hazard_ratios import hazard_ratios
from subfuse.evaluation.input_checks import check_inputs
from subfuse.evaluation.metrics import Metric, classification_metrics, survival_metrics, truncation_time
from subfuse.evaluation.risk_groups import kaplan_meier, log_rank, risk_groups
from subfuse.evaluation.uncertainty import compare_models, evaluate_predictions

__all__ = [
    "Audit",
    "Finding",
    "Metric",
    "audit_predictions",
    "audit_run",
    "calibration_table",
    "check_inputs",
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

"""What predictions are good for: what they add to what is known and to decisions, and what they promise."""

from subfuse.evaluation.benefit.added_value import added_value
from subfuse.evaluation.benefit.conformal import conformal_sets, conformal_table, survival_bounds
from subfuse.evaluation.benefit.decision_curves import decision_curves
from subfuse.evaluation.benefit.interaction import variance_shares

__all__ = [
    "added_value",
    "conformal_sets",
    "conformal_table",
    "decision_curves",
    "survival_bounds",
    "variance_shares",
]

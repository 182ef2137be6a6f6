"""What predictions are good for: what they add to what is known already, to decisions, and beyond their parts."""

from subfuse.evaluation.benefit.added_value import added_value
from subfuse.evaluation.benefit.decision_curves import decision_curves
from subfuse.evaluation.benefit.interaction import variance_shares

__all__ = ["added_value", "decision_curves", "variance_shares"]

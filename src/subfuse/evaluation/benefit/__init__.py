"""What predictions are good for: what they add to what is known already, and to decisions."""

from subfuse.evaluation.benefit.added_value import added_value
from subfuse.evaluation.benefit.decision_curves import decision_curves

__all__ = ["added_value", "decision_curves"]

"""What predictions are good for: what they add to what is known already."""

from subfuse.evaluation.benefit.added_value import added_value

__all__ = ["added_value"]

"""How good predictions of a number are: of its order among patients, and of the number itself."""

from subfuse.evaluation.regression.metrics import regression_metrics

__all__ = ["regression_metrics"]

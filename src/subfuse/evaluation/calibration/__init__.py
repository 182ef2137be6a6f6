"""Whether probabilities of test patients are true: recalibrated by validation patients, and measured."""

from subfuse.evaluation.calibration.measures import calibration_table, reliability_table

__all__ = ["calibration_table", "reliability_table"]

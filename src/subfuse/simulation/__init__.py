"""Simulated cohorts in the raw formats, with ground truth."""

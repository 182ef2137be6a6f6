"""Runs: cross-validation, external validation, new patients, explanations of a trained run."""

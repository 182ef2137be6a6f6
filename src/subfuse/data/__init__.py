"""Slides, expression and clinical tables become cohorts of patients; nothing here knows a model."""

"""A number as the outcome of a task."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.evaluation.floors import LEAST
from subfuse.evaluation.regression.columns import PREDICTED_VALUE, VALUE, observed_values, predicted_values


@dataclass(frozen=True)
class NumberOutcome:
    """A measured number, predicted by a number; see `SurvivalOutcome`."""

    kind: ClassVar = "regression"
    headline: ClassVar = "concordance"
    columns: ClassVar = (VALUE,)
    predicted: ClassVar = [PREDICTED_VALUE]
    scaled_by: ClassVar = ["repeat"]  # what is predicted has the unit of what was measured, in every fold
    words: ClassVar = {
        "predicted": "value",
        "order": "order of the values",
        "judged": "ranked",
        "fitted on": "patients",
    }
    classes: ClassVar[None] = None

    def counts(self, patients: pd.DataFrame) -> dict[str, Any]:
        """Returns `n_patients`; `n_events` is missing."""
        return {"n_patients": len(patients), "n_events": pd.NA}

    def too_few(self, tested: pd.DataFrame, least: int = LEAST) -> str | None:
        """Returns why test patients, each once, are too few for an interval; None where they suffice."""
        return None if len(tested) >= least else f"{len(tested)} test patients, {least} are needed"

    def is_complete(self, rows: pd.DataFrame) -> bool:
        """Returns True: no class can lack."""
        return True

    def suffices(self, rows: pd.DataFrame, least: int) -> bool:
        """Returns whether there are as many rows as required."""
        return len(rows) >= least

    def scores(self, rows: pd.DataFrame) -> Float[np.ndarray, "patient 1"]:
        """Returns the predicted value."""
        return predicted_values(rows)[:, None]

    def log_scores(self, rows: pd.DataFrame) -> Float[np.ndarray, "patient 1"]:
        """Returns the predicted value: it adds up as logarithms of probabilities do."""
        return self.scores(rows)

    def comparable(self, rows: pd.DataFrame) -> Bool[np.ndarray, "1 patient patient"]:
        """Returns whose value (second axis) is above that of another patient (third axis)."""
        value = observed_values(rows)
        return (value[:, None] > value)[None]

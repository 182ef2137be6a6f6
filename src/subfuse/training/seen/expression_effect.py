"""From slides alone: how much expression would change what a model says of a patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from subfuse.cohort.cohort import Patient
from subfuse.evaluation.floors import LEAST_VALIDATION
from subfuse.objective.objective import Objective

_RIDGE = 3.0  # in patients, on logits of spread 1
_DRAWS = 256
_BLOCK = 1024  # patients at a time
_LEAST_SPREAD = 1e-4  # of logits


@dataclass(frozen=True)
class ExpressionEffect:
    """What expression adds to the logits of a model that sees slides alone: a normal distribution given these.

    Fitted on validation patients who have both; it holds a mean, slopes and a covariance, nothing of a single patient.
    Of what was tried on simulated cohorts nothing orders patients better, not the predictions with the expression of
    similar training patients either; this needs no training patients, and its size is right.
    """

    slopes: Float[np.ndarray, "term output"]  # of 1 and the logits
    root: Float[np.ndarray, "output output"]  # of the covariance of the rest; lower triangular

    @classmethod
    def fit(
        cls, alone: Float[np.ndarray, "patient output"], both: Float[np.ndarray, "patient output"]
    ) -> "ExpressionEffect | None":
        """Returns the effect, by ridge regression; None of fewer than ten patients.

        Args:
            alone: Logits of slides alone, of patients who took no part in training.
            both: Logits of the same patients with their expression.
        """
        n, n_outputs = alone.shape
        if n < LEAST_VALIDATION or n <= n_outputs + 1:
            return None
        terms, added = _terms(alone), both - alone
        penalty = np.diag([0.0, *(_RIDGE * alone.var(axis=0))])
        slopes = np.linalg.lstsq(terms.T @ terms + penalty, terms.T @ added, rcond=None)[0]
        rest = added - terms @ slopes
        covariance = rest.T @ rest / (n - 1) + _LEAST_SPREAD**2 * np.eye(n_outputs)
        return cls(slopes.astype(np.float32), np.linalg.cholesky(covariance).astype(np.float32))

    def expected_change(
        self, objective: Objective, alone: Float[np.ndarray, "patient output"]
    ) -> Float[np.ndarray, " patient"]:
        """Returns how much expression is expected to change each prediction; see `Prediction.change`.

        The mean over draws, which are the same for all patients and calls.

        Args:
            objective: Of the model.
            alone: Logits of slides alone.
        """
        draws = np.random.default_rng(0).standard_normal((_DRAWS // 2, alone.shape[1]))
        noise = np.concatenate([draws, -draws]) @ self.root.T
        centre = alone + _terms(alone) @ self.slopes
        found = [np.empty(0)]
        for start in range(0, len(alone), _BLOCK):
            rows = slice(start, start + _BLOCK)
            before = objective.predict(_tensor(alone[rows].repeat(len(noise), axis=0)))
            after = objective.predict(_tensor((centre[rows, None] + noise).reshape(-1, alone.shape[1])))
            found.append(after.change(before).reshape(-1, len(noise)).double().mean(dim=1).numpy())
        return np.concatenate(found)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all numbers by name, which `from_arrays` reads."""
        return {"slopes": self.slopes, "root": self.root}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], n_outputs: int) -> "ExpressionEffect | None":
        """Returns it from what `arrays` gave; None where there is nothing.

        Raises:
            ValueError: A number is missing, or of another shape.
        """
        if not arrays:
            return None
        shapes = {"slopes": (n_outputs + 1, n_outputs), "root": (n_outputs, n_outputs)}
        found = {name: value.shape for name, value in arrays.items()}
        if found != shapes:
            raise ValueError(f"the effect of expression must have {shapes}. Found {found}")
        return cls(arrays["slopes"], arrays["root"])


def with_both(patients: Sequence[Patient]) -> list[Patient]:
    """Returns the patients who have slides and expression."""
    return [patient for patient in patients if patient.slides and patient.expression is not None]


def _terms(logits: Float[np.ndarray, "patient output"]) -> Float[np.ndarray, "patient term"]:
    return np.column_stack([np.ones(len(logits)), logits])


def _tensor(values: Float[np.ndarray, "draw output"]) -> Float[Tensor, "draw output"]:
    return torch.from_numpy(np.ascontiguousarray(values)).float()

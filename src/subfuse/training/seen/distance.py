"""How far a patient's input lies from those of the training patients: along their main directions, and beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

_DIRECTIONS, _LEAST_OF_DIRECTION = 8, 5  # at most so many, and so many patients for each
_PARTS = 5  # of cross-fitting
_LARGEST = 3.0  # standard deviations that count: a gene that few express would decide alone
_TINY = 1e-12
_LEAST_SQUARE, _LEAST_SPREAD = 1e-3, 2e-3  # where there is nothing beside the main directions but rounding
_QUARTILES_OF_NORMAL = 1.349  # between them, in standard deviations


@dataclass(frozen=True)
class SeenRange:
    r"""Mean, scale and main directions of training patients' inputs, and how far from these unseen patients lie.

    Two distances, as in the control of chemical processes (Jackson and Mudholkar 1979): along the main directions,
    :math:`\log \sum_j t_j^2 / \lambda_j`, which says that a patient is extreme in what patients differ by, and beside
    them, :math:`\log \lVert r \rVert^2`, which says that a patient is unlike all in some other way, as by another
    scanner or unit. Inputs count up to three standard deviations. Both are told in robust standard deviations of
    those of unseen training patients.
    """

    mean: Float[np.ndarray, " input"]
    scale: Float[np.ndarray, " input"]
    directions: Float[np.ndarray, "direction input"]  # orthonormal
    variances: Float[np.ndarray, " direction"]
    centre: Float[np.ndarray, "2"]  # of the logs of both distances
    spread: Float[np.ndarray, "2"]

    @classmethod
    def fit(cls, inputs: Float[np.ndarray, "patient input"]) -> tuple["SeenRange", Float[np.ndarray, " patient"]]:
        """Returns the range of training patients, and how far each of them lies from a range of others.

        Patients are too close to a range that was fitted on them: each fifth of them is seen by that of the others.

        Args:
            inputs: Of at least ten patients.
        """
        part = np.random.default_rng(0).permutation(len(inputs)) % _PARTS
        n_directions = max(1, min(_DIRECTIONS, int((part > 0).sum()) // _LEAST_OF_DIRECTION, inputs.shape[1]))
        logs = np.empty((len(inputs), 2))
        for index in range(_PARTS):
            others = cls._of(inputs[part != index], n_directions)
            logs[part == index] = others._log_distances(inputs[part == index])
        low, centre, high = np.quantile(logs, [0.25, 0.5, 0.75], axis=0)
        spread = np.maximum((high - low) / _QUARTILES_OF_NORMAL, _LEAST_SPREAD)
        found = replace(
            cls._of(inputs, n_directions), centre=centre.astype(np.float32), spread=spread.astype(np.float32)
        )
        return found, ((logs - centre) / spread).max(axis=1)

    @classmethod
    def _of(cls, inputs: Float[np.ndarray, "patient input"], n_kept: int) -> "SeenRange":
        mean, scale = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0, dtype=np.float64)
        scale[scale < _TINY] = 1.0
        values = _standardised(inputs, mean, scale)
        squares, vectors = np.linalg.eigh((values @ values.T).astype(np.float64))
        squares, vectors = np.maximum(squares[::-1][:n_kept], _TINY), vectors[:, ::-1][:, :n_kept]
        directions = vectors.T @ values / np.sqrt(squares)[:, None]
        whole = (mean, scale, directions, squares / len(inputs), np.zeros(2), np.ones(2))
        return cls(*(part.astype(np.float32) for part in whole))

    def excess(self, inputs: Float[np.ndarray, "patient input"]) -> Float[np.ndarray, " patient"]:
        """Returns how far patients lie beyond the typical unseen one, by the distance that tells more."""
        return ((self._log_distances(inputs) - self.centre) / self.spread).max(axis=1)

    def _log_distances(self, inputs: Float[np.ndarray, "patient input"]) -> Float[np.ndarray, "patient 2"]:
        values = _standardised(inputs, self.mean, self.scale)
        along = values @ self.directions.T
        rest = np.maximum(np.square(values).sum(axis=1) - np.square(along).sum(axis=1), 0.0)
        within = (np.square(along) / self.variances).sum(axis=1)
        return np.log(np.stack([within, rest], axis=1).astype(np.float64) + _LEAST_SQUARE)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns its numbers by name, which `from_arrays` reads."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "SeenRange":
        """Returns it from what `arrays` gave.

        Raises:
            ValueError: One is missing, or of another shape.
        """
        if arrays.keys() != cls.__dataclass_fields__.keys():
            raise ValueError(f"what training saw must be {sorted(cls.__dataclass_fields__)}. Found {sorted(arrays)}")
        n_inputs, n_directions = len(arrays["mean"]), len(arrays["directions"])
        shapes = {"mean": (n_inputs,), "scale": (n_inputs,), "directions": (n_directions, n_inputs),
                  "variances": (n_directions,), "centre": (2,), "spread": (2,)}  # fmt: skip
        wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
        wrong += [name for name in ("scale", "variances", "spread") if (arrays[name] <= 0).any()]
        if wrong:
            raise ValueError(f"what training saw must have sizes {shapes} and scales above 0. Found others in {wrong}")
        return cls(**arrays)


def _standardised(
    inputs: Float[np.ndarray, "patient input"],
    mean: Float[np.ndarray, " input"],
    scale: Float[np.ndarray, " input"],
) -> Float[np.ndarray, "patient input"]:
    largest = _LARGEST if len(mean) > 1 else np.inf
    return np.clip((inputs - mean) / scale, -largest, largest).astype(np.float32)

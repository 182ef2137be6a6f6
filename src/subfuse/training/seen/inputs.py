"""Which patients are unlike those of training, by expression, patch features or the number of patches."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from subfuse.cohort.bags import InputStandardiser
from subfuse.cohort.cohort import Patient
from subfuse.features.store import read_moments
from subfuse.training.seen.distance import SeenRange

FALSE_ALARMS = 0.05  # share of patients like those of training who are called unlike them
EXPRESSION, PATCHES, NUMBER = "expression", "patch features", "number of patches"
_MODALITY_OF = {EXPRESSION: "expression", PATCHES: "slides", NUMBER: "slides"}
_LEAST = 20  # training patients, and of those with an input
_MOST = 1000  # by whom the ranges are fitted
_LIMIT = "limit"


@dataclass(frozen=True)
class SeenInputs:
    """The ranges of what training patients had, and how far beyond one a patient is told apart.

    It holds means, scales, main directions and one limit, which is rounded: nothing of a single patient.
    """

    ranges: Mapping[str, SeenRange]  # by EXPRESSION, PATCHES, NUMBER
    limit: float

    @classmethod
    def fit(
        cls, patients: Sequence[Patient], standardiser: InputStandardiser, modalities: Collection[str]
    ) -> "SeenInputs | None":
        """Returns what training saw; None of fewer than 20 patients.

        The limit is the one that `FALSE_ALARMS` of further patients exceed, as split conformal prediction sets it: by
        the order of training patients, each seen by ranges of others, of what they have.

        Args:
            patients: Those of training; of many, a thousand are drawn.
            standardiser: Fitted on them.
            modalities: What the model reads.
        """
        if len(patients) > _MOST:
            drawn = np.random.default_rng(0).permutation(len(patients))[:_MOST]
            patients = [patients[i] for i in np.sort(drawn)]
        ranges, furthest = dict[str, SeenRange](), np.full(len(patients), -np.inf)
        for name, (places, values) in _inputs(patients, standardiser, modalities).items():
            if len(places) >= _LEAST:
                ranges[name], excess = SeenRange.fit(values)
                furthest[places] = np.maximum(furthest[places], excess)
        furthest = np.sort(furthest[np.isfinite(furthest)])
        if len(furthest) < _LEAST:
            return None
        rank = int(np.ceil((len(furthest) + 1) * (1 - FALSE_ALARMS)))
        return cls(ranges, float(np.ceil(furthest[rank - 1] * 100) / 100))

    def unlike(self, patients: Sequence[Patient], standardiser: InputStandardiser) -> list[list[str]]:
        """Returns by which of their inputs patients are unlike those of training; mostly none."""
        read = {modality for name, modality in _MODALITY_OF.items() if name in self.ranges}
        found: list[list[str]] = [[] for _ in patients]
        for name, (places, values) in _inputs(patients, standardiser, read).items():
            for place, excess in zip(places, self.ranges[name].excess(values), strict=True):
                if excess > self.limit:
                    found[place].append(name)
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all numbers by name, which `from_arrays` reads."""
        parts = {
            f"{name}.{part}": value for name, found in self.ranges.items() for part, value in found.arrays().items()
        }
        return {**parts, _LIMIT: np.array([self.limit], np.float32)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "SeenInputs | None":
        """Returns it from what `arrays` gave; None where there is nothing, as of earlier versions.

        Raises:
            ValueError: A number is missing, or of another shape.
        """
        if not arrays:
            return None
        limit = arrays.get(_LIMIT, np.empty(0))
        parts: dict[str, dict[str, np.ndarray]] = {}
        for key, value in arrays.items():
            name, _, part = key.rpartition(".")
            if part != _LIMIT:
                parts.setdefault(name, {})[part] = value
        if limit.shape != (1,) or parts.keys() - {EXPRESSION, PATCHES, NUMBER}:
            raise ValueError(f"what training saw must have a limit and ranges. Found {sorted(arrays)}")
        return cls({name: SeenRange.from_arrays(part) for name, part in parts.items()}, float(limit[0]))


def _inputs(
    patients: Sequence[Patient], standardiser: InputStandardiser, modalities: Collection[str]
) -> dict[str, tuple[list[int], Float[np.ndarray, "patient input"]]]:
    """Returns which patients have an input, by their places, and what they have, by its name."""
    found = {}
    scaler = standardiser.expression
    measured = [(i, p.expression) for i, p in enumerate(patients) if p.expression is not None]
    if measured and scaler is not None and "expression" in modalities:
        places, values = zip(*measured, strict=True)
        found[EXPRESSION] = list(places), scaler.transform(np.stack(values))
    places = [i for i, patient in enumerate(patients) if patient.slides]
    if places and standardiser.patches is not None and "slides" in modalities:
        number, means = zip(*(_slides_of(patients[i]) for i in places), strict=True)
        found[PATCHES] = places, standardiser.patches.transform(np.stack(means).astype(np.float32))
        found[NUMBER] = places, np.log(np.array(number, dtype=np.float32))[:, None]
    return found


def _slides_of(patient: Patient) -> tuple[int, Float[np.ndarray, " feature"]]:
    """Returns the number of patches of all slides, and the mean of their features."""
    counts, moments = zip(*(read_moments(path) for path in patient.slides), strict=True)
    return sum(counts), np.sum([part[0] for part in moments], axis=0) / sum(counts)

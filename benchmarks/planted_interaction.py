"""Is what a model has beyond the sum of its modalities found, where it is known because it was planted?

python benchmarks/planted_interaction.py [--cohorts 100]

Cohorts are drawn in memory: every patient has one number in the slides and one in the expression, both of variance 1. A
model of every fold, on a scale of its own, predicts their sum and their product, whose share of the variance is
planted. Slides and expression are exchanged between patients as `subfuse audit RUN --exchanges N` does.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from audit_page import write_section
from subfuse.audit.modalities.exchanged import exchanged_grid
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.evaluation.benefit.interaction import INTERACTION, variance_shares

PLANTED = (0.0, 0.05, 0.2)
EXCHANGES = (20, 40, 80, 160)
FOLDS = 5
OF_SLIDES = 0.6  # of the variance that is no interaction
NEAR = 0.02


@dataclass(frozen=True)
class PlantedModel:
    """Predicts from the mean of a patient's slide, which it knows by its path, and from the first gene."""

    seen: dict[Path, float]
    planted: float
    scale: float

    def align(self, cohort: Cohort) -> Cohort:
        """Returns the cohort: the model reads its genes."""
        return cohort

    def predict(self, patients: Sequence[Patient]) -> pd.DataFrame:
        """Returns the risks."""
        x = np.array([self.seen[patient.slides[0]] for patient in patients])
        y = np.array([patient.expression[0] for patient in patients], dtype=np.float64)
        rest = 1 - self.planted
        risk = np.sqrt(OF_SLIDES * rest) * x + np.sqrt((1 - OF_SLIDES) * rest) * y + np.sqrt(self.planted) * x * y
        return pd.DataFrame({"patient_id": [patient.patient_id for patient in patients], "risk": self.scale * risk})


def found(planted: float, n: int, seed: int) -> pd.Series:
    """Returns the interaction's row of `variance_shares` in a drawn cohort."""
    draw, grids = np.random.default_rng(seed), []
    for fold in range(FOLDS):
        paths = [Path(f"{fold}-{i}.h5") for i in range(n)]
        seen = dict(zip(paths, map(float, draw.normal(size=n)), strict=True))
        patients = tuple(
            Patient(path.stem, "drawn", slides=(path,), expression=draw.normal(size=1).astype(np.float32))
            for path in paths
        )
        cohort = Cohort("drawn", patients, ("G",), "zscore", gene_sets={}, tasks={})
        model = PlantedModel(seen, planted, scale=10.0**fold)
        grids.append(exchanged_grid(model, cohort, [patient.patient_id for patient in patients]))
    return variance_shares(grids, modalities=("slides", "expression")).set_index("part").loc[INTERACTION]


def rows(n_cohorts: int) -> Iterator[str]:
    """Yields the lines of the table."""
    for n in EXCHANGES:
        for planted in PLANTED:
            table = pd.DataFrame([found(planted, n, seed) for seed in range(n_cohorts)])
            share = table["share"].astype(float)
            low, high = share.quantile([0.05, 0.95])
            near = (share - planted).abs() <= NEAR + 1e-9
            holds = (table["lower"] <= planted + 1e-9) & (table["upper"] >= planted - 1e-9)
            yield (
                f"| {n} | {planted:.0%} | {share.mean():.1%} | {low:.1%} to {high:.1%} | {near.mean():.0%} | "
                f"{holds.mean():.0%} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=100)
    n = parser.parse_args().cohorts
    header = "| patients exchanged per fold | planted | found, mean | 5 to 95 % | within 2 points | interval holds it |"
    write_section(
        "Whether a planted interaction is found",
        f"python benchmarks/planted_interaction.py --cohorts {n}",
        f"{n} cohorts of each kind, {FOLDS} folds; see the script. Predictions have no noise: what a single cohort is "
        "off by is which patients were drawn.",
        [header, "|---|---|---|---|---|---|", *rows(n)],
    )


if __name__ == "__main__":
    main()

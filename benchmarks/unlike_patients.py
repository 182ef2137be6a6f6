"""How many held-out patients are called unlike those of training, and how many strangers, on real expression.

SUBFUSE_REAL_DATA=FOLDER python benchmarks/unlike_patients.py [--draws 20]

Of TCGA-GBM/LGG (z-scores of 1544 genes) some patients train, the others are new: as they are, or changed as another
unit, laboratory or population would change them. Slides are not part of it: their changes are simulated in
tests/training/seen/test_inputs.py.
"""

import argparse
import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.cohort.bags import FeatureCache, InputStandardiser
from subfuse.cohort.cohort import Patient
from subfuse.training.seen.inputs import FALSE_ALARMS, SeenInputs

RESULT = Path(__file__).parent / "results" / "unlike_patients.md"
TRAINED = (40, 100, 300)
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda z: z,
    "another unit: 2 to the power of z": lambda z: np.exp2(np.minimum(z, 20)),
    "another unit: z times 2": lambda z: 2 * z,
    "another laboratory: 0.5 added to a half of the genes": lambda z: z + 0.5 * (np.arange(z.shape[1]) % 2),
    "genes in another order": lambda z: z[:, ::-1],
}


def patients(values: np.ndarray) -> list[Patient]:
    """Returns patients with this expression."""
    return [Patient(f"P{i}", "c", expression=row.astype(np.float32)) for i, row in enumerate(values)]


def share_unlike(trained: np.ndarray, new: np.ndarray) -> float:
    """Returns the share of new patients who are called unlike the trained ones."""
    known = patients(trained)
    standardiser = InputStandardiser.fit(known, [str(i) for i in range(trained.shape[1])], FeatureCache())
    seen = SeenInputs.fit(known, standardiser, {"expression"})
    assert seen is not None
    return float(np.mean([bool(found) for found in seen.unlike(patients(new), standardiser)]))


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=20)
    draws = parser.parse_args().draws
    folder = Path(os.environ["SUBFUSE_REAL_DATA"]) / "tcga_gbmlgg"
    table = pd.read_csv(folder / "expression_zscores.csv.gz", index_col=0)
    project = pd.read_csv(folder / "labels.csv", index_col=0)["project"].reindex(table.index).to_numpy()
    values = table.to_numpy(float)
    rows = []
    for n in TRAINED:
        found: dict[str, list[float]] = {name: [] for name in CHANGES}
        for draw in range(draws):
            order = np.random.default_rng(draw).permutation(len(values))
            for name, change in CHANGES.items():
                found[name].append(share_unlike(values[order[:n]], change(values[order[n:]])))
        rows += [(n, "both projects", name, np.mean(shares)) for name, shares in found.items()]
    lgg, gbm = values[project == "LGG"], values[project == "GBM"]
    order = np.random.default_rng(0).permutation(len(lgg))
    n = len(lgg) // 2
    for name, new in (("other LGG", lgg[order[n:]]), ("another population: GBM", gbm)):
        rows.append((n, "LGG", name, share_unlike(lgg[order[:n]], new)))
    lines = [
        "# Who is called unlike the patients of training",
        f"\n`python benchmarks/unlike_patients.py --draws {draws}`",
        f"\n{platform.machine()}; stated false alarms: {FALSE_ALARMS:.0%}; means over {draws} draws, of LGG one.\n",
        "| training patients | of | new patients | called unlike |\n|---|---|---|---|",
        *(f"| {n} | {of} | {name} | {share:.1%} |" for n, of, name, share in rows),
        "\nGBM and LGG were scaled separately before they were published, which hides most of what tells them apart.",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Modality dropout, or a learned embedding of what is absent? Compared on inner splits of simulated cohorts.

python benchmarks/missing_modality.py [--work benchmarks/work] [--patients 100 200] [--seed 0]

Cohorts are those of `distillation.py`; expression is taken from three in ten training patients, as from a hospital that
did not order it. Where a modality is absent, subspace fusion has a vector of zeros in place of the encoded genes, and
nothing of the slides; with `learned`, every subspace has a vector of its own for either, that is trained. Networks are
trained alone: beside a linear path a small cohort often keeps nothing of them. Inner splits are three folds of the
patients whom the first fold of a cohort does not test. One process, a quarter of an hour. Resumable.
"""

import argparse
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from distillation import SHORT, SIZES, TASKS, VISIBILITIES, draw_cohort, interval, ranking
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.drawn_folds import stratified_folds
from subfuse.cohort.fold import Fold
from subfuse.files import write_table, write_text
from subfuse.model import subspace_fusion
from subfuse.training.fitting import train_fold
from subfuse.training.settings import TrainingPlan

RESULT = Path(__file__).parent / "results" / "missing_modality.md"
FOLDS, LACKING, EPOCHS = 3, 0.3, 20
HIDDEN = {"both": None, "slides alone": "expression", "expression alone": "slides"}
VARIANTS = {  # what stands for an absent modality, and how often one is hidden in training
    "dropout 0.15": (False, 0.15),
    "learned, dropout 0.15": (True, 0.15),
    "learned, no dropout": (True, 0.0),
    "neither": (False, 0.0),
}
REFERENCE = "dropout 0.15"


class WithAbsence(subspace_fusion.Subspace):
    """A subspace with a trained vector for genes that were not measured, and one for slides that are not there."""

    def __init__(self, n_genes: int, config: subspace_fusion.SubspaceFusionConfig) -> None:
        super().__init__(n_genes, config)
        self.no_genes = nn.Parameter(torch.zeros(config.embed_dim))
        self.no_slides = nn.Parameter(torch.zeros(config.embed_dim))
        self._has_slides: torch.Tensor | None = None

    def forward(self, tokens: Any, cells: Any, expression: Any, expression_mask: Any, **options: Any) -> Any:
        """As of the subspace; the halves know who has slides."""
        has_slides = cells.token_mask.any(1) if tokens.shape[1] else torch.zeros_like(expression_mask)
        self._has_slides = has_slides
        return super().forward(tokens, cells, expression, expression_mask, **options)

    def _gene_half(self, expression: Any, expression_mask: Any) -> Any:
        encoded, of_patch, half = super()._gene_half(expression, expression_mask)
        assert self._has_slides is not None
        half = half + torch.where(expression_mask[:, None], 0.0, self.no_genes)
        return encoded, of_patch, half + torch.where(self._has_slides[:, None], 0.0, self.no_slides)


@contextmanager
def absence(is_learned: bool) -> Iterator[None]:
    """Builds models of such subspaces."""
    before = subspace_fusion.Subspace
    subspace_fusion.Subspace = WithAbsence if is_learned else before
    try:
        yield
    finally:
        subspace_fusion.Subspace = before


def inner_folds(cohort: Cohort, task: str, seed: int) -> tuple[Fold, ...]:
    """Returns folds of those whom the first fold of the cohort does not test."""
    outcome = [p.event if task == "survival" else p.labels["diagnosis"] for p in cohort]
    table = pd.DataFrame({"patient_id": [p.patient_id for p in cohort], "outcome": outcome})
    drawn: dict[str, Any] = {"folds": FOLDS, "validation": 0.2, "stratify": ["outcome"], "seed": seed}
    outer = stratified_folds(table, **drawn)[0]
    return stratified_folds(table[table["patient_id"].isin(outer.development)], **drawn)


def measure(cohort: Cohort, task: str, fold: Fold, seed: int) -> pd.DataFrame:
    """Returns what every variant reaches on the test patients, with both modalities and with one hidden."""
    train = np.random.default_rng(seed).permutation(fold.train)
    lacking = set(train[: round(LACKING * len(train))])
    given = tuple(replace(p, expression=None) if p.patient_id in lacking else p for p in cohort)
    tested, rows = cohort.select(fold.test), []
    for name, (is_learned, dropout) in VARIANTS.items():
        settings = SHORT.model_copy(update={"modality_dropout": dropout, "linear_path": False, "epochs": EPOCHS})
        plan = TrainingPlan(training=settings, architecture=SIZES, seed=seed, device="cpu")
        with absence(is_learned):
            model = train_fold(replace(cohort, patients=given), fold, task=task, model_name="subspace", plan=plan)
        for available, hidden in HIDDEN.items():
            seen = tuple(replace(p, **_without(hidden)) for p in tested)
            rows.append((name, available, ranking(model, replace(tested, patients=seen), fold)))
    return pd.DataFrame(rows, columns=["variant", "available", "value"])


def _without(modality: str | None) -> dict[str, Any]:
    return {"expression": {"expression": None}, "slides": {"slides": ()}}.get(modality or "", {})


def rows(work: Path, sizes: list[int], seed: int) -> Iterator[pd.DataFrame]:
    """Yields what was measured on each inner fold, measuring what is not there yet."""
    for patients, visibility, task in product(sizes, VISIBILITIES, TASKS):
        cohort = draw_cohort(work / f"features_{patients}_{visibility:g}_{seed}", patients, visibility, seed)
        for index, fold in enumerate(inner_folds(cohort, task, seed)):
            path = work / f"{patients}_{visibility:g}_{seed}_{task}_{index}.csv"
            if not path.exists():
                write_table(path, measure(cohort, task, fold, seed))
            yield pd.read_csv(path).assign(patients=patients, visibility=visibility, task=task, fold=index)


def lines_of(found: pd.DataFrame) -> Iterator[str]:
    """Yields a table: means per variant and what is available, and differences over cohorts and tasks."""
    yield f"| patients | available | variant | mean | difference to {REFERENCE} |"
    yield "|---|---|---|---|---|"
    for (patients, available), part in found.groupby(["patients", "available"], sort=False):
        wide = part.pivot_table(index=["visibility", "task"], columns="variant", values="value", sort=False)
        for name in VARIANTS:
            difference = "" if name == REFERENCE else interval(wide[name] - wide[REFERENCE])
            yield f"| {patients} | {available} | {name} | {wide[name].mean():.3f} | {difference} |"


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "missing_modality")
    parser.add_argument("--patients", type=int, nargs="+", default=[100, 200])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = pd.concat(rows(arguments.work, arguments.patients, arguments.seed), ignore_index=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    asked = f"--patients {' '.join(map(str, arguments.patients))} --seed {arguments.seed}"
    lines = [
        "# Modality dropout, or a learned embedding of what is absent?",
        "",
        f"`python benchmarks/missing_modality.py {asked}`",
        "",
        f"Commit {commit.strip()}; {platform.machine()}. {LACKING:.0%} of the training patients lack expression; test "
        f"patients of {FOLDS} inner folds have both, of which one is hidden. Embeddings of {SIZES.embed_dim}, "
        f"{EPOCHS} epochs, without a linear path. Means over visibilities, tasks and folds of C-index (survival) and "
        "macro AUC (diagnosis); 95 % intervals are Student's t over the four pairs of visibility and task.",
        "",
        *lines_of(found),
        "",
    ]
    write_text(RESULT, "\n".join(lines))


if __name__ == "__main__":
    main()

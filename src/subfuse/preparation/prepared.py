"""Writes the tables of a prepared folder: patients, slides, expression, gene sets, folds and what was excluded."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from subfuse.cohort.cohort_file import CohortFile, cohort_file_text
from subfuse.cohort.drawn_folds import SPLITS, Fold, write_repeats
from subfuse.errors import DataError
from subfuse.expression.reading import write_expression
from subfuse.files import write_table, write_text
from subfuse.preparation.plan import CohortPlan
from subfuse.preparation.sources import restrict_expression
from subfuse.tables import exclusion_table, join_exclusions


def write_prepared(
    out: Path, cohort_file: CohortFile, plan: CohortPlan, slides: pd.DataFrame, exclusions: pd.DataFrame
) -> pd.DataFrame:
    """Writes the tables of a prepared folder and returns all exclusions.

    A patient whose slides all failed and who has no expression is excluded here, and leaves its fold; the others stay
    where they were. Writes patients.csv, slides.csv, exclusions.csv, expression.h5ad, gene_sets.gmt (measured genes of
    each subspace), pathways.gmt (those of every single set), harmonisation.csv (where several cohorts have expression),
    the resolved cohort.yaml and the folds. `provenance.json` is left to the caller: it marks the folder complete.

    Args:
        out: The prepared folder.
        cohort_file: What was planned.
        plan: The plan.
        slides: One row per prepared slide: slide_id, patient_id, features (path of the feature file, relative to
            `out`) and whatever else is known.
        exclusions: Level, id, reason: those of the plan and of preparing.

    Raises:
        DataError: Nobody is left, or a fold loses all its training, validation or test patients.
    """
    counts = slides["patient_id"].value_counts()
    patients = plan.patients.assign(n_slides=plan.patients["patient_id"].map(counts).fillna(0).astype(int))
    usable = (patients["n_slides"] > 0) | patients["has_expression"]
    lost = exclusion_table(
        ("patient", str(patient), "none of its slides could be prepared, and it has no expression")
        for patient in patients.loc[~usable, "patient_id"]
    )
    patients = patients[usable]
    if patients.empty:
        raise DataError(f"{out}: at least one patient with a prepared slide is required. Found none: see exclusions.")
    exclusions = join_exclusions([exclusions, lost])
    kept = set(patients["patient_id"])
    repeats = [
        tuple(_restrict_fold(fold, kept, f"repeat {r}, fold {k}" if r else f"fold {k}") for k, fold in enumerate(folds))
        for r, folds in enumerate(plan.repeats)
    ]
    write_table(out / "patients.csv", patients)
    write_table(out / "slides.csv", slides.sort_values("slide_id"))
    write_table(out / "exclusions.csv", exclusions)
    if plan.expression is not None:
        write_expression(out / "expression.h5ad", restrict_expression(plan.expression, kept)[0])
        write_text(out / "gene_sets.gmt", _gmt_text(plan.gene_sets, "measured genes of the subspace"))
        write_text(out / "pathways.gmt", _gmt_text(plan.pathways, "measured genes of the set"))
    if not plan.harmonisation.empty:
        write_table(out / "harmonisation.csv", plan.harmonisation)
    resolved = {"tasks": dict(plan.tasks), "covariates": plan.covariates}
    write_text(out / "cohort.yaml", cohort_file_text(cohort_file.model_copy(update=resolved)))
    if repeats:
        write_repeats(out / SPLITS, repeats)
    return exclusions


def _restrict_fold(fold: Fold, kept: Collection[str], name: str) -> Fold:
    sides = [tuple(patient for patient in side if patient in kept) for side in (fold.train, fold.validation, fold.test)]
    if not all(sides):
        raise DataError(
            f"{name}: patients to train on, validate with and test are required. After exclusions there are "
            f"{len(sides[0])}, {len(sides[1])} and {len(sides[2])}. Use fewer folds, or repair the excluded slides."
        )
    return Fold(*sides)


def _gmt_text(gene_sets: Mapping[str, Sequence[str]], description: str) -> str:
    return "".join("\t".join([name, description, *genes]) + "\n" for name, genes in gene_sets.items())

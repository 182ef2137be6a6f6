"""Writes the tables of a prepared folder: patients, slides, expression, gene sets, folds and what was excluded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from subfuse.cohort.cohort_file import CohortFile, cohort_file_text
from subfuse.cohort.fold_files import SPLITS, write_repeats
from subfuse.exclusions import RENAMED, exclusion_table, join_exclusions
from subfuse.expression.gene_names import is_identifier
from subfuse.expression.table import ExpressionTable, write_expression
from subfuse.files import write_table, write_text
from subfuse.preparation.plan import CohortPlan

_EXPRESSION_FILES = ("expression.h5ad", "gene_sets.gmt", "pathways.gmt")


def write_prepared(out: Path, cohort_file: CohortFile, plan: CohortPlan, slides: pd.DataFrame) -> None:
    """Writes the tables of a prepared folder.

    These are patients.csv, slides.csv, exclusions.csv, expression.h5ad, gene_sets.gmt (measured genes of each
    subspace), pathways.gmt (those of every single set), harmonisation.csv (where several cohorts have expression), the
    resolved cohort.yaml and the folds. What an earlier preparation had beside these is removed. The mark that the
    folder is complete (`mark_complete`) is left to the caller.

    Args:
        out: The prepared folder.
        cohort_file: What was planned.
        plan: What remains of the plan, see `remaining`.
        slides: One row per prepared slide: slide_id, patient_id, features (path of the feature file, relative to
            `out`) and whatever else is known.
    """
    write_table(out / "patients.csv", plan.patients)
    write_table(out / "slides.csv", slides.sort_values("slide_id"))
    write_table(out / "exclusions.csv", join_exclusions([plan.exclusions, _renamed(plan.expression)]))
    if plan.expression is None:
        for name in _EXPRESSION_FILES:
            (out / name).unlink(missing_ok=True)
    else:
        write_expression(out / "expression.h5ad", plan.expression)
        write_text(out / "gene_sets.gmt", _gmt_text(plan.gene_sets, "measured genes of the subspace"))
        write_text(out / "pathways.gmt", _gmt_text(plan.pathways, "measured genes of the set"))
    if plan.harmonisation.empty:
        (out / "harmonisation.csv").unlink(missing_ok=True)
    else:
        write_table(out / "harmonisation.csv", plan.harmonisation)
    resolved = {"tasks": dict(plan.tasks), "covariates": plan.covariates}
    write_text(out / "cohort.yaml", cohort_file_text(cohort_file.model_copy(update=resolved)))
    write_repeats(out / SPLITS, plan.repeats)


def _renamed(table: ExpressionTable | None) -> pd.DataFrame:
    """Returns the earlier symbols of the source, each with the approved one under which its gene is used."""
    pairs = {} if table is None else table.names_in_source
    return exclusion_table(
        (RENAMED, earlier, f"not excluded: used as {gene}, its approved symbol")
        for gene, earlier in pairs.items()
        if not is_identifier(earlier)
    )


def _gmt_text(gene_sets: Mapping[str, Sequence[str]], description: str) -> str:
    return "".join("\t".join([name, description, *genes]) + "\n" for name, genes in gene_sets.items())

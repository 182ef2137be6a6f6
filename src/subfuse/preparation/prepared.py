"""Writes the tables of a prepared folder: patients, slides, expression, gene sets, folds and what was excluded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from subfuse.cohort import marker
from subfuse.cohort.cohort import changed_patients, read_patients
from subfuse.cohort.cohort_file import CohortFile, GivenSplits, cohort_file_text
from subfuse.cohort.fold import Fold
from subfuse.cohort.fold_files import SPLITS, read_repeats, write_repeats
from subfuse.cohort.given_folds import write_given_folds
from subfuse.errors import DataError
from subfuse.exclusions import RENAMED, exclusion_table, join_exclusions
from subfuse.expression.gene_names import is_identifier
from subfuse.expression.table import ExpressionTable, write_expression
from subfuse.files import write_table, write_text
from subfuse.preparation.plan import CohortPlan

Repeats = tuple[tuple[Fold, ...], ...]
FORMER_SPLITS = SPLITS.with_name("former")
_EXPRESSION_FILES = (marker.EXPRESSION, marker.GENE_SETS, marker.PATHWAYS)


def write_prepared(out: Path, cohort_file: CohortFile, plan: CohortPlan, slides: pd.DataFrame) -> list[str]:
    """Writes the tables of a prepared folder; returns a warning where it had other folds before.

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
    former = _former(out)
    write_table(out / marker.PATIENTS, plan.patients)
    write_table(out / marker.SLIDES, slides.sort_values("slide_id"))
    write_table(out / marker.EXCLUSIONS, join_exclusions([plan.exclusions, _renamed(plan.expression)]))
    if plan.expression is None:
        for name in _EXPRESSION_FILES:
            (out / name).unlink(missing_ok=True)
    else:
        write_expression(out / marker.EXPRESSION, plan.expression)
        write_text(out / marker.GENE_SETS, _gmt_text(plan.gene_sets, "measured genes of the subspace"))
        write_text(out / marker.PATHWAYS, _gmt_text(plan.pathways, "measured genes of the set"))
    if plan.harmonisation.empty:
        (out / marker.HARMONISATION).unlink(missing_ok=True)
    else:
        write_table(out / marker.HARMONISATION, plan.harmonisation)
    resolved = {"tasks": dict(plan.tasks), "covariates": plan.covariates}
    write_text(out / marker.COHORT_FILE, cohort_file_text(cohort_file.model_copy(update=resolved)))
    write_repeats(out / SPLITS, plan.repeats)
    return _other_folds(out, plan.repeats, former, are_given=isinstance(cohort_file.splits, GivenSplits))


def _former(out: Path) -> tuple[Repeats, pd.DataFrame]:
    """Returns the folds and patients that were prepared in a folder before; none where nothing whole was."""
    try:
        return read_repeats(out / SPLITS), read_patients(out)
    except DataError:
        return (), pd.DataFrame()


def _other_folds(out: Path, repeats: Repeats, former: tuple[Repeats, pd.DataFrame], *, are_given: bool) -> list[str]:
    """Returns a warning where a folder had other folds before; they are kept in `splits/former`, unless they are given.

    There they are in the form that `splits.folder` of a cohort file takes.
    """
    before, patients = former
    if not before or not repeats or before == repeats:
        return []
    changed = "; ".join(changed_patients(patients, read_patients(out)))
    why = f"patients have changed ({changed})" if changed else "the rules for them have changed"
    told = f"the folds are others than before, since {why}: runs on the old ones cannot be continued"
    if are_given:
        return [told]
    kept = out / FORMER_SPLITS
    write_given_folds(kept, before[0])
    return [
        f"{told}. To keep the old ones, set `splits: {{folder: {kept.resolve()}}}` in the cohort file and prepare again"
    ]


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

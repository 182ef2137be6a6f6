"""What a cohort file leads to before any slide is opened: who is used, with what, in which fold, and who is not."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from subfuse.clinical.plausibility import follow_up_warnings, outcome_warnings
from subfuse.clinical.time_units import is_unit_open
from subfuse.cohort.cohort import used_of_listed
from subfuse.cohort.cohort_file import CohortFile, CohortSection, Role, SplitsSection
from subfuse.cohort.covariates import check_values, completeness, known_values, numeric_names
from subfuse.cohort.drawn_folds import default_stratification
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import FOLLOW_UP, TaskSpec
from subfuse.errors import ConfigurationError, listed, preview
from subfuse.exclusions import NothingLeft, commonest_reasons, exclusion_table, join_exclusions
from subfuse.expression.gene_names import both_names, gene_aliases
from subfuse.expression.gene_sets import (
    coverage,
    few_measured,
    load_gene_sets,
    load_pathways,
    measured_in_another_case,
    restrict_to_axis,
)
from subfuse.expression.harmonisation import harmonise
from subfuse.expression.table import ExpressionTable
from subfuse.identifiers import site_of_barcode
from subfuse.preparation.contrast import require_varying_expression
from subfuse.preparation.declared_columns import check_batch, check_strata, doubtful_words, resolve_covariates
from subfuse.preparation.declared_folds import declared_folds
from subfuse.preparation.regression_targets import require_numbers, require_spread
from subfuse.preparation.sources import CohortSources, PooledSources, pool_sources, read_sources, restrict_expression
from subfuse.preparation.tasks import (
    refuse_other_than_two,
    resolve_classes,
    resolve_tasks,
    tasks_left_out,
    told_by_covariates,
    unknown_outcomes,
)
from subfuse.preparation.weak_folds import weak_folds
from subfuse.slides.source import SlideSource


@dataclass(frozen=True)
class CohortPlan:
    """What a cohort file leads to, before any slide is opened."""

    name: str
    roles: Mapping[str, Role]  # cohort -> what it is for
    patients: pd.DataFrame  # columns of patients.csv, sorted by patient_id
    slides: tuple[SlideSource, ...]  # of these patients, existing, sorted
    expression: ExpressionTable | None  # of these patients
    gene_sets: Mapping[str, tuple[str, ...]]  # subspace -> measured genes; empty tuples without expression
    coverage: pd.DataFrame  # of the gene sets by the measured genes; no rows without expression
    pathways: Mapping[str, tuple[str, ...]]  # single gene set -> measured genes; none without expression
    harmonisation: pd.DataFrame  # how cohorts' expression compares; no rows where fewer than two have any
    covariates: tuple[str, ...]  # as resolved: their names say how they are coded
    tasks: Mapping[str, TaskSpec]
    repeats: tuple[tuple[Fold, ...], ...]  # of the patients that models are developed on; none without any
    exclusions: pd.DataFrame  # level, id, reason
    splits: SplitsSection  # how folds are declared
    stratify: tuple[str, ...]  # columns whose mixture they keep
    warnings_of_tables: tuple[str, ...]
    n_listed: Mapping[
        str, int
    ]  # cohort -> patients of its clinical table; those that are not in `patients` are excluded

    @property
    def folds(self) -> tuple[Fold, ...]:
        """The folds of the first repeat; none where every cohort is external."""
        return self.repeats[0] if self.repeats else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What tables leave in doubt, and what folds lack."""
        return (*self.warnings_of_tables, *weak_folds(self.tasks, self.developed, self.folds, self.stratify))

    @property
    def developed(self) -> pd.DataFrame:
        """The patients to develop on; everybody where every cohort is external."""
        return _developed(self.patients, self.roles)

    def summary(self) -> str:
        """Returns in a few lines who is used, with what, and how much is known for each task."""
        lines = [line for name in self.roles for line in self._lines_of_cohort(name)]
        if self.expression is not None and self.expression.names_in_source:
            renamed = [f"{old} as {new}" for new, old in self.expression.names_in_source.items()]
            lines.append(f"  genes: {len(renamed)} renamed ({preview(renamed, 3)})")
        if self.covariates:
            known = completeness(self.covariates, self.patients)
            lines.append(f"  covariates: {', '.join(f'{name} known for {n}' for name, n in known.items())}")
        if self.folds:
            sizes = "/".join(str(len(fold.test)) for fold in self.folds)
            times = f", drawn {len(self.repeats)} times" if len(self.repeats) > 1 else ""
            lines.append(f"  folds: {len(self.folds)}{times}, with {sizes} test patients")
        return "\n".join(lines)

    def _lines_of_cohort(self, name: str) -> list[str]:
        patients = self.patients[self.patients["cohort"] == name]
        slides, expression = patients["n_slides"] > 0, patients["has_expression"]
        lines = [
            f"{name} ({self.roles[name]}): {used_of_listed(len(patients), self.n_listed[name])}",
            f"  slides: {patients['n_slides'].sum()}, of {slides.sum()} patients",
            f"  expression: {expression.sum()} patients, {(slides & expression).sum()} of them with slides",
        ]
        if self.expression is not None and expression.any():
            lines[-1] += f"; {self.expression.values.shape[1]} genes, unit {self.expression.unit}"
        for task_name, task in self.tasks.items():
            known = task.cases(patients).dropna()
            lines.append(f"  {task_name}: {len(known)} patients ({_spread(task, known)})")
        return lines + _lines_of_sites(patients, develops=self.roles[name] == "develop")


def _spread(task: TaskSpec, known: pd.Series) -> str:
    """Returns the events, classes or numbers of the patients of a task, in words."""
    if task.is_regression:
        return f"{known.min():g} to {known.max():g}, median {known.median():g}" if len(known) else "none"
    counts = {"events": int(known.sum())} if task.column is None else known.value_counts().sort_index()
    return listed(f"{value}: {count}" for value, count in counts.items())


def _lines_of_sites(patients: pd.DataFrame, *, develops: bool) -> list[str]:
    """Returns in one line how many hospitals a cohort has, and how models are tested on unseen ones."""
    known = patients.dropna(subset="site")
    if known.empty:
        return []
    sizes = known["site"].value_counts()
    is_coded = bool((known["site"] == known["patient_id"].map(site_of_barcode)).all())
    what = "tissue source sites of barcodes" if is_coded else "sites"
    found = f"  {what}: {len(sizes)}, of {len(known)} patients"
    if len(sizes) < 2:
        return [found]
    if sizes.iloc[0] == 1:
        return [f"{found}, one patient each: no model of hospitals can learn of them"]
    largest = f"{found}, the largest {sizes.index[0]} with {sizes.iloc[0]}"
    remedy = "; `splits: {by: site}` or `crossval --held-out-sites true` holds whole ones out"
    return [largest + (remedy if develops else "")]


def plan_cohort(cohort_file: CohortFile) -> CohortPlan:
    """Joins everything that a cohort file names: who is used, with what, and who is not, with the reason.

    Reads tables and looks for slide files; opens no slide and writes nothing. A patient needs a slide or expression,
    and, to develop on, a known outcome of at least one task; external patients need none. A missing modality or label
    excludes nobody. Several cohorts share one gene axis. Classes, the coding of covariates and folds come from the
    cohorts to develop on alone.

    Raises:
        ConfigurationError: A task's column or a covariate is not declared or not usable, or there is nothing to
            predict or to predict from.
        DataError: A table cannot be used, a label is outside its declared classes, cohorts do not fit together, or
            nobody is left.
    """
    aliases_of = _aliases(cohort_file)
    aliases = next(iter(aliases_of.values()))  # of the gene sets
    wanted = load_gene_sets(cohort_file.gene_sets, aliases)
    keep_genes = {gene for genes in wanted.values() for gene in genes}
    in_any_case = {gene.lower() for gene in keep_genes}
    cohorts = [
        read_sources(section, keep_genes, aliases_of[_table_of_aliases(section)]) for section in cohort_file.members
    ]
    roles = {cohort.name: cohort.role for cohort in cohorts}
    pooled = pool_sources(cohorts)
    develops = "develop" in roles.values()
    endpoints = cohort_file.endpoints
    declared = cohort_file.single_tasks
    tasks = resolve_tasks(declared, _developed(pooled.patients, roles), endpoints, develops=develops)
    require_numbers(tasks, pooled.patients)
    patients, patient_exclusions = _exclude_patients(pooled.patients, tasks, roles)
    _refuse_nobody(cohorts, patients, patient_exclusions)
    _refuse_no_data(cohorts, patients, patient_exclusions)
    kept = set(patients["patient_id"])
    expression, expression_exclusions = _expression_of(pooled, kept)
    developed = _developed(patients, roles)
    if develops:
        refuse_other_than_two(cohort_file.tasks or {}, developed)
        require_spread(tasks, developed)
    tasks, task_warnings = resolve_classes(tasks, patients, developed, develops=develops)
    genes = [] if expression is None else list(expression.values.columns)
    found_genes = coverage(wanted, genes) if genes else coverage({}, [])
    gene_sets = restrict_to_axis(wanted, genes) if genes else dict.fromkeys(wanted, ())
    covariates = resolve_covariates(cohort_file.covariates, developed, tasks, develops=develops)
    check_batch(cohort_file.batch, developed, tasks, develops=develops)
    check_strata(cohort_file.strata_columns, developed, tasks, develops=develops)
    _refuse_names_of_genes(covariates, genes, {} if expression is None else expression.names_in_source)
    numeric = covariates if develops else numeric_names(covariates, patients)  # words: the trained model codes them
    check_values(numeric, known_values(numeric, patients))
    stratify = cohort_file.splits.stratify
    stratify = tuple(default_stratification(tasks, developed) if stratify is None else stratify)
    repeats, unlisted = (
        ((), ()) if not develops else declared_folds(cohort_file.splits, developed, stratify, pooled.slides)
    )
    return CohortPlan(
        name=cohort_file.name,
        roles=roles,
        patients=patients,
        slides=tuple(slide for slide in pooled.slides if slide.patient_id in kept),
        expression=expression,
        gene_sets=gene_sets,
        coverage=found_genes,
        pathways=load_pathways(cohort_file.gene_sets, genes, aliases),
        harmonisation=_harmonisation(cohorts, wanted, kept),
        covariates=covariates,
        tasks=tasks,
        repeats=repeats,
        exclusions=join_exclusions(
            [pooled.exclusions, patient_exclusions, _orphans(pooled.slides, kept), expression_exclusions]
        ).drop_duplicates(ignore_index=True),  # cohorts may share a source
        splits=cohort_file.splits,
        stratify=stratify,
        warnings_of_tables=(
            *_warnings_of_cohorts(cohorts, cohort_file, patients),
            *few_measured(found_genes, [gene for gene in genes if gene.lower() not in in_any_case]),
            *measured_in_another_case(wanted, genes),
            *require_varying_expression(expression, patients, gene_sets),
            *tasks_left_out(declared, _developed(pooled.patients, roles), endpoints, develops=develops),
            *unknown_outcomes(declared or {}, tasks),
            *task_warnings,
            *doubtful_words((*covariates, *cohort_file.strata_columns), patients),
            *(told_by_covariates(covariates, developed, tasks) if develops else ()),
            *unlisted,
        ),
        n_listed={cohort.name: cohort.n_listed for cohort in cohorts},
    )


def _developed(patients: pd.DataFrame, roles: Mapping[str, Role]) -> pd.DataFrame:
    """Returns the patients to develop on; everybody where every cohort is external."""
    names = [name for name, role in roles.items() if role == "develop"]
    return patients[patients["cohort"].isin(names)] if names else patients


def _exclude_patients(
    patients: pd.DataFrame, tasks: Mapping[str, TaskSpec], roles: Mapping[str, Role]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    has_data = (patients["n_slides"] > 0) | patients["has_expression"]
    outcomes = pd.DataFrame({name: task.cases(patients) for name, task in tasks.items()})
    is_external = patients["cohort"].map(roles) == "external"  # predicted with or without an outcome
    has_outcome = is_external | outcomes.notna().any(axis=1)
    reasons = [
        ("patient", str(patient), "no slide and no expression" if not data else f"unknown outcome of {preview(tasks)}")
        for patient, data, outcome in zip(patients["patient_id"], has_data, has_outcome, strict=True)
        if not (data and outcome)
    ]
    return patients[has_data & has_outcome].reset_index(drop=True), exclusion_table(reasons)


def _refuse_nobody(cohorts: Sequence[CohortSources], patients: pd.DataFrame, excluded: pd.DataFrame) -> None:
    for cohort in cohorts:
        if (patients["cohort"] == cohort.name).any():
            continue
        of_tables = cohort.exclusions[cohort.exclusions["level"] == "patient"]
        counts = join_exclusions(
            [of_tables, excluded[excluded["id"].isin(cohort.patients["patient_id"])]]
        )["reason"].value_counts()  # fmt: skip
        reasons = preview([f"{reason} ({count})" for reason, count in counts.items()])
        raise NothingLeft(
            f"{cohort.name}: at least one patient with data is required. Found none among {cohort.n_listed} of "
            f"the clinical table. Reasons: {reasons or 'the clinical table is empty'}.",
            join_exclusions([*(each.exclusions for each in cohorts), excluded]),
        )


def _refuse_no_data(cohorts: Sequence[CohortSources], patients: pd.DataFrame, excluded: pd.DataFrame) -> None:
    """Refuses a cohort whose slides or whose expression all belong to patients that are excluded."""
    for cohort in cohorts:
        used = patients[patients["cohort"] == cohort.name]
        lost = [("slides", bool(cohort.slides) and not used["n_slides"].any()),
                ("expression", cohort.expression is not None and not used["has_expression"].any())]  # fmt: skip
        for kind, is_lost in lost:
            if is_lost:
                raise NothingLeft(
                    f"{cohort.name}: {kind} of a patient that is used are required where `{kind}` is declared. Found "
                    f"only those of excluded patients. Commonest reasons: {commonest_reasons(excluded)}. Correct the "
                    f"clinical table, or remove `{kind}`.",
                    join_exclusions([*(each.exclusions for each in cohorts), excluded]),
                )


def _orphans(slides: Sequence[SlideSource], kept: Collection[str]) -> pd.DataFrame:
    return exclusion_table(
        ("slide", slide.slide_id, f"{slide.patient_id} is not in the cohort")
        for slide in slides
        if slide.patient_id not in kept
    )


def _expression_of(pooled: PooledSources, kept: Collection[str]) -> tuple[ExpressionTable | None, pd.DataFrame]:
    if pooled.expression is None:
        return None, exclusion_table()
    expression, left_out = restrict_expression(pooled.expression, kept)
    return expression, join_exclusions([expression.exclusions, left_out])


def _warnings_of_cohorts(
    cohorts: Sequence[CohortSources], cohort_file: CohortFile, patients: pd.DataFrame
) -> list[str]:
    """Returns the warnings of every cohort, judged by the patients in use; with its name if several."""
    warnings = []
    for cohort, section in zip(cohorts, cohort_file.members, strict=True):
        used = patients[patients["cohort"] == cohort.name]
        prefix = f"{cohort.name}: " if len(cohorts) > 1 else ""
        judged = outcome_warnings(used, is_unit_open=is_unit_open(section.patients))
        warnings += [prefix + text for text in (*cohort.warnings, *judged)]
        for name, task in cohort_file.endpoints.items():
            follow_up = task.outcomes(used).set_axis(FOLLOW_UP, axis=1)
            judged = follow_up_warnings(
                used.assign(**follow_up),
                section=f"patients.endpoints.{name}",
                column=f"{task.time}",
                is_unit_open=is_unit_open(section.patients, name),
            )
            warnings += [f"{prefix}{name}: {text}" for text in judged]
    return warnings


def _aliases(cohort_file: CohortFile) -> dict[Path | None, dict[str, str]]:
    """Returns the gene names of every declared table, in the order of the cohorts, and last the built-in ones alone."""
    declared = dict.fromkeys(_table_of_aliases(section) for section in cohort_file.members)
    return {path: gene_aliases(path) for path in [*filter(None, declared), None]}


def _table_of_aliases(section: CohortSection) -> Path | None:
    return None if section.expression is None else section.expression.aliases


def _harmonisation(
    cohorts: Sequence[CohortSources], gene_sets: Mapping[str, Sequence[str]], kept: Collection[str]
) -> pd.DataFrame:
    """Returns how the expression of every cohort compares with that of the reference.

    The reference is the first cohort with expression, of those to develop on where there are any.

    Columns: `cohort`, `reference`, and those of `harmonise`. Genes that only some cohorts measure are still counted.
    """
    measured = [(c, restrict_expression(c.expression, kept)[0]) for c in cohorts if c.expression is not None]
    measured = [(cohort, table) for cohort, table in measured if len(table.values)]
    measured.sort(key=lambda pair: pair[0].role)  # develop before external
    compared = []
    for cohort, table in measured[1:]:
        reference, its_table = measured[0]
        rows = harmonise(its_table, table, gene_sets)
        rows.insert(0, "cohort", cohort.name)
        rows.insert(1, "reference", reference.name)
        compared.append(rows)
    return pd.concat(compared, ignore_index=True) if compared else pd.DataFrame()


def _refuse_names_of_genes(covariates: Sequence[str], genes: Sequence[str], in_table: Mapping[str, str]) -> None:
    shared = [both_names(name, in_table.get(name)) for name in sorted(set(covariates) & set(genes))]
    if shared:
        raise ConfigurationError(
            f"covariates: {preview(shared)} must not have the name of a gene. Rename it in patients.columns."
        )

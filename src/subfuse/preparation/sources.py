"""The tables of every cohort of a file, read one by one and pooled: patients, slides, expression on one gene axis."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import pandas as pd

from subfuse.clinical.reading import read_clinical
from subfuse.cohort.cohort_file import CohortSection, Role
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.exclusions import NothingLeft, example_of, exclusion_table, join_exclusions
from subfuse.expression.gene_names import case_hint, other_case
from subfuse.expression.reading import read_expression
from subfuse.expression.table import ExpressionTable
from subfuse.expression.units import ShareBasis, renormalise
from subfuse.identifiers import NAME_RULE, describe_mismatch, is_plain_name, spelt_otherwise
from subfuse.preparation.slides.slide_table import read_slides, require_slides
from subfuse.slides.source import FeatureSource, SlideSource

_UNIT_OF_SCALE = {"cohort_zscore": "zscore"}  # of pooled units: tpm and fpkm meet as log2_tpm, which is a unit itself


@dataclass(frozen=True)
class CohortSources:
    """What the tables of one cohort hold. Patients without data or outcome are still in."""

    name: str
    role: Role
    patients: pd.DataFrame  # columns of patients.csv, sorted by patient_id
    slides: tuple[SlideSource, ...]  # existing ones, sorted
    expression: ExpressionTable | None
    exclusions: pd.DataFrame  # level, id, reason
    warnings: tuple[str, ...]
    n_listed: int  # patients of the clinical table, those that it excludes itself among them


@dataclass(frozen=True)
class PooledSources:
    """What the tables of all cohorts hold together."""

    patients: pd.DataFrame  # as in CohortSources; labels that a cohort lacks are None
    slides: tuple[SlideSource, ...]
    expression: ExpressionTable | None  # on the genes that every cohort with expression measures
    exclusions: pd.DataFrame


def read_sources(
    section: CohortSection, keep_genes: Collection[str], aliases: Mapping[str, str] | None = None
) -> CohortSources:
    """Returns what a cohort's tables hold; opens no slide.

    Args:
        section: The cohort.
        keep_genes: Symbols that are kept whatever their type, see `read_expression`.
        aliases: Names of genes to approved symbols; None: as the cohort declares them.

    Raises:
        ConfigurationError: Neither slides nor expression is declared.
        DataError: A table cannot be used, or a patient's identifier cannot name a folder.
        NothingLeft: Slides or expression are declared, and no patient has any.
    """
    if section.slides is None and section.expression is None:
        raise ConfigurationError(f"{section.name}: slides or expression must be declared. Found neither.")
    clinical = read_clinical(section.patients)
    _check_identifiers(clinical.patients["patient_id"].tolist(), section.name)
    excluded = clinical.exclusions
    known = [*clinical.patients["patient_id"], *excluded["id"]]  # excluded ones' slides are named as such
    slides: tuple[SlideSource, ...] = ()
    slide_exclusions = exclusion_table()
    slide_warnings: tuple[str, ...] = ()
    if section.slides is not None:
        slides, slide_exclusions, slide_warnings = read_slides(section.slides, known)
        require_slides(section.slides, known, slides, join_exclusions([clinical.exclusions, slide_exclusions]))
    expression = None
    others = exclusion_table()  # other people in the expression source
    if section.expression is not None:
        expression = read_expression(section.expression, aliases=aliases, keep_genes=keep_genes, patients=known)
        measured = expression.values.index
        expression, others = restrict_expression(expression, clinical.patients["patient_id"].tolist())
        if expression.values.empty:
            raise NothingLeft(
                f"{section.expression.place}: expression of the cohort's patients is "
                f"required where `expression` is declared. Found that of {len(measured)} others. "
                f"{describe_mismatch(known, {'expression': measured}, of_ours='patients')}. Correct the "
                "identifiers, give a sample_sheet, or remove `expression`.",
                join_exclusions([clinical.exclusions, slide_exclusions, others]),
            )
    patients = _describe(clinical.patients, section.name, slides, expression)
    lost = join_exclusions([slide_exclusions, *(() if expression is None else (expression.exclusions, others))])
    return CohortSources(
        name=section.name,
        role=section.role,
        patients=patients,
        slides=slides,
        expression=expression,
        exclusions=join_exclusions([clinical.exclusions, slide_exclusions, others]),
        warnings=(
            *clinical.warnings,
            *slide_warnings,
            *(() if expression is None else expression.warnings),
            *_nearly_empty(patients, lost),
        ),
        n_listed=len({*clinical.patients["patient_id"], *excluded.loc[excluded["level"] == "patient", "id"]}),
    )


def _nearly_empty(patients: pd.DataFrame, exclusions: pd.DataFrame) -> Iterator[str]:
    """Yields a warning for a modality that half of the patients or fewer have, with the likely cause."""
    has = {"slide": patients["n_slides"] > 0, "expression": patients["has_expression"]}
    for level, known in has.items():
        if 0 < 2 * known.sum() <= len(patients):
            words = f"only {known.sum()} of {len(patients)} patients have {'slides' if level == 'slide' else level}"
            yield f"{words}. {example_of(exclusions[exclusions['level'] == level])}"


def pool_sources(cohorts: Sequence[CohortSources]) -> PooledSources:
    """Returns the cohorts as one: patients below one another, expression on the genes that all of them measure.

    Cohorts may share a source: what one of them leaves out and another uses is not listed as excluded. A gene that a
    cohort with expression lacks is excluded, with the names of the cohorts that have it and that do not.

    Raises:
        ConfigurationError: Some cohorts have slides and others ready features.
        DataError: A patient or a slide is in two cohorts, the expression scales differ, or no gene is shared.
    """
    _refuse_shared(cohorts)
    expression, dropped = pool_expression({c.name: c.expression for c in cohorts if c.expression is not None})
    labels = list(dict.fromkeys(str(name) for cohort in cohorts for name in cohort.patients))
    patients = pd.concat([_with_columns(cohort.patients, labels) for cohort in cohorts], ignore_index=True)
    return PooledSources(
        patients=patients.sort_values("patient_id", ignore_index=True),
        slides=tuple(sorted((s for cohort in cohorts for s in cohort.slides), key=lambda slide: slide.slide_id)),
        expression=expression,
        exclusions=join_exclusions([*(_left_out(cohort.exclusions, cohorts) for cohort in cohorts), dropped]),
    )


def pool_expression(tables: dict[str, ExpressionTable]) -> tuple[ExpressionTable | None, pd.DataFrame]:
    """Returns several cohorts' tables below one another on their shared genes, and the genes that were dropped.

    Genes are matched by name and keep the order of the first table.

    Raises:
        DataError: Their scales differ, or no gene is in all of them. Names the cohorts.
    """
    if len(tables) < 2:
        return next(iter(tables.values()), None), exclusion_table()
    names, parts = list(tables), list(tables.values())
    for name, part in zip(names[1:], parts[1:], strict=True):
        if part.scale != parts[0].scale:
            raise DataError(
                f"cohorts of one file must have expression on one scale. Found {parts[0].scale} (unit {parts[0].unit}) "
                f"in {names[0]} and {part.scale} (unit {part.unit}) in {name}. Convert one, declare "
                "`standardise: cohort` in `expression` of each, or prepare them apart."
            )
    shared = reduce(lambda genes, part: genes.intersection(part.values.columns, sort=False), parts[1:],
                    parts[0].values.columns)  # fmt: skip
    if shared.empty:
        examples = "; ".join(f"{name}: {preview(part.values.columns, 3)}" for name, part in tables.items())
        axes = [part.values.columns for part in parts]
        hint = next(filter(None, (case_hint(axes[0], axis) for axis in axes[1:])), "")
        raise DataError(f"cohorts of one file must share genes. Found none in all of them ({examples}).{hint}")
    bases = {part.basis for part in parts}
    as_they_are = len(bases) == 1 or None in bases  # shares over unknown genes are those of the whole transcriptome
    values = [part.values[shared] if as_they_are else _on_shared_genes(part, shared) for part in parts]
    units = {part.unit for part in parts}
    pooled = replace(
        parts[0],
        values=pd.concat(values).sort_index(),
        basis=(bases.pop() if len(bases) == 1 else None) if as_they_are else ShareBasis.of(list(shared)),
        unit=units.pop() if len(units) == 1 else _UNIT_OF_SCALE.get(parts[0].scale, parts[0].scale),
        transform="; ".join(f"{name}: {part.transform}" for name, part in tables.items())
        + ("" if as_they_are else f"; then as shares over the {len(shared)} genes of all"),
        source={f"{name}: {key}": value for name, part in tables.items() for key, value in part.source.items()},
        exclusions=join_exclusions([part.exclusions for part in parts]),
        genes=_described(parts, shared),
    )
    return pooled, _dropped_genes(tables, set(shared))


def _described(parts: Sequence[ExpressionTable], shared: pd.Index) -> pd.DataFrame:
    """Returns what the first cohort knows of the genes, and the first other name that any of them has for each."""
    names: dict[str, str] = {}
    for part in reversed(parts):
        names |= part.names_in_source
    if not len(parts[0].genes) and not names:
        return pd.DataFrame()
    genes = parts[0].genes.reindex(shared).fillna("")
    return genes.assign(name_in_source=[names.get(gene, "") for gene in shared])


def _on_shared_genes(part: ExpressionTable, shared: pd.Index) -> pd.DataFrame:
    """Returns shares over the genes of all cohorts: those over other genes cannot be compared."""
    values = part.values[shared]
    return pd.DataFrame(renormalise(values.to_numpy()), index=values.index, columns=shared)


def restrict_expression(
    expression: ExpressionTable, patient_ids: Collection[str]
) -> tuple[ExpressionTable, pd.DataFrame]:
    """Returns the rows of these patients, and the others as exclusions."""
    used = expression.values.index.isin(list(patient_ids))
    if used.all():
        return expression, exclusion_table()
    like = spelt_otherwise(expression.values.index.astype(str), patient_ids)
    left_out = exclusion_table(
        ("expression", patient, f"its patient is not in the cohort{like.get(patient, '')}")
        for patient in expression.values.index[~used].astype(str)
    )
    return replace(expression, values=expression.values[used]), left_out


def _left_out(exclusions: pd.DataFrame, cohorts: Sequence[CohortSources]) -> pd.DataFrame:
    """Returns the exclusions without slides and expression that some cohort uses."""
    used = {("slide", slide.slide_id) for cohort in cohorts for slide in cohort.slides}
    for cohort in cohorts:
        if cohort.expression is not None:
            used |= {("expression", str(patient)) for patient in cohort.expression.values.index}
    rows = exclusions.itertuples(index=False, name=None)
    return exclusion_table(row for row in rows if row[:2] not in used)


def _dropped_genes(tables: dict[str, ExpressionTable], shared: set[str]) -> pd.DataFrame:
    measured = {name: set(part.values.columns) for name, part in tables.items()}
    others = {name: part.names_in_source for name, part in tables.items()}
    every = sorted(set().union(*measured.values()) - shared)
    spelt = {
        name: {gene: f" (it has {other})" for gene, other in other_case(every, genes).items()}
        for name, genes in measured.items()
    }
    rows = []
    for gene in every:
        having = [
            f"{name} (as {others[name][gene]})" if gene in others[name] else name
            for name in tables
            if gene in measured[name]
        ]
        lacking = [f"{name}{spelt[name].get(gene, '')}" for name in tables if gene not in measured[name]]
        rows.append(("gene", gene, f"measured in {' and '.join(having)} but not in {' and '.join(lacking)}"))
    return exclusion_table(rows)


def _describe(
    clinical: pd.DataFrame, name: str, slides: Sequence[SlideSource], expression: ExpressionTable | None
) -> pd.DataFrame:
    counts = Counter(slide.patient_id for slide in slides)
    measured = set() if expression is None else set(expression.values.index)
    table = clinical.copy()
    table.insert(1, "cohort", name)
    return table.assign(
        n_slides=[counts[patient] for patient in table["patient_id"]],
        has_expression=table["patient_id"].isin(measured),
    )


def _with_columns(patients: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    unknown = pd.Series([None] * len(patients), index=patients.index, dtype=object)
    return patients.assign(**{name: unknown for name in columns if name not in patients})[list(columns)]


def _refuse_shared(cohorts: Sequence[CohortSources]) -> None:
    """Refuses what occurs in two cohorts: it would be on both sides of a fold, or overwrite the other's files."""
    with_slides = [cohort for cohort in cohorts if cohort.slides]
    ready = [cohort.name for cohort in with_slides if isinstance(cohort.slides[0], FeatureSource)]
    others = [cohort.name for cohort in with_slides if cohort.name not in ready]
    if ready and others:
        raise ConfigurationError(
            f"cohorts of one file must all have slides or all have ready features, made by one encoder. Found "
            f"features of {preview(ready)} and slides of {preview(others)}. Prepare them apart."
        )
    for kind, remedy in (("patient", "Choose patients with patients.include"), ("slide", "Rename one")):
        owner: dict[str, str] = {}
        for cohort in cohorts:
            ids = cohort.patients["patient_id"] if kind == "patient" else [slide.slide_id for slide in cohort.slides]
            again = [identifier for identifier in ids if identifier in owner]
            if again:
                raise DataError(
                    f"a {kind} belongs to one cohort. Found {preview(again)} in {owner[again[0]]} and {cohort.name} "
                    f"({len(again)} in all). {remedy}."
                )
            owner |= dict.fromkeys(ids, cohort.name)


def _check_identifiers(patient_ids: Sequence[str], cohort: str) -> None:
    """Refuses identifiers that cannot name a folder, or that would name one elsewhere."""
    unfit = [identifier for identifier in patient_ids if not is_plain_name(identifier)]
    if unfit:
        raise DataError(
            f"{cohort}: patient identifiers name folders: {NAME_RULE}. Found "
            f"{preview([repr(name[:60]) for name in unfit])}. Rename them in all tables."
        )

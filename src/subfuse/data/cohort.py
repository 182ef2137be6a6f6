"""Patients and cohorts as every later stage sees them: the join of all sources, checks, exclusions with reasons."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.data.clinical import FIXED_COLUMNS, RESERVED, outcome_warnings, read_clinical
from subfuse.data.cohort_file import CohortFile, TaskSpec, cohort_file_text, read_cohort_file
from subfuse.data.covariates import completeness, covariate_values, resolve_covariates
from subfuse.data.exclusions import exclusion_table, join_exclusions
from subfuse.data.expression import ExpressionTable, read_expression, read_expression_h5ad, write_expression
from subfuse.data.gene_sets import coverage, load_gene_sets, load_pathways, read_gmt, restrict_to_axis
from subfuse.data.slide_table import read_slides
from subfuse.data.slides import SlideSource
from subfuse.data.splits import Fold, given_folds, stratified_folds, unlisted_patients, write_folds
from subfuse.data.tables import read_text_table, require_columns
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.files import write_table, write_text

LABEL_TASKS = ("diagnosis", "grade", "subtype")  # assumed where the cohort file has no `tasks`
SPLITS = Path("splits") / "default"  # in a prepared folder


@dataclass(frozen=True)
class Patient:
    """The unit of splitting, prediction and statistics. None means unknown, never zero."""

    patient_id: str
    cohort: str
    slides: tuple[Path, ...] = ()  # feature files, sorted by slide identifier; empty if there is no slide
    expression: Float[np.ndarray, " gene"] | None = None  # in Cohort.genes order; covariates NaN where unknown
    time_days: float | None = None  # from diagnosis to event or last contact
    event: bool | None = None  # True: the event was observed; False: right-censored
    labels: Mapping[str, str] = field(default_factory=dict)  # every other clinical column that is known
    site: str | None = None  # contributing hospital


@dataclass(frozen=True)
class Cohort:
    """Patients sorted by identifier, with what they share. Patch features stay on disk until a bag is drawn."""

    name: str
    patients: tuple[Patient, ...]
    genes: tuple[str, ...]  # the measured genes, then the covariates
    expression_unit: str | None  # scale of the measured genes: log2_tpm, log2_cpm or zscore
    gene_sets: Mapping[str, tuple[str, ...]]  # subspace -> its genes and all covariates, all of them on `genes`
    tasks: Mapping[str, TaskSpec]
    covariates: tuple[str, ...] = ()  # the last of `genes`: age, gender=male
    pathways: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # single gene sets -> measured genes
    encoder: str | None = None
    encoder_sha256: str | None = None
    patch_dim: int | None = None
    root: Path | None = None  # the prepared folder

    def __len__(self) -> int:
        return len(self.patients)

    def __iter__(self) -> Iterator[Patient]:
        return iter(self.patients)

    def select(self, patient_ids: Collection[str]) -> "Cohort":
        """Returns the cohort of these patients; unknown identifiers are an error."""
        wanted = set(patient_ids)
        missing = wanted - {patient.patient_id for patient in self.patients}
        if missing:
            raise KeyError(f"patient_ids must be in cohort {self.name!r}. Not found: {sorted(missing)[:5]}.")
        return replace(self, patients=tuple(p for p in self.patients if p.patient_id in wanted))


@dataclass(frozen=True)
class CohortPlan:
    """What a cohort file leads to, before any slide is opened."""

    name: str
    role: Literal["develop", "external"]
    patients: pd.DataFrame  # columns of patients.csv, sorted by patient_id
    slides: tuple[SlideSource, ...]  # of these patients, existing, sorted
    expression: ExpressionTable | None  # of these patients
    gene_sets: Mapping[str, tuple[str, ...]]  # subspace -> measured genes; empty tuples without expression
    coverage: pd.DataFrame  # of the gene sets by the measured genes; no rows without expression
    pathways: Mapping[str, tuple[str, ...]]  # single gene set -> measured genes; none without expression
    covariates: tuple[str, ...]  # as resolved: their names say how they are coded
    tasks: Mapping[str, TaskSpec]
    folds: tuple[Fold, ...]  # none for an external cohort
    exclusions: pd.DataFrame  # level, id, reason
    warnings: tuple[str, ...]

    def summary(self) -> str:
        """Returns in a few lines who is used, with what, and how much is known for each task."""
        slides, expression = self.patients["n_slides"] > 0, self.patients["has_expression"]
        lines = [
            f"{self.name} ({self.role}): {len(self.patients)} patients",
            f"  slides: {len(self.slides)} of {slides.sum()} patients",
            f"  expression: {expression.sum()} patients, {(slides & expression).sum()} of them with slides",
        ]
        if self.expression is not None:
            lines[-1] += f"; {self.expression.values.shape[1]} genes, unit {self.expression.unit}"
        for name, task in self.tasks.items():
            known = self.patients["event" if task.column is None else task.column].dropna()
            counts = {"events": int(known.sum())} if task.column is None else known.value_counts().sort_index()
            lines.append(f"  {name}: {len(known)} patients ({', '.join(f'{k}: {n}' for k, n in counts.items())})")
        if self.covariates:
            known = completeness(self.covariates, self.patients)
            lines.append(f"  covariates: {', '.join(f'{name} known for {count}' for name, count in known.items())}")
        if self.folds:
            sizes = "/".join(str(len(fold.test)) for fold in self.folds)
            lines.append(f"  folds: {len(self.folds)}, with {sizes} test patients")
        return "\n".join(lines)


def plan_cohort(cohort_file: CohortFile) -> CohortPlan:
    """Joins everything that a cohort file names: who is used, with what, and who is not, with the reason.

    Reads tables and looks for slide files; opens no slide and writes nothing. A patient needs a slide or expression,
    and, where there are tasks, a known outcome of at least one. A missing modality or label excludes nobody.

    Raises:
        ConfigurationError: A task's column is not declared, or there is nothing to predict or to predict from.
        DataError: A table cannot be used, a label is outside its declared classes, or nobody is left.
    """
    if cohort_file.slides is None and cohort_file.expression is None:
        raise ConfigurationError("slides or expression must be declared in the cohort file. Found neither.")
    clinical = read_clinical(cohort_file.patients)
    tasks = _resolve_tasks(cohort_file, clinical.patients)
    known = clinical.patients["patient_id"].tolist()
    slides: tuple[SlideSource, ...] = ()
    slide_exclusions = exclusion_table()
    warnings: tuple[str, ...] = ()
    if cohort_file.slides is not None:
        listed = [*known, *clinical.exclusions["id"]]  # slides of excluded patients are named as such below
        slides, slide_exclusions, warnings = read_slides(cohort_file.slides, listed)
    wanted = load_gene_sets(cohort_file.gene_sets)
    expression = None
    if cohort_file.expression is not None:
        keep_genes = {gene for genes in wanted.values() for gene in genes}
        expression = read_expression(cohort_file.expression, keep_genes=keep_genes)
    patients = _describe(clinical.patients, cohort_file.name, slides, expression)
    patients, patient_exclusions = _exclude_patients(patients, tasks)
    if patients.empty:
        raise DataError(
            f"{cohort_file.name}: at least one patient with data is required. Found none among {len(known)} of "
            f"the clinical table. Reasons: {_reasons(join_exclusions([clinical.exclusions, patient_exclusions]))}."
        )
    kept = set(patients["patient_id"])
    expression_exclusions = [exclusion_table()]
    if expression is not None:
        expression, left_out = _restrict(expression, kept)
        expression_exclusions = [expression.exclusions, left_out]
    orphans = exclusion_table(
        ("slide", slide.slide_id, f"{slide.patient_id} is not in the cohort")
        for slide in slides
        if slide.patient_id not in kept
    )
    tasks, task_warnings = _resolve_classes(tasks, patients, cohort_file.role)
    genes = [] if expression is None else list(expression.values.columns)
    covariates = resolve_covariates(cohort_file.covariates, patients, tasks)
    _check_axis(covariates, genes, patients)
    folds, fold_warnings = _make_folds(cohort_file, tasks, patients)
    return CohortPlan(
        name=cohort_file.name,
        role=cohort_file.role,
        patients=patients,
        slides=tuple(slide for slide in slides if slide.patient_id in kept),
        expression=expression,
        gene_sets=restrict_to_axis(wanted, genes) if genes else dict.fromkeys(wanted, ()),
        coverage=coverage(wanted, genes) if genes else coverage({}, []),
        pathways=load_pathways(cohort_file.gene_sets, genes),
        covariates=covariates,
        tasks=tasks,
        folds=folds,
        exclusions=join_exclusions(
            [clinical.exclusions, patient_exclusions, slide_exclusions, orphans, *expression_exclusions]
        ),
        warnings=(*clinical.warnings, *outcome_warnings(patients), *warnings, *task_warnings, *fold_warnings),
    )


def write_prepared(
    out: Path, cohort_file: CohortFile, plan: CohortPlan, slides: pd.DataFrame, exclusions: pd.DataFrame
) -> pd.DataFrame:
    """Writes the tables of a prepared folder and returns all exclusions.

    A patient whose slides all failed and who has no expression is excluded here, and leaves its fold; the others stay
    where they were. Writes patients.csv, slides.csv, exclusions.csv, expression.h5ad, gene_sets.gmt (measured genes of
    each subspace), pathways.gmt (those of every single set), the resolved cohort.yaml and the folds.
    `provenance.json` is left to the caller: it marks the folder complete.

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
    folds = tuple(_restrict_fold(fold, kept, k) for k, fold in enumerate(plan.folds))
    write_table(out / "patients.csv", patients)
    write_table(out / "slides.csv", slides.sort_values("slide_id"))
    write_table(out / "exclusions.csv", exclusions)
    if plan.expression is not None:
        write_expression(out / "expression.h5ad", _restrict(plan.expression, kept)[0])
        write_text(out / "gene_sets.gmt", _gmt_text(plan.gene_sets, "measured genes of the subspace"))
        write_text(out / "pathways.gmt", _gmt_text(plan.pathways, "measured genes of the set"))
    resolved = {"tasks": dict(plan.tasks), "covariates": plan.covariates}
    write_text(out / "cohort.yaml", cohort_file_text(cohort_file.model_copy(update=resolved)))
    if folds:
        write_folds(out / SPLITS, folds)
    return exclusions


def read_cohort(prepared: Path) -> Cohort:
    """Returns a prepared cohort. Expression is read into memory once and shared; patch features stay on disk.

    Covariates follow the genes: on the gene axis, in the values of every patient with expression, and in every
    subspace. In a cohort without expression they are the whole axis, and a patient has values if any is known.

    Raises:
        DataError: The folder is not completely prepared, or a feature file is gone.
    """
    root = Path(prepared)
    provenance = _read_provenance(root)
    cohort_file = read_cohort_file(root / "cohort.yaml")
    patients = read_patients(root)
    slides = _slides_by_patient(root)
    table = read_expression_h5ad(root / "expression.h5ad") if (root / "expression.h5ad").exists() else None
    covariates = cohort_file.covariates
    rows = _values_by_patient(table, patients, covariates)
    gene_sets = dict.fromkeys(cohort_file.gene_sets, ()) if table is None else read_gmt(root / "gene_sets.gmt")
    labels = [name for name in patients if name not in (*FIXED_COLUMNS, *RESERVED)]
    return Cohort(
        name=cohort_file.name,
        patients=tuple(
            Patient(
                patient_id=record["patient_id"],
                cohort=record["cohort"],
                slides=slides.get(record["patient_id"], ()),
                expression=rows.get(record["patient_id"]),
                time_days=None if pd.isna(record["time_days"]) else float(record["time_days"]),
                event=None if pd.isna(record["event"]) else bool(record["event"]),
                labels={str(name): record[name] for name in labels if record[name] is not None},
                site=record["site"],
            )
            for record in patients.to_dict("records")
        ),
        genes=(*(() if table is None else table.values.columns), *covariates),
        expression_unit=None if table is None else table.scale,
        gene_sets={name: (*genes, *covariates) for name, genes in gene_sets.items()},
        tasks=cohort_file.tasks or {},
        covariates=covariates,
        pathways={} if table is None else read_gmt(root / "pathways.gmt"),
        encoder=provenance.get("encoder"),
        encoder_sha256=provenance.get("encoder_sha256"),
        patch_dim=provenance.get("patch_dim"),
        root=root,
    )


def read_patients(prepared: Path) -> pd.DataFrame:
    """Returns `patients.csv` of a prepared folder with its types: text (None where unknown), days, events, counts."""
    path = Path(prepared) / "patients.csv"
    table = read_text_table(path)
    require_columns(table, dict.fromkeys((*FIXED_COLUMNS, *RESERVED), "see `subfuse prepare`"), path)
    texts = [name for name in table if name not in ("time_days", "event", "n_slides", "has_expression")]
    for name in texts:
        table[name] = [cell or None for cell in table[name]]
    truth = {"True": True, "False": False, "": pd.NA}
    table["time_days"] = pd.to_numeric(table["time_days"].replace("", np.nan)).astype(float)
    table["event"] = table["event"].map(truth).astype("boolean")
    table["n_slides"] = table["n_slides"].astype(int)
    table["has_expression"] = table["has_expression"].map(truth).astype(bool)
    return table


def _describe(
    clinical: pd.DataFrame, name: str, slides: Sequence[SlideSource], expression: ExpressionTable | None
) -> pd.DataFrame:
    counts = pd.Series([slide.patient_id for slide in slides], dtype=object).value_counts()
    measured = set() if expression is None else set(expression.values.index)
    table = clinical.copy()
    table.insert(1, "cohort", name)
    return table.assign(
        n_slides=table["patient_id"].map(counts).fillna(0).astype(int),
        has_expression=table["patient_id"].isin(measured),
    )


def _resolve_tasks(cohort_file: CohortFile, patients: pd.DataFrame) -> dict[str, TaskSpec]:
    labels = [name for name in patients if name not in FIXED_COLUMNS]
    followed = bool(patients["event"].notna().any())
    tasks = cohort_file.tasks
    if tasks is None:
        tasks = {"survival": TaskSpec(time="time_days", event="event")} if followed else {}
        tasks |= {
            name: TaskSpec(column=name) for name in LABEL_TASKS if name in labels and patients[name].notna().any()
        }
    if not tasks and cohort_file.role == "develop":
        raise ConfigurationError(
            "tasks: at least one is required to develop models. Map time_days and event, or a label, in "
            f"patients.columns. Found the columns {preview(labels, limit=12)}."
        )
    for name, task in tasks.items():
        if task.is_survival and not followed:
            raise ConfigurationError(
                f"tasks.{name}: time_days and event must be known for some patients. Found none. Map them in "
                "patients.columns, or remove the task."
            )
        if task.column is not None and task.column not in labels:
            raise ConfigurationError(
                f"tasks.{name}.column: {task.column!r} is not a column of the patients. "
                f"They have {preview(labels, limit=12)}. Add it to patients.columns."
            )
    return dict(tasks)


def _resolve_classes(
    tasks: Mapping[str, TaskSpec], patients: pd.DataFrame, role: str
) -> tuple[dict[str, TaskSpec], tuple[str, ...]]:
    """Fixes the order of every classification task's classes; an external cohort leaves it to the trained model."""
    resolved, warnings = {}, []
    for name, task in tasks.items():
        resolved[name] = task
        if task.column is None:
            continue
        found = sorted(patients[task.column].dropna().unique())
        extra = [label for label in found if task.classes is not None and label not in task.classes]
        if extra:
            raise DataError(
                f"tasks.{name}: every label of {task.column} must be one of {preview(task.classes or (), limit=9)}. "
                f"Found {preview(extra)}. Add them to `classes`, or empty these cells."
            )
        if role == "external":
            continue
        if len(found) < 2:
            raise DataError(
                f"tasks.{name}: at least two classes of {task.column} are required. Found {found or 'none'}."
            )
        resolved[name] = task.model_copy(update={"classes": task.classes or tuple(found)})
        absent = sorted(set(task.classes or ()) - set(found))
        if absent:
            warnings.append(f"tasks.{name}: no patient has {preview(absent)}")
    return resolved, tuple(warnings)


def _exclude_patients(patients: pd.DataFrame, tasks: Mapping[str, TaskSpec]) -> tuple[pd.DataFrame, pd.DataFrame]:
    has_data = (patients["n_slides"] > 0) | patients["has_expression"]
    columns = ["event" if task.column is None else task.column for task in tasks.values()]
    has_outcome = patients[columns].notna().any(axis=1) if columns else pd.Series(True, index=patients.index)
    reasons = [
        ("patient", str(patient), "no slide and no expression" if not data else f"unknown outcome of {preview(tasks)}")
        for patient, data, outcome in zip(patients["patient_id"], has_data, has_outcome, strict=True)
        if not (data and outcome)
    ]
    return patients[has_data & has_outcome].reset_index(drop=True), exclusion_table(reasons)


def _restrict(expression: ExpressionTable, kept: Collection[str]) -> tuple[ExpressionTable, pd.DataFrame]:
    used = expression.values.index.isin(list(kept))
    left_out = exclusion_table(
        ("expression", str(patient), "its patient is not in the cohort") for patient in expression.values.index[~used]
    )
    return replace(expression, values=expression.values[used]), left_out


def _make_folds(
    cohort_file: CohortFile, tasks: Mapping[str, TaskSpec], patients: pd.DataFrame
) -> tuple[tuple[Fold, ...], tuple[str, ...]]:
    if cohort_file.role == "external":
        return (), ()
    splits = cohort_file.splits
    columns = ["event" if task.column is None else task.column for task in tasks.values()]
    stratify = splits.stratify if splits.stratify is not None else ("event" if "event" in columns else columns[0],)
    if splits.folder is None:
        assert splits.folds is not None  # SplitsSection fills it in
        return (
            stratified_folds(
                patients, folds=splits.folds, validation=splits.validation, stratify=stratify, seed=splits.seed
            ),
            (),
        )
    known = patients["patient_id"].tolist()
    folds = given_folds(
        splits.folder, known, validation=splits.validation, seed=splits.seed, patients=patients, stratify=stratify
    )
    return folds, unlisted_patients(splits.folder, known)


def _restrict_fold(fold: Fold, kept: Collection[str], number: int) -> Fold:
    sides = [tuple(patient for patient in side if patient in kept) for side in (fold.train, fold.validation, fold.test)]
    if not all(sides):
        raise DataError(
            f"fold {number}: patients to train on, validate with and test are required. After exclusions there are "
            f"{len(sides[0])}, {len(sides[1])} and {len(sides[2])}. Use fewer folds, or repair the excluded slides."
        )
    return Fold(*sides)


def _reasons(exclusions: pd.DataFrame) -> str:
    counts = exclusions["reason"].value_counts()
    return preview([f"{reason} ({count})" for reason, count in counts.items()]) or "the clinical table is empty"


def _check_axis(covariates: Sequence[str], genes: Sequence[str], patients: pd.DataFrame) -> None:
    """Refuses covariates that are named like a gene or hold a word where a number is declared."""
    shared = sorted(set(covariates) & set(genes))
    if shared:
        raise ConfigurationError(
            f"covariates: {preview(shared)} must not have the name of a gene. Rename it in patients.columns."
        )
    covariate_values(covariates, patients)


def _values_by_patient(
    table: ExpressionTable | None, patients: pd.DataFrame, covariates: Sequence[str]
) -> dict[str, np.ndarray]:
    """Returns expression and covariates of every patient that has expression; covariates alone if nobody has any."""
    known = covariate_values(covariates, patients)
    if table is None:
        return {
            patient: row for patient, row in zip(patients["patient_id"], known, strict=True) if np.isfinite(row).any()
        }
    if not covariates:
        return dict(zip(table.values.index, table.values.to_numpy(), strict=True))
    rows = dict(zip(patients["patient_id"], known, strict=True))
    beside = np.stack([rows[patient] for patient in table.values.index])
    values = np.concatenate([table.values.to_numpy(), beside], axis=1)
    return dict(zip(table.values.index, values, strict=True))


def _gmt_text(gene_sets: Mapping[str, Sequence[str]], description: str) -> str:
    return "".join("\t".join([name, description, *genes]) + "\n" for name, genes in gene_sets.items())


def _read_provenance(root: Path) -> dict[str, Any]:
    try:
        return json.loads((root / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{root}: a completely prepared folder is required. Found no readable provenance.json. "
            "Run `subfuse prepare COHORT.yaml --out` with this folder."
        ) from error


def _slides_by_patient(root: Path) -> dict[str, tuple[Path, ...]]:
    path = root / "slides.csv"
    table = read_text_table(path)
    require_columns(table, {"slide_id": "the slide", "patient_id": "its patient", "features": "its file"}, path)
    slides: dict[str, tuple[Path, ...]] = {}
    for record in table.sort_values("slide_id").to_dict("records"):
        features = root / record["features"]
        if not features.exists():
            raise DataError(f"{path}: feature file {record['features']} is required. Found none. Run prepare again.")
        slides[record["patient_id"]] = (*slides.get(record["patient_id"], ()), features)
    return slides

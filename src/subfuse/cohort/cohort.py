"""Patients and cohorts as every later stage sees them, and how a prepared folder is read."""

import functools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.bounded_files import file_of
from subfuse.clinical.columns import FIXED_COLUMNS, RESERVED
from subfuse.cohort.cohort_file import CohortFile, read_cohort_file
from subfuse.cohort.covariates import CovariateValues, column_of
from subfuse.cohort.marker import (
    COHORT_FILE,
    EXPRESSION,
    GENE_SETS,
    PATHWAYS,
    PATIENTS,
    PROVENANCE,
    SLIDES,
    read_mark,
    require_prepared,
)
from subfuse.cohort.task import FOLLOW_UP, TaskSpec
from subfuse.errors import ConfigurationError, DataError, counted, listed, preview
from subfuse.expression.gene_names import read_aliases
from subfuse.expression.gene_sets import read_gmt
from subfuse.expression.table import ExpressionTable, read_expression_h5ad
from subfuse.expression.units import ShareBasis
from subfuse.files import sha256_of_file, without_marks
from subfuse.tables import read_text_table, require_columns


@dataclass(frozen=True)
class Patient:
    """The unit of splitting, prediction and statistics. None means unknown, never zero."""

    patient_id: str
    cohort: str
    slides: tuple[Path, ...] = ()  # feature files, sorted by slide identifier; empty if there is no slide
    expression: Float[np.ndarray, " gene"] | None = None  # in Cohort.genes order
    covariates: CovariateValues = field(default_factory=dict)  # column -> value, where known
    time_days: float | None = None  # from diagnosis to event or last contact
    event: bool | None = None  # True: the event was observed; False: right-censored
    labels: Mapping[str, str] = field(default_factory=dict)  # every other clinical column that is known
    site: str | None = None  # contributing hospital

    @property
    def columns(self) -> CovariateValues:
        """Every column of the patient that a model can be told to read, where known."""
        site = {} if self.site is None else {"site": self.site}
        return {"cohort": self.cohort, **self.labels, **self.covariates, **site}

    def outcome(self, task: TaskSpec) -> tuple[float | bool | str | None, ...]:
        """Returns what is to be predicted, in the order of `TaskSpec.outcome_columns`."""
        if task.is_survival:
            is_own = (task.time, task.event) == FOLLOW_UP
            time_days, event = (self.time_days, self.event) if is_own else task.follow_up(self.labels)
            return (time_days, event if task.cause is None else task.of_cause(self.labels))
        if task.is_regression:
            return (task.number(self.labels),)
        label = self.labels.get(task.label_column)
        return (None if label in (task.leave_out or ()) else label,)

    def has_outcome(self, task: TaskSpec) -> bool:
        """Returns whether all of it is known."""
        return None not in self.outcome(task)


@dataclass(frozen=True, repr=False)
class Cohort:
    """Patients sorted by identifier, with what they share. Patch features stay on disk until a bag is drawn."""

    name: str
    patients: tuple[Patient, ...]
    genes: tuple[str, ...]  # the measured ones
    expression_unit: str | None  # scale of the measured genes: log2_tpm, log2_cpm or zscore
    expression_basis: ShareBasis | None = field(default=None, kw_only=True)  # genes below the sums of shares
    gene_sets: Mapping[str, tuple[str, ...]]  # subspace -> its genes, all of them on `genes`
    tasks: Mapping[str, TaskSpec]
    covariates: tuple[str, ...] = ()  # age, gender=male (that word is coded 1); every subspace sees all of them
    batch: str | None = None  # column of projects, scanners or sequencing runs, whose signal is not biology
    strata: tuple[str, ...] = ()  # columns within which results are shown too, the batch among them
    pathways: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # single gene sets -> measured genes
    gene_aliases: Mapping[str, str] = field(default_factory=dict)  # declared ones, beside those that are built in
    names_in_table: Mapping[str, str] = field(default_factory=dict)  # of genes that the user's table names otherwise
    encoder: str | None = None
    encoder_sha256: str | None = None
    patch_dim: int | None = None
    tiling: Mapping[str, int | float] | None = field(default=None, kw_only=True)  # None: of features of other tools
    stain: str | None = field(
        default=None, kw_only=True
    )  # how it was normalised; None: colours as they are, or unknown
    patch_um: Mapping[Path, float] = field(default_factory=dict)  # feature file -> side of its patches, where known
    root: Path | None = None  # the prepared folder
    given_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # without a prepared folder, see `told`
    _read_from: "_Place | None" = field(default=None, init=False, compare=False)  # None once anything was replaced

    def __reduce__(self) -> Any:
        """Sends a cohort that is as it was read by where it is: every process reads it once, however many jobs it does.

        Others are sent with all they hold.
        """
        return object.__reduce__(self) if self._read_from is None else (_read_once, (self._read_from,))

    def __len__(self) -> int:
        return len(self.patients)

    def told(self, what: str) -> str:
        """Returns what messages call its slides, features or expression: by the files that were given, or its name.

        Example:
            >>> cohort = Cohort("tcga", (), (), None, {}, {}, given_files={"slides": ("a.svs",)})
            >>> cohort.told("slides"), cohort.told("expression")
            ('slides of a.svs', "expression of cohort 'tcga'")
        """
        files = self.given_files.get(what)
        return f"{what} of {preview(files) if files else f'cohort {self.name!r}'}"

    def __repr__(self) -> str:
        """Returns a short table: patients by modality, what is known for each task, genes, encoder."""
        slides, measured = [bool(p.slides) for p in self], [p.expression is not None for p in self]
        both = sum(a and b for a, b in zip(slides, measured, strict=True))
        rows = [
            ("patients", f"{len(self)}: {sum(slides)} with slides, {sum(measured)} with expression, {both} with both"),
            *((f"task {name}", self._known(task)) for name, task in self.tasks.items()),
            ("genes", f"{len(self.genes)} ({self.expression_unit or 'no expression'})"),
            ("subspaces", ", ".join(f"{name}: {len(genes)}" for name, genes in self.gene_sets.items())),
            ("encoder", f"{self.encoder or 'none'}{f', {self.patch_dim} features' if self.patch_dim else ''}"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join([f"Cohort {self.name}", *(f"  {name:<{width}}  {text}" for name, text in rows)])

    def _known(self, task: TaskSpec) -> str:
        """How many patients a task has, and their events, classes or range."""
        if task.is_survival:
            events = [bool(p.outcome(task)[1]) for p in self if p.has_outcome(task)]
            return f"{len(events)} patients, {sum(events)} events"
        if task.is_regression:
            values = [float(p.labels[task.label_column]) for p in self if p.has_outcome(task)]
            return f"{len(values)} patients" + (f", {min(values):g} to {max(values):g}" if values else "")
        labels = Counter(p.labels[task.label_column] for p in self if p.has_outcome(task))
        return f"{labels.total()} patients ({listed(f'{name}: {n}' for name, n in sorted(labels.items()))})"

    def __iter__(self) -> Iterator[Patient]:
        return iter(self.patients)

    def select(self, patient_ids: Collection[str]) -> "Cohort":
        """Returns the cohort of these patients.

        Raises:
            KeyError: An identifier is not in the cohort.
        """
        wanted = set(patient_ids)
        missing = wanted - {patient.patient_id for patient in self.patients}
        if missing:
            raise KeyError(f"patient_ids must be in cohort {self.name!r}. Not found: {sorted(missing)[:5]}.")
        return replace(self, patients=tuple(p for p in self.patients if p.patient_id in wanted))


def read_cohort(prepared: Path | str, role: str | None = None) -> Cohort:
    """Returns a prepared cohort. Expression is read into memory once and shared; patch features stay on disk.

    Args:
        prepared: The prepared folder.
        role: Whose patients of a folder with several cohorts: `develop`, `external`, or the name of one cohort.
            Default: those to develop on, or everybody where all cohorts are external.

    Raises:
        ConfigurationError: Nothing was prepared there, or the folder has no cohort of this role or name.
        DataError: The folder is not completely prepared, a table was changed since, or a feature file is gone.
    """
    root = Path(prepared)
    provenance = read_mark(root)
    place = _Place(root.resolve(), role, sha256_of_file(root / PROVENANCE))
    cohort_file = read_resolved(root)
    chosen = _choose_cohorts(cohort_file, role)
    slides = _read_slides(root)
    patients = read_patients(root)
    patients = patients[patients["cohort"].isin(chosen)]
    table = read_expression_h5ad(root / EXPRESSION) if (root / EXPRESSION).exists() else None
    gene_sets = dict.fromkeys(cohort_file.gene_sets, ()) if table is None else read_gmt(root / GENE_SETS)
    covariates = cohort_file.covariates
    cohort = Cohort(
        name=chosen[0] if len(chosen) == 1 else cohort_file.name,
        patients=_patients(patients, _slides_by_patient(slides), _values_by_patient(table), covariates),
        genes=() if table is None else tuple(table.values.columns),
        expression_unit=None if table is None else table.scale,
        expression_basis=None if table is None else table.basis,
        gene_sets=gene_sets,
        tasks=cohort_file.single_tasks or {},
        covariates=covariates,
        batch=cohort_file.batch,
        strata=cohort_file.strata_columns,
        pathways={} if table is None else read_gmt(root / PATHWAYS),
        gene_aliases=_declared_aliases(cohort_file),
        names_in_table={} if table is None else table.names_in_source,
        encoder=provenance.get("encoder"),
        encoder_sha256=provenance.get("encoder_sha256"),
        patch_dim=provenance.get("patch_dim"),
        tiling=provenance.get("tiling"),
        stain=provenance.get("stain"),
        patch_um={path: width for _, path, width in slides if not math.isnan(width)},
        root=root,
    )
    object.__setattr__(cohort, "_read_from", place)
    return cohort


@dataclass(frozen=True)
class _Place:
    """Where a cohort was read, and the hash of what marked the folder complete then."""

    root: Path
    role: str | None
    mark_sha256: str


@functools.lru_cache(maxsize=1)
def _read_once(place: _Place) -> Cohort:
    """Returns the cohort of another process.

    Raises:
        DataError: The folder was prepared again meanwhile.
    """
    cohort = read_cohort(place.root, place.role)
    if cohort._read_from != place:
        raise DataError(
            f"{place.root}: the cohort with which the run began is required. Found that it was prepared again. Start "
            "the run again: what has not changed is kept."
        )
    return cohort


def roles_of(prepared: Path | str) -> dict[str, str]:
    """Returns the cohorts of a prepared folder: name to role, `develop` or `external`.

    Raises:
        ConfigurationError: Nothing was prepared there.
    """
    require_prepared(Path(prepared))
    return {member.name: member.role for member in read_resolved(Path(prepared)).members}


def read_resolved(prepared: Path) -> CohortFile:
    """Returns the cohort file of a prepared folder, as `prepare` resolved it; see `read_cohort_file`."""
    return read_cohort_file(prepared / COHORT_FILE)


def read_patients(prepared: Path) -> pd.DataFrame:
    """Returns `patients.csv` of a prepared folder with its types: text (None where unknown), days, events, counts.

    Raises:
        DataError: It is no such table: a column or an identifier is missing, or a cell is none that `prepare` writes.
    """
    path = Path(prepared) / PATIENTS
    table = without_marks(read_text_table(path))
    require_columns(table, dict.fromkeys((*FIXED_COLUMNS, *RESERVED), "see `subfuse prepare`"), path)
    texts = [name for name in table if name not in ("time_days", "event", "n_slides", "has_expression")]
    for name in texts:
        table[name] = [cell or None for cell in table[name]]
    numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in ("time_days", "n_slides")}
    is_unknown = {name: table[name] == "" for name in ("time_days", "event")}
    truth = {"True": True, "False": False}
    days, n_slides = numbers["time_days"], numbers["n_slides"]
    _require_cells(path, table, "patient_id", ~table["patient_id"].duplicated() & table["patient_id"].notna(), "unique")
    _require_cells(path, table, "time_days", np.isfinite(days) | is_unknown["time_days"], "a number of days or empty")
    _require_cells(path, table, "n_slides", (n_slides >= 0) & (n_slides % 1 == 0), "a whole number from 0")
    _require_cells(path, table, "event", table["event"].isin(truth) | is_unknown["event"], "True, False or empty")
    _require_cells(path, table, "has_expression", table["has_expression"].isin(truth), "True or False")
    return table.assign(
        time_days=days.astype(float),
        event=table["event"].map(truth).astype("boolean"),
        n_slides=n_slides.astype(int),
        has_expression=table["has_expression"].map(truth).astype(bool),
    )


def changed_patients(before: pd.DataFrame, now: pd.DataFrame) -> list[str]:
    """Returns in words who of two tables of `read_patients` is new, gone, or has another value in a column of both."""
    before, now = (table.set_index("patient_id") for table in (before, now))
    both, columns = before.index.intersection(now.index), before.columns.intersection(now.columns)
    old, new = (table.loc[both, columns].astype(str) for table in (before, now))
    changed = {f"other {name}": both[old[name] != new[name]] for name in map(str, columns)}
    found = {"new": now.index.difference(before.index), "gone": before.index.difference(now.index), **changed}
    return [f"{what}: {preview(patients)}" for what, patients in found.items() if len(patients)]


def _require_cells(path: Path, table: pd.DataFrame, name: str, is_right: pd.Series, what: str) -> None:
    if not is_right.all():
        row = int(np.flatnonzero(~is_right)[0])
        raise DataError(
            f"{path}, line {row + 2}: {name} must be {what}. Found {table[name].iloc[row]!r}. Make the table again."
        )


def used_of_listed(used: int, listed: int) -> str:
    """Returns how many patients of the clinical table are used.

    Example:
        >>> used_of_listed(40, 42), used_of_listed(1, 1)
        ('40 of 42 patients (2 excluded)', '1 patient')
    """
    patients = counted(listed, "patient")
    return patients if used == listed else f"{used} of {patients} ({listed - used} excluded)"


def _choose_cohorts(cohort_file: CohortFile, role: str | None) -> list[str]:
    """Returns the names of the cohorts to read."""
    roles = {member.name: member.role for member in cohort_file.members}
    wanted = role or ("develop" if "develop" in roles.values() else "external")
    chosen = [name for name, its_role in roles.items() if wanted in (name, its_role)]
    if not chosen:
        available = preview([f"{name} ({its_role})" for name, its_role in roles.items()])
        raise ConfigurationError(f"role must be that of a cohort, or its name. Found {role!r}; cohorts: {available}.")
    return chosen


def _declared_aliases(cohort_file: CohortFile) -> dict[str, str]:
    """Returns the names that the cohorts declare; a table that has moved away since `prepare` is left out."""
    sections = [member.expression for member in cohort_file.members if member.expression is not None]
    tables = dict.fromkeys(section.aliases for section in sections if section.aliases is not None)
    return {
        name: approved for path in tables if file_of(path).exists() for name, approved in read_aliases(path).items()
    }


def _patients(
    table: pd.DataFrame,
    slides: Mapping[str, tuple[Path, ...]],
    values: Mapping[str, np.ndarray],
    covariates: Sequence[str],
) -> tuple[Patient, ...]:
    columns = [column_of(name) for name in covariates]
    labels = [str(name) for name in table if name not in (*FIXED_COLUMNS, *RESERVED)]
    return tuple(
        Patient(
            patient_id=record["patient_id"],
            cohort=record["cohort"],
            slides=slides.get(record["patient_id"], ()),
            expression=values.get(record["patient_id"]),
            covariates={name: record[name] for name in columns if record[name] is not None},
            time_days=None if pd.isna(record["time_days"]) else float(record["time_days"]),
            event=None if pd.isna(record["event"]) else bool(record["event"]),
            labels={name: record[name] for name in labels if record[name] is not None},
            site=record["site"],
        )
        for record in table.to_dict("records")
    )


def _values_by_patient(table: ExpressionTable | None) -> dict[str, np.ndarray]:
    return {} if table is None else dict(zip(table.values.index, np.asarray(table.values), strict=True))


def _read_slides(root: Path) -> list[tuple[str, Path, float]]:
    """Returns patient, feature file and side of the patches in µm of each slide; NaN where that is unknown."""
    path = root / SLIDES
    table = without_marks(read_text_table(path))
    require_columns(table, {"slide_id": "the slide", "patient_id": "its patient", "features": "its file"}, path)
    slides = []
    for record in table.sort_values("slide_id").to_dict("records"):
        features = root / record["features"]
        if not features.exists():
            raise DataError(f"{path}: feature file {record['features']} is required. Found none. Run prepare again.")
        slides.append((record["patient_id"], features, float(record.get("patch_um") or "nan")))
    return slides


def _slides_by_patient(slides: Sequence[tuple[str, Path, float]]) -> dict[str, tuple[Path, ...]]:
    of_patient: dict[str, tuple[Path, ...]] = {}
    for patient_id, features, _ in slides:
        of_patient[patient_id] = (*of_patient.get(patient_id, ()), features)
    return of_patient

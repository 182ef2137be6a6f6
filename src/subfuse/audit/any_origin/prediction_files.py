"""Predictions of any origin from several files: one table of the same patients, folds and outcomes for all models."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from subfuse.audit.any_origin.folds import WHY, with_folds
from subfuse.audit.any_origin.one_file import cleaned, read_renamed
from subfuse.audit.any_origin.outcomes import CHECK, has_outcomes, one_row_each, with_outcomes
from subfuse.audit.audit import audit_predictions
from subfuse.audit.audited_task import N_BOOTSTRAP
from subfuse.audit.confounding.strata import AGE, MARKERS, SUBGROUPS
from subfuse.audit.findings import Audit, Finding, sorted_findings
from subfuse.clinical.event_names import is_opposite_of_event
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.evaluation.predictions import class_columns, holds_risks
from subfuse.evaluation.regression.columns import PREDICTED_VALUE, holds_values
from subfuse.files import sha256_of_file
from subfuse.identifiers import site_of_barcode
from subfuse.run_folder.names import PREDICTIONS
from subfuse.training.linear.patients_table import BATCH_COLUMN
from subfuse.training.models import model_title
from subfuse.workbooks.sheet import sheet_of

_SIGNS = frozenset({"0", "1", "0.0", "1.0", "true", "false", "yes", "no", "y", "n"})  # of events, or of their absence


def audit_files(
    paths: Sequence[Path | str],
    *,
    patients: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    strata: Sequence[str] = (),
    modalities: Mapping[str, Collection[str]] | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Audit:
    """Audits predictions of any number of models from any number of files, as `audit_predictions` does one table.

    Args:
        paths: CSV files or run folders; see `read_prediction_files`.
        patients: CSV of the patients, for outcomes, strata, subgroups and the trivial models that are fitted.
        columns: Column of any of the files to our name.
        strata: Columns of `patients` within which results are shown too.
        modalities: As for `audit_predictions`; to one that reads `covariates`, others may add.
        n_bootstrap: Replicates of paired comparisons.
        seed: Of bootstrap and permutations.

    Raises:
        ConfigurationError: A column that no file has, two models of one name; see `audit_predictions`.
        DataError: The files cannot be read, or contradict each other.
    """
    read = read_prediction_files(paths, patients=patients, columns=columns, strata=strata)
    audit = audit_predictions(
        read.predictions,
        modalities=modalities,
        patients=read.patients,
        strata=strata,
        n_bootstrap=n_bootstrap,
        seed=seed,
    )
    return Audit(sorted_findings([*read.findings, *audit.findings]), audit.tables)


@dataclass(frozen=True)
class PredictionFiles:
    """All predictions in one table, what is known of the patients, and what had to be settled between the files."""

    predictions: pd.DataFrame
    patients: pd.DataFrame | None
    findings: tuple[Finding, ...]


def read_prediction_files(
    paths: Sequence[Path | str],
    *,
    patients: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    strata: Sequence[str] = (),
) -> PredictionFiles:
    """Returns predictions of several files as one table.

    - A file without the column `model` is one model of the file's name; without `task`, it is of the other files' task
      of its kind; without `split`, it has test patients. Samples and slides of a TCGA patient are that patient, by
      barcodes of any length.
    - Folds that differ by their names alone get the names of the first file that has folds; patients of a file without
      folds are ranked within those of that file.
    - Outcomes are those of the patients' table, then of the first file that knows them.

    Args:
        paths: CSV files, or run folders, with a column `risk` (higher is worse) or `p_<class>`, see `auditable`.
        patients: CSV of the patients, with any of the outcomes, strata, site, age, sex and markers.
        columns: Column of any of the files to our name: those of predictions.csv, `time_months` or `time_years`, and
            `censored`, which is the opposite of `event`.
        strata: Other columns of `patients` that are read.

    Raises:
        ConfigurationError: A column that no file has, or whose name says that it means the opposite; two models of one
            name.
        DataError: A file without predictions; patients whose outcomes contradict each other; files without a common
            patient.
    """
    columns = dict(columns or {})
    files = [path / PREDICTIONS if path.is_dir() else path for path in map(Path, paths)]
    raw = {path: read_renamed(path, columns) for path in files}
    _refuse_copies(files)
    place = None if patients is None else Path(patients)
    known = None if place is None else read_renamed(place, columns)
    given = [*raw.values(), *([] if known is None else [known])]
    _refuse_unclear_events(columns, given)
    _check_mapping(columns, given, files)
    people = None if known is None or place is None else _people(place, known, strata)
    tables = {path: cleaned(path, table) for path, table in raw.items()}
    if any("split" in table for table in tables.values()):
        tables = {path: table if "split" in table else table.assign(split="test") for path, table in tables.items()}
    tables = _with_models(tables)
    tables = _with_cohorts(tables)
    tables = _with_tasks(tables)
    findings = [Finding("note", CHECK, note) for table in given for note in table.attrs.get("notes", ())]
    if len(tables) > 1 or people is not None or not has_outcomes(tables):
        tables, of_outcomes = with_outcomes(tables, people, place)
        findings += of_outcomes
    if len(tables) > 1:
        tables, of_folds = with_folds(tables)
        findings += [*of_folds, *_of_other_patients(tables)]
    return PredictionFiles(pd.concat(tables.values(), ignore_index=True), people, tuple(findings))


def _people(path: Path, table: pd.DataFrame, strata: Sequence[str]) -> pd.DataFrame:
    """Returns the patients' table with one row per patient; see `one_row_each`.

    Raises:
        ConfigurationError: A column that is read is there in another case too.
    """
    columns = dict.fromkeys(["cohort", "time_days", "event", "label", *strata, *MARKERS, *SUBGROUPS, AGE, BATCH_COLUMN])
    for name in columns:
        alike = [str(column) for column in table if str(column).lower() == name.lower()]
        if name in alike and len(alike) > 1:
            raise ConfigurationError(
                f"{path}: columns must differ in more than case. Found {preview(alike)}. Rename or remove all but one."
            )
    return _with_sites(one_row_each(cleaned(path, table), path, columns))


def _with_sites(people: pd.DataFrame) -> pd.DataFrame:
    """Returns the patients with the hospital of their TCGA barcode where no column tells it, as cohorts have it."""
    site = people["site"] if "site" in people else pd.Series(None, people.index, dtype=object)
    of_barcode = people["patient_id"].map(site_of_barcode)
    return people.assign(site=site.where(site.notna(), of_barcode)) if of_barcode.notna().any() else people


def _refuse_copies(files: Sequence[Path]) -> None:
    first: dict[str, Path] = {}
    for path in files:
        digest = f"{sha256_of_file(path)} {sheet_of(path)}"  # sheets are not each other's copies
        if digest in first:
            raise ConfigurationError(
                f"every file must be given once. Found {path} with the same content as {first[digest]}. Leave it out."
            )
        first[digest] = path


def _check_mapping(columns: Mapping[str, str], tables: Sequence[pd.DataFrame], files: Sequence[Path]) -> None:
    mapped = {name for table in tables for name in table.attrs["mapped"]}
    unknown = [name for name in columns if name not in mapped]
    if unknown:
        raise ConfigurationError(
            f"--columns: column {unknown[0]} is in none of the files. {files[0]} has {preview(tables[0].columns, 15)}."
        )


def _refuse_unclear_events(columns: Mapping[str, str], tables: Sequence[pd.DataFrame]) -> None:
    """Refuses a column whose name means the opposite of an event, unless its words say what happened."""
    cells = {str(cell).strip().lower() for t in tables if "event" in t.attrs["mapped"].values() for cell in t["event"]}
    for name, ours in columns.items():
        if ours == "event" and is_opposite_of_event(name) and (not cells or cells & _SIGNS):
            raise ConfigurationError(
                f"--columns: a column whose 1 means an observed event is required as event. Found {name}, by its name "
                "the opposite. Name it censored; or, if 1 means an event in it, give the column another name."
            )


def _with_models(tables: Mapping[Path, pd.DataFrame]) -> dict[Path, pd.DataFrame]:
    """Returns the files with the column `model`: where it has none, the name of the sheet if given, or of the file."""
    named = {path: t if "model" in t else t.assign(model=sheet_of(path) or path.stem) for path, t in tables.items()}
    owners: dict[str, Path] = {}
    for path, table in tables.items():
        if len(class_columns(table)) < 2 and not holds_risks(table) and not holds_values(table):
            raise DataError(
                f"{path}: a column risk (higher is worse), predicted_value or p_<class> of each class is required. "
                f"""Found {preview(table.columns, 15)}. Name it with --columns '{{"risk_score": "risk"}}'."""
            )
        for model in named[path]["model"].unique():
            if model in owners:
                raise ConfigurationError(
                    f"every model must be in one file. Found {model} in {owners[model]} and {path}. Rename one, or its "
                    "column `model`."
                )
            owners[model] = path
    return named


def _with_cohorts(tables: Mapping[Path, pd.DataFrame]) -> dict[Path, pd.DataFrame]:
    """Returns the files without the column `cohort` unless all have it: then patients are known by identifier alone."""
    if all("cohort" in table for table in tables.values()):
        return dict(tables)
    for path, table in tables.items():
        if "cohort" in table and (table.groupby("patient_id")["cohort"].nunique() > 1).any():
            raise DataError(f"{path}: patients of several cohorts have one identifier. The other files need a column "
                            "cohort as well.")  # fmt: skip
    return {path: table.drop(columns="cohort", errors="ignore") for path, table in tables.items()}


def _with_tasks(tables: Mapping[Path, pd.DataFrame]) -> dict[Path, pd.DataFrame]:
    """Returns the files with the column `task`: that of the other files of the same kind where there is one."""
    named: dict[tuple[str, ...], set[str]] = {}
    for table in tables.values():
        for task, rows in table.groupby("task") if "task" in table else ():
            named.setdefault(_kind(rows), set()).add(str(task))
    return {path: t if "task" in t else t.assign(task=_task(path, _kind(t), named)) for path, t in tables.items()}


def _kind(rows: pd.DataFrame) -> tuple[str, ...]:
    if holds_values(rows):
        return (PREDICTED_VALUE,)
    return ("risk",) if holds_risks(rows) else tuple(sorted(class_columns(rows)))


def _task(path: Path, kind: tuple[str, ...], named: Mapping[tuple[str, ...], set[str]]) -> str:
    tasks = sorted(named.get(kind, ()))
    if len(tasks) > 1:
        raise ConfigurationError(f"{path}: a column task is required, one of {preview(tasks)}. Found none.")
    return tasks[0] if tasks else "survival" if kind == ("risk",) else "task"


def _of_other_patients(tables: Mapping[Path, pd.DataFrame]) -> list[Finding]:
    """Returns which patients only some of the files predict.

    Raises:
        DataError: Two files have no patient in common.
    """
    patients = {path: dict.fromkeys(table["patient_id"]) for path, table in tables.items()}
    everybody = dict.fromkeys(patient for of_file in patients.values() for patient in of_file)
    first = next(iter(tables))
    findings = []
    for path, own in patients.items():
        if not own.keys() & patients[first].keys():
            raise DataError(
                f"{path} and {first}: patients that both predict are required. Found {preview(own, 2)} and "
                f"{preview(patients[first], 2)}. Check the identifiers; files of one model's folds must be one file "
                "with a column fold."
            )
        missing = [patient for patient in everybody if patient not in own]
        if missing:
            models = ", ".join(map(model_title, tables[path]["model"].unique()))
            text = f"{path.name} lacks {len(missing)} of {len(everybody)} patients ({preview(missing, 3)})"
            findings.append(Finding("note", CHECK, text, WHY, f"Predict them with {models} as well."))
    return findings

"""What the tables of a folder are, by their content; those of a cBioPortal study by its meta files."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from subfuse.bounded_files import ZIPPED_TABLES, open_bounded, tables_of
from subfuse.clinical.gdc import is_clinical, read_gdc
from subfuse.cohort.marker import PROVENANCE, STARTED
from subfuse.errors import DataError, SubfuseError
from subfuse.expression.gdc.listing import STAR_SUFFIXES, read_gdc_metadata
from subfuse.expression.matrices import description_beside
from subfuse.features.trident_job import STATES
from subfuse.recognition.classes import class_columns
from subfuse.recognition.endpoints import endpoint_columns
from subfuse.recognition.follow_up import is_outcome
from subfuse.tables import archived_tables, is_missing, read_text_table, usual_name

GDC_CLINICAL, GDC_SHEET, GDC_METADATA, GDC_MANIFEST = "gdc clinical", "gdc sheet", "gdc metadata", "gdc manifest"
STUDY_PATIENTS, STUDY_SAMPLES = "cbioportal patients", "cbioportal samples"
STUDY_EXPRESSION, STUDY_ZSCORES = "cbioportal expression", "cbioportal z-scores"
PATIENTS, SAMPLE_SHEET, SLIDES, SLIDE_FEATURES = "patients", "sample sheet", "slides", "slide features"
SLIDES_OF_PATIENTS = "slides of patients"  # with their outcomes
MATRIX, XENA, ANNDATA, GENE_SETS, OTHER = "matrix", "xena", "h5ad", "gene sets", ""

_SUFFIXES = (
    ".csv",
    ".tsv",
    ".txt",
    ".gz",
    ".tgz",
    ".json",
    ".xlsx",
    ".xlsm",
    ".ods",
    ".h5ad",
    ".gmt",
    ".parquet",
    ".pq",
    *ZIPPED_TABLES,
)
GENE_SUFFIX = "_rnaseq"  # of columns of expression in the tables of patients of MCAT and PORPOISE
CLASS = "label"  # what CLAM calls the class of a slide
_MOST_TABLES = 20  # of a subfolder; more are one kind of data, such as a file for each sample
_LEVELS = 4  # of subfolders, in which tables are looked for
_STORES = (".zarr",)
_LOOKED_AT = 40  # lines of a table
_LINES_OF_META = 100
_LEAST_NUMBERS = 8  # columns of a matrix
_PATIENT_NAMES = (
    "patientid", "patient", "caseid", "case", "casesubmitterid", "bcrpatientbarcode",
    "submitterid", "subjectid", "subject", "participantid", "donorid", "donor", "pid", "id",
    "submitteridsamples", "sampleid",  # of Xena
)  # fmt: skip
_STUDY = {  # genetic_alteration_type, datatype of a meta file
    ("CLINICAL", "PATIENT_ATTRIBUTES"): STUDY_PATIENTS,
    ("CLINICAL", "SAMPLE_ATTRIBUTES"): STUDY_SAMPLES,
    ("MRNA_EXPRESSION", "CONTINUOUS"): STUDY_EXPRESSION,
    ("MRNA_EXPRESSION", "Z-SCORE"): STUDY_ZSCORES,
}
_NAMES_OF_STUDY = ("data_", "meta_")  # how the names of its files begin


@dataclass(frozen=True)
class FoundTable:
    """One table of a folder and what it is."""

    path: Path  # with the sheet's name behind it where a workbook has several
    kind: str
    start: pd.DataFrame  # its first rows as text; empty where they were not needed
    problem: str = ""  # why it cannot be read


def find_tables(folder: Path) -> tuple[list[FoundTable], list[FoundTable]]:
    """Returns the tables directly in a folder and those in its subfolders, which are less likely to be meant.

    Of further levels count kinds of tables that no level above has. Subfolders that hold many tables, features of
    TRIDENT or a prepared cohort are passed over.
    """
    direct = list(_tables_directly_in(folder))
    below: list[FoundTable] = []
    level = visible_subfolders(folder)
    for _ in range(_LEVELS):
        places = [place for place in level if len(_candidates(place)) <= _MOST_TABLES]
        tables = [table for place in places for table in _tables_directly_in(place)]
        above = {table.kind for table in below} - {OTHER}
        below += [table for table in tables if table.kind not in above]
        level = [subfolder for place in level for subfolder in _narrow_subfolders(place)]
    return direct, below


def _narrow_subfolders(folder: Path) -> list[Path]:
    """Returns the subfolders of a folder that is not one of many alike, such as a folder for each file."""
    found = visible_subfolders(folder)
    return found if len(found) <= _MOST_TABLES else []


def visible_subfolders(folder: Path) -> list[Path]:
    """Returns the subfolders of a folder, without hidden, unreadable and prepared ones, stores, states of a job."""
    found = (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith("."))
    left_out = (STATES, *_STORES)
    readable = [path for path in found if not path.name.endswith(left_out) and may_be_read(path)]
    return [path for path in readable if not is_prepared(path)]


def may_be_read(folder: Path) -> bool:
    """Returns whether the system lets this user look into a folder."""
    return os.access(folder, os.R_OK | os.X_OK)


def is_prepared(folder: Path) -> bool:
    """Returns whether a folder holds a prepared cohort, or one that is not complete."""
    return any((folder / name).exists() for name in (PROVENANCE, STARTED))


def star_files(folder: Path) -> list[Path]:
    """Returns the STAR files of the GDC in a folder and its subfolders, linked ones among them."""
    direct = [path for path in folder.iterdir() if path.name.endswith(STAR_SUFFIXES)]
    below = [
        Path(place, name)
        for subfolder in visible_subfolders(folder)
        for place, _, names in os.walk(subfolder)
        for name in names
        if name.endswith(STAR_SUFFIXES)
    ]
    return sorted([*direct, *below])


def patient_column(columns: Sequence[str]) -> str | None:
    """Returns the column that identifies patients by its name, None without one.

    Example:
        >>> patient_column(["age", "Case ID"]), patient_column(["gene", "length"])
        ('Case ID', None)
    """
    usual = {usual_name(column): column for column in reversed(columns)}
    return next((usual[name] for name in _PATIENT_NAMES if name in usual), None)


def numbers_in(start: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns of a table, its first aside, that hold numbers alone, as numbers."""
    cells = start.iloc[:, 1:]
    flat = pd.Series(cells.to_numpy(dtype=object).ravel(), dtype=object)
    known = ~flat.isin([cell for cell in flat.unique() if is_missing(cell)])
    numbers = pd.to_numeric(flat.where(known), errors="coerce").astype(float)
    is_text = (known & numbers.isna()).to_numpy().reshape(cells.shape)
    table = pd.DataFrame(numbers.to_numpy().reshape(cells.shape), index=cells.index, columns=cells.columns)
    return table.loc[:, ~is_text.any(axis=0) & table.notna().any(axis=0).to_numpy()]


def _candidates(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().endswith(_SUFFIXES) and not path.name.startswith((".", "~$")) and path.is_file()
    ]


def _tables_directly_in(folder: Path) -> Iterator[FoundTable]:
    paths = [path for path in _candidates(folder) if not path.name.endswith(STAR_SUFFIXES)]
    study = _kinds_of_study(paths)
    for path in paths:
        if study and path.name.startswith(_NAMES_OF_STUDY):
            yield FoundTable(path, study.get(path, OTHER), pd.DataFrame())
            continue
        try:
            for table in tables_of(path):
                yield _recognised(table)
        except (SubfuseError, OSError) as error:
            yield FoundTable(path, OTHER, pd.DataFrame(), problem=str(error))


def _kinds_of_study(paths: Sequence[Path]) -> dict[Path, str]:
    """Returns what the files of a cBioPortal study are; nothing where the folder is none."""
    described = [_meta(path) for path in paths if path.name.startswith("meta_")]
    kinds = {}
    for path in paths:
        told = next((meta for meta in described if meta.get("data_filename") == path.name), {})
        kind = _STUDY.get((told.get("genetic_alteration_type", ""), told.get("datatype", "")))
        kind = kind or (_kind_by_name(path.name.lower()) if not told else None)
        if kind is not None:
            kinds[path] = kind
    clinical = {STUDY_PATIENTS, STUDY_SAMPLES} & set(kinds.values())
    return kinds if clinical or any("cancer_study_identifier" in meta for meta in described) else {}


def study_name(folder: Path) -> str | None:
    """Returns what a cBioPortal study is called, None where the folder is none."""
    return _meta(folder / "meta_study.txt").get("cancer_study_identifier")


def _kind_by_name(name: str) -> str | None:
    """Returns what a file of a study is where no meta file describes it."""
    if name.startswith("data_clinical_patient"):
        return STUDY_PATIENTS
    if name.startswith("data_clinical_sample"):
        return STUDY_SAMPLES
    if name.startswith(("data_mrna_", "data_rna_seq_", "data_expression")):
        return STUDY_ZSCORES if "zscore" in name else STUDY_EXPRESSION
    return None


def _meta(path: Path) -> Mapping[str, str]:
    """Returns the entries of a meta file; none where it cannot be read."""
    if not path.is_file():
        return {}
    try:
        with open_bounded(path) as file:
            lines = [
                line.decode("utf-8", errors="replace") for line, _ in zip(file, range(_LINES_OF_META), strict=False)
            ]
    except OSError:
        return {}
    entries = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, mark, value in entries if mark}


def _recognised(path: Path) -> FoundTable:
    """Returns what a table is, by its name's end and its content."""
    name, nothing = path.name.lower(), pd.DataFrame()
    if name.endswith((".h5ad", ".gmt")):
        return FoundTable(path, ANNDATA if name.endswith(".h5ad") else GENE_SETS, nothing)
    if name.endswith((".parquet", ".pq")):
        problem = _problem_of_parquet(path)
        return FoundTable(path, OTHER if problem else SLIDE_FEATURES, nothing, problem)
    if name.endswith((".tar.gz", ".tgz")):
        return FoundTable(path, GDC_CLINICAL if "clinical.tsv" in archived_tables(path) else OTHER, nothing)
    if name.endswith((".json", ".json.gz")):
        return FoundTable(path, _kind_of_json(path), nothing)
    start = read_text_table(path, comment="#", n_lines=_LOOKED_AT)
    return FoundTable(path, _kind_of(start, path), start)


def _problem_of_parquet(path: Path) -> str:
    """Returns why a Parquet file is no table of features of slides, the only ones that are read from Parquet."""
    try:
        pd.read_parquet(path, columns=["slide_id"])
    except ImportError:
        return ""  # told where it is read
    except Exception:  # of any type, where the file is damaged or lacks the column
        return f"{path}: Parquet with the column slide_id is required, for features of slides. Save others as .csv"
    return ""


def _kind_of_json(path: Path) -> str:
    for kind, read in ((GDC_METADATA, read_gdc_metadata), (GDC_CLINICAL, lambda file: read_gdc([file]))):
        try:
            read(path)
        except DataError:
            continue
        return kind
    return OTHER


def _kind_of(start: pd.DataFrame, path: Path) -> str:
    columns = [str(name) for name in start]
    names = {usual_name(column) for column in columns}
    numbers, patient = numbers_in(start), patient_column(columns)
    if {"filename", "caseid"} <= names:
        return GDC_SHEET
    if {"id", "filename", "size"} <= names:
        return GDC_MANIFEST
    if is_clinical(columns):
        return GDC_CLINICAL
    if "slideid" in names:
        if {"process", "seglevel"} <= names:  # the list of what CLAM has segmented
            return OTHER
        if numbers.shape[1] >= _LEAST_NUMBERS and numbers.shape[1] == len(columns) - 1:
            return SLIDE_FEATURES
        has_outcome = any(is_outcome(column) or usual_name(column) == CLASS for column in columns)
        has_outcome |= bool(class_columns(start))
        return SLIDES_OF_PATIENTS if patient is not None and has_outcome else SLIDES
    if {"filename", "patient"} <= names:  # as STAMP lists slides
        return SLIDES
    if patient is not None and (any(is_outcome(column) for column in columns) or endpoint_columns(columns)):
        return PATIENTS
    if {"sampleid", "patientid"} <= names:
        return SAMPLE_SHEET
    n_described = len(columns) - 1 - numbers.shape[1]
    if numbers.shape[1] >= _LEAST_NUMBERS and n_described <= max(5, len(columns) // 10):
        return MATRIX if description_beside(path) is None else XENA
    is_of_gdc = {"casesubmitterid", "projectid"} <= names  # tables of samples, exposures and others beside the clinical
    return OTHER if patient is None or is_of_gdc else PATIENTS

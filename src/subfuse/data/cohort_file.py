"""`cohort.yaml`: what the user writes, checked strictly."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from subfuse.data.yaml_problems import one_line, read_yaml
from subfuse.errors import ConfigurationError
from subfuse.identifiers import plain_name


def _resolve(path: Path, info: Any) -> Path:  # ValidationInfo, which run-time type checks do not accept
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise ValueError(f"the environment variable in {path} is not set")
    base = (info.context or {}).get("base")
    return Path(expanded).expanduser() if base is None else Path(base) / Path(expanded).expanduser()


FilePath = Annotated[Path, AfterValidator(_resolve)]  # relative to the cohort file; may hold ${VARIABLES}
TimeUnit = Literal["days", "months", "years"]
NOT_A_TASK = ("cohort", "explanations")  # folders of a run beside those of its tasks
NOT_A_SUBSPACE = ("all", "total", "slide_id", "x", "y")  # columns and rows beside those of the subspaces
_SUFFIXES_OF_RUNS = (".csv", ".json", ".yaml", ".html", ".md")
Name = Annotated[str, AfterValidator(plain_name)]  # of what becomes a folder, a file or a column
Role = Literal["develop", "external"]
LinearUnit = Literal["counts", "rsem", "fpkm", "fpkm_uq", "tpm"]  # rsem: expected or normalised counts
LogUnit = Literal[  # log2(x + 1), and with _001 log2(x + 0.001)
    "log2_counts", "log2_cpm", "log2_fpkm", "log2_fpkm_001", "log2_fpkm_uq", "log2_tpm", "log2_tpm_001"
]
ExpressionUnit = Literal[LinearUnit, LogUnit, "zscore"]


class Section(BaseModel):
    """A section of a file: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSpec(Section):
    """A task: either `time` and `event` columns (survival) or a label `column` (classification)."""

    time: str | None = None
    event: str | None = None
    column: str | None = None
    classes: tuple[str, ...] | None = None  # order of the classes; default: sorted
    ordinal: bool = False  # the order of `classes` has a meaning, as in grade: then quadratic kappa is reported

    @model_validator(mode="after")
    def _one_kind(self) -> "TaskSpec":
        survival = (self.time is not None, self.event is not None)
        if self.column is None and not all(survival):
            raise ValueError("give either `column` (classification) or both `time` and `event` (survival)")
        if self.column is not None and any(survival):
            raise ValueError("`column` (classification) excludes `time` and `event` (survival)")
        if self.classes is not None and (self.column is None or len(set(self.classes)) != len(self.classes)):
            raise ValueError("`classes` lists the distinct labels of `column`")
        if self.ordinal and self.classes is None:
            raise ValueError("`ordinal` needs `classes` in their order")
        return self

    @property
    def label_column(self) -> str:
        """The label column of a classification task; a survival task has none (ValueError)."""
        if self.column is None:
            raise ValueError("a survival task has time and event, not a label column.")
        return self.column

    @property
    def is_survival(self) -> bool:
        """True for a time-to-event task."""
        return self.column is None


class MarkerColumns(Section):
    """Where the markers of a derived diagnosis are among the columns of the patients."""

    idh: str | None = None  # of every field: None means the column of the field's own name, where there is one
    codeletion_1p19q: str | None = None
    cdkn2a: str | None = None
    grade: str | None = None
    histology: str | None = None


class DiagnosisRule(Section):
    """How a diagnosis is derived from markers."""

    rule: Literal["who2021"]
    cdkn2a: Literal["homozygous", "any_loss"] = "homozygous"  # which deletion makes an astrocytoma grade 4
    columns: MarkerColumns = MarkerColumns()


class DeriveSection(Section):
    """Columns of the patients that follow from others."""

    diagnosis: DiagnosisRule


class LabelsSection(Section):
    """A further table whose columns join the patients by identifier, such as molecular markers."""

    table: FilePath
    columns: dict[str, str] | None = None  # our name: column of the table; default: columns keep their names

    @field_validator("columns", mode="before")
    @classmethod
    def _keys_are_text(cls, value: Any) -> Any:
        return {_yaml_text(key): item for key, item in value.items()} if isinstance(value, dict) else value


class PatientsSection(Section):
    """The clinical table: one row per patient, or clinical files of the GDC portal or of cBioPortal."""

    table: tuple[FilePath, ...] = Field(min_length=1)  # one file, or several of the same format below one another
    format: Literal["plain", "gdc", "cbioportal"] = "plain"
    columns: dict[str, str] | None = None  # our name: column of the table; default: columns keep their names
    event_values: dict[str, bool] | None = None  # value of the event column: True if it means an observed event
    time_unit: TimeUnit | None = None  # of the column mapped to time_days, in format plain; None: days
    include: tuple[str, ...] | None = Field(default=None, min_length=1)  # only these patients; None: all of the table
    labels: LabelsSection | None = None
    derive: DeriveSection | None = None

    @field_validator("table", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("columns", "event_values", mode="before")
    @classmethod
    def _keys_are_text(cls, value: Any) -> Any:
        return {_yaml_text(key): item for key, item in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _portals_define_outcome(self) -> "PatientsSection":
        words = {"gdc": "gdc files say Dead or Alive, in days", "cbioportal": "OS_STATUS and OS_MONTHS are defined"}
        for name in ("event_values", "time_unit"):
            if self.format != "plain" and getattr(self, name) is not None:
                raise ValueError(f"`{name}` belongs to format plain; {words[self.format]}")
        return self


class SlidesSection(Section):
    """Slides or their ready features: a table that assigns them to patients, the place that holds them, or both."""

    table: FilePath | None = None  # slide_id, patient_id, optional path and mpp
    folder: FilePath | None = None  # slide files and folders of tiles, searched with its subfolders
    features: FilePath | None = None  # feature files of another tool instead, searched with its subfolders
    feature_table: FilePath | None = None  # one row per slide instead: slide_id, then one numeric column per feature
    encoder: str | None = Field(default=None, min_length=1)  # what made `features`, where the files do not say

    @model_validator(mode="after")
    def _one_source(self) -> "SlidesSection":
        places = [name for name in ("folder", "features", "feature_table") if getattr(self, name) is not None]
        if not places and self.table is None:
            raise ValueError(
                "give a `folder` of slides, a `table` with a `path` column, or both; or `features` or a `feature_table`"
            )
        if len(places) > 1:
            raise ValueError(f"give one of `folder`, `features` and `feature_table`, not {' and '.join(places)}")
        if self.encoder is not None and self.features is None:
            raise ValueError("`encoder` names what made `features`; for slides pass --encoder to `subfuse prepare`")
        return self


_FORMAT_OF_KEY = {"metadata": "gdc_star", "manifest": "gdc_star", "patient_column": "h5ad", "orientation": "plain"}


class ExpressionSection(Section):
    """Expression: one matrix, or a folder of GDC STAR files or of IvyGAP's tables."""

    table: FilePath | None = None  # a matrix: plain, cbioportal, xena, h5ad
    folder: FilePath | None = None  # gdc_star: searched with its subfolders; ivygap: the three tables
    format: Literal["plain", "gdc_star", "cbioportal", "xena", "h5ad", "ivygap"] = "plain"
    unit: ExpressionUnit | None = None  # None where the source tells it
    orientation: Literal["patients_by_genes", "genes_by_patients"] | None = None  # plain; None: by the identifiers
    sample_sheet: FilePath | None = None  # which sample or GDC file belongs to which patient
    metadata: FilePath | None = None  # gdc_star: metadata JSON instead of the sample sheet
    manifest: FilePath | None = None  # gdc_star: finds incomplete downloads
    patient_column: str | None = None  # h5ad: column of obs; None: obs_names
    aliases: FilePath | None = None  # previous and approved gene names, in addition to the built-in ones
    standardise: Literal["cohort"] | None = None  # z-scores within the cohort
    exclude: tuple[str, ...] | None = Field(default=None, min_length=1)  # genes that models must not see

    @model_validator(mode="after")
    def _one_layout(self) -> "ExpressionSection":
        holds_folder = self.format in ("gdc_star", "ivygap")
        wanted, other = ("folder", "table") if holds_folder else ("table", "folder")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            formats = "gdc_star and ivygap take a `folder`, the others a `table`"
            raise ValueError(f"format {self.format} takes a `{wanted}`, not a `{other}`; {formats}")
        if self.format == "gdc_star" and (self.sample_sheet is None) == (self.metadata is None):
            raise ValueError("format gdc_star takes a `sample_sheet` or a `metadata` JSON of the GDC portal")
        if self.format == "ivygap" and self.sample_sheet is not None:
            raise ValueError("format ivygap has its own columns-samples.csv; it takes no `sample_sheet`")
        for name, format in _FORMAT_OF_KEY.items():
            if getattr(self, name) is not None and self.format != format:
                raise ValueError(f"`{name}` belongs to format {format}")
        return self

    @model_validator(mode="after")
    def _known_unit(self) -> "ExpressionSection":
        if self.unit is None and self.format in ("plain", "gdc_star"):
            raise ValueError(f"format {self.format} requires a `unit`")
        if self.format == "gdc_star" and self.unit not in ("counts", "fpkm", "fpkm_uq", "tpm"):
            raise ValueError("format gdc_star holds the units counts, fpkm, fpkm_uq and tpm")
        if self.format == "ivygap" and self.unit not in (None, "fpkm"):
            raise ValueError("format ivygap holds the unit fpkm")
        return self


class GeneSetSource(Section):
    """Where a subspace's genes come from: `builtin`, a GMT file, or some sets of either."""

    gmt: FilePath | None = None  # None: the built-in sets of this subspace
    sets: tuple[str, ...] | None = Field(default=None, min_length=1)  # None: all sets of the file

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str | Path):
            value = {"gmt": value}
        if isinstance(value, dict) and value.get("gmt") == "builtin":
            value = {**value, "gmt": None}
        return value

    @model_serializer
    def _to_text(self) -> Any:
        gmt = "builtin" if self.gmt is None else str(self.gmt)
        return gmt if self.sets is None else {"gmt": gmt, "sets": list(self.sets)}


class SplitsSection(Section):
    """How patients are divided: stratified folds, whole sites, or given folds."""

    folds: int | None = Field(default=None, ge=2)  # None with `folder`, else 5
    by: Literal["patient", "site"] = "patient"  # site: all patients of a contributing hospital are in one fold
    repeats: int = Field(default=1, ge=1)  # how often all folds are drawn anew
    folder: FilePath | None = None  # one CSV per fold with the columns train and val
    validation: float = Field(default=0.15, gt=0, lt=1)  # share of the non-test patients kept for model selection
    stratify: tuple[str, ...] | None = None  # event or label columns; None: event, else the first label
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _five_folds(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("folder") is None and value.get("folds") is None:
            return {**value, "folds": 5}
        return value

    @model_validator(mode="after")
    def _one_source(self) -> "SplitsSection":
        if self.folder is not None and self.folds is not None:
            raise ValueError("give either `folds` or a `folder` of given folds, not both")
        if self.folder is not None and (self.repeats > 1 or self.by == "site"):
            raise ValueError("a `folder` of given folds excludes `repeats` and `by`")
        return self


class CohortSection(Section):
    """One cohort: who its patients are and where their data lie."""

    name: Name
    role: Role = "develop"
    patients: PatientsSection
    slides: SlidesSection | None = None
    expression: ExpressionSection | None = None


class CohortFile(Section):
    """A cohort file. Every section but `patients` may be absent; several cohorts stand in a list `cohorts`."""

    name: Name
    role: Role = "develop"
    patients: PatientsSection | None = None  # None with `cohorts`
    slides: SlidesSection | None = None
    expression: ExpressionSection | None = None
    cohorts: tuple[CohortSection, ...] = ()  # instead of the four above; the sections below are shared
    gene_sets: dict[Name, GeneSetSource] = Field(
        default={"tumour": GeneSetSource(), "microenvironment": GeneSetSource()}, min_length=1
    )
    tasks: dict[Name, TaskSpec] | None = None  # None: survival, diagnosis, grade and subtype, where the table has them
    covariates: tuple[str, ...] = ()  # numeric or two-valued columns of the patients, seen by models with expression
    splits: SplitsSection = SplitsSection(folds=5)

    @model_validator(mode="after")
    def _free_names(self) -> "CohortFile":
        for section, names, taken in (
            ("tasks", self.tasks or {}, NOT_A_TASK),
            ("gene_sets", self.gene_sets, NOT_A_SUBSPACE),
        ):
            used = [name for name in names if name.lower() in taken or name.lower().endswith(_SUFFIXES_OF_RUNS)]
            if used:
                raise ValueError(
                    f"{section}.{used[0]}: this name belongs to a file or folder of every run; choose another"
                )
            if len({name.lower() for name in names}) < len(names):
                raise ValueError(f"{section}: names must differ in more than upper and lower case")
        return self

    @model_validator(mode="after")
    def _one_outcome(self) -> "CohortFile":
        for name, task in (self.tasks or {}).items():
            if task.is_survival and (task.time, task.event) != ("time_days", "event"):
                raise ValueError(
                    f"tasks.{name}: a cohort has one follow-up, `time: time_days` and `event: event`; "
                    "map your columns to these names in patients.columns"
                )
        return self

    @model_validator(mode="after")
    def _one_or_several_cohorts(self) -> "CohortFile":
        own = [name for name in ("role", "patients", "slides", "expression") if name in self.model_fields_set]
        names = [cohort.name for cohort in self.cohorts]
        if self.cohorts and own:
            raise ValueError(f"`{own[0]}` belongs to each entry of `cohorts`")
        if not self.cohorts and self.patients is None:
            raise ValueError("`patients` is required, or several `cohorts` with their `patients`")
        if len(set(names)) < len(names) or set(names) & set(get_args(Role)):
            raise ValueError(f"cohorts need distinct names other than {' and '.join(get_args(Role))}")
        return self

    @property
    def members(self) -> tuple[CohortSection, ...]:
        """The cohorts of the file: those of `cohorts`, or the one that it describes."""
        if self.cohorts:
            return self.cohorts
        assert self.patients is not None  # checked when the file is read
        sections = {"patients": self.patients, "slides": self.slides, "expression": self.expression}
        return (CohortSection(name=self.name, role=self.role, **sections),)


def read_cohort_file(path: Path) -> CohortFile:
    """Returns a cohort file with its paths made absolute, relative to the file.

    Raises:
        ConfigurationError: Missing file, broken YAML, repeated or unknown key (with the nearest valid one), wrong
            value. One line naming file, line and key.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigurationError(
            f"{path}: a cohort file is required. Found none. `subfuse init` writes a commented one."
        )
    node, value = read_yaml(path, what="a cohort file")
    if not isinstance(value, dict):
        raise ConfigurationError(f"{path}: sections such as `patients:` are required. Found {type(value).__name__}.")
    try:
        return CohortFile.model_validate(value, context={"base": path.resolve().parent})
    except ValidationError as error:
        raise ConfigurationError(one_line(path, node, error, CohortFile)) from error


def cohort_file_text(cohort_file: CohortFile) -> str:
    """Returns the YAML of a cohort file with every default written out; `read_cohort_file` reads it back."""
    unused = "role" if cohort_file.cohorts else "cohorts"
    value = cohort_file.model_dump(mode="json", exclude_none=True, exclude={unused})
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)


def _yaml_text(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)

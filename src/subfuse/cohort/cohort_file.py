"""`cohort.yaml`: what the user writes, checked strictly."""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, model_validator

from subfuse.clinical.source import PatientsSection, cause_column
from subfuse.cohort.task import FOLLOW_UP, BinaryTasks, TaskDeclaration, TaskSpec
from subfuse.cohort.yaml_problems import one_line, read_yaml, refuse_blanks
from subfuse.errors import ConfigurationError, preview
from subfuse.expression.source import ExpressionSection, GeneSetSource
from subfuse.identifiers import NAME_RULE, is_plain_name, plain_name
from subfuse.settings import FilePath, ProblemAt, Section
from subfuse.slides.source import SlidesSection

_NOT_A_TASK = ("cohort", "explanations", "held-out-sites")  # folders of a run beside those of its tasks
_NOT_A_TASK_BEFORE = "explanations_"  # of the models that are not the main one: their names follow
_NOT_A_SUBSPACE = ("all", "total", "slide_id", "x", "y")  # columns and rows beside those of the subspaces
_NOT_A_SUBSPACE_BEFORE = "occlusion_"  # of a subspace's other column in tables of patches: its name follows
_LONGEST_SUBSPACE = 90  # bytes; a heat map is called after subspace and slide
_SUFFIXES_OF_RUNS = (".csv", ".json", ".yaml", ".html", ".md")
Name = Annotated[str, AfterValidator(plain_name)]  # of what becomes a folder, a file or a column
Role = Literal["develop", "external"]


class Splits(Section):
    """What drawn and given folds have in common."""

    validation: float = Field(default=0.15, gt=0, lt=1)  # share of the non-test patients kept for model selection
    stratify: tuple[str, ...] | None = None  # event or label columns; None: event, else the first label
    seed: int = Field(default=0, ge=0)


class DrawnSplits(Splits):
    """Stratified folds of patients or of whole sites."""

    folds: int = Field(default=5, ge=2)
    by: Literal["patient", "site"] = "patient"  # site: all patients of a contributing hospital are in one fold
    repeats: int = Field(default=1, ge=1)  # how often all folds are drawn anew

    @model_validator(mode="before")
    @classmethod
    def _without_empty_keys(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if item is not None or key not in ("folds", "folder")}


class GivenSplits(Splits):
    """Folds that are given, as those of a publication."""

    folder: FilePath  # one CSV per fold with the columns train and val

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_drawn(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if value.get("folds") is not None:
            raise ValueError("give either `folds` or a `folder` of given folds, not both")
        if value.get("repeats", 1) != 1 or value.get("by", "patient") != "patient":  # prepared folders say so
            raise ValueError("a `folder` of given folds excludes `repeats` and `by`")
        return {key: item for key, item in value.items() if key not in ("folds", "repeats", "by")}


def _folds_of(value: Any) -> str:
    """Returns the key that tells where folds come from."""
    folder = value.get("folder") if isinstance(value, dict) else getattr(value, "folder", None)
    return "folds" if folder is None else "folder"


SplitsSection = Annotated[
    Annotated[DrawnSplits, Tag("folds")] | Annotated[GivenSplits, Tag("folder")], Discriminator(_folds_of)
]


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
    tasks: dict[Name, TaskDeclaration] | None = (
        None  # None: survival, diagnosis, grade and subtype, where the table has them
    )
    covariates: tuple[str, ...] = ()  # columns of the patients, numbers or words, seen beside expression
    batch: str | None = None  # column of projects, scanners or sequencing runs; `cohort` where several are pooled
    strata: tuple[str, ...] = ()  # columns within which results are shown too; `cohort`, `site` and `batch` may be
    splits: SplitsSection = DrawnSplits()

    @model_validator(mode="after")
    def _names_of_columns(self) -> "CohortFile":
        named: dict[str, str] = {}
        for name, declared in (self.tasks or {}).items():
            for task in declared.by_name(name) if isinstance(declared, BinaryTasks) else (name,):
                if not is_plain_name(task):
                    raise ProblemAt(
                        ("tasks", name, "columns"),
                        f"the task '{task}' of a column is named as a file is: {NAME_RULE}. Map the column to such a "
                        "name in patients.columns",
                    )
                if (other := named.setdefault(task, name)) != name:
                    raise ProblemAt(("tasks", name), f"'{task}' is a task of '{other}' too; choose another name")
        return self

    @model_validator(mode="after")
    def _free_names(self) -> "CohortFile":
        for section, names, taken, before in (
            ("tasks", self.single_tasks or {}, _NOT_A_TASK, _NOT_A_TASK_BEFORE),
            ("gene_sets", self.gene_sets, _NOT_A_SUBSPACE, _NOT_A_SUBSPACE_BEFORE),
        ):
            used = [name for name in names if name.lower() in taken or name.lower().endswith(_SUFFIXES_OF_RUNS)]
            used += [name for name in names if name.lower().startswith(before)]
            if used:
                raise ProblemAt(
                    (section, used[0]), f"'{used[0]}' belongs to a file or folder of every run; choose another name"
                )
            spelt: dict[str, str] = {}
            for name in names:
                if (other := spelt.setdefault(name.lower(), name)) != name:
                    raise ProblemAt(
                        (section, name),
                        f"names must differ in more than upper and lower case. Found '{other}' and '{name}'",
                    )
        return self

    @model_validator(mode="after")
    def _own_columns(self) -> "CohortFile":
        pairs: dict[str, tuple[str, str]] = {}  # columns of a task and a subspace in stores of patches
        for task in self.single_tasks or {}:
            for name in (*self.gene_sets, "total"):
                if (other := pairs.setdefault(f"{task}_{name}", (task, name))) != (task, name):
                    raise ProblemAt(
                        ("tasks", task),
                        f"columns of a task and a subspace must have a name of their own. Found {task}_{name} twice, "
                        f"of task '{other[0]}' and of task '{task}'; choose another name",
                    )
        return self

    @model_validator(mode="after")
    def _short_subspaces(self) -> "CohortFile":
        for name in self.gene_sets:
            if (size := len(name.encode())) > _LONGEST_SUBSPACE:
                raise ProblemAt(
                    ("gene_sets", name), f"a name of at most {_LONGEST_SUBSPACE} bytes is required. Found {size}"
                )
        return self

    @model_validator(mode="after")
    def _declared_follow_ups(self) -> "CohortFile":
        known = [FOLLOW_UP, *(task.patient_columns for task in self.endpoints.values())]
        for name, task in (self.single_tasks or {}).items():
            if task.is_survival and (task.time, task.event) not in known:
                pairs = " or ".join(f"`time: {time}` and `event: {event}`" for time, event in known)
                raise ProblemAt(
                    ("tasks", name),
                    f"a follow-up of the cohort is required: {pairs}. Map your columns to these names in "
                    "patients.columns, or declare another one under patients.endpoints",
                )
        outcomes = {column for columns in known[1:] for column in columns}
        outcomes |= {cause_column(event) for member in self.members for event in member.patients.causes}
        for section, columns in (("covariates", self.covariates), ("strata", self.strata), ("batch", (self.batch,))):
            if seen := outcomes.intersection(str(column).partition("=")[0] for column in columns):
                raise ProblemAt((section,), f"{min(seen)} is an outcome, which a model must not see; remove it")
        return self

    @model_validator(mode="after")
    def _declared_causes(self) -> "CohortFile":
        for name, task in (self.single_tasks or {}).items():
            if task.cause is None:
                continue
            told = {member.name: member.patients.causes.get(str(task.event), ()) for member in self.members}
            lacking = [of for of, causes in told.items() if causes and task.cause not in causes]
            if lacking or not any(told.values()):
                found = preview(told[lacking[0]]) if lacking else "no causes"
                of = f" of cohort {lacking[0]}" if lacking and self.cohorts else ""
                raise ProblemAt(
                    ("tasks", name, "cause"),
                    f"a cause of {task.event} that `event_values`{of} names is required. Found '{task.cause}', and "
                    f"there {found}. Causes stand in the place of true: `event_values: {{0: false, 1: tumour}}`",
                )
        return self

    @model_validator(mode="after")
    def _one_or_several_cohorts(self) -> "CohortFile":
        own = [name for name in ("role", "patients", "slides", "expression") if name in self.model_fields_set]
        names = [cohort.name for cohort in self.cohorts]
        if self.cohorts and own:
            raise ProblemAt((own[0],), "this belongs to each entry of `cohorts`")
        if not self.cohorts and self.patients is None:
            raise ValueError("`patients` is required, or several `cohorts` with their `patients`")
        if len(set(names)) < len(names) or set(names) & set(get_args(Role)):
            raise ProblemAt(("cohorts",), f"distinct names other than {' and '.join(get_args(Role))} are required")
        return self

    @property
    def endpoints(self) -> dict[str, TaskSpec]:
        """The tasks of the endpoints that any cohort declares beside its own follow-up."""
        columns = {name: pair for member in self.members for name, pair in member.patients.endpoint_columns.items()}
        return {name: TaskSpec(time=time, event=event) for name, (time, event) in columns.items()}

    @property
    def single_tasks(self) -> dict[str, TaskSpec] | None:
        """`tasks` with one task for each of their `columns`."""
        if self.tasks is None:
            return None
        tasks: dict[str, TaskSpec] = {}
        for name, declared in self.tasks.items():
            tasks |= declared.by_name(name) if isinstance(declared, BinaryTasks) else {name: declared}
        return tasks

    @property
    def strata_columns(self) -> tuple[str, ...]:
        """Columns of `strata`, where `batch` stands for the one that it names, and the batch itself."""
        batch = () if self.batch is None else (self.batch,)
        return tuple(
            dict.fromkeys([*(self.batch or name if name == "batch" else name for name in self.strata), *batch])
        )

    @property
    def members(self) -> tuple[CohortSection, ...]:
        """The cohorts of the file: those of `cohorts`, or the one that it describes."""
        if self.patients is None:
            return self.cohorts
        sections = {"patients": self.patients, "slides": self.slides, "expression": self.expression}
        return (CohortSection(name=self.name, role=self.role, **sections),)


def read_cohort_file(path: Path) -> CohortFile:
    """Returns a cohort file with its paths made absolute, relative to the file.

    Raises:
        ConfigurationError: Missing file, broken YAML, repeated or unknown key (with the nearest valid one), wrong
            value, one still to be filled in. One line naming file, line and key.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigurationError(
            f"{path}: a cohort file is required. Found none. `subfuse init` writes a commented one."
        )
    node, value = read_yaml(path, what="a cohort file")
    if not isinstance(value, dict):
        kind = {type(None): "nothing", list: "a list"}.get(type(value), "a single value")
        raise ConfigurationError(f"{path}: sections such as `patients:` are required. Found {kind}.")
    refuse_blanks(path, node)
    try:
        return CohortFile.model_validate(value, context={"base": path.resolve().parent})
    except ValidationError as error:
        raise ConfigurationError(one_line(path, node, error, CohortFile)) from error


def cohort_file_text(cohort_file: CohortFile) -> str:
    """Returns the YAML of a cohort file with every default written out; `read_cohort_file` reads it back."""
    unused = "role" if cohort_file.cohorts else "cohorts"
    value = cohort_file.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={unused})
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)

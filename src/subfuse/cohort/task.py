"""What is predicted: a class, a number, or the time to an event."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from subfuse.clinical.source import CENSORED, cause_column, refuse_entry
from subfuse.errors import DataError
from subfuse.settings import Section

FOLLOW_UP = ("time_days", "event")  # of every cohort; other endpoints are further columns, as text
_TRUTH = {"True": True, "False": False}


def _as_labels(value: Any) -> Any:
    """Whole numbers have one spelling as labels; what else YAML does not read as text needs quotes."""
    if not isinstance(value, list | tuple):
        return value
    return [str(item) if type(item) is int else item for item in value]


Labels = Annotated[tuple[str, ...], BeforeValidator(_as_labels)]


class TaskSpec(Section):
    """A task: `time` and `event` columns (survival), or a `column` of labels (classes) or of numbers (regression)."""

    time: str | None = None
    event: str | None = None
    cause: str | None = None  # of the event, where causes are told apart: others count as censored at their time
    column: str | None = None
    classes: Labels | None = None  # order of the classes; default: sorted
    ordinal: bool | Literal["cumulative_logits"] = False  # `classes` have an order: report quadratic kappa, or train so
    leave_out: Labels | None = None  # labels beside `classes` whose patients are not of this task
    kind: Literal["regression"] | None = None  # `column` holds numbers
    loss: Literal["squared", "huber"] | None = None  # of regression; None: squared

    @field_validator("ordinal", mode="wrap")
    @classmethod
    def _told_as_one(cls, value: Any, read: Callable[[Any], Any]) -> Any:
        try:
            return read(value)
        except ValidationError:  # one for each kind of value, none of which names all that it may be
            raise ValueError("must be true, false or cumulative_logits") from None

    @model_validator(mode="before")
    @classmethod
    def _watched_from_the_beginning(cls, value: Any) -> Any:
        return refuse_entry(value)

    @model_validator(mode="after")
    def _one_kind(self) -> "TaskSpec":
        survival = (self.time is not None, self.event is not None)
        if self.column is None and not all(survival):
            raise ValueError("give either `column` (classification) or both `time` and `event` (survival)")
        if self.column is not None and any(survival):
            raise ValueError("`column` (classification) excludes `time` and `event` (survival)")
        if self.column is not None and self.cause is not None:
            raise ValueError("`cause` is of the event of a survival task, not of a `column`")
        if self.column is None and (self.classes is not None or self.ordinal or self.leave_out is not None):
            raise ValueError("`classes`, `ordinal` and `leave_out` are of the labels of a `column`, not of survival")
        if self.kind is not None and (self.column is None or self.classes is not None or self.ordinal):
            raise ValueError(
                "`kind: regression` is of a `column` of numbers, without `classes`, `ordinal`, `leave_out`"
            )
        if self.loss is not None and self.kind is None:
            raise ValueError("`loss` is of `kind: regression`")
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("`classes` lists the distinct labels of `column`")
        if self.ordinal and self.classes is None:
            raise ValueError("`ordinal` needs `classes` in their order")
        if self.leave_out is not None and set(self.leave_out) & set(self.classes or self.leave_out):
            raise ValueError("`leave_out` needs `classes`, and lists other labels of `column` than these")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, to_dict: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        """Tasks without what came later are written, and hashed, as they were before."""
        later = ("leave_out", "cause", "kind", "loss")
        return {name: value for name, value in to_dict(self).items() if name not in later or value is not None}

    def known(self, outcome: pd.Series) -> pd.Series:
        """Returns a column of outcomes, missing where its label is left out."""
        return outcome.mask(outcome.isin(self.leave_out)) if self.leave_out else outcome

    def cases(self, patients: pd.DataFrame) -> pd.Series:
        """Returns by what patients differ: event (boolean), label or number; missing where unknown or left out."""
        outcome = patients[self.stratified_by]
        if self.is_regression:
            return pd.to_numeric(outcome).astype(float)
        if self.column is not None:
            return self.known(outcome)
        if self.cause is not None:
            return (outcome == self.cause).astype("boolean").mask(outcome.isna())
        return outcome if self.event == FOLLOW_UP[1] else outcome.map(_TRUTH).astype("boolean")

    def outcomes(self, patients: pd.DataFrame) -> pd.DataFrame:
        """Returns `patient_columns` of a table with their types: days (NaN: unknown) and event, or label, or number."""
        if self.column is not None:
            return self.cases(patients).to_frame()
        time, event = self.patient_columns
        return pd.DataFrame({time: patients[time].astype(float), event: self.cases(patients)})

    def follow_up(self, columns: Mapping[str, str]) -> tuple[float | None, bool | None]:
        """Returns days and event of an endpoint beside the cohort's own follow-up, from a patient's columns.

        Raises:
            DataError: The columns are there, and not those of an endpoint.
        """
        time, event = (columns.get(str(name)) for name in (self.time, self.event))
        try:
            return None if time is None else float(time), None if event is None else _TRUTH[event]
        except (ValueError, KeyError) as error:
            raise DataError(
                f"{self.time}, {self.event}: days, and True or False, of an endpoint are required. Found {time} and "
                f"{event}. Declare it under `endpoints` of `patients` in the cohort file, and prepare again."
            ) from error

    def number(self, columns: Mapping[str, str]) -> float | None:
        """Returns the number of a regression task from a patient's columns; None where unknown.

        Raises:
            DataError: What is there is no number.
        """
        found = columns.get(self.label_column)
        try:
            number = None if found is None else float(found)
        except ValueError:
            number = math.nan
        if number is not None and not math.isfinite(number):
            raise DataError(
                f"{self.column}: a number is required, as `kind: regression` learns it. Found {found!r}. Correct the "
                "clinical table, and prepare again."
            )
        return number

    def of_cause(self, columns: Mapping[str, str]) -> bool | None:
        """Returns whether the event of `cause` ended the follow-up, from a patient's columns; None where unknown."""
        found = columns.get(cause_column(str(self.event)))
        return None if found is None else found == self.cause

    def of_other_cause(self, columns: Mapping[str, str]) -> bool | None:
        """Returns whether an event of another cause ended the follow-up; None where unknown, or where all are alike."""
        found = None if self.cause is None else columns.get(cause_column(str(self.event)))
        return None if found is None else found not in (CENSORED, self.cause)

    @property
    def label_column(self) -> str:
        """The column of labels or numbers; a survival task has none (ValueError)."""
        if self.column is None:
            raise ValueError("a survival task has time and event, not a label column.")
        return self.column

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns of the outcome in tables of predictions."""
        if self.is_survival:
            return FOLLOW_UP
        return ("value",) if self.is_regression else ("label",)

    @property
    def patient_columns(self) -> tuple[str, ...]:
        """Columns of the outcome in tables of patients."""
        return (str(self.time), self.stratified_by) if self.column is None else (self.column,)

    @property
    def stratified_by(self) -> str:
        """Column of the patients whose mixture folds should keep."""
        if self.column is not None:
            return self.column
        return str(self.event) if self.cause is None else cause_column(str(self.event))

    @property
    def is_trained_by_order(self) -> bool:
        """True where models learn cumulative logits instead of one logit per class."""
        return self.ordinal == "cumulative_logits"

    @property
    def is_survival(self) -> bool:
        """True for a time-to-event task."""
        return self.column is None

    @property
    def is_regression(self) -> bool:
        """True where a number is predicted."""
        return self.kind == "regression"

    @property
    def predicts(self) -> Literal["survival", "classes", "regression"]:
        """What is predicted."""
        return "survival" if self.is_survival else self.kind or "classes"


class BinaryTasks(Section):
    """Several labels of the same patients, each a task of two classes: `columns` in the place of `column`."""

    columns: tuple[str, ...] = Field(min_length=1)
    classes: Labels | None = None  # of every column, in order; default: the two that each has, sorted
    leave_out: Labels | None = None  # see `TaskSpec`

    @model_validator(mode="after")
    def _two_classes(self) -> "BinaryTasks":
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("`columns` lists distinct columns")
        if self.classes is not None and len(set(self.classes)) != 2:
            raise ValueError("`columns` are tasks of two `classes` each; give a label with more a task with `column`")
        TaskSpec(column=self.columns[0], classes=self.classes, leave_out=self.leave_out)  # the rules of each
        return self

    def by_name(self, name: str) -> dict[str, TaskSpec]:
        """Returns the task of each column under a name of its own.

        Args:
            name: Of the declaration.

        Example:
            >>> list(BinaryTasks(columns=("idh", "mgmt")).by_name("markers"))
            ['markers_idh', 'markers_mgmt']
        """
        return {
            f"{name}_{column}": TaskSpec(column=column, classes=self.classes, leave_out=self.leave_out)
            for column in self.columns
        }


def _kind_of(value: Any) -> str:
    """Returns the key that tells whether a declaration is of one task or of several."""
    has_columns = "columns" in value if isinstance(value, dict) else isinstance(value, BinaryTasks)
    return "columns" if has_columns else "column"


TaskDeclaration = Annotated[
    Annotated[TaskSpec, Tag("column")] | Annotated[BinaryTasks, Tag("columns")], Discriminator(_kind_of)
]

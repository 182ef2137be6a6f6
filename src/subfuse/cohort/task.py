"""What is predicted: a class, or the time to an event."""

from typing import Any, Literal

from pydantic import field_validator, model_validator

from subfuse.settings import Section


class TaskSpec(Section):
    """A task: either `time` and `event` columns (survival) or a label `column` (classification)."""

    time: str | None = None
    event: str | None = None
    column: str | None = None
    classes: tuple[str, ...] | None = None  # order of the classes; default: sorted
    ordinal: bool = False  # the order of `classes` has a meaning, as in grade: then quadratic kappa is reported

    @field_validator("classes", mode="before")
    @classmethod
    def _numbers_are_labels(cls, value: Any) -> Any:
        """Whole numbers have one spelling as labels; what else YAML does not read as text needs quotes."""
        if not isinstance(value, list | tuple):
            return value
        return [str(item) if type(item) is int else item for item in value]

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
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns of the outcome in tables of predictions."""
        return ("time_days", "event") if self.is_survival else ("label",)

    @property
    def patient_columns(self) -> tuple[str, ...]:
        """Columns of the outcome in tables of patients."""
        return ("time_days", "event") if self.column is None else (self.column,)

    @property
    def stratified_by(self) -> str:
        """Column of the patients whose mixture folds should keep."""
        return "event" if self.column is None else self.column

    @property
    def is_survival(self) -> bool:
        """True for a time-to-event task."""
        return self.column is None

    @property
    def kind(self) -> Literal["survival", "classes"]:
        """What is predicted."""
        return "survival" if self.is_survival else "classes"

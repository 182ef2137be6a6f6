"""`cohort.yaml`: what the user writes, checked strictly."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of a file: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSpec(Section):
    """A task: either `time` and `event` columns (survival) or a label `column` (classification)."""

    time: str | None = None
    event: str | None = None
    column: str | None = None
    classes: tuple[str, ...] | None = None  # order of the classes; default: sorted

    @property
    def is_survival(self) -> bool:
        """True for a time-to-event task."""
        return self.column is None

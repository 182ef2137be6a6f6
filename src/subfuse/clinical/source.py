"""Where patients and their outcomes come from, as the cohort file declares it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from subfuse.settings import FilePath, Section, yaml_text

TimeUnit = Literal["days", "months", "years"]


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
        return {yaml_text(key): item for key, item in value.items()} if isinstance(value, dict) else value


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
        return {yaml_text(key): item for key, item in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _portals_define_outcome(self) -> "PatientsSection":
        words = {"gdc": "gdc files say Dead or Alive, in days", "cbioportal": "OS_STATUS and OS_MONTHS are defined"}
        for name in ("event_values", "time_unit"):
            if self.format != "plain" and getattr(self, name) is not None:
                raise ValueError(f"`{name}` belongs to format plain; {words[self.format]}")
        return self

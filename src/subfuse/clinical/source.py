"""Where patients and their outcomes come from, as the cohort file declares it."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from subfuse.identifiers import plain_name
from subfuse.settings import FilePath, PlainByDefault, Section, of_one_format, yaml_text

TimeUnit = Literal["days", "weeks", "months", "years"]


ENTRIES = ("entry", "entry_days", "entry_time", "time_entry")  # names under which a late entry is declared


def refuse_entry(value: Any) -> Any:
    """Returns a section as it is, if none of its keys declares that patients are watched from a later time on.

    Raises:
        ValueError: One does: left truncation is not supported.
    """
    found = [key for key in value if key in ENTRIES] if isinstance(value, dict) else []
    if found:
        raise ValueError(
            f"`{found[0]}` declares left truncation, which is not supported: losses, C-index and curves here count a "
            "patient as watched from time 0, and would take the time before entry for survival. Give times since "
            "entry, if that is what is to be predicted, or leave patients who entered late out, and the key too"
        )
    return value


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


class EndpointSection(Section):
    """A follow-up beside `time_days` and `event`: to progression, recurrence, death of the disease."""

    time: str  # columns of the patients, by our names
    event: str
    time_unit: TimeUnit | None = None  # None: days
    event_values: dict[str, bool] | None = None  # see `PlainPatients`

    @model_validator(mode="before")
    @classmethod
    def _watched_from_the_beginning(cls, value: Any) -> Any:
        return refuse_entry(value)

    @field_validator("event_values", mode="before")
    @classmethod
    def _keys_are_text(cls, value: Any) -> Any:
        return {yaml_text(key): item for key, item in value.items()} if isinstance(value, dict) else value


class PatientsSource(Section):
    """What every source of patients may declare: a table with one row per patient, and what joins it."""

    table: tuple[FilePath, ...] = Field(min_length=1)  # one file, or several of the same format below one another
    columns: dict[str, str] | None = None  # our name: column of the table; default: columns keep their names
    include: tuple[str, ...] | None = Field(default=None, min_length=1)  # only these patients; None: all of the table
    labels: LabelsSection | None = None
    endpoints: dict[Annotated[str, AfterValidator(plain_name)], EndpointSection] | None = None  # see `endpoint_columns`
    derive: DeriveSection | None = None

    outcome: ClassVar[str] = ""  # how files of a portal tell it

    @field_validator("table", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | Path) else value

    @field_validator("columns", "event_values", mode="before", check_fields=False)
    @classmethod
    def _keys_are_text(cls, value: Any) -> Any:
        return {yaml_text(key): item for key, item in value.items()} if isinstance(value, dict) else value

    @field_validator("columns", mode="after")
    @classmethod
    def _watched_from_the_beginning(cls, value: Any) -> Any:
        return refuse_entry(value)

    @property
    def endpoint_columns(self) -> dict[str, tuple[str, str]]:
        """By endpoint, its columns in tables of patients: days, and whether the event was observed."""
        return {name: (f"{name}_days", f"{name}_event") for name in self.endpoints or {}}

    @model_validator(mode="before")
    @classmethod
    def _only_own_keys(cls, value: Any) -> Any:
        return of_one_format(value, cls, _FORMATS, because=cls.outcome)


class PlainPatients(PatientsSource):
    """A csv or tsv table."""

    format: Literal["plain"] = "plain"
    event_values: dict[str, bool] | None = None  # value of the event column: True if it means an observed event
    time_unit: TimeUnit | None = None  # of the column mapped to time_days; None: days


class GdcPatients(PatientsSource):
    """Clinical files of the GDC portal."""

    format: Literal["gdc"] = "gdc"
    outcome: ClassVar[str] = "gdc files say Dead or Alive, in days"


class CbioportalPatients(PatientsSource):
    """Clinical files of a cBioPortal study, of patients and of samples."""

    format: Literal["cbioportal"] = "cbioportal"
    outcome: ClassVar[str] = "OS_STATUS and OS_MONTHS are defined"


_FORMATS = (PlainPatients, GdcPatients, CbioportalPatients)

PatientsSection = Annotated[
    PlainPatients | GdcPatients | CbioportalPatients, Field(discriminator="format"), PlainByDefault
]

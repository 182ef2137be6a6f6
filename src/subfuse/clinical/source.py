"""Where patients and their outcomes come from, as the cohort file declares it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    WrapValidator,
    field_validator,
    model_validator,
)

from subfuse.identifiers import NAME_RULE, is_plain_label, plain_name
from subfuse.settings import BLANK, FilePath, PlainByDefault, Section, of_one_format, yaml_text
from subfuse.tables import is_missing

TimeUnit = Literal["days", "weeks", "months", "years"]
CENSORED = "censored"  # in a column of causes: no event was observed
ALIVE = ("alive", "living", "lebt", "lebend", "vivant", "vivante", "en vie")
_NO_CAUSES = (CENSORED, *ALIVE, "no", "none", "no event", "event free", "event-free", "event_free", "zensiert")

ENTRIES = (
    "entry",
    "entry_days",
    "entry_time",
    "time_entry",
    "left_truncation",
    "delayed_entry",
)  # names under which a late entry is declared


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


def _true_false_or_a_cause(value: Any, read: Callable[[Any], Any]) -> Any:
    try:
        return read(value)
    except ValidationError:  # one for each kind of value, none of which names all that it may be
        raise ValueError("must be true, false or the name of a cause") from None


def _as_causes(meaning: dict[str, bool | str]) -> dict[str, bool | str]:
    """Returns the meaning of events, if it names causes for all of them or for none.

    Raises:
        ValueError: An event without a cause beside others, causes without a value for nobody's event, or a cause that
            is no name, or means unknown or censored.
    """
    causes = causes_of(meaning)
    if BLANK in causes:  # whoever reads the file names its line
        return meaning
    if causes and any(value is True for value in meaning.values()):
        raise ValueError(f"either true, or a cause for every event, is required. Found true beside {causes[0]}")
    for cause in causes:
        if cause.lower() in _NO_CAUSES:
            raise ValueError(f"{cause} is no cause of an event: write false")
        if is_missing(cause) or not is_plain_label(cause):
            raise ValueError(f"a cause has a name ({NAME_RULE}) that does not mean unknown. Found {cause[:60]!r}")
    if causes and False not in meaning.values():
        raise ValueError(
            f"beside causes, false for those in whom none was observed is required. Found {', '.join(causes)[:80]}, "
            "and no false"
        )
    return meaning


def causes_of(meaning: Mapping[str, bool | str] | None) -> tuple[str, ...]:
    """Returns the causes that a meaning of events names, in their order; none where all events are alike."""
    return tuple(dict.fromkeys(value for value in (meaning or {}).values() if isinstance(value, str)))


def cause_column(event: str) -> str:
    """Returns the column of causes beside a column of events: a cause, `censored`, or missing where unknown."""
    return f"{event}_cause"


EventValues = Annotated[  # value of the event column: true if it means an observed event, or its cause
    dict[str, Annotated[bool | str, Field(union_mode="left_to_right"), WrapValidator(_true_false_or_a_cause)]],
    BeforeValidator(
        lambda value: {yaml_text(key): item for key, item in value.items()} if isinstance(value, dict) else value
    ),
    AfterValidator(_as_causes),
]


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

    time: str | None = None  # columns of the patients, by our names
    time_from: str | None = None  # dates, in the place of the time
    time_to: str | None = None
    event: str
    time_unit: TimeUnit | None = None  # of the time; None: days
    event_values: EventValues | None = None  # see `PlainPatients`

    @model_validator(mode="before")
    @classmethod
    def _watched_from_the_beginning(cls, value: Any) -> Any:
        return refuse_entry(value)

    @model_validator(mode="after")
    def _a_time_or_two_dates(self) -> "EndpointSection":
        given = [key for key in self.columns if key != "event"]
        if given not in (["time"], ["time_from", "time_to"]):
            found = " and ".join(given) or "neither"
            raise ValueError(f"either `time`, or both `time_from` and `time_to`, are required. Found {found}")
        if self.time is None and self.time_unit is not None:
            raise ValueError(f"time_unit is that of `time`. Found {self.time_unit} beside dates. Leave it out")
        return self

    @property
    def columns(self) -> dict[str, str]:
        """Columns of the patients, by our names, by the keys that name them."""
        named = {key: getattr(self, key) for key in ("time", "time_from", "time_to", "event")}
        return {key: column for key, column in named.items() if column is not None}


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

    @field_validator("columns", mode="before")
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

    @property
    def causes(self) -> dict[str, tuple[str, ...]]:
        """By column of events in tables of patients, the causes that are told apart; only where any are."""
        meanings = {"event": getattr(self, "event_values", None)}
        meanings |= {f"{name}_event": endpoint.event_values for name, endpoint in (self.endpoints or {}).items()}
        return {event: causes_of(meaning) for event, meaning in meanings.items() if causes_of(meaning)}

    @model_validator(mode="before")
    @classmethod
    def _only_own_keys(cls, value: Any) -> Any:
        return of_one_format(value, cls, _FORMATS, because=cls.outcome)


class PlainPatients(PatientsSource):
    """A csv or tsv table."""

    format: Literal["plain"] = "plain"
    event_values: EventValues | None = None  # value of the event column: True if it means an observed event
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

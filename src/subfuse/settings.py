"""Sections of YAML files: strict, frozen, with paths relative to the file."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

BLANK = "FILL-IN"  # what stands in a draft where only the user knows the value


def resolved_path(path: Path, info: Any) -> Path:  # ValidationInfo, which run-time type checks do not accept
    """Returns a path of a file of settings as it is meant: relative to that file, with ${VARIABLES} filled in.

    Without `..`, as messages are to name it, unless a link stands before them: what is above it lies elsewhere.
    """
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise ValueError(f"the environment variable in {path} is not set")
    base = (info.context or {}).get("base")
    found = Path(expanded).expanduser() if base is None else Path(base) / Path(expanded).expanduser()
    if ".." not in found.parts:
        return found
    normal = Path(os.path.normpath(found))
    return normal if os.path.realpath(normal) == os.path.realpath(found) else found


FilePath = Annotated[Path, AfterValidator(resolved_path)]  # relative to the cohort file; may hold ${VARIABLES}


_NUMBERS = (int, float, int | None, float | None)  # yes and no, which YAML reads as booleans, would be 1 and 0


class ProblemAt(ValueError):
    """What a validator refuses at a key below its own section, so that a message can name that key and its line."""

    def __init__(self, place: tuple[str, ...], problem: str) -> None:
        super().__init__(problem)
        self.place = place


class Section(BaseModel):
    """A section of a file: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any) -> Any:
        for key, item in value.items() if isinstance(value, dict) else ():
            field = cls.model_fields.get(key)
            if isinstance(item, bool) and field is not None and field.annotation in _NUMBERS:
                raise ProblemAt((key,), f"must be a number, which {str(item).lower()} is not")
        return value


def _with_format(value: Any) -> Any:
    return {"format": "plain", **value} if isinstance(value, dict) else value


PlainByDefault = BeforeValidator(_with_format)  # of a union of sections that their `format` tells apart


def of_one_format(value: Any, own: type[Section], formats: Sequence[type[Section]], *, because: str = "") -> Any:
    """Returns what a section of one format is made of, without empty keys that only other formats have.

    Args:
        value: The section before it is checked.
        own: The section of its format.
        formats: The sections of all formats, each with its own as the default of `format`.
        because: Added to the message.

    Raises:
        ValueError: A key of other formats has a value. Names them.
    """
    if not isinstance(value, dict):
        return value
    kept = {}
    owned = {
        key: [kind.model_fields["format"].default for kind in formats if key in kind.model_fields] for key in value
    }
    is_misspelt = not all(owned.values())  # it may be the key that tells the format: it is named first
    for key, item in value.items():
        owners = owned[key]
        if key in own.model_fields or not owners:
            kept[key] = item
        elif item is not None and not is_misspelt:
            raise ValueError(f"`{key}` belongs to format {' and '.join(owners)}{because and f'; {because}'}")
    return kept


def yaml_text(key: Any) -> str:
    """Returns a key of a YAML mapping as the text that the user wrote: `yes` and `no` are read as booleans."""
    return str(key).lower() if isinstance(key, bool) else str(key)

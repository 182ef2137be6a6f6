"""Sections of YAML files: strict, frozen, with paths relative to the file."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict


def _resolve(path: Path, info: Any) -> Path:  # ValidationInfo, which run-time type checks do not accept
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise ValueError(f"the environment variable in {path} is not set")
    base = (info.context or {}).get("base")
    return Path(expanded).expanduser() if base is None else Path(base) / Path(expanded).expanduser()


FilePath = Annotated[Path, AfterValidator(_resolve)]  # relative to the cohort file; may hold ${VARIABLES}


class ProblemAt(ValueError):
    """What a validator refuses at a key below its own section, so that a message can name that key and its line."""

    def __init__(self, place: tuple[str, ...], problem: str) -> None:
        super().__init__(problem)
        self.place = place


class Section(BaseModel):
    """A section of a file: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def yaml_text(key: Any) -> str:
    """Returns a key of a YAML mapping as the text that the user wrote: `yes` and `no` are read as booleans."""
    return str(key).lower() if isinstance(key, bool) else str(key)

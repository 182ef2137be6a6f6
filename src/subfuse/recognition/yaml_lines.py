"""Lines of a cohort file that is drafted: values with what is told of them, and what is asked."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from subfuse.errors import ConfigurationError, printable
from subfuse.settings import BLANK

QUESTION = "QUESTION: "
PROBLEM = "PROBLEM: "  # what a file has to be corrected for


def scalar(value: Any) -> str:
    """Returns a value as YAML in one line, quoted where it must be.

    Example:
        >>> print(scalar("study.xlsx#Patients"), scalar("0012"), scalar(["a", "b c"]), scalar({"Dead": True}))
        study.xlsx#Patients '0012' [a, b c] {Dead: true}
    """
    text = _dumped(value)
    return text if len(text.splitlines()) == 1 else _dumped(value, default_style='"')  # which escapes line breaks


def _dumped(value: Any, default_style: str | None = None) -> str:
    text: str = yaml.safe_dump(
        value,
        default_style=default_style,
        default_flow_style=True,
        allow_unicode=True,
        width=1 << 30,
        sort_keys=False,
    )
    return text.removesuffix("\n").removesuffix("\n...")


def line(key: str, value: Any, comment: str = "", *, indent: int = 2) -> str:
    """Returns one line of a section.

    Args:
        key: Of the section.
        value: Its value.
        comment: What is told of it.
        indent: Spaces before it.
    """
    written = f"{' ' * indent}{scalar(key)}: {scalar(value)}"
    return f"{written:<34} # {printable(comment)}" if comment else written


def asked(key: str, question: str, *, value: Any = BLANK, indent: int = 2) -> str:
    """Returns the line of a key whose value only the user knows; `check` names it until it is filled in."""
    return line(key, value, f"{QUESTION}{question}", indent=indent)


def remark(text: str, *, indent: int = 2) -> str:
    """Returns a line that is a comment alone."""
    return f"{' ' * indent}# {printable(text)}"


def mapping(key: str, entries: Mapping[str, Any], *, indent: int = 2) -> list[str]:
    """Returns the lines of a mapping below a key."""
    return [f"{' ' * indent}{key}:", *(line(name, value, indent=indent + 2) for name, value in entries.items())]


def relative(path: Path, base: Path) -> str:
    """Returns a path as the cohort file in a folder names it.

    Raises:
        ConfigurationError: It holds a dollar sign, which stands for a variable there, or bytes that are no text.
    """
    text = Path(os.path.relpath(path.absolute(), base.resolve())).as_posix()  # links to data keep their names
    if "$" in text:
        raise ConfigurationError(f"{path}: a path without $ is required, which stands for a variable. Rename it.")
    if not text.isascii() and text != text.encode(errors="replace").decode():
        raise ConfigurationError(f"{printable(str(path))}: a path of UTF-8 text is required, as YAML is. Rename it.")
    return text


def names_of(paths: Sequence[Path], base: Path) -> str:
    """Returns paths in words, as alternatives."""
    return " or ".join(relative(path, base) for path in paths)

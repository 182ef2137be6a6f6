"""What the sections are made of: figures with their words, tables of texts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Drawn:
    """A figure with what surrounds it."""

    svg: Markup
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class PlainTable:
    """A table of texts; `numeric` names the right-aligned columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[str] = frozenset()


def prose(text: str) -> Markup:
    """Returns text as HTML, in which only words between backticks are marked up: they are shown as code.

    Example:
        >>> print(prose("<b> run `subfuse audit`"))
        &lt;b&gt; run <code>subfuse audit</code>
    """
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def flattened(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Returns nested settings as pairs of dotted key and text."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in flattened(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(str(item) for item in value))]
    return [(name, "none" if value is None else str(value))]

"""What is wrong with a YAML file and in which line, for files that are validated as a pydantic model."""

import difflib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from subfuse.errors import ConfigurationError, preview


def refuse_repeated_keys(path: Path, node: yaml.Node | None, place: tuple[str, ...] = ()) -> None:
    """Raises an error where a mapping has a key twice: YAML would silently take the last.

    Args:
        path: The file, for the message.
        node: What `yaml.compose` made of it.
        place: Keys that lead to the node.

    Raises:
        ConfigurationError: One line naming file, line and key.
    """
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            refuse_repeated_keys(path, item, (*place, str(index)))
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, item in node.value:
        if key.value in seen:
            name = ".".join((*place, key.value))
            raise ConfigurationError(f"{path}, line {key.start_mark.line + 1}: {name} occurs twice. Keep one.")
        seen.add(key.value)
        refuse_repeated_keys(path, item, (*place, key.value))


def one_line(path: Path, node: yaml.Node | None, error: ValidationError, model: type[BaseModel]) -> str:
    """Returns the first problem of a file in one line: file, line, key, and the nearest valid key.

    Args:
        path: The file.
        node: What `yaml.compose` made of it.
        error: What validation found.
        model: What the file is validated as.
    """
    first, *others = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    place = [str(part) for part in first["loc"]]
    name = ".".join(place)
    if first["type"] == "extra_forbidden":
        valid = sorted(_keys_at(model, place[:-1]))
        near = difflib.get_close_matches(place[-1], valid, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`? " if near else ""
        problem = f"unknown key `{name}`. {hint}Valid: {preview(valid, limit=12)}."
    elif first["type"] == "missing":
        problem = f"`{name}` is required."
    else:
        message = first["msg"].removeprefix("Value error, ")
        found = "" if isinstance(first["input"], Mapping | BaseModel) else f" Found {first['input']!r}."
        problem = f"{name + ': ' if name else ''}{message[:1].lower()}{message[1:]}.{found}"
    more = f" ({len(others)} more problem(s) in this file.)" if others else ""
    return f"{path}, line {_line_of(node, place)}: {problem}{more}"


def _line_of(node: yaml.Node | None, place: list[str]) -> int:
    line = node.start_mark.line if node else 0
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, item) for key, item in node.value if key.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdigit():
            found = (node.value[int(part)],) * 2
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line, found[1]
    return line + 1


def _keys_at(model: type[BaseModel], place: list[str]) -> set[str]:
    current: Any = model
    for part in place:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[part].annotation
        else:
            current = get_args(current)[0 if part.isdigit() else -1]  # tuple[Section, ...] or dict[str, Section]
        current = next(_sections(current), current)
    return set(current.model_fields) if isinstance(current, type) and issubclass(current, BaseModel) else set()


def _sections(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        yield from (part for part in get_args(annotation) if part is not type(None))

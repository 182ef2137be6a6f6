"""YAML files of bounded size, and what is wrong with one and in which line when a pydantic model refuses it."""

import datetime
import difflib
import re
import reprlib
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError

from subfuse.bounded_files import other_than_file
from subfuse.cells import number_hint, other_writing
from subfuse.errors import ConfigurationError, preview
from subfuse.identifiers import difference_of_spelling
from subfuse.settings import BLANK, ProblemAt

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LARGEST = 1_000_000  # bytes of a file
_DEEPEST = 30  # levels; ours need six
_LONGEST_OPTION = 60  # characters that are compared
_A_SLIP = 0.8  # similarity from which on a value is a mistyped option
_SYNONYMS = dict.fromkeys(("hospital", "hospitals", "center", "centre", "clinic", "institution"), "site")
_MOST_NODES = 200_000  # after aliases are followed


def read_yaml(path: Path, *, what: str) -> tuple[yaml.Node | None, Any]:
    """Returns a YAML file as a tree with line numbers and as plain values, in time and memory that its size bounds.

    Raises:
        ConfigurationError: Missing file, not a regular one, too large, not YAML, nested too deeply, aliases that
            contain themselves or grow too large, or a key that occurs twice. One line.
    """
    try:
        if other_than_file(path) is not None:
            raise ConfigurationError(f"{path}: {what} is required. Found a folder, pipe or device. Give the file.")
        if path.stat().st_size > _LARGEST:
            raise ConfigurationError(f"{path}: {what} of at most 1 MB is required. Found {path.stat().st_size} bytes.")
        text = path.read_text(encoding="utf-8-sig")
        _refuse_bombs(path, text)
        node, value = yaml.compose(text, _LOADER), yaml.load(text, _LOADER)
    except OSError as error:
        raise ConfigurationError(f"{path}: {what} is required. Found: {error.strerror}.") from error
    except (ValueError, yaml.YAMLError) as error:  # ValueError: bytes that are not UTF-8, or such as a 32nd of May
        place, problem = _place_and_problem(error)
        raise ConfigurationError(f"{path}{place}: valid YAML is required. Found: {problem[:300]}.") from error
    _refuse_repeated_keys(path, node)
    return node, value


def _place_and_problem(error: Exception) -> tuple[str, str]:
    """Returns the line that a parser complains of, and its complaint without marks in a nameless text."""
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem:
        return "", " ".join(str(error).split())
    is_key = "expected ':'" in error.problem and error.context_mark is not None  # found only in the next line
    mark = error.context_mark if is_key else error.problem_mark
    problem = "a key without a colon after it" if is_key else " ".join(error.problem.split())
    return ("" if mark is None else f", line {mark.line + 1}"), problem


def _refuse_bombs(path: Path, text: str) -> None:
    """Follows the events of a file, which takes no recursion and does not expand aliases, and adds up what they would.

    Raises:
        ConfigurationError: Too deep, too large once aliases are followed, or an alias within what it stands for.
    """
    sizes: dict[str | None, int] = {}  # nodes behind each anchor; of open ones unknown yet
    opened: list[tuple[str | None, int]] = []  # anchor, and the nodes before it
    n_nodes = 0
    events: Any = yaml.parse(text, _LOADER)
    for event in events:
        line = f"{path}, line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [anchor for anchor, _ in opened]:
                raise ConfigurationError(
                    f"{line}: an alias must not stand within its own anchor. Found *{event.anchor}."
                )
            n_nodes += sizes.get(event.anchor, 0)
        elif isinstance(event, yaml.NodeEvent):
            n_nodes += 1
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append((event.anchor, n_nodes - 1))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            if anchor is not None:
                sizes[anchor] = n_nodes - before
        if len(opened) > _DEEPEST:
            raise ConfigurationError(f"{line}: at most {_DEEPEST} levels of nesting are allowed. Found more.")
        if n_nodes > _MOST_NODES:
            raise ConfigurationError(
                f"{line}: at most {_MOST_NODES} entries are allowed, aliases followed. Found more. Write them out."
            )


def _refuse_repeated_keys(path: Path, node: yaml.Node | None, place: tuple[str, ...] = ()) -> None:
    """Raises an error where a mapping has a key twice: YAML would silently take the last.

    Raises:
        ConfigurationError: One line naming file, line and key.
    """
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _refuse_repeated_keys(path, item, (*place, str(index)))
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, item in node.value:
        if key.value in seen:
            name = ".".join((*place, key.value))
            raise ConfigurationError(f"{path}, line {key.start_mark.line + 1}: {name} occurs twice. Keep one.")
        seen.add(key.value)
        _refuse_repeated_keys(path, item, (*place, key.value))


def refuse_blanks(path: Path, node: yaml.Node | None) -> None:
    """Raises an error where a draft is not filled in, whatever would be a valid value there.

    Raises:
        ConfigurationError: One line naming the file, and line and key of every such value.
    """
    blanks = [(f"line {line}", f"`{'.'.join(place)}`") for line, place in _blanks(node)]
    if not blanks:
        return
    (line, key), *others = blanks
    further = f" Also {', '.join(f'{line} ({key})' for line, key in others)}." if others else ""
    raise ConfigurationError(
        f"{path}, {line}: {key}: a value is required in the place of {BLANK}. Fill it in; the comment beside it says "
        f"what is asked.{further}"
    )


def _blanks(node: yaml.Node | None, place: tuple[str, ...] = ()) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields line and place of every value that is still to be filled in."""
    if isinstance(node, yaml.ScalarNode) and node.value == BLANK:
        yield node.start_mark.line + 1, place
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _blanks(item, (*place, str(index)))
    if isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            yield from _blanks(item, (*place, key.value))


def one_line(path: Path, node: yaml.Node | None, error: ValidationError, model: type[BaseModel]) -> str:
    """Returns the first problem of a file in one line: file, line, key, and the nearest valid key."""
    first, *others = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    parts, is_key = [str(part) for part in first["loc"] if part != "[key]"], first["loc"][-1:] == ("[key]",)
    place, own, of_any = _resolved(model, [*parts[:-1], str(first["input"])] if is_key else parts)
    cause = first.get("ctx", {}).get("error")
    place += cause.place if isinstance(cause, ProblemAt) else ()
    line, key, value = _found_at(node, place)
    written = getattr(key if is_key else value, "value", None)
    if is_key and written:
        place[-1] = written
    name = ".".join(part[:60] for part in place)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place[-1].lower(), of_any, n=1, cutoff=0.5)
        hint = f"Did you mean `{near[0]}`? " if near else ""
        valid = own if set(near) <= set(own) else of_any  # what is meant may be a key of another kind of the section
        problem = f"unknown key `{name}`. {hint}Valid: {preview(valid, limit=15)}."
    elif first["type"] == "missing":
        problem = f"`{name}` is required."
    elif first["type"] in ("literal_error", "union_tag_invalid"):
        problem = _of_options(name, first)
    elif first["type"] == "tuple_type" and isinstance(first["input"], str):
        problem = f"`{name}` must be a list. Found {first['input']!r}: write [{first['input']}]."
    elif first["type"] == "string_type" and isinstance(first["input"], bool | int | float | datetime.date | None):
        kind = {bool: "yes or no", int: "a number", float: "a number", type(None): "no value"}
        read_as = kind.get(type(first["input"]), "a date")
        found = f"{written}, which YAML reads as {read_as}: write it in quotes" if written else "nothing. Write it"
        problem = f"`{name}` must be text. Found {found}."
    elif first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        problem = _of_section(name, place, first["input"])
    else:
        problem = _of_kind(name, first)
    more = f" ({len(others)} more problem(s) in this file.)" if others else ""
    return f"{path}, line {line}: {problem}{more}"


def _of_kind(name: str, problem: Mapping[str, Any]) -> str:
    """Returns what is wrong with a value that is of another kind or size than required, or refused by its section."""
    message, found = problem["msg"].removeprefix("Value error, "), problem["input"]
    shown = "" if isinstance(found, Mapping | BaseModel) else f" Found {reprlib.repr(found)}."
    if problem["type"] == "too_short" or (problem["type"] == "tuple_type" and found is None):
        return f"`{name}` must have an entry. Found none. Fill it in, or leave it out."
    if not message.startswith("Input should be "):
        return f"{name + ': ' if name else ''}{message[:1].lower()}{message[1:]}.{shown}"
    required = message.removeprefix("Input should be ").partition(",")[0].replace("a valid ", "a ")
    for kind, words in (("a integer", "a whole number"), ("a boolean", "true or false"), ("a tuple", "a list")):
        required = required.replace(kind, words)
    return f"`{name}` must be {required}.{shown}{_hint(found) if isinstance(found, str) else ''}"


def _hint(found: str) -> str:
    """Returns how a number is written; in these files, per cents are shares."""
    written = other_writing(found)
    if written is not None and written.kind == "per cent":
        return f" Write it as a share, {float(written.number) / 100:g}."
    return number_hint(found)


def _of_section(name: str, place: Sequence[str], found: Any) -> str:
    """Returns what is wrong with a value where keys are required, and how they are written."""
    if place[0] == "tasks" and isinstance(found, str):
        example = f": write `{place[-1]}: {{column: {found}}}`"
    elif place[0] == "tasks" and isinstance(found, list) and len(place) == 1:
        tasks = ", ".join(f"{column}: {{column: {column}}}" for column in map(str, found[:3]))
        example = f": write `tasks: {{{tasks}}}`"
    else:
        example = ""
    return f"`{name}` must have keys. Found {reprlib.repr(found)}{example}."


def _of_options(name: str, problem: Mapping[str, Any]) -> str:
    """Returns what is wrong with a value that is none of those that a key may have, and the one that is meant."""
    context = problem["ctx"]
    options = re.findall(r"'([^']*)'", context.get("expected_tags", context.get("expected")))
    tag = context["discriminator"].strip("'") if "tag" in context else None  # the key that tells which kind is meant
    key, found = (name, problem["input"]) if tag is None else (f"{name}.{tag}", problem["input"].get(tag))
    if found is None and "none" in options:
        like, hint = ", which YAML reads as no value", " Write `none`, or leave it out."
    elif isinstance(found, list) and len(found) == 1 and found[0] in options:
        like, hint = f": write it without brackets, as {found[0]}", ""
    else:
        like, hint = _meant(str(found)[:_LONGEST_OPTION], options)
    required = f"{'one of ' if len(options) > 1 else ''}{preview(options, limit=len(options))}"
    return f"`{key}` must be {required}. Found {reprlib.repr(found)}{like}.{hint}"


def _meant(text: str, options: Sequence[str]) -> tuple[str, str]:
    """Returns in words which option is meant: by another spelling, or by a slip of the pen.

    Numbers are a part of what options mean: log10_tpm is no slip of log2_tpm, and log2(tpm+1) no log2_tpm_001.
    """
    as_formula = re.sub(r"\+\s*0?\.(0+1)\b", r"_\1", re.sub(r"\(?\s*(?:x\s*)?\+\s*1\s*\)?$", "", text))
    same = next((option for option in options if _as_option(option) == _as_option(as_formula)), None)
    if same is not None:
        is_spelling = as_formula == text
        how = f"; {same} is, which differs only in {difference_of_spelling(text, same)}"
        return (how, "") if is_spelling else ("", f" {same} is what is meant.")
    if text.lower() in _SYNONYMS and _SYNONYMS[text.lower()] in options:
        return "", f" Did you mean {_SYNONYMS[text.lower()]}?"
    near = [
        option
        for option in options
        if re.findall(r"\d+", option) == re.findall(r"\d+", text)
        and (
            sorted(option) == sorted(text.lower())
            or difflib.SequenceMatcher(None, text.lower(), option).ratio() >= _A_SLIP
        )
    ]
    return "", f" Did you mean {near[0]}?" if len(near) == 1 else ""


def _as_option(text: str) -> str:
    """Returns the letters and digits of an option, in lower case; zeros count."""
    return re.sub(r"[\W_]+", "", text.lower())


def _found_at(node: yaml.Node | None, place: Sequence[str]) -> tuple[int, yaml.Node | None, yaml.Node | None]:
    """Returns the line of the last part of a place that is there, its key, and what stands there."""
    key, line = None, node.start_mark.line if node else 0
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, item) for key, item in node.value if part in (key.value, _as_read(key))), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdigit():
            found = (node.value[int(part)],) * 2
        else:
            found = None
        if found is None:
            break
        key, node = found
        line = key.start_mark.line
    return line + 1, key, node


def _as_read(key: yaml.Node) -> str:
    """Returns a key as text after YAML has read it, as it reads `yes` as True."""
    return str(yaml.load(key.value, _LOADER)) if isinstance(key, yaml.ScalarNode) and not key.style else ""


def _resolved(model: type[BaseModel], location: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Returns a location without the tags of unions, and the keys of the innermost section on the way to it.

    They come twice: those of the section, and those of all its kinds where it has several.
    """
    place: list[str] = []
    kinds, alternatives = _kinds(model), _kinds(model)
    own: list[str] = []
    of_any: list[str] = []
    for part in location:
        if len(kinds) > 1 and part in kinds:
            alternatives, kinds = kinds, {"": kinds[part]}
            continue
        place.append(part)
        kind = next(iter(kinds.values()), None)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            own = sorted(_keys(kind))
            of_any = sorted({key for each in alternatives.values() for key in _keys(each)})
            kinds = _kinds(kind.model_fields[part].annotation) if part in kind.model_fields else {}
        else:
            kinds = _kinds(get_args(kind)[0 if part.isdigit() else -1]) if get_args(kind) else {}  # tuple or dict
        alternatives = kinds
    return place, own, of_any


def _keys(section: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _kinds(annotation: Any, tag: str = "") -> dict[str, Any]:
    """Returns what a value may be beside None: several sections where a tag tells which, by their tag."""
    if get_origin(annotation) is Annotated:
        tags = [each.tag for each in get_args(annotation)[1:] if isinstance(each, Tag)]
        return _kinds(get_args(annotation)[0], *tags)
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return {name: kind for part in parts for name, kind in _kinds(part).items()}
    fields = getattr(annotation, "model_fields", {})
    return {tag or (fields["format"].default if "format" in fields else ""): annotation}

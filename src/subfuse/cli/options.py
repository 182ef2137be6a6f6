"""Options that are checked when they are read, before any work; what is wrong is said in one line."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_args

from jsonargparse import ArgumentParser
from jsonargparse._formatters import DefaultHelpFormatter

from subfuse.errors import ConfigurationError, meant, preview
from subfuse.identifiers import spelt_otherwise

if TYPE_CHECKING:
    import pydantic


_KINDS = {"bool": "true or false", "dict": """names and values, such as '{"a": "b"}'"""}
SWITCH: dict[str, Any] = {"type": bool, "nargs": "?", "const": True, "metavar": "true|false"}  # alone it is true


class PlainHelp(DefaultHelpFormatter):
    """Help with defaults and without the types of Python."""

    def _get_type_str(self, action: Any) -> str | None:
        return None

    def _expand_help(self, action: Any) -> str:
        text = re.sub(r" \(default: (null|\[\]|\{\})\)$", "", super()._expand_help(action))
        return re.sub(r"\(default: (True|False)\)$", lambda found: found[0].replace(found[1], found[1].lower()), text)


class Parser(ArgumentParser):
    """A parser that says what is wrong in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=PlainHelp, **options)
        self.subcommands: dict[str, Parser] = {}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the message, with arguments named as they are typed, and ends with exit code 2."""
        message = " ".join(message.split())
        command, _, lacking = message.partition("the following arguments are required: ")[2].partition(".")
        if command in self.subcommands:
            names = [name.removeprefix(f"{command}.") for name in lacking.split(", ")]
            parser = self.subcommands[command]
            parser.error(f"required, but not given: {', '.join(map(parser._typed, names))}", ex)
        message = re.sub(r'^Parser key "([^"]+)":', lambda found: f"{self._typed(found[1])}:", message)
        for kind, required in _KINDS.items():
            message = message.replace(f": Expected a <class '{kind}'>. Got value:", f" must be {required}. Found")
        message = self._helpful(message)
        shown = self.prog.replace(" [options]", "")
        print(f"subfuse: error: {message}{'' if message.endswith('?') else '.'} See `{shown} --help`.", file=sys.stderr)
        raise SystemExit(2) from ex

    def _helpful(self, message: str) -> str:
        """Returns a message of argparse about a name with what was meant, and without a list of everything there is."""
        if found := re.match(r"argument COMMAND: invalid choice: '(.*)' \(choose from", message):
            near = meant(found[1], self.subcommands) or f" Commands: {', '.join(self.subcommands)}"
            return f"{found[1]} is no command.{near}"
        if found := re.match(r"unrecognized arguments:.*?( --[^ =]+)", message):
            options = [option for action in self._actions for option in action.option_strings]
            return f"{message}.{meant(found[1].strip(), options)}".removesuffix(".")
        if found := re.match(r"ambiguous option: (\S+) could match (.*)", message):
            return f"{found[1]} is the beginning of {preview(found[2].split(', '), 3)}: write one in full"
        return re.sub(r"^argument (\S+): expected one argument$", r"\1 needs a value", message)

    def _typed(self, name: str) -> str:
        """Returns what a user types for an argument that the parser calls by the name of its value."""
        return next(
            (action.option_strings[0] for action in self._actions if action.dest == name and action.option_strings),
            name,
        )


def add_number(
    parser: ArgumentParser,
    name: str,
    kind: type[int] | type[float],
    default: int | float | None,
    help: str,
    **limits: Any,
) -> None:
    """Adds an option that takes a number within limits.

    Args:
        parser: The command's.
        name: With its dashes.
        kind: int or float.
        default: Without the option; not checked.
        help: What it means.
        **limits: As pydantic's `Field` calls them: ge, gt, le, lt.
    """
    from pydantic import Field

    parser.add_argument(name, type=_checked(name, Annotated[kind, Field(**limits)]), default=default, help=help)


def add_seed(parser: ArgumentParser, help: str) -> None:
    """Adds `--seed`, a whole number of 32 bits: seeds of single jobs are further ones, and have 64."""
    add_number(parser, "--seed", int, 0, help, ge=0, le=2**32 - 1)


def add_settings(parser: ArgumentParser, settings: "type[pydantic.BaseModel]", prefix: str, title: str) -> None:
    """Adds an option `--PREFIX.NAME` for every setting, with the limits of the setting."""
    from pydantic import Field

    group = parser.add_argument_group(title)
    for name, setting in settings.model_fields.items():
        option = f"--{prefix}.{name}"
        kind = _checked(option, Annotated[setting.annotation, Field(), *setting.metadata])
        if setting.annotation is bool:
            group.add_argument(option, **SWITCH, default=setting.default, help=setting.description)
            continue
        choices = get_args(setting.annotation)
        shown = f"{{{','.join(choices)}}}" if choices else None
        group.add_argument(option, type=kind, default=setting.default, metavar=shown, help=setting.description)


def require_distinct(name: str, values: Sequence[str] | None) -> None:
    """Raises a ConfigurationError if an option names something twice, or several things with commas between them."""
    given = list(values or ())
    require_spaces(name, given)
    repeated = [value for index, value in enumerate(given) if value in given[:index]]
    if repeated:
        raise ConfigurationError(f"{name} must name each once. Found twice: {preview(dict.fromkeys(repeated))}.")


def require_spaces(name: str, values: Sequence[str]) -> None:
    """Raises a ConfigurationError if what an option names is separated by commas."""
    joined = next((value for value in values if re.search(r",(?! )", value)), None)
    if joined is not None:
        apart = " ".join(part for part in joined.split(",") if part)
        raise ConfigurationError(f"{name}: names are separated by spaces. Found {joined}. Write {name} {apart}.")


def require_new_file(option: str, path: Path, inputs: Sequence[Path | None]) -> None:
    """Raises a ConfigurationError if an output is no file, one that the command reads, or cannot be written."""
    from subfuse.bounded_files import other_than_file
    from subfuse.files import require_place

    if (found := other_than_file(path)) is not None:
        raise ConfigurationError(f"{option} must be a file. Found the {found} {path}.")
    if path.resolve() in {file.resolve() for file in inputs if file is not None}:
        raise ConfigurationError(f"{option} must be another file than those that are read. Found {path}.")
    require_place(path.parent)


def _checked(option: str, kind: Any) -> Callable[[Any], Any]:
    """Returns what reads an option's text, or raises a ConfigurationError that names the option."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    adapter = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))

    def read(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            required = error.errors()[0]["msg"].removeprefix("Input should ").partition(", unable")[0]
            required = required.replace("a valid boolean", _KINDS["bool"])
            like = spelt_otherwise([str(value)], re.findall(r"'([^']*)'", required)).get(str(value), "")
            raise ConfigurationError(f"{option} must {required}. Found {value}{like}.") from None

    return read

"""Errors that users can act on. Each message says what was required, what was found and what to do."""

import shlex
from collections.abc import Iterable
from difflib import get_close_matches


class SubfuseError(Exception):
    """An error caused by the user's input; shown as one line without a traceback."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class ConfigurationError(SubfuseError):
    """Wrong usage or configuration (exit code 2)."""

    exit_code = 2


class DataError(SubfuseError):
    """Data that cannot be used as it is (exit code 3): names the file, row or gene."""

    exit_code = 3


def printable(text: str) -> str:
    r"""Returns a text in one line, with everything escaped that no terminal or table can show.

    Names in files may be any bytes.

    Example:
        >>> print(printable("P1\udcff µm"))
        P1\udcff µm
    """
    return "".join(c if c.isprintable() or c == "\xa0" else ascii(c)[1:-1] for c in text)


def listed(names: Iterable[object]) -> str:
    """Returns names in one line: separated by commas, or by semicolons where a name reads as several.

    Example:
        >>> listed(["G2", "G3"]), listed(["Astrocytoma, IDH-mutant", "Glioblastoma"])
        ('G2, G3', 'Astrocytoma, IDH-mutant; Glioblastoma')
    """
    texts = [str(name) for name in names]
    return ("; " if any(", " in text or " and " in text for text in texts) else ", ").join(texts)


def preview(names: Iterable[object], limit: int = 5) -> str:
    """Returns the first names as `listed`, and how many more there are.

    Example:
        >>> preview(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    texts = [str(name) for name in names]
    shown = listed(texts[:limit])
    return f"{shown} and {len(texts) - limit} more" if len(texts) > limit else shown


def meant(name: str, known: Iterable[str]) -> str:
    """Returns which known name is nearest to one that is not known; nothing where none is near.

    Example:
        >>> meant("crosval", ["train", "crossval"]), meant("x", ["train"])
        (' Did you mean crossval?', '')
    """
    near = get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f" Did you mean {near[0]}?" if near else ""


def command_line(*parts: object) -> str:
    """Returns a command of the package as it can be pasted into a shell: names with spaces are quoted.

    Example:
        >>> command_line("prepare", "A data/cohort.yaml", "--out", "prepared")
        "subfuse prepare 'A data/cohort.yaml' --out prepared"
    """
    return shlex.join(["subfuse", *map(str, parts)])


def counted(count: int, noun: str) -> str:
    """Returns a number with its noun, in the plural unless there is one of it.

    Example:
        >>> counted(1, "patient"), counted(1200, "patient")
        ('1 patient', '1200 patients')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def and_more(n: int, what: str) -> str:
    """Returns how many others there are beside the one that a message names; nothing where there is none.

    Example:
        >>> and_more(1, "row"), and_more(3, "row"), and_more(0, "row")
        (', and 1 more row', ', and 3 more rows', '')
    """
    return f", and {counted(n, f'more {what}')}" if n else ""

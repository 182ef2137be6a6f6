"""Errors that users can act on. Each message says what was required, what was found and what to do."""

from collections.abc import Iterable


class SubfuseError(Exception):
    """An error caused by the user's input; shown as one line without a traceback."""

    exit_code = 1


class ConfigurationError(SubfuseError):
    """Wrong usage or configuration (exit code 2)."""

    exit_code = 2


class DataError(SubfuseError):
    """Data that cannot be used as it is (exit code 3): names the file, row or gene."""

    exit_code = 3


def preview(names: Iterable[object], limit: int = 5) -> str:
    """Returns the first names, comma-separated, and how many more there are.

    Example:
        >>> preview(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    texts = [str(name) for name in names]
    shown = ", ".join(texts[:limit])
    return f"{shown} and {len(texts) - limit} more" if len(texts) > limit else shown

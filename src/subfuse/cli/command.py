"""What a subcommand is, and the arguments that several of them have."""

from collections.abc import Callable
from dataclasses import dataclass

from jsonargparse import ArgumentParser, Namespace

from subfuse.execution import available_cores


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    summary: str
    example: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


def add_workers(parser: ArgumentParser, *, scheduler: bool = True) -> None:
    """Adds `--workers` and, unless left out, `--scheduler`."""
    parser.add_argument("--workers", type=int, default=0, help="Local processes; 0: one per core.")
    if scheduler:
        parser.add_argument("--scheduler", type=str, default=None, help="Address of a running Dask scheduler instead.")


def n_workers(arguments: Namespace) -> int:
    """Returns the number of local processes that `--workers` asks for."""
    return arguments.workers or available_cores()

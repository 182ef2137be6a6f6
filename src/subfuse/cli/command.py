"""What a subcommand is, and the arguments that several of them have."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from subfuse.cli.options import add_number
from subfuse.devices import AUTO, DEVICE_HELP, processes_on
from subfuse.execution import import_ahead

if TYPE_CHECKING:
    import subfuse.cohort.cohort


@dataclass(frozen=True)
class Command:
    """A subcommand: what `--help` says of it, its arguments, and what it runs."""

    summary: str
    example: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    when_stopped: str = "What is complete is kept; the same command goes on from there."


def add_role(parser: ArgumentParser, *, own: bool = False) -> None:
    """Adds `--role`: whose patients of a prepared folder with several cohorts.

    Args:
        parser: Of the command.
        own: The command takes the run's own cohort without --cohort.
    """
    of_own = "; of the run's own folder: develop" if own else ""
    parser.add_argument(
        "--role",
        type=str,
        default=None,
        help="Where the folder has several cohorts: develop, external, or a cohort's name; default: external if there"
        f"{of_own}.",
    )


def chosen_role(folder: Path, role: str | None, *, own: bool = False) -> tuple[str, str, str]:
    """Returns whose patients of a prepared folder are taken, the cohorts of this role, and those that are not taken.

    Args:
        folder: The prepared folder.
        role: `--role`.
        own: The folder is that of the run, whose patients to develop on come first.
    """
    from subfuse.cohort.cohort import roles_of

    roles = roles_of(folder)
    usual = ("develop", "external") if own else ("external", "develop")
    role = role or next(name for name in usual if name in roles.values())
    names = [name for name, its_role in roles.items() if role in (name, its_role)]
    taken = ", ".join(f"{name} ({roles[name]})" for name in names)
    others = ", ".join(f"{name} ({its_role})" for name, its_role in roles.items() if name not in names)
    return role, taken, f". Not taken: {others}; choose with --role" if others else ""


def read_chosen_cohort(folder: Path, role: str | None, *, own: bool = False) -> "subfuse.cohort.cohort.Cohort":
    """Returns the cohort that `--cohort` and `--role` choose, and says which it is and which are not taken.

    The run's own cohort is not said where its folder has no other.
    """
    from subfuse.cohort.cohort import read_cohort

    role, taken, left = chosen_role(folder, role, own=own)
    cohort = read_cohort(folder, role=role)
    if left or not own:
        print(f"Cohort: {taken}, {len(cohort)} patients{left}", file=sys.stderr)
    return cohort


def add_workers(parser: ArgumentParser, *, scheduler: bool = True) -> None:
    """Adds `--workers` and, unless left out, `--scheduler`."""
    add_number(parser, "--workers", int, 0, "Local processes; 0: one per GPU, or core without any.", ge=0)
    if scheduler:
        parser.add_argument("--scheduler", type=str, default=None, help="Address of a running Dask scheduler instead.")


def add_device(parser: ArgumentParser) -> None:
    """Adds `--device`."""
    parser.add_argument("--device", type=str, default=AUTO, help=DEVICE_HELP)


def n_workers(arguments: Namespace) -> int:
    """Returns the number of local processes that `--workers` asks for; begins their imports, so call it early.

    Raises:
        ConfigurationError: More than the devices of `--device` can take.
    """
    device = "cpu" if arguments.get("scheduler") is not None else arguments.get("device", "cpu")
    count = processes_on(device, arguments.workers)
    if count > 1 and arguments.get("scheduler") is None:
        import_ahead()
    return count

"""What a subcommand is, and the arguments that several of them have."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from subfuse.cli.options import add_number
from subfuse.execution import available_cores

if TYPE_CHECKING:
    import subfuse.cohort.cohort


@dataclass(frozen=True)
class Command:
    """A subcommand: what `--help` says of it, its arguments, and what it runs."""

    summary: str
    example: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]


def add_role(parser: ArgumentParser) -> None:
    """Adds `--role`: whose patients of a prepared folder with several cohorts."""
    parser.add_argument(
        "--role",
        type=str,
        default=None,
        help="Where --cohort has several cohorts: develop, external, or a cohort's name; default: external if there.",
    )


def read_other_cohort(arguments: Namespace) -> "subfuse.cohort.cohort.Cohort":
    """Returns the cohort that `--cohort` and `--role` choose, and says which it is."""
    from subfuse.cohort.cohort import read_cohort, roles_of

    roles = roles_of(arguments.cohort)
    role = arguments.role or ("external" if "external" in roles.values() else "develop")
    cohort = read_cohort(arguments.cohort, role=role)
    names = [name for name, its_role in roles.items() if role in (name, its_role)]
    taken = ", ".join(f"{name} ({roles[name]})" for name in names)
    others = ", ".join(f"{name} ({its_role})" for name, its_role in roles.items() if name not in names)
    left = f". Not taken: {others}; choose with --role" if others else ""
    print(f"Cohort: {taken}, {len(cohort)} patients{left}", file=sys.stderr)
    return cohort


def add_workers(parser: ArgumentParser, *, scheduler: bool = True) -> None:
    """Adds `--workers` and, unless left out, `--scheduler`."""
    add_number(parser, "--workers", int, 0, "Local processes; 0: one per core.", ge=0)
    if scheduler:
        parser.add_argument("--scheduler", type=str, default=None, help="Address of a running Dask scheduler instead.")


def n_workers(arguments: Namespace) -> int:
    """Returns the number of local processes that `--workers` asks for."""
    return arguments.workers or available_cores()

"""The `subfuse` command: parse, call one library function, print what was done.

Libraries that are slow to load are imported inside the command that needs them, so that `--help` is instant.
"""

import codecs
import contextlib
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from jsonargparse import Namespace

from subfuse import __version__
from subfuse.cli import cohorts, environment, results, sharing, training
from subfuse.cli.console import DISCLAIMER
from subfuse.cli.options import Parser
from subfuse.errors import ConfigurationError, DataError, SubfuseError, printable
from subfuse.execution import log_lines

__all__ = ["main"]

COMMANDS = {
    **cohorts.COMMANDS,
    **training.COMMANDS,
    **results.COMMANDS,
    **sharing.COMMANDS,
    **environment.COMMANDS,
    "completion": environment.completion_command(lambda: build_parser(every=True)),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code.

    0 done, 1 a defect, 2 wrong usage, 3 bad data, which is also what the system refuses, such as a file that may not be
    written; 130 stopped by Ctrl-C (SIGINT), 143 by SIGTERM, 141 if nobody reads the output any more, as of a command
    that SIGPIPE ends.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch's large tensors in pages of 2 MB, not of 4 kB
    _open_outputs()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    log_lines(logging.DEBUG if debug else logging.WARNING)
    try:
        try:
            with _terminations_raised():
                parsed = _parse(arguments)
                COMMANDS[parsed.subcommand].run(parsed[parsed.subcommand])
        finally:
            sys.stdout.flush()  # here and not when Python ends: nobody may read it any more
    except SubfuseError as error:
        if debug:
            raise
        print(f"subfuse: error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        _close_output()
        return 141
    except OSError as error:
        if debug:
            raise
        print(f"subfuse: error: {_of_system(error)}", file=sys.stderr)
        return DataError.exit_code
    except KeyboardInterrupt as interrupt:
        kept = COMMANDS[arguments[0]].when_stopped if arguments and arguments[0] in COMMANDS else ""
        print(f"subfuse: stopped. {kept}".rstrip(), file=sys.stderr)
        return 128 + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT)
    return 0


def _of_system(error: OSError) -> str:
    """Returns in one line what the system refused, and where."""
    where = f"{error.filename}: " if error.filename is not None else ""
    problem = " ".join((error.strerror or str(error)).split())
    from subfuse.files import lack_of_space

    remedy = "Correct the path or its permissions" if lack_of_space(error) is None else "Free some of it"
    return printable(f"{where}the system must allow this. Found: {problem}. {remedy}.")


def _open_outputs() -> None:
    """Lets what is printed go nowhere where a command is started with its output closed (`>&-`, some schedulers).

    A terminal that cannot write a letter, such as µ, shows a question mark.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  open until the command ends
    if isinstance(sys.stdout, io.TextIOWrapper) and codecs.lookup(sys.stdout.encoding).name != "utf-8":
        sys.stdout.reconfigure(errors="replace")


def _close_output() -> None:
    """Lets what is still to be printed go nowhere, so that Python says nothing of it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which Slurm, systemd and containers send: an end as clean as that of Ctrl-C."""


@contextlib.contextmanager
def _terminations_raised() -> Iterator[None]:
    """Raises SIGTERM as an exception, so that workers and temporary files go too; only a main thread can."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(arguments: Sequence[str]) -> Namespace:
    """Returns the parsed arguments; what is wrong with one ends the process as wrong usage."""
    arguments = [_current_spelling(argument) for argument in arguments] or ["--help"]
    parser = build_parser(arguments[0])
    try:
        return parser.parse_args(arguments)
    except ConfigurationError as error:
        parser.subcommands.get(arguments[0], parser).error(str(error).removesuffix("."))


def _current_spelling(argument: str) -> str:
    """Returns an argument as it is spelled today: sizes of `crossval` were once `--model.NAME`."""
    return argument.replace("--model.", "--architecture.", 1) if argument.startswith("--model.") else argument


def build_parser(chosen: str | None = None, *, every: bool = False) -> Parser:
    """Returns the parser; only the chosen subcommand, or every one, gets its arguments, so that `--help` is instant."""
    parser = Parser(
        prog="subfuse",
        version=__version__,
        description="Subspace fusion of histology and gene expression, from raw files to a report. " + DISCLAIMER,
        epilog="`subfuse COMMAND --help` explains a command. `--debug` shows tracebacks.",
    )
    subcommands = parser.add_subcommands(metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = Parser(description=f"{command.summary} Example: {command.example}")
        if every or name == chosen:
            command.add_arguments(subparser)
        subcommands.add_subcommand(name, subparser, help=command.summary)
        parser.subcommands[name] = subparser
    return parser

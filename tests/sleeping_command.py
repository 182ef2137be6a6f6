"""A command whose two workers write their numbers into a folder and sleep: how they and it end is tested."""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

if __name__ in ("__main__", "__mp_main__"):  # the command and its workers start without seconds of importing
    sys.modules["torch"] = SimpleNamespace(set_num_threads=lambda number: None)

from subfuse import cli, execution
from subfuse.cli.command import Command
from subfuse.execution import run_jobs

if __name__ in ("__main__", "__mp_main__"):  # elsewhere it is only looked at for doctests
    execution._SLOW_TO_IMPORT = ()


def sleep(folder: Path, name: str) -> None:
    (folder / name).write_text(str(os.getpid()))
    time.sleep(100)


def run_workers(arguments) -> None:
    list(run_jobs(sleep, [(arguments.folder, name) for name in ("a", "b", "c", "d")], workers=2))


if __name__ == "__main__":
    cli.COMMANDS["sleep"] = Command("", "", lambda parser: parser.add_argument("folder", type=Path), run_workers)
    sys.exit(cli.main(["sleep", sys.argv[1]]))

"""Kills a process, with its workers, just before a chosen change of a file below a folder."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir"})
FORKED = get_context("fork")


def count_changes(act: Callable[[], Any], folder: Path) -> int:
    """Lets an act come to its end in a process of its own; returns how often it changed a file below the folder."""
    counter = FORKED.Value("l", 0)
    code = _run(act, folder, counter, sys.maxsize)
    assert code == 0, f"the undisturbed act ended with {code}"
    return counter.value


def kill_at(act: Callable[[], Any], folder: Path, change: int) -> None:
    """Starts an act in a process of its own, and SIGKILLs it and its workers before that change of a file."""
    code = _run(act, folder, FORKED.Value("l", 0), change)
    assert code == -signal.SIGKILL, f"ended with {code} before change {change}"


def _run(act: Callable[[], Any], folder: Path, counter: "Synchronized[int]", change: int) -> int:
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        end = time.monotonic() + 120
        while _has_members(child) and time.monotonic() < end:  # killed workers end a little later
            time.sleep(0.01)
        return code
    code = 1
    try:
        os.setsid()
        sys.addaudithook(_hook(str(folder), counter, change))
        act()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _hook(folder: str, counter: "Synchronized[int]", change: int) -> Callable[[str, tuple[Any, ...]], None]:
    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in CHANGES or (event == "open" and bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)))
        if not writes or not str(os.fsdecode(arguments[0]) if _is_path(arguments[0]) else "").startswith(folder):
            return
        with counter.get_lock():
            counter.value += 1
            if counter.value == change:
                os.killpg(os.getpgrp(), signal.SIGKILL)

    return watch


def _is_path(value: Any) -> bool:
    return isinstance(value, str | bytes | os.PathLike)

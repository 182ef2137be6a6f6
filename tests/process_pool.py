"""Processes for tests, forked from a server that has the libraries loaded: real ones, without seconds of importing."""

import os
import socket
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any

from subfuse import execution

CONTEXT = get_context("forkserver")
execution._SLOW_TO_IMPORT += ("subfuse.runs.single_training", "subfuse.training.fitting", "lifelines", "rich.progress")
CONTEXT.set_forkserver_preload(list(execution._SLOW_TO_IMPORT))  # workers of a command come from this server, too


def start(function: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Returns the started process of a module-level function."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def start_connected(function: Callable[..., Any], n_processes: int, *arguments: Any) -> list[BaseProcess]:
    """Starts processes as `torchrun` would: each finds its number in the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(_connected, function, rank, n_processes, port, *arguments) for rank in range(n_processes)]


def join(processes: list[BaseProcess]) -> None:
    """Waits for processes that must succeed."""
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def numbers(rank: int, n_processes: int, port: int) -> dict[str, str]:
    """Returns the numbers that a process of `torchrun` on one machine finds in its environment."""
    found = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": n_processes,
        "LOCAL_WORLD_SIZE": n_processes,
        "MASTER_PORT": port,
    }
    return {name: str(number) for name, number in found.items()}


def _connected(function: Callable[..., Any], rank: int, n_processes: int, port: int, *arguments: Any) -> None:
    os.environ.update(numbers(rank, n_processes, port))
    os.environ.update(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="test")
    function(*arguments)

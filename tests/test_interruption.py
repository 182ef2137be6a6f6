import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

COMMAND = Path(__file__).parent / "sleeping_command.py"
PROCESSES = Path(__file__).parent / "sleeping_processes.py"
STOPPED = "subfuse: stopped. What is complete is kept; the same command goes on from there.\n"


def is_alive(number: int) -> bool:
    """True if there is such a process and it does more than wait to be noticed."""
    status = Path(f"/proc/{number}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(happens, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize(
    ("number", "whole_group", "code", "said"),
    [
        (signal.SIGKILL, False, -9, ""),
        (signal.SIGTERM, False, 143, STOPPED),
        (signal.SIGINT, True, 130, STOPPED),  # as a terminal sends it
    ],
)
def test_workers_end_with_their_command_which_says_one_line(number, whole_group, code, said, tmp_path):
    command = subprocess.Popen(
        [sys.executable, COMMAND, tmp_path], stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )  # fmt: skip
    wait_until(lambda: len([p for p in tmp_path.iterdir() if p.read_text()]) == 2)
    workers = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert all(is_alive(worker) for worker in workers)
    if whole_group:
        os.killpg(command.pid, number)
    else:
        os.kill(command.pid, number)
    _, errors = command.communicate(timeout=300)
    wait_until(lambda: not any(is_alive(worker) for worker in workers))
    assert command.returncode == code
    if said:
        assert errors == said
    assert len(list(tmp_path.iterdir())) == 2  # no further job was begun


@pytest.mark.walk
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
@pytest.mark.parametrize("kind", ["second_rank", "explaining"])
def test_processes_of_a_training_and_of_the_viewer_end_with_one_that_is_killed(kind, tmp_path):
    folder = tmp_path / "numbers"
    folder.mkdir()
    command = subprocess.Popen([sys.executable, PROCESSES, kind, folder], stderr=subprocess.DEVNULL)
    wait_until(lambda: [path for path in folder.iterdir() if path.read_text()])
    (number,) = (int(path.read_text()) for path in folder.iterdir())
    assert is_alive(number)
    assert number != command.pid
    command.kill()
    command.wait(300)
    wait_until(lambda: not is_alive(number))


def test_sigterm_removes_the_temporary_file_of_what_is_being_written(tmp_path):
    writing = (
        "import os, signal, sys, types\n"
        "from pathlib import Path\n"
        "from subfuse import cli\n"
        "from subfuse.cli.command import Command\n"
        "from subfuse.files import atomic_path\n"
        "def write(arguments):\n"
        "    with atomic_path(Path(sys.argv[1]) / 'table.csv'):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "cli.COMMANDS['write'] = Command('', '', lambda parser: None, write)\n"
        "sys.exit(cli.main(['write']))\n"
    )
    done = subprocess.run([sys.executable, "-c", writing, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, STOPPED)
    assert list(tmp_path.iterdir()) == []

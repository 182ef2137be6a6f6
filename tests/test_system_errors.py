"""What the system refuses is one line with exit code 2 or 3, for every command; a closed output ends quietly."""

import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import replace

import pytest

from subfuse.cli import COMMANDS, main
from subfuse.errors import ConfigurationError
from subfuse.execution import run_jobs
from subfuse.files import atomic_path, write_text

REFUSED = (errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EIO, errno.EMFILE)


def run_alone(monkeypatch, command, run):
    """The command without options, doing something else."""
    monkeypatch.setitem(COMMANDS, command, replace(COMMANDS[command], run=run, add_arguments=lambda parser: None))
    return main([command])


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_what_the_system_refuses_is_one_line(monkeypatch, capsys, command):
    for number in REFUSED:

        def refuse(arguments, number=number):
            raise OSError(number, os.strerror(number), "some/place\n.csv")

        assert run_alone(monkeypatch, command, refuse) == 3
        shown = capsys.readouterr()
        assert shown.out == ""
        (line,) = shown.err.strip().splitlines()
        assert line.startswith("subfuse: error: some/place")
        assert os.strerror(number) in line


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_closed_output_ends_quietly(monkeypatch, capsys, command):
    class Closed:
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

        def flush(self):
            pass

        def fileno(self):
            raise OSError

    monkeypatch.setattr(sys, "stdout", Closed())
    assert run_alone(monkeypatch, command, lambda arguments: print("a result")) == 141
    assert capsys.readouterr().err == ""


def test_head_may_close_the_output(tmp_path):
    reads, writes = os.pipe()
    os.close(reads)
    found = subprocess.run(
        [sys.executable, "-m", "subfuse", "--help"], stdout=writes, stderr=subprocess.PIPE, cwd=tmp_path, check=False
    )
    os.close(writes)
    assert found.stderr == b""
    assert found.returncode in (0, 141)  # 0: argparse itself passes over what it cannot print


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch, number):
    def refuse(*arguments, **named):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(ConfigurationError, match=rf"table\.csv: a place .* Found: {os.strerror(number)}\."):
        write_text(tmp_path / "table.csv", "x")
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_a_file_a_folder_or_too_long_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    for path in (
        tmp_path / "file" / "below",
        tmp_path / "folder",
        tmp_path / ("x" * 300),
        tmp_path / ("y" * 300) / "z",
    ):
        with pytest.raises(ConfigurationError, match="a place where files can be written is required"):
            write_text(path, "text")
    assert {path.name for path in tmp_path.rglob("*")} == {"file", "folder", "mine"}
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_command_that_is_started_without_outputs_runs(closed, tmp_path):
    command = f"{sys.executable} -m subfuse init {tmp_path / 'cohort'} {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "cohort" / "cohort.yaml").exists()


def test_a_limit_on_the_size_of_files_is_told(tmp_path):
    limited = (
        "import resource, sys, torch\n"
        "from pathlib import Path\n"
        "from subfuse.errors import ConfigurationError\n"
        "from subfuse.files import atomic_path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with atomic_path(Path(sys.argv[1])) as temporary, open(temporary, 'wb') as file:\n"
        "        torch.save({'a': torch.ones(5000)}, file)\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, tmp_path / "x.ckpt"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{tmp_path / 'x.ckpt'}: free disk space is required to write it. Found a limit on ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_a_full_disk_within_hdf5_is_a_full_disk(tmp_path, error):
    def write():
        with atomic_path(tmp_path / "slide.h5"):
            raise error("Can't write data (file write failed: errno = 28, error message = 'No space left on device')")

    with pytest.raises(ConfigurationError, match=r"slide\.h5: free disk space is required"):
        write()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_init_left_goes_when_it_is_repeated(tmp_path):
    part = tmp_path / ".cohort.elsewhere-1.abcdefgh.part.yaml"
    part.touch()
    os.utime(part, (0, 0))
    assert main(["init", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["cohort.yaml"]


@pytest.mark.parametrize("command", ["init", "simulate"])
def test_a_command_that_writes_into_a_file_says_so(tmp_path, capsys, command):
    (tmp_path / "file").write_text("mine")
    assert main([command, str(tmp_path / "file")]) in (2, 3)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("subfuse.execution.SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(ConfigurationError, match=r"--scheduler must be .* Found tcp://127\.0\.0\.1:1"):
        list(run_jobs(print, [()], scheduler="tcp://127.0.0.1:1"))
    with pytest.raises(ConfigurationError, match="--scheduler must be"):
        list(run_jobs(print, [()], scheduler="no such thing://"))

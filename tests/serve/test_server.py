import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from viewer_run import made_run

from subfuse import cli
from subfuse.cli import main
from subfuse.errors import ConfigurationError
from subfuse.serve.server import serve

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def viewer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory)


def test_a_port_that_is_taken_is_one_sentence(viewer_run):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="--port"):
        serve(viewer_run, port=taken.getsockname()[1], announce=lambda address: None)


def test_a_folder_that_is_no_run_is_wrong_usage(tmp_path, capsys):
    assert main(["serve", str(tmp_path)]) == 2
    assert "finished run" in capsys.readouterr().err


def test_the_command_serves_until_it_is_interrupted_even_while_it_explains(viewer_run):
    command = [sys.executable, "-m", "subfuse", "serve", str(viewer_run), "--port", "0", "--host", "0.0.0.0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, start_new_session=True) as process:
        try:
            address = re.search(r"http://\S+", process.stdout.readline())[0].replace("0.0.0.0", "127.0.0.1")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(address.partition("?")[0], timeout=60)
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(address, timeout=60) as answer:
                assert b"Research use only" in answer.read()
                assert "server" not in answer.headers
            start_an_explanation(opener, address.partition("?")[0])
        finally:
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
            _, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert errors == ""
    while has_processes(process.pid):  # those that it started end, too
        time.sleep(0.05)


def test_sigterm_ends_the_viewer_without_a_word_and_is_passed_on(viewer_run, capfd):
    def announce(address: str) -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()

    with cli._terminations_raised(), pytest.raises(cli._Terminated):
        serve(viewer_run, port=0, announce=announce)
    assert capfd.readouterr() == ("", "")


def has_processes(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def start_an_explanation(opener: urllib.request.OpenerDirector, address: str) -> None:
    """Returns when one of two tasks is explained."""
    request = urllib.request.Request(f"{address}api/patients/P05/explanations", method="POST")
    with opener.open(request, timeout=60) as answer:
        job = json.load(answer)
    assert job["state"] == "running"
    while job["done"] == 0:
        time.sleep(0.05)
        with opener.open(f"{address}api/jobs/{job['job_id']}", timeout=60) as answer:
            job = json.load(answer)
        assert job["state"] == "running", job["error"]

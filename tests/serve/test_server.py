import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from viewer_run import made_run

from subfuse.cli import main
from subfuse.errors import ConfigurationError
from subfuse.serve.server import serve


@pytest.fixture(scope="module")
def viewer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory)


def test_a_port_that_is_taken_is_one_sentence(viewer_run):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="--port"):
        serve(viewer_run, port=taken.getsockname()[1], announce=lambda address: None)


def test_a_folder_that_is_no_run_is_wrong_usage(tmp_path, capsys):
    assert main(["serve", str(tmp_path)]) == 2
    assert "finished run" in capsys.readouterr().err


def test_the_command_serves_until_it_is_interrupted(viewer_run):
    command = [sys.executable, "-m", "subfuse", "serve", str(viewer_run), "--port", "0", "--host", "0.0.0.0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = re.search(r"http://\S+", process.stdout.readline())[0].replace("0.0.0.0", "127.0.0.1")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(address.partition("?")[0], timeout=10)
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(address, timeout=10) as answer:
                assert b"Research use only" in answer.read()
                assert "server" not in answer.headers
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors == ""

"""Models come from a hub, here a small local one, through its own client; what cannot be had is one line."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
from shared_run import shared_run

from subfuse.cli import main
from subfuse.errors import ConfigurationError
from subfuse.runs.run import load_run
from subfuse.sharing import hub
from subfuse.sharing.hub import downloaded
from subfuse.sharing.places import load_models

constants = pytest.importorskip("huggingface_hub.constants")
pytestmark = pytest.mark.walk

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """One model, `owner/glioma`, and one that holds something else, `owner/other`."""

    models: ClassVar[dict[str, Path]] = {}
    asked: ClassVar[list[str]] = []

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        name = next((name for name in self.models if name in path), None)
        if path == "/":
            return self.reply(b"", with_body=with_body)
        if name is None:
            return self.refuse("RepoNotFound")
        folder = self.models[name]
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if path == f"/api/models/{name}/revision/main":
            return self.reply(json.dumps({"id": name, "sha": COMMIT}).encode(), with_body=with_body)
        if path == f"/api/models/{name}/tree/{COMMIT}":
            entries = [
                {"type": "file", "path": f.relative_to(folder).as_posix(), "size": f.stat().st_size, "oid": "0" * 40}
                for f in files
            ]
            return self.reply(json.dumps(entries).encode(), with_body=with_body)
        for revision in ("main", COMMIT):
            place = f"/{name}/resolve/{revision}/"
            if path.startswith(place):
                file = folder / path.removeprefix(place)
                return (
                    self.reply(file.read_bytes(), with_body=with_body)
                    if file in files
                    else self.refuse("EntryNotFound")
                )
        return self.refuse("RevisionNotFound")

    def reply(self, body: bytes, *, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def local_hub(tmp_path_factory, tmp_path, monkeypatch) -> Iterator[Path]:
    _, folder, _ = shared_run(tmp_path_factory)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    monkeypatch.setattr(Hub, "models", {"owner/glioma": folder, "owner/other": tmp_path / "other"})
    monkeypatch.setattr(Hub, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    yield tmp_path
    server.shutdown()
    server.server_close()


def test_models_of_the_hub_predict_as_those_of_the_run(local_hub, tmp_path_factory, monkeypatch):
    run, folder, cohort = shared_run(tmp_path_factory)
    (folder / "evil.pt").write_bytes(b"no such file is fetched")
    try:
        found = load_models("hf://owner/glioma", device="cpu")
    finally:
        (folder / "evil.pt").unlink()
    expected = load_run(run, device="cpu").predict(cohort, model="subspace")
    pd.testing.assert_frame_equal(found.predict(cohort), expected)
    assert {path.suffix for path in found.folder.rglob("*.*")} == {".json", ".safetensors", ".md"}
    assert not [path for path in Hub.asked if "evil" in path]

    monkeypatch.setattr(hub, "hub_is_reachable", lambda: False)  # from the cache
    Hub.asked.clear()
    assert downloaded("hf://owner/glioma") == found.folder
    assert downloaded(f"hf://owner/glioma@{COMMIT}") == found.folder
    assert not Hub.asked


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("hf://owner/nothing", "a model of this name that you may read must be there. Found none on the hub."),
        ("hf://owner/glioma@v9", "a revision that the model has must be there. Found no v9."),
        ("hf://owner/other", "models that subfuse exported, with subfuse.json, must be there. Found others."),
        ("hf://owner", "an address hf://OWNER/NAME or hf://OWNER/NAME@REVISION is required."),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(local_hub, address, words, capsys):
    command = ["predict", address, "--cohort", str(local_hub), "--out", str(local_hub / "new.csv")]
    assert main(command) == 2
    assert capsys.readouterr().err == f"subfuse: error: {address}: {words}\n"


def test_without_a_network_and_a_cache_it_is_one_line(local_hub, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    command = ["predict", "hf://owner/glioma", "--cohort", str(local_hub), "--out", str(local_hub / "new.csv")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "hf://owner/glioma: its files must be there. Found no network, and nothing in the local cache" in error


def test_without_the_client_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ConfigurationError, match=r"needs huggingface_hub .* pip install 'subfuse\[encoders\]'"):
        downloaded("hf://owner/glioma")

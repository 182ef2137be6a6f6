"""Wherever models are, the same call loads them."""

import pytest
from shared_run import shared_run

from subfuse.errors import ConfigurationError
from subfuse.runs.run import Run
from subfuse.sharing import places
from subfuse.sharing.places import load_models
from subfuse.sharing.shared_models import SharedModels

pytestmark = pytest.mark.walk


def test_a_folder_is_a_run_or_an_export(tmp_path_factory, tmp_path, monkeypatch):
    run, folder, _ = shared_run(tmp_path_factory)
    assert isinstance(load_models(run, device="cpu"), Run)
    assert isinstance(load_models(str(folder), device="cpu"), SharedModels)
    with pytest.raises(ConfigurationError, match="must be a finished run"):
        load_models(tmp_path)
    monkeypatch.setattr(places, "downloaded", lambda address: {"hf://owner/name": folder}[address])
    assert isinstance(load_models("hf://owner/name"), SharedModels)

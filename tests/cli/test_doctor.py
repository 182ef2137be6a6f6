from pathlib import Path

import huggingface_hub.constants
import pytest

from subfuse.cli import doctor
from subfuse.cli.doctor import OPTIONAL, diagnose

DATA = Path(__file__).parents[2] / "docs" / "data.md"


@pytest.fixture(scope="module")
def rows() -> dict[str, tuple[str, str]]:
    return {what: (state, remedy) for what, state, remedy in diagnose("a name that no encoder has")}


def test_slide_formats_are_those_of_the_documentation(rows) -> None:
    text = " ".join(DATA.read_text(encoding="utf-8").split("**Slide files**: ")[1].split("\n\n")[0].split())
    tried, untried = text.split("have not been tried")[0].split("tested with files")
    (untested,) = (what for what, (state, _) in rows.items() if "not tested" in state)
    (tested,) = (what for what, (state, _) in rows.items() if state == "tested")
    for name in ("SVS", "tiled TIFF", "OME-TIFF", "NDPI", "MRXS", "DICOM", "SCN", "BIF", "VMS", "CZI"):
        assert (name in tested, name in untested) == (name in tried, name in untried.split(";")[1])


def test_what_is_missing_has_a_remedy(rows) -> None:
    assert rows["encoder a name that no encoder has"][0] == "not available"
    assert rows["pyarrow"][1] == ("pip install 'subfuse[parquet]'" if rows["pyarrow"][0] == "missing" else "")
    assert rows["wandb"][1] == ("pip install wandb" if rows["wandb"][0] == "missing" else "")
    assert {"optuna", "tensorboard", "mlflow"} <= rows.keys() & {package for package, _ in OPTIONAL.values()}


@pytest.mark.parametrize(
    ("offline", "token", "state"),
    [(True, None, "cached weights only"), (False, None, "no token"), (False, "hf_secret", "token found")],
)
def test_access_to_the_hub_is_told_without_asking_it(monkeypatch, offline, token, state) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    monkeypatch.setattr("socket.socket.connect", None)
    ((_, found, remedy),) = doctor._hub_access()
    assert state in found
    assert "hf_secret" not in found + remedy

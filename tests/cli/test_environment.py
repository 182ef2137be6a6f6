"""Commands for what is there already: a published checkpoint, and this machine."""

import pytest

from subfuse import doctor
from subfuse.cli import main
from subfuse.runs import released_checkpoint

pytestmark = pytest.mark.walk


def test_doctor_names_the_offline_encoder(capsys):
    assert main(["doctor"]) == 0
    assert "efficientnet-lite0" in capsys.readouterr().out


def test_doctor_prints_a_row_for_everything_that_is_tried(capsys, monkeypatch):
    rows = [("torch", "9.9", ""), ("openslide-python", "missing", "pip install 'subfuse[wsi]'")]
    asked = []
    monkeypatch.setattr(doctor, "diagnose", lambda encoder: asked.append(encoder) or rows)
    assert main(["doctor", "--encoder", "resnet18"]) == 0
    shown = capsys.readouterr().out
    assert asked == ["resnet18"]
    assert all(cell in shown for row in rows for cell in row)


def test_convert_says_where_and_how_many_weights_are_left_out(tmp_path, capsys, monkeypatch):
    asked = []
    unused = [f"layer{i}.weight" for i in range(12)]
    monkeypatch.setattr(released_checkpoint, "convert_file", lambda *paths: asked.append(paths) or unused)
    assert main(["convert", str(tmp_path / "a.pth"), "--out", str(tmp_path / "ours")]) == 0
    shown = capsys.readouterr().out
    assert asked == [(tmp_path / "a.pth", tmp_path / "ours")]
    assert f"Converted to {tmp_path / 'ours'}." in shown
    assert "left out (12): layer0.weight" in shown
    assert "and 2 more" in shown

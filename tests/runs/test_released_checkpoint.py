import os
from pathlib import Path

import pytest
import torch
from transcription import Transcription, random_released, strip

from subfuse.cli import main
from subfuse.errors import DataError
from subfuse.runs import load_converted

pytestmark = pytest.mark.walk


def test_a_converted_file_reproduces_the_released_logits(tmp_path, capsys):
    weights = random_released(n_tumour=7, n_micro=11, n_classes=3, prefix="module.", unused=True)
    torch.save(weights, tmp_path / "released.pth")
    left = tmp_path / "ours" / ".model.elsewhere-1.abcdefgh.part.json"  # by a process that was killed
    left.parent.mkdir()
    left.touch()
    os.utime(left, (0, 0))
    assert main(["convert", str(tmp_path / "released.pth"), "--out", str(tmp_path / "ours")]) == 0
    assert not left.exists()
    assert "module.omic_net_tumor.output_range" in capsys.readouterr().out
    model = load_converted(str(tmp_path / "ours"))
    released = Transcription(7, 11, 3).eval()
    released.load_state_dict(strip(weights))
    patches, expression = torch.randn(1, 2500, 1024), torch.randn(1, 18)
    with torch.inference_mode():
        expected = released(patches, expression)["logits"]
        found = model(
            patches,
            torch.zeros(1, 2500, 2),
            torch.ones(1, 2500, dtype=torch.bool),
            expression,
            torch.ones(1, dtype=torch.bool),
        ).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_missing_weight_is_named_and_nothing_is_written(tmp_path, capsys):
    weights = random_released(n_tumour=7, n_micro=11, n_classes=3)
    del weights["classifier.bias"]
    torch.save(weights, tmp_path / "released.pth")
    assert main(["convert", str(tmp_path / "released.pth"), "--out", str(tmp_path / "ours")]) == 3
    assert "classifier.bias" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_an_unreadable_file_is_one_line(tmp_path, capsys, content):
    (tmp_path / "released.pth").write_bytes(content)
    assert main(["convert", str(tmp_path / "released.pth"), "--out", str(tmp_path / "ours")]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_pickled_objects_are_refused(tmp_path):
    torch.save({"weights": Path("anything")}, tmp_path / "released.pth")
    assert main(["convert", str(tmp_path / "released.pth"), "--out", str(tmp_path / "ours")]) == 3


@pytest.mark.parametrize(
    "weights",
    [{1: torch.ones(2)}, {"classifier.weight": torch.ones(2, dtype=torch.int64)}, {"a": torch.eye(2).to_sparse()}],
    ids=["number as name", "integers", "sparse"],
)
def test_other_tensors_than_a_state_dict_are_one_line(tmp_path, capsys, weights):
    torch.save(weights, tmp_path / "released.pth")
    assert main(["convert", str(tmp_path / "released.pth"), "--out", str(tmp_path / "ours")]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_tensors_without_axes_are_one_line(tmp_path, capsys):
    weights = {name: torch.tensor(1.0) for name in random_released(n_tumour=7, n_micro=11, n_classes=3)}
    torch.save(weights, tmp_path / "released.pth")
    assert main(["convert", str(tmp_path / "released.pth"), "--out", str(tmp_path / "ours")]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.real_data
def test_hostile_checkpoints_are_one_line(tmp_path, capsys, cases):
    files = sorted((cases / "hostile_checkpoints").iterdir())
    assert files
    for path in files:
        assert main(["convert", str(path), "--out", str(tmp_path / "ours")]) == 3
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("content", ["{}", "[]", '{"config": {"n_outputs": 0}, "n_genes": {}}', "\ufeff{"])
def test_a_damaged_converted_model_is_one_line(tmp_path, content):
    (tmp_path / "model.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=str(tmp_path)):
        load_converted(tmp_path)

from pathlib import Path

import pytest
import torch
from transcription import Transcription, random_released, strip

from subfuse.cli import main
from subfuse.training.released_checkpoint import load_converted


def test_a_converted_file_reproduces_the_released_logits(tmp_path, capsys):
    weights = random_released(n_tumour=7, n_micro=11, n_classes=3, prefix="module.", unused=True)
    torch.save(weights, tmp_path / "released.pth")
    assert main(["convert", str(tmp_path / "released.pth"), "--out", str(tmp_path / "ours")]) == 0
    assert "module.omic_net_tumor.output_range" in capsys.readouterr().out
    model = load_converted(tmp_path / "ours")
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

"""`subfuse export` on what is no run."""

from pathlib import Path

import pytest

from subfuse.cli import main


def test_export_of_what_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["export", str(tmp_path), str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"subfuse: error: {tmp_path} must be a finished run")
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()

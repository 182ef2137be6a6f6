"""Commands that use a run, on what is no run or a table of others."""

import json
from pathlib import Path

import pandas as pd
import pytest
from drawn_predictions import cohort, predictions

from subfuse.cli import main

pytestmark = pytest.mark.walk


def test_a_table_of_others_is_audited_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "theirs.csv"
    table = predictions(cohort(n=60), model="theirs")
    leaked = table[(table["fold"] == 0) & (table["split"] == "test")].iloc[:2].assign(split="train")
    pd.concat([table, leaked]).to_csv(path, index=False)

    code = main(["audit", str(path), "--modalities", '{"theirs": ["expression"]}'])

    shown = capsys.readouterr().out
    content = json.loads((tmp_path / "audit.json").read_text())
    assert code == 0
    assert shown.startswith("Do not use these results: 1 failure, ")
    assert shown.index("FAILURE patient leakage (1)") < shown.index("Notes and what") < shown.index("Checked, nothing")
    assert content["counts"]["failure"] == 1
    assert "whose modalities are unknown" not in shown


@pytest.mark.parametrize("first", ["", "predictions.csv"])
def test_files_beside_a_run_leave_its_own_audit_as_it_is(tmp_path: Path, first: str, capsys) -> None:
    run, theirs = tmp_path / "run", tmp_path / "theirs.csv"
    run.mkdir()
    table = predictions(cohort(n=60), model="subspace")
    table.to_csv(run / "predictions.csv", index=False)
    table.assign(model="theirs").to_csv(theirs, index=False)
    (run / "config.yaml").write_text("cohort: ours\n")
    (run / "audit.json").write_text("{}")

    paths = [str(run / first), *([] if first else [str(theirs)])]
    assert main(["audit", *paths]) == 2
    assert (run / "audit.json").read_text() == "{}"
    assert capsys.readouterr().err.startswith("subfuse: error: --out must be another file than ")
    assert main(["audit", *paths, "--out", str(tmp_path / "both.json")]) == 0


@pytest.mark.parametrize("folder", ["empty", "gone"])
def test_a_folder_that_is_no_run_is_one_error_whoever_reads_it(tmp_path: Path, folder: str, capsys) -> None:
    (tmp_path / "empty").mkdir()
    codes = [main([command, str(tmp_path / folder)]) for command in ("audit", "report", "explain")]
    first, *others = capsys.readouterr().err.splitlines()
    assert codes == [2, 2, 2]
    assert others == [first] * 2
    assert "must be a finished run" in first


@pytest.mark.parametrize(("name", "content", "code"), [("gone.csv", None, 3), ("other.csv", "a,b\n1,2\n", 3)])
def test_what_cannot_be_audited_is_one_line(tmp_path: Path, name: str, content: str | None, code: int, capsys) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)

    assert main(["audit", str(path)]) == code
    assert capsys.readouterr().err.count("\n") == 1

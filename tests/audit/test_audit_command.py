import json
from pathlib import Path

import pandas as pd
import pytest
from test_comparisons import cohort, predictions

from subfuse.audit.findings import Audit, Finding
from subfuse.cli import main
from subfuse.cli.audit_text import audit_lines


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


def test_findings_are_printed_by_check_and_task_with_what_they_share_said_once() -> None:
    late = [Finding("warning", "fusion", f"m{i} is not better", "Twice the cost.", f"Prefer r{i}.", "abc"[i % 3])
            for i in range(6)]  # fmt: skip
    rest = [Finding("ok", "labels", "fine", task="a")] * 40 + [Finding("note", "slides", "not checked")] * 9

    lines = list(audit_lines(Audit((*late, *rest))))

    assert lines == [
        "No failure, 6 warnings.",
        "",
        "WARNING fusion (6): Twice the cost.",
        *(f"  {'abc'[i % 3]}: m{i} is not better. Prefer r{i}." for i in (0, 3, 1, 4, 2, 5)),
        "",
        "Notes and what was not checked (9): slides 9",
        "Checked, nothing found (40): labels 40",
    ]


@pytest.mark.parametrize(("name", "content", "code"), [("gone.csv", None, 3), ("other.csv", "a,b\n1,2\n", 3)])
def test_what_cannot_be_audited_is_one_line(tmp_path: Path, name: str, content: str | None, code: int, capsys) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)

    assert main(["audit", str(path)]) == code
    assert capsys.readouterr().err.count("\n") == 1

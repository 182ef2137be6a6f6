import json
import re
from pathlib import Path

import pandas as pd
from fake_run import SCRIPT, write_fake_run

from subfuse.evaluation.findings import Audit, Finding
from subfuse.report.audit_section import audit_section
from subfuse.report.document import write_report


def written_audit(folder: Path) -> Path:
    fusion = pd.DataFrame(
        [("survival", "subspace", "snn", "best single modality", "c_index", -0.0123, -0.04, None, 0.5, 90)],
        columns=["task", "model", "reference", "reference_is", "metric", "difference", "lower", "upper", "p_adjusted",
                 "n_patients"],
    )  # fmt: skip
    findings = (
        Finding("failure", "patient leakage", f"7 persons {SCRIPT}", "why", "Split by patient."),
        Finding("warning", "fusion benefit", "fusion does not help", "why", "Prefer snn.", "survival"),
        Finding("ok", "labels", "test patients: G2 20", task="grade"),
    )
    path = folder / "audit.json"
    path.write_text(json.dumps(Audit(findings, {"fusion": fusion}).to_dict()), encoding="utf-8")
    return path


def test_findings_and_numbers_are_shown_and_escaped(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "run", patients=40)
    written_audit(run)

    html = write_report(run).read_text(encoding="utf-8")

    assert SCRIPT not in html
    assert "7 persons &lt;script&gt;" in html
    for words in ("1 failure, 1 warning, 0 notes, 1 passed", "Do not use these results", "−0.012", "undefined"):
        assert words in html
    assert html.index("7 persons") < html.index("fusion does not help") < html.index("test patients: G2 20")
    assert re.search(r'<li><a href="#audit">', html)


def test_a_run_without_an_audit_says_so() -> None:
    section = audit_section(None)

    assert section["levels"] == []
    assert section["lede"].startswith("This run was not audited. `subfuse audit` looks for leakage")

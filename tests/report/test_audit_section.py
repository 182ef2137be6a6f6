import re

import pytest
from fake_run import SCRIPT, made_report
from shown_audit import section

from subfuse.audit.findings import Finding
from subfuse.report.audit_section import audit_section


def test_findings_and_numbers_are_shown_and_escaped(tmp_path_factory: pytest.TempPathFactory) -> None:
    html = (made_report(tmp_path_factory) / "report.html").read_text(encoding="utf-8")
    audit = html[html.index('id="audit-title"') :]

    assert SCRIPT not in html
    assert "7 persons &lt;script&gt;" in audit
    for words in ("1 failure, 7 warnings, 15 notes, 1 passed", "Do not use these results", "−0.012", "+0.020"):
        assert words in audit
    assert audit.index("7 persons") < audit.index("fusion does not help") < audit.index("test patients: G2 20")
    assert re.search(r'<li><a href="#audit">', html)


def test_findings_alike_are_said_once_with_their_tasks_and_models() -> None:
    late = "mean of abmil and snn"
    texts = [
        ("grade", "subspace", "Prefer snn."),
        ("grade", "concat", "Prefer snn."),
        ("survival", "concat", f"Prefer {late}."),
        ("survival", "subspace", "Prefer snn."),
    ]
    findings = [Finding("warning", "fusion benefit", f"{model} is not better", "Two cost twice.", remedy, task, model)
                for task, model, remedy in texts]  # fmt: skip
    findings.append(Finding("warning", "calibration", "snn: off", "Misleads.", "Recalibrate.", "grade", "snn"))

    fusion, calibration = section(*findings)["kinds"]

    assert (
        fusion["gist"] == "4 warnings · Grade: Subspace fusion, Concatenation; Survival: Concatenation, Subspace fusion"
    )
    assert [row[1] for row in fusion["table"].rows] == [f"{model} is not better" for _, model, _ in texts]
    assert [row[2] for row in fusion["table"].rows] == [remedy for _, _, remedy in texts]
    assert (fusion["why"], fusion["open"]) == ("Two cost twice.", False)
    assert calibration["gist"] == "1 warning · Grade: SNN"
    assert calibration["why"] == "Misleads. Recalibrate."
    assert calibration["table"].columns == ("Task", "Found")


def test_failures_are_open_and_all_else_is_folded_and_counted() -> None:
    levels = ["ok"] * 3 + ["note"] * 2 + ["warning", "failure"]
    kinds = section(*(Finding(level, f"{level} check", "found", "why") for level in levels))["kinds"]

    assert [kind["open"] for kind in kinds] == [True, False, False, False]
    assert [kind["gist"] for kind in kinds[2:]] == ["note check 2", "ok check 3"]
    assert sum(len(kind["table"].rows) for kind in kinds) == len(levels)


def test_a_run_without_an_audit_has_no_section() -> None:
    assert audit_section(None) is None

"""The audit in the report: findings by level and kind, and the tables they are based on, from audit.json."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from subfuse.audit.findings import concerned
from subfuse.errors import counted
from subfuse.report.audit_tables import audit_tables, task_of
from subfuse.report.statements import PlainTable, Section, singular
from subfuse.training.models import model_title

_REST = {"note": "Notes, and what was not checked", "ok": "Checked, nothing found"}

NO_AUDIT = (
    "This run was not audited. `subfuse audit` looks for leakage, tests whether fusion helps and whether "
    "probabilities come true."
)


def audit_section(audit: Mapping[str, Any] | None) -> Section | None:
    """Returns what the report shows of the content of a run's audit.json; None without one.

    Failures are open, warnings folded by kind, notes and passed checks folded into one table each. Texts are given as
    they are: the template escapes them.
    """
    if audit is None:
        return None
    counts = audit.get("counts", {})
    content = {
        "lede": _lede(counts),
        "kinds": [*serious_kinds(audit["findings"]), *_rest(audit["findings"])],
        "tables": list(audit_tables(audit.get("tables", {}))),
    }
    gist = ", ".join(counted(counts.get(level, 0), level) for level in ("failure", "warning", "note"))
    return Section("audit", "Audit", f"{gist}, {counts.get('ok', 0)} passed", "audit.html.j2", content)


def _lede(counts: Mapping[str, int]) -> str:
    if counts.get("failure"):
        return "Do not use these results before the failures are settled."
    if counts.get("warning"):
        return "No failure. Warnings change how a result is read."
    return "Nothing found that stands against these results."


def serious_kinds(findings: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields failures, then warnings, by check and reason: a table of all of a kind, and in `told` their texts."""
    for level in ("failure", "warning"):
        kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for finding in findings:
            if finding["level"] == level:
                kinds.setdefault((finding["check"], finding["why"]), []).append(finding)
        yield from (_kind(alike) for alike in kinds.values())


def _kind(findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns findings of one check that matter for the same reason; a remedy of all of them is said once."""
    first, remedies = findings[0], {finding["remedy"] for finding in findings}
    models = {finding.get("model") for finding in findings}
    columns = ("Task", "Found", *(("Remedy",) if len(remedies) > 1 else ()))
    keys = ("found", *(("remedy",) if len(remedies) > 1 else ()))
    rows = [(task_of(finding), *(singular(str(finding[key])) for key in keys)) for finding in findings]
    whom = concerned([(task_of(finding), _model(finding)) for finding in findings])
    return {
        "level": first["level"],
        "name": str(first["check"]).capitalize(),
        "gist": f"{counted(len(findings), str(first['level']))} · {whom}",
        "why": " ".join(part for part in (first["why"], *(remedies if len(remedies) == 1 else ())) if part),
        "table": PlainTable(columns, rows),
        "told": [_told(finding, of_one_model=len(models) == 1) for finding in findings],
        "open": first["level"] == "failure",
    }


def _told(finding: Mapping[str, Any], *, of_one_model: bool) -> str:
    """Returns what was found, without the model's name where the gist of the kind has it as the only one."""
    return singular(str((of_one_model and finding.get("detail")) or finding["found"]))


def _rest(findings: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields what is no warning: one table of notes, one of checks that found nothing."""
    for level, name in _REST.items():
        chosen = [finding for finding in findings if finding["level"] == level]
        rows = [(task_of(finding), str(finding["check"]), singular(str(finding["found"]))) for finding in chosen]
        checks = ", ".join(f"{check} {count}" for check, count in Counter(row[1] for row in rows).items())
        if rows:
            table = PlainTable(("Task", "Check", "Found"), rows)
            yield {"name": name, "gist": checks, "why": "", "table": table, "open": False}


def _model(finding: Mapping[str, Any]) -> str:
    return model_title(finding["model"]) if finding.get("model") else ""

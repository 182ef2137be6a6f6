"""What an audit found, on a terminal: the verdict, failures and warnings by check, the number of everything else."""

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from subfuse.audit.findings import Audit, Finding, Level


def print_audit(audit: Audit) -> None:
    """Prints an audit: wrapped to a terminal, one line per finding elsewhere."""
    is_terminal = sys.stdout.isatty()
    for line in audit_lines(audit):
        indent = " " * (len(line) - len(line.lstrip()))
        width = shutil.get_terminal_size().columns if is_terminal else max(len(line), 1)
        print("\n".join(textwrap.wrap(line, width, subsequent_indent=f"{indent}  ", break_on_hyphens=False)))


def audit_lines(audit: Audit) -> Iterator[str]:
    """Yields the verdict, failures and warnings whole, and one line each of notes and passed checks."""
    n_failures, n_warnings = (len(audit.of_level(level)) for level in ("failure", "warning"))
    failures = f"Do not use these results: {_counted(n_failures, 'failure')}" if n_failures else "No failure"
    yield f"{failures}, {_counted(n_warnings, 'warning')}."
    problems: tuple[Level, ...] = ("failure", "warning")
    for level in problems:
        kinds: dict[tuple[str, str], list[Finding]] = {}
        for finding in audit.of_level(level):
            kinds.setdefault((finding.check, finding.why), []).append(finding)
        for findings in kinds.values():
            yield ""
            yield from _kind_lines(findings)
    yield ""
    rest: dict[Level, str] = {"note": "Notes and what was not checked", "ok": "Checked, nothing found"}
    for level, title in rest.items():
        checks = Counter(finding.check for finding in audit.of_level(level))
        if checks:
            yield f"{title} ({checks.total()}): {', '.join(f'{check} {count}' for check, count in checks.items())}"


def _kind_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yields findings of one check and reason by task; a remedy of all of them is said once."""
    first, remedies = findings[0], {finding.remedy for finding in findings}
    common = [part for part in (first.why, *(remedies if len(remedies) == 1 else ())) if part]
    yield f"{first.level.upper()} {first.check} ({len(findings)}){': ' if common else ''}{' '.join(common)}"
    tasks = list(dict.fromkeys(finding.task for finding in findings))
    for finding in sorted(findings, key=lambda finding: tasks.index(finding.task)):
        task = f"{finding.task}: " if finding.task else ""
        own = f". {finding.remedy}" if len(remedies) > 1 and finding.remedy else ""
        yield f"  {task}{finding.found}{own}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"

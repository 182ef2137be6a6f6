"""What an audit found, on a terminal: the verdict, failures, warnings by kind, the number of everything else."""

import math
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from subfuse.audit.any_origin.trivial_models import FITTED
from subfuse.audit.findings import Audit, Finding, Level, concerned
from subfuse.audit.simple_baselines import ADDED_VALUE, AGAINST_CLINICAL, TRIVIAL_BASELINE
from subfuse.cli.console import print_table
from subfuse.errors import counted
from subfuse.evaluation.metrics import metric_title, number, p_value_text, signed_interval
from subfuse.report.statements import singular
from subfuse.training.models import model_title

_MOST_WHOLE = 2  # warnings of one kind that are printed whole where each is of a model
_MOST_OF_KIND = 10  # other findings of one kind


def print_audit(audit: Audit) -> None:
    """Prints an audit: wrapped to a terminal, one line per finding elsewhere."""
    is_terminal = sys.stdout.isatty()
    for line in map(singular, audit_lines(audit)):
        indent = " " * (len(line) - len(line.lstrip()))
        width = shutil.get_terminal_size().columns if is_terminal else max(len(line), 1)
        print("\n".join(textwrap.wrap(line, width, subsequent_indent=f"{indent}  ", break_on_hyphens=False)))


def print_added(audit: Audit) -> None:
    """Prints the models by what they add to the best trivial one; nothing for fewer than two of which it is known."""
    table = audit.tables.get("added_value")
    found = [] if table is None else table.to_dict("records")
    known = [row for row in found if not math.isnan(row["difference"])]
    if len(known) < 2:
        return
    rows = [
        (
            row["task"],
            model_title(row["model"]),
            model_title(row["trivial"]),
            metric_title(row["metric"]),
            number(row["difference"], signed=True),
            (row["reason"] or "none") if math.isnan(row["lower"]) else signed_interval(row["lower"], row["upper"]),
            "" if math.isnan(row["p_adjusted"]) else p_value_text(row["p_adjusted"]),
        )
        for row in known
    ]
    columns = ("task", "model", "added to", "metric", "difference", "95 % interval", "p adjusted")
    print_table("What the models add", columns, rows)


def audit_lines(audit: Audit) -> Iterator[str]:
    """Yields the verdict, what is added to trivial models, failures whole, warnings by kind, and the number of others.

    Notes and passed checks are counted in one line each.
    """
    n_failures, n_warnings = (len(audit.of_level(level)) for level in ("failure", "warning"))
    failures = f"Do not use these results: {counted(n_failures, 'failure')}" if n_failures else "No failure"
    yield f"{failures}, {counted(n_warnings, 'warning')}."
    told = [
        finding
        for added in audit.findings
        if added.check == ADDED_VALUE
        for check in (FITTED, ADDED_VALUE, AGAINST_CLINICAL)
        for finding in audit.findings
        if (finding.check, finding.task) == (check, added.task)
    ]
    yield from (f"{finding.task}: {finding.found}." for finding in told)
    if not told:
        missed = (f for f in audit.findings if f.check == TRIVIAL_BASELINE and f.model is None)
        yield from (f"{f.task}: {f.check} {f.found}. {f.remedy}".rstrip() for f in missed)
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
    """Yields findings of one check and reason; warnings of many models as the first of them and who else."""
    first, remedies = findings[0], {finding.remedy for finding in findings}
    is_long = first.level == "warning" and len(findings) > _MOST_WHOLE and all(finding.model for finding in findings)
    shown = findings[:1] if is_long else findings[:_MOST_OF_KIND]
    common = [part for part in (first.why, *(remedies if len(remedies) == 1 else ())) if part]
    yield f"{first.level.upper()} {first.check} ({len(findings)}){': ' if common else ''}{' '.join(common)}"
    tasks = list(dict.fromkeys(finding.task for finding in shown))
    for finding in sorted(shown, key=lambda finding: tasks.index(finding.task)):
        task = f"{finding.task}: " if finding.task else ""
        own = f". {finding.remedy}" if len(remedies) > 1 and finding.remedy else ""
        yield f"  {task}{finding.found}{own}"
    if is_long:
        others = ((finding.task or "every task", model_title(str(finding.model))) for finding in findings[1:])
        yield f"  likewise {concerned(others)}"
    elif len(findings) > len(shown):
        yield f"  and {len(findings) - len(shown)} more"

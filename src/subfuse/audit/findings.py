"""What an audit finds: one plain statement per check, with why it matters and what to do."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pandas as pd

from subfuse.errors import DataError, preview
from subfuse.files import json_value
from subfuse.training.models import model_title

Level = Literal["failure", "warning", "note", "ok"]
SIGNIFICANCE = 0.05  # of a p-value, adjusted where there are several
LEVELS: tuple[Level, ...] = ("failure", "warning", "note", "ok")  # in the order in which they are read


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    `failure`: a result must not be used before this is settled. `warning`: it changes how a result is read. `note`:
    worth knowing, or it could not be checked. `ok`: checked, nothing found.
    """

    level: Level
    check: str  # short name of the check
    found: str
    why: str = ""  # why it matters; empty for ok
    remedy: str = ""
    task: str | None = None  # None: of every task
    model: str | None = None  # None: of no single model
    short: str = ""  # what a card has room for: verdict with numbers, advice, or the input; empty where `found` does
    detail: str = ""  # `found` without the model's name, where it begins with that: see `of_model`

    @classmethod
    def of_model(
        cls,
        level: Level,
        check: str,
        detail: str,
        why: str = "",
        remedy: str = "",
        *,
        task: str,
        model: str,
        short: str = "",
    ) -> "Finding":
        """Returns a finding on one model: `found` is its name, a colon and the detail."""
        return cls(level, check, f"{model_title(model)}: {detail}", why, remedy, task, model, short, detail)


@dataclass(frozen=True)
class Audit:
    """Findings, worst first, and the tables that they are based on."""

    findings: tuple[Finding, ...]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # name -> table; see `audit_predictions`

    def of_level(self, level: Level) -> tuple[Finding, ...]:
        """Returns the findings of one level, in the order of the checks."""
        return tuple(finding for finding in self.findings if finding.level == level)

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of `audit.json`; an undefined number is None."""
        return {
            "counts": {level: len(self.of_level(level)) for level in LEVELS},
            "findings": [asdict(finding) for finding in self.findings],
            "tables": {name: _records(table) for name, table in self.tables.items() if len(table)},
        }


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Returns findings by level, failures first; within a level they stay in order."""
    return tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level)))


def concerned(pairs: Iterable[tuple[str, str]]) -> str:
    """Returns tasks with their models, each once.

    Example:
        >>> concerned([("grade", "SNN"), ("grade", "mean of SNN and ABMIL"), ("survival", ""), ("grade", "SNN")])
        'grade: SNN, "mean of SNN and ABMIL"; survival'
    """
    tasks: dict[str, dict[str, None]] = {}
    for task, model in pairs:
        tasks.setdefault(task, {}).update({model: None} if model else {})
    return "; ".join(f"{task}: {', '.join(map(_as_one, models))}" if models else task for task, models in tasks.items())


def _as_one(name: str) -> str:
    """Returns a name that cannot be read as several."""
    return f'"{name}"' if ", " in name or " and " in name else name


def raise_for_failures(findings: Iterable[Finding], *, all_of_them: Sequence[str] = ()) -> None:
    """Stops where a finding is a failure.

    Args:
        findings: Any.
        all_of_them: Names that the remedy is about; said where there are several, as the first few findings are shown.

    Raises:
        DataError: Names what failed, in which task, and the remedy of the first.
    """
    failures = [finding for finding in findings if finding.level == "failure"]
    if failures:
        named = (f"{finding.task}: {finding.found}" if finding.task else finding.found for finding in failures)
        found = preview(dict.fromkeys(named), limit=3)
        several = f" All of them: {preview(all_of_them, limit=30)}." if len(all_of_them) > 1 else ""
        raise DataError(f"{failures[0].check}: {found}. {failures[0].why} {failures[0].remedy}".strip() + several)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): json_value(value) for key, value in row.items()} for row in table.to_dict("records")]

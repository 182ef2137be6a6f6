"""What commands print: progress, tables, warnings."""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from subfuse.execution import Progress

DISCLAIMER = "Research use only. Not a medical device."


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Yields a progress callback: a bar with time left on a terminal, plain lines elsewhere."""
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:

        def plain(done: int, total: int, what: str) -> None:
            print(f"{title}: {done}/{total} {what}", file=sys.stderr, flush=True)

        yield plain
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn(), TextColumn("{task.fields[what]}"))  # fmt: skip
    # a step may take minutes: the speed is that of the last hours
    with rich_progress.Progress(*columns, console=console, speed_estimate_period=7200) as bar:
        task = bar.add_task(title, total=None, what="")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, what=what)


def print_table(title: str, columns: Sequence[str], rows: Any) -> None:
    """Prints rows under their title, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row))
    console = Console(markup=False, width=None if sys.stdout.isatty() else 160)
    with console.capture() as captured:  # rich would end with its own exit code where nobody reads the output any more
        console.print(table)
    print(captured.get(), end="")


def print_metrics(metrics: Any, title: str = "Test folds, mean") -> None:
    """Prints the headline metric of every task and model with its interval; why one is missing, once a reason."""
    from subfuse.evaluation.metrics import metric_title
    from subfuse.evaluation.predictions import HEADLINES
    from subfuse.training.models import model_title

    headline = metrics[metrics["metric"].isin(HEADLINES)]
    rows, reasons = [], dict[tuple[str, str], dict[str, list[str]]]()
    for row in headline.itertuples():
        bounds = (row.lower, row.upper)
        model, interval = model_title(row.model), f"{row.lower:.3f} to {row.upper:.3f}"
        value = "undefined" if math.isnan(row.value) else f"{row.value:.3f}"
        if any(map(math.isnan, bounds)):
            interval, lead = "none", "Undefined for " if math.isnan(row.value) else ""
            reason = row.reason if isinstance(row.reason, str) else "no interval, and no reason is recorded"
            reasons.setdefault((lead, reason), {}).setdefault(row.task, []).append(model)
        rows.append((row.task, model, metric_title(row.metric), value, interval))
    print_table(title, ("task", "model", "metric", "value", "95 % interval"), rows)
    for (lead, reason), tasks in reasons.items():
        concerned = "; ".join(f"{task} ({', '.join(models)})" for task, models in tasks.items())
        print(f"{lead}{concerned}: {reason}")


def print_warnings(warnings: Sequence[str]) -> None:
    """Prints one line per warning where errors go, apart from results."""
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)

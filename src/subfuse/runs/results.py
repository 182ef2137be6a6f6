"""The tables of a run: its predictions measured, compared and audited."""

import logging
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from subfuse.audit.audit import audit_run
from subfuse.audit.audited_task import N_BOOTSTRAP
from subfuse.audit.comparison_family import compared_with_reference
from subfuse.cohort.task import TaskSpec
from subfuse.evaluation.comparisons import COMPARISON_COLUMNS
from subfuse.evaluation.intervals import METRIC_COLUMNS, evaluate_predictions
from subfuse.execution import Attempts
from subfuse.files import sha256_of_file, write_json, write_sealed_json, write_table
from subfuse.run_folder.names import AUDIT, COMPARISONS, FAILED_RESULTS, METRICS, PREDICTIONS, PROVENANCE, STUDENTS
from subfuse.run_folder.tables import PREDICTIONS_SHA256, RESULTS_SHA256, hashes_of_results
from subfuse.runs.distillation.comparison import compare_students
from subfuse.runs.timing import training_seconds

logger = logging.getLogger(__name__)

_REMEDY = (
    "The predictions are kept. Once that is mended, repeat the command (`train` with --resume): trained models are not "
    "trained again."
)


def write_results(
    out: Path, predictions: pd.DataFrame, tasks: Mapping[str, TaskSpec], *, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Writes predictions.csv, metrics.csv, comparisons.csv, provenance.json and audit.json into a run folder.

    Where models were taught, `students.csv` has them beside their teachers.

    Models are compared with subspace fusion, or with the first model where it is absent. The predictions come first:
    what cannot be made of them afterwards does not take them away. Its file is then absent, the reason is logged and
    stands in `failed_results.csv`, and the rest is written.

    Args:
        out: Run folder; holds config.yaml, and each job's files where there are any.
        predictions: Columns of predictions.csv.
        tasks: Say which classes are ordered.
        seed: Of bootstrap and permutations.

    Returns:
        Metrics and comparisons; without rows where they failed.
    """
    (out / PROVENANCE).unlink(missing_ok=True)  # it holds the hash of earlier predictions
    write_table(out / PREDICTIONS, predictions)
    ordinal = [name for name, task in tasks.items() if task.ordinal]
    metrics, comparisons = pd.DataFrame(columns=list(METRIC_COLUMNS)), pd.DataFrame(columns=list(COMPARISON_COLUMNS))
    attempts = Attempts(on_failure=lambda what, reason: logger.warning("%s: %s. %s", what, reason.rstrip("."), _REMEDY))
    with _made(out / METRICS, attempts) as path:
        metrics = evaluate_predictions(predictions, seed=seed, ordinal=ordinal)
        write_table(path, metrics)
    with _made(out / COMPARISONS, attempts) as path:
        comparisons = compared_with_reference(predictions, n_bootstrap=N_BOOTSTRAP, seed=seed)
        write_table(path, comparisons)
    with _made(out / STUDENTS, attempts) as path:
        students = compare_students(out, predictions, n_bootstrap=N_BOOTSTRAP, seed=seed, ordinal=ordinal)
        if students.empty:
            path.unlink(missing_ok=True)
        else:
            write_table(path, students)
    with _made(out / PROVENANCE, attempts) as path:
        seconds = training_seconds(out, predictions)
        facts = {**_provenance(predictions), PREDICTIONS_SHA256: sha256_of_file(out / PREDICTIONS)}
        facts[RESULTS_SHA256] = hashes_of_results(out)
        write_json(path, facts | ({"training_seconds": seconds} if seconds else {}))
    with _made(out / AUDIT, attempts) as path:
        write_sealed_json(path, audit_run(out, seed=seed).to_dict())
    failed = attempts.table()
    if failed.empty:
        (out / FAILED_RESULTS).unlink(missing_ok=True)
    else:
        write_table(out / FAILED_RESULTS, failed)
    return metrics, comparisons


@contextmanager
def _made(path: Path, attempts: Attempts) -> Iterator[Path]:
    """Attempts to make a file; where that fails, none is there, as one would be of other predictions."""
    done = False
    with attempts.attempt(f"{path.name} was not written"):
        yield path
        done = True
    if not done:
        path.unlink(missing_ok=True)


def _provenance(predictions: pd.DataFrame) -> dict[str, Any]:
    """Returns when, by what command and with which versions the predictions came about."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["subfuse", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "subfuse" else "Python",
        "versions": {name: version(name) for name in ("subfuse", "torch", "lightning", "lifelines", "scikit-learn")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "n_predictions": len(predictions),
    }

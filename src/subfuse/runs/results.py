"""The tables of a run: its predictions measured, compared and audited."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from subfuse.audit.audit import N_BOOTSTRAP, audit_run, known_modalities
from subfuse.audit.comparison_family import compared_with_reference
from subfuse.cohort.task import TaskSpec
from subfuse.evaluation.comparisons import evaluate_predictions
from subfuse.files import write_json, write_table
from subfuse.run_folder import provenance
from subfuse.runs.timing import training_seconds


def write_results(
    out: Path, predictions: pd.DataFrame, tasks: Mapping[str, TaskSpec], *, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Writes predictions.csv, metrics.csv, comparisons.csv, provenance.json and audit.json into a run folder.

    Models are compared with subspace fusion, or with the first model where it is absent.

    Args:
        out: Run folder; holds config.yaml, and each job's files where there are any.
        predictions: Columns of predictions.csv.
        tasks: Say which classes are ordered.
        seed: Of bootstrap and permutations.

    Returns:
        Metrics and comparisons.
    """
    ordinal = [name for name, task in tasks.items() if task.ordinal]
    metrics = evaluate_predictions(predictions, seed=seed, ordinal=ordinal)
    modalities = known_modalities(set(predictions["model"]), {})
    comparisons = compared_with_reference(predictions, modalities, n_bootstrap=N_BOOTSTRAP, seed=seed)
    write_table(out / "predictions.csv", predictions)
    write_table(out / "metrics.csv", metrics)
    write_table(out / "comparisons.csv", comparisons)
    seconds = {"training_seconds": training_seconds(out, predictions)}
    write_json(
        out / "provenance.json", {**provenance(predictions), **{key: told for key, told in seconds.items() if told}}
    )
    write_json(out / "audit.json", audit_run(out, seed=seed).to_dict())
    return metrics, comparisons

"""A run as the demo makes it: simulated, prepared, cross-validated and explained by commands; once per test process."""

from functools import partial
from pathlib import Path

import pytest

from subfuse.audit import audit
from subfuse.cli import main
from subfuse.explanation import explained_score, patient
from subfuse.explanation.cohort import cohort_explanation, fold_explanation
from subfuse.runs import results
from subfuse.runs import run as runs
from subfuse.simulation import patient_files

BRIEF = (
    "--train.epochs",
    "2",
    "--architecture.embed_dim",
    "16",
    "--architecture.max_grid",
    "8",
    "--architecture.table_size",
    "32",
)


def explain_roughly(patch: pytest.MonkeyPatch) -> None:
    """Integrates over few points, and tests the faithfulness of one patient per model."""
    patch.setattr(fold_explanation, "FAITHFULNESS_PATIENTS", 1)
    patch.setattr(runs, "explain_cohort", partial(cohort_explanation.explain_cohort, tolerance=10.0))
    patch.setattr(patient, "attribute_subspaces", partial(explained_score.attribute_subspaces, tolerance=10.0))


def evaluate_roughly(patch: pytest.MonkeyPatch) -> None:
    """Draws few replicates for intervals."""
    few = 50
    patch.setattr(results, "N_BOOTSTRAP", few)
    patch.setattr(results, "evaluate_predictions", partial(results.evaluate_predictions, n_bootstrap=few))
    patch.setattr(results, "audit_run", partial(audit.audit_run, n_bootstrap=few))
    patch.setattr(audit, "audit_run", results.audit_run)


def made_by_commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder; the cohort and the prepared folder lie beside it."""
    root = tmp_path_factory.getbasetemp() / "path with spaces é"
    if (root / "crossval" / "report.html").exists():
        return root / "crossval"
    commands = [
        ["simulate", root / "cohort", "--patients", "10", "--seed", "0", "--workers", "1"],
        ["check", root / "cohort" / "cohort.yaml"],
        ["prepare", root / "cohort" / "cohort.yaml", "--out", root / "prepared", "--workers", "1"],
        ["crossval", root / "prepared", "--tasks", "survival", "grade", "--models", "subspace", "snn", "cox",
         "--folds", "2", "--out", root / "crossval", "--workers", "1", *BRIEF],
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        explain_roughly(patch)
        evaluate_roughly(patch)
        patch.setattr(patient_files, "_SIDES_PX", (1400, 1600))
        for command in commands:
            assert main([str(part) for part in command]) == 0
    return root / "crossval"

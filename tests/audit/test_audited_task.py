"""What every check asks of a task: what models read and reach."""

import pandas as pd
import pytest
from audited_tables import run_of

from subfuse.audit.audit import audit_predictions
from subfuse.audit.audited_task import audited_tasks, check_modalities
from subfuse.errors import ConfigurationError
from subfuse.evaluation.intervals import evaluate_predictions


@pytest.mark.parametrize(("given", "message"), [
    ({"nobody": ["slides"]}, "modalities: a model of the predictions is required. Found nobody; they have theirs, snn"),
    ({"theirs": ["slides", "genes"]}, "modalities of theirs: some of batch, .*, slides are required. Found genes"),
    ({"theirs": []}, "modalities of theirs: .* Found none"),
])  # fmt: skip
def test_modalities_of_nobody_and_unknown_ones_are_refused(patients: pd.DataFrame, given: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_modalities(given, ["theirs", "snn"])
    check_modalities({"theirs": ["slides", "covariates"], "snn": ("expression",)}, ["theirs", "snn"])
    with pytest.raises(ConfigurationError, match="modalities"):
        audit_predictions(run_of(patients, {"theirs": 1.0, "snn": 1.0}), modalities=given)


@pytest.mark.parametrize("name", ["survival", "grade"])
def test_the_headline_of_a_model_is_the_mean_over_folds_that_is_evaluated(patients: pd.DataFrame, name: str) -> None:
    table = run_of(patients, {"subspace": 0.5, "snn": 2.0}, name)
    (task,) = audited_tasks(table)

    evaluated = evaluate_predictions(table, n_bootstrap=1)
    expected = evaluated[evaluated["metric"] == task.headline].set_index("model")["value"].to_dict()

    assert task.values == pytest.approx(expected)
    assert task.main == "subspace"


def test_a_model_reads_what_was_given_or_what_ours_of_that_name_reads(patients: pd.DataFrame) -> None:
    table = run_of(patients, {"snn": 1.0, "abmil": 1.0, "theirs": 1.0, "unknown": 1.0})
    (task,) = audited_tasks(table, {"theirs": ["slides", "covariates"], "abmil": ["expression"]})

    assert task.modalities == {
        "snn": {"expression"}, "abmil": {"expression"}, "theirs": {"slides", "covariates"}, "unknown": set(),
    }  # fmt: skip


def test_models_of_columns_alone_are_trivial_whoever_made_them(patients: pd.DataFrame) -> None:
    table = run_of(patients, dict.fromkeys(("clinical", "theirs", "snn", "late", "unknown"), 1.0))
    (task,) = audited_tasks(table, {"theirs": ["covariates", "site"], "late": ["slides", "covariates"]})

    assert task.trivial == ("clinical", "theirs")

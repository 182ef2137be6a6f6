"""A search for settings looks at training and validation patients alone."""

import sys
from dataclasses import replace

import pandas as pd
import pytest

from small_cohort import deal_folds
from subfuse.errors import ConfigurationError
from subfuse.training.fitting import train_fold
from subfuse.training.search import search_settings
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

pytestmark = pytest.mark.walk
PLAN = TrainingPlan(
    training=TrainingSettings(epochs=2, batch_size=8),
    architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=32),
    seed=4,
    search=2,
)


@pytest.fixture
def cohort(make_cohort):
    return make_cohort(30)


def test_a_search_tries_as_often_for_every_network_and_never_looks_at_test_patients(cohort, tmp_path):
    fold = deal_folds(cohort)[0]
    spoilt = tuple(
        replace(p, labels={"grade": "G2"}, expression=None, slides=()) if p.patient_id in fold.test else p
        for p in cohort
    )
    found = [
        search_settings(of, fold, task="grade", model_name=model, plan=PLAN)
        for of, model in ((cohort, "snn"), (replace(cohort, patients=spoilt), "snn"), (cohort, "concat"),
                          (cohort, "logistic"))
    ]  # fmt: skip
    assert [len(result.trials) for result in found] == [2, 2, 2, 0]
    pd.testing.assert_frame_equal(found[0].trials, found[1].trials)
    assert found[0].plan == found[1].plan
    assert found[3].plan == PLAN.model_copy(update={"search": 0})
    with pytest.raises(ConfigurationError, match="search must be 0"):
        train_fold(cohort, fold, task="grade", model_name="snn", plan=PLAN)


def test_the_first_trial_is_the_settings_as_they_are_and_the_best_is_taken(cohort):
    found = search_settings(cohort, deal_folds(cohort)[0], task="grade", model_name="snn", plan=PLAN)
    trials = found.trials
    asked = (PLAN.training.lr, PLAN.training.weight_decay, PLAN.architecture.dropout)
    assert tuple(trials.loc[0, ["lr", "weight_decay", "dropout"]]) == pytest.approx(asked)
    best = trials.loc[trials["validation_score"].idxmin()]
    training, architecture = found.plan.training, found.plan.architecture
    assert (training.lr, training.weight_decay, architecture.dropout) == pytest.approx(
        tuple(best[["lr", "weight_decay", "dropout"]])
    )
    varied = {"lr": PLAN.training.lr, "weight_decay": PLAN.training.weight_decay}
    assert training.model_copy(update=varied) == PLAN.training
    assert (found.plan.search, found.plan.seed) == (0, PLAN.seed)


def test_a_search_without_optuna_says_what_to_install(cohort, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'subfuse\[search\]'"):
        search_settings(cohort, deal_folds(cohort)[0], task="grade", model_name="snn", plan=PLAN)

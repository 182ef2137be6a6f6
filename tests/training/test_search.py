"""A search for settings looks at training and validation patients alone."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from small_cohort import deal_folds
from subfuse.errors import ConfigurationError
from subfuse.training import search
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


def documented():
    """Lower and upper bound of what varies, and how it is drawn, of `docs/training.md`."""
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\de.-]+) \| ([\de.-]+) \| (by its logarithm|evenly) \|$", page, flags=re.M)
    return {name: (float(low), float(high), drawn) for name, low, high, drawn in rows}


@pytest.mark.parametrize("end", [0, 1])
def test_settings_are_drawn_from_the_documented_ranges_and_tried_with_one_network(cohort, monkeypatch, end):
    """What is better towards one end of every range is found near that end, and nothing lies beyond it."""
    ranges, places, members = documented(), [], []

    def scored(*_, plan, **__):
        members.append(plan.training.members)
        found = {**plan.training.model_dump(), **plan.architecture.model_dump()}
        places.append([
            np.log(found[name] / low) / np.log(high / low) if drawn == "by its logarithm" else found[name] / high
            for name, (low, high, drawn) in ranges.items()
        ])  # fmt: skip
        return SimpleNamespace(details={"validation_score": np.abs(np.array(places[-1]) - end).sum()})

    monkeypatch.setattr(search, "train_fold", scored)
    ensemble = PLAN.training.model_copy(update={"members": 3})
    plan = PLAN.model_copy(update={"training": ensemble, "search": 200})
    found = search_settings(cohort, deal_folds(cohort)[0], task="grade", model_name="snn", plan=plan)

    assert list(ranges) == ["lr", "weight_decay", "dropout"]
    assert set(members) == {1}
    assert found.plan.training.members == 3
    drawn = np.array(places)
    assert drawn.min() >= -1e-9
    assert drawn.max() <= 1 + 1e-9
    assert (np.abs(drawn - end).min(axis=0) < 0.01).all()
    at_random = drawn[1:11]  # before anything was learned
    assert ((at_random < 0.5).sum(axis=0) >= 2).all()
    assert ((at_random > 0.5).sum(axis=0) >= 2).all()


def test_a_search_without_optuna_says_what_to_install(cohort, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'subfuse\[search\]'"):
        search_settings(cohort, deal_folds(cohort)[0], task="grade", model_name="snn", plan=PLAN)

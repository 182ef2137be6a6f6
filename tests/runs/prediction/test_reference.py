"""What predictions are read beside: close to what all patients would say, and no one's own number."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from subfuse.evaluation.benefit.conformal import conformal_sets, survival_bounds
from subfuse.evaluation.predictions import class_probabilities, label_indices, survival_curves
from subfuse.evaluation.recalibration import recalibrated_classes, recalibrated_survival
from subfuse.evaluation.survival.horizons import with_horizons
from subfuse.runs.external_validation import risk_percentile
from subfuse.runs.prediction.reference import Reference, RiskScale


def drawn_survival(n: int, split: str, random: np.random.Generator) -> pd.DataFrame:
    risk = random.normal(size=n)
    survival = np.sort(random.uniform(0.2, 0.95, (n, 3)), axis=1)[:, ::-1]
    table = pd.DataFrame(survival, columns=["survival_300", "survival_800", "survival_1500"])
    risk = -survival.sum(axis=1) - 0.1 * random.random(n)
    return table.assign(
        split=split, fold=0, risk=risk, time_days=random.uniform(50, 4000, n), event=random.random(n) < 0.6,
        patient_id=[f"{split}{i}" for i in range(n)], cohort="c",
    )  # fmt: skip


@pytest.fixture
def survival() -> pd.DataFrame:
    random = np.random.default_rng(3)
    return pd.concat([drawn_survival(n, s, random) for n, s in ((200, "train"), (60, "validation"), (9, "new"))])


@pytest.mark.parametrize("n", [20, 97, 700])
def test_percentiles_follow_those_of_all_patients_and_no_quantile_is_one_of_them(n):
    random = np.random.default_rng(n)
    trained = random.gamma(2, size=n)
    scale, new = RiskScale.of(trained), random.gamma(2, size=500)
    assert len(scale.quantiles) == min(101, n // 5)
    assert not set(scale.quantiles) & set(trained)
    off = np.abs(scale.percentile(new) - risk_percentile(new, np.sort(trained)))
    assert off.max() <= 100 * 5 / n + 100 / len(scale.quantiles)
    assert np.isnan(scale.percentile(np.array([np.nan]))).all()


def test_patients_of_equal_risk_count_half():
    trained = np.concatenate([np.zeros(60), np.arange(1, 41)])
    expected = risk_percentile(np.array([0.0]), trained)
    for near in (0.0, 1e-9):
        np.testing.assert_allclose(RiskScale.of(trained).percentile(np.array([near])), expected)
    assert RiskScale.of(np.zeros(40)).percentile(np.array([-1.0, 0.0, 1.0])).tolist() == [1.25 * 5, 50, 100 - 1.25 * 5]


def test_few_patients_are_known_by_mean_and_spread_alone():
    random = np.random.default_rng(0)
    trained = random.normal(3, 2, 19)
    scale = RiskScale.of(trained)
    assert (scale.quantiles, scale.mean) == ((), pytest.approx(trained.mean()))
    found = scale.percentile(np.array([trained.mean(), trained.mean() + 1.96 * trained.std(), np.nan]))
    np.testing.assert_allclose(found, [50, 97.5, np.nan], atol=0.01)
    assert RiskScale.of(np.ones(4)).percentile(np.array([0.0, 1.0, 2.0])).tolist() == [0, 50, 100]
    assert RiskScale.of(np.ones(2)) is None


def test_survival_is_that_of_all_training_patients(survival):
    trained, validation, new = (survival[survival["split"] == s] for s in ("train", "validation", "new"))
    reference = Reference.of_survival(survival, has_curve=True)
    found = reference.beside_survival(new)
    expected = recalibrated_survival(new, with_horizons(new, trained), validation)
    for name in ("survival_365", "survival_1095", "recalibrated_survival_365", "recalibrated_survival_1095"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)
    # beyond the last day of the curve the last event counts, known by months
    np.testing.assert_allclose(found["survival_1825"], expected["survival_1825"], atol=0.01)
    assert reference.follow_up_days == trained["time_days"].max() // 365 * 365
    assert reference.last_event_day % 30 == 0


def test_log_hazards_are_read_with_the_baseline_of_all_training_patients(survival):
    rows = survival.drop(columns=["survival_300", "survival_800", "survival_1500"])
    new = rows[rows["split"] == "new"]
    reference = Reference.of_survival(rows, has_curve=False)
    expected = with_horizons(new, rows[rows["split"] == "train"])
    found = reference.beside_survival(new)
    pd.testing.assert_frame_equal(found.drop(columns="risk_percentile"), expected)
    assert reference.hazards is None
    assert reference.least_survival is None


def test_what_ends_before_a_horizon_is_unknown(survival):
    rows = survival.assign(time_days=survival["time_days"].clip(upper=1200.0))
    found = Reference.of_survival(rows, has_curve=True).beside_survival(rows[rows["split"] == "new"])
    assert found["survival_1825"].isna().all()
    assert set(found["reason"]) == {"no survival at 1825 days: follow-up of the training patients ends before"}


@pytest.mark.parametrize("classes", [("A", "B"), ("A", "B", "C")])
def test_classes_are_recalibrated_as_by_the_validation_patients(classes):
    random = np.random.default_rng(1)
    shares = random.dirichlet(np.ones(len(classes)), 50)
    rows = pd.DataFrame(shares, columns=[f"p_{name}" for name in classes])
    rows = rows.assign(label=random.choice(classes, 50), split=["validation"] * 40 + ["new"] * 10, fold=0,
                       patient_id=range(50), cohort="c")  # fmt: skip
    new, validation = rows[rows["split"] == "new"], rows[rows["split"] == "validation"]
    reference = Reference.of_classes(rows, classes)
    found, expected = reference.beside_classes(new, classes), recalibrated_classes(new, validation, classes)
    columns = [f"recalibrated_p_{name}" for name in classes]
    np.testing.assert_allclose(found[columns], expected[columns])
    known = class_probabilities(validation, classes), label_indices(validation, classes)
    sets = conformal_sets(*known, class_probabilities(new, classes))
    assert (class_probabilities(new, classes)[sets] >= reference.least_probability).all()
    is_in = found[[f"in_set_{name}" for name in classes]].to_numpy() == 1
    assert (is_in | ~sets).all()  # rounded down: never less than promised
    assert is_in.sum() <= sets.sum() + 1
    assert reference.least_probability == round(reference.least_probability, 3)
    few = Reference.of_classes(rows.iloc[32:], classes)
    assert (few.platt, few.temperature, few.least_probability) == (None, None, None)
    assert not [name for name in few.beside_classes(new, classes) if name.startswith("in_set_")]


def test_the_promised_day_is_no_later_than_that_of_all_validation_patients(survival):
    validation, new = (survival[survival["split"] == s] for s in ("validation", "new"))
    outcome = validation["time_days"].to_numpy(float), validation["event"].to_numpy(bool)
    bounds = survival_bounds(*outcome, survival_curves(validation), survival_curves(new))
    reference = Reference.of_survival(survival, has_curve=True)
    assert reference.least_survival == round(reference.least_survival, 3)
    assert (reference.beside_survival(new)["promised_days"] <= bounds).all()
    at_bound = survival_curves(new).at(bounds)
    assert (at_bound <= reference.least_survival + 1e-12)[bounds < 1500].all()


def test_it_is_the_same_from_json(survival):
    reference = Reference.of_survival(survival, has_curve=False)
    assert Reference.model_validate_json(reference.model_dump_json(exclude_none=True)) == reference
    assert len(reference.model_dump_json()) < 3000
    for wrong in ({"risks": {"quantiles": [float("nan")]}}, {"temperature": -1.0}, {"patients": ["P1"]}):
        with pytest.raises(ValidationError):
            Reference.model_validate(wrong)

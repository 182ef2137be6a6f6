"""Metrics against scikit-learn, scikit-survival, lifelines and torchsurv, and named cases."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from drawn_outcomes import CENSORED, EVENT, class_cohort, survival_cohort
from imblearn.metrics import sensitivity_score, specificity_score
from lifelines.utils import concordance_index
from scipy.stats import norm
from sksurv.metrics import (
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.util import Surv

from subfuse.evaluation.metrics import (
    CHANCE,
    NORMAL_95,
    Metric,
    classification_metrics,
    duration,
    metric_title,
    number,
    p_text,
    p_value_text,
    signed_interval,
    survival_metrics,
    truncation_time,
)


def assert_undefined(metric: Metric, reason: str) -> None:
    assert np.isnan(metric.value)
    assert not metric.is_defined
    assert metric.reason is not None
    assert reason in metric.reason


@pytest.mark.parametrize(("n", "n_classes"), [(61, 2), (83, 3), (120, 4)])
def test_classification_agrees_with_scikit_learn(n: int, n_classes: int) -> None:
    label, probabilities = class_cohort(n, n_classes, seed=n)
    predicted = probabilities.argmax(axis=1)
    one_hot = np.eye(n_classes)[label]

    metrics = classification_metrics(label, probabilities)

    expected = {
        "auc": np.mean([sklearn.metrics.roc_auc_score(one_hot[:, c], probabilities[:, c]) for c in range(n_classes)]),
        "accuracy": sklearn.metrics.accuracy_score(label, predicted),
        "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(label, predicted),
        "sensitivity": sensitivity_score(label, predicted, average="macro"),
        "specificity": specificity_score(label, predicted, average="macro"),
        "precision": sklearn.metrics.precision_score(label, predicted, average="macro"),
        "f1": sklearn.metrics.f1_score(label, predicted, average="macro"),
        "quadratic_kappa": sklearn.metrics.cohen_kappa_score(label, predicted, weights="quadratic"),
        "brier": np.mean(((probabilities - one_hot) ** 2).sum(axis=1)),
    }
    assert {name: metrics[name].value for name in expected} == pytest.approx(expected, abs=1e-12)
    assert all(metric.reason is None for metric in metrics.values())


def test_specificity_of_imbalanced_classes_by_hand() -> None:
    label = np.array([0] * 7 + [1] * 2 + [2])
    predicted = np.array([0, 0, 0, 0, 0, 1, 2, 1, 0, 2])

    specificity = classification_metrics(label, np.eye(3)[predicted])["specificity"].value

    # class 0: 2 of 3 others not called 0; class 1: 7 of 8; class 2: 8 of 9
    assert specificity == pytest.approx((2 / 3 + 7 / 8 + 8 / 9) / 3)


def test_calibration_error_by_hand() -> None:
    label = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.55, 0.45]])

    error = classification_metrics(label, probabilities)["expected_calibration_error"].value

    assert error == pytest.approx((abs(1.0 - 0.95) + abs(0.5 - 0.55)) / 2)


def test_the_calibration_error_has_fifteen_bins() -> None:
    """0.65 and 0.68 lie in different fifteenths, and in the same fourteenth and sixteenth."""
    share, label = np.repeat([0.65, 0.68], 4), np.array([1, 1, 1, 1, 0, 0, 0, 0])

    error = classification_metrics(label, np.stack([1 - share, share], axis=1))["expected_calibration_error"]

    assert error.value == pytest.approx((0.35 + 0.68) / 2)


def test_certain_and_right_predictions_are_perfect() -> None:
    label = np.array([0, 1, 2, 2])

    values = {name: metric.value for name, metric in classification_metrics(label, np.eye(3)[label]).items()}

    errors = {"brier": 0.0, "expected_calibration_error": 0.0}
    assert values == {name: errors.get(name, 1.0) for name in values}


def test_class_without_patients_leaves_class_averages_undefined() -> None:
    label, probabilities = np.array([0, 0, 1]), np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.7, 0.1]])

    metrics = classification_metrics(label, probabilities, classes=["G2", "G3", "G4"])

    for name in ("auc", "balanced_accuracy", "sensitivity", "precision", "f1"):
        assert_undefined(metrics[name], "no patient of class G4")
    for name in ("accuracy", "specificity", "quadratic_kappa", "brier", "expected_calibration_error"):
        assert metrics[name].is_defined


def test_one_class_leaves_specificity_and_kappa_undefined() -> None:
    metrics = classification_metrics(np.array([1, 1]), np.array([[0.2, 0.8], [0.4, 0.6]]))

    assert_undefined(metrics["specificity"], "every patient is of class 1")
    assert_undefined(metrics["quadratic_kappa"], "predicted so")


def test_constant_probabilities_rank_nobody() -> None:
    metrics = classification_metrics(np.array([0, 1, 1]), np.full((3, 2), 0.5))

    assert_undefined(metrics["auc"], "same predicted probability")
    assert_undefined(metrics["precision"], "class 1 never predicted")


@pytest.mark.parametrize(
    ("label", "probabilities", "message"),
    [
        (np.array([0, 1]), np.array([[2.0, -1.5], [0.1, 3.0]]), "sum to one"),
        (np.array([0, 1]), np.array([[0.5, 0.5], [np.nan, 0.5]]), "sum to one"),
        (np.array([0, 2]), np.full((2, 2), 0.5), r"0\.\.1"),
        (np.array([0, -1]), np.full((2, 2), 0.5), r"0\.\.1\. Found -1"),
        (np.zeros(0, dtype=int), np.zeros((0, 2)), "need patients"),
        (np.array([0, 0]), np.ones((2, 1)), "2 patients, 1 columns, 1 names"),
        (np.array([0, 1]), np.array([[0.51, 0.5], [0.5, 0.5]]), "sum to one"),
    ],
)
def test_unusable_predictions_are_an_error(label: np.ndarray, probabilities: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(label, probabilities)


def test_classes_need_as_many_names_and_tables_may_be_rounded() -> None:
    label, rounded = np.array([1, 0]), np.array([[0.333, 0.6665], [0.5, 0.5]])

    assert classification_metrics(label, rounded)["accuracy"].value == 1.0
    with pytest.raises(ValueError, match="2 patients, 2 columns, 3 names"):
        classification_metrics(label, rounded, classes=["G2", "G3", "G4"])


def test_precision_names_the_classes_that_are_never_predicted() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.4, 0.35, 0.25]])

    metrics = classification_metrics(np.array([0, 1, 1, 2]), probabilities, classes=["G2", "G3", "G4"])

    assert metrics["precision"].reason == "class G4 never predicted"


@pytest.mark.parametrize(("n", "seed", "grid"), [(90, 0, 1.0), (140, 1, 200.0), (57, 2, 500.0)])
def test_survival_agrees_with_scikit_survival(n: int, seed: int, grid: float) -> None:
    train_time, train_event, _ = survival_cohort(211, seed + 10, grid=grid)
    time_days, event, risk = survival_cohort(n, seed, grid=grid)
    days = np.array([500.0, 700.0, 1000.0, 1300.0])
    survival = np.exp(-days * np.exp(risk)[:, None] / 1200)
    limit = truncation_time(train_time, train_event)

    metrics = survival_metrics(
        time_days,
        event,
        risk,
        train_time_days=train_time,
        train_event=train_event,
        survival=survival,
        survival_days=days,
        horizon_days=900.0,
    )

    train = Surv.from_arrays(train_event, train_time)
    # scikit-survival has no weights beyond the training patients' follow-up; what happens there is not used
    capped = Surv.from_arrays(event & (time_days <= limit), np.minimum(time_days, limit))
    assert metrics["c_index"].value == pytest.approx(concordance_index_censored(event, time_days, risk)[0], abs=1e-12)
    uno = concordance_index_ipcw(train, capped, risk, tau=limit)[0]
    assert metrics["uno_c_index"].value == pytest.approx(uno, abs=1e-12)
    auc = cumulative_dynamic_auc(train, capped, risk, [900.0])[0][0]
    assert metrics["auc_900_days"].value == pytest.approx(auc, abs=1e-12)
    brier = integrated_brier_score(train, capped, survival, days)
    assert metrics["integrated_brier"].value == pytest.approx(brier, abs=1e-12)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_harrell_and_uno_agree_with_torchsurv() -> None:
    from torchsurv.metrics.cindex import ConcordanceIndex
    from torchsurv.stats.ipcw import get_ipcw

    train_time, train_event, _ = survival_cohort(150, 3, grid=50.0)
    time_days, event, risk = survival_cohort(71, 4, grid=50.0)
    outcome = (torch.tensor(risk), torch.tensor(event), torch.tensor(time_days))
    limit = truncation_time(train_time, train_event)
    weight = get_ipcw(torch.tensor(train_event), torch.tensor(train_time), torch.tensor(time_days)).double()

    metrics = survival_metrics(time_days, event, risk, train_time_days=train_time, train_event=train_event)

    assert metrics["c_index"].value == pytest.approx(ConcordanceIndex()(*outcome).item(), abs=1e-6)
    uno = ConcordanceIndex()(*outcome, weight=weight, tmax=torch.tensor(limit)).item()
    assert metrics["uno_c_index"].value == pytest.approx(uno, abs=1e-6)


def test_c_index_agrees_with_lifelines_without_tied_times() -> None:
    time_days, event, risk = survival_cohort(85, 5)
    time_days = time_days + np.random.default_rng(0).uniform(size=85)

    metrics = survival_metrics(time_days, event, risk)

    assert metrics["c_index"].value == pytest.approx(concordance_index(time_days, -risk, event), abs=1e-12)


@pytest.mark.parametrize(
    ("case", "time_days", "event", "risk", "expected"),
    [
        ("perfect ranking", [1, 2, 3, 4], [EVENT] * 4, [4, 3, 2, 1], 1.0),
        ("reversed ranking", [1, 2, 3, 4], [EVENT] * 4, [1, 2, 3, 4], 0.0),
        ("perfect with censoring", [1, 2, 3, 4], [EVENT, CENSORED, EVENT, CENSORED], [4, 9, 2, 1], 0.75),
        ("tied risk counts one half", [1, 2, 3], [EVENT, EVENT, CENSORED], [2, 2, 1], (0.5 + 1 + 1) / 3),
        ("tied events are not comparable", [5, 5, 7], [EVENT, EVENT, CENSORED], [1, 9, 3], 0.5),
        ("an event precedes a last contact of the same day", [5, 5], [EVENT, CENSORED], [2, 1], 1.0),
        ("tied times and tied risks", [5, 5, 5], [EVENT, CENSORED, CENSORED], [2, 2, 1], 0.75),
        ("an event on the last day", [3, 8, 8], [EVENT, EVENT, EVENT], [2, 3, 1], 0.5),
    ],
)
def test_c_index_of_named_cases(case: str, time_days: list, event: list, risk: list, expected: float) -> None:
    metrics = survival_metrics(np.array(time_days, dtype=float), np.array(event), np.array(risk, dtype=float))

    assert metrics["c_index"].value == pytest.approx(expected), case


@pytest.mark.parametrize(
    ("case", "time_days", "event", "risk", "reason"),
    [
        ("all censored", [1, 2, 3], [CENSORED] * 3, [3, 2, 1], "no event"),
        ("all events at once", [4, 4, 4], [EVENT] * 3, [3, 2, 1], "no comparable pair"),
        ("censored before the only event", [1, 2, 3], [CENSORED, CENSORED, EVENT], [3, 2, 1], "no comparable pair"),
        ("constant risk", [1, 2, 3], [EVENT] * 3, [2, 2, 2], "same for every patient"),
        ("one patient", [1], [EVENT], [2], "same for every patient"),
    ],
)
def test_undefined_c_index_has_a_reason(case: str, time_days: list, event: list, risk: list, reason: str) -> None:
    metrics = survival_metrics(np.array(time_days, dtype=float), np.array(event), np.array(risk, dtype=float))

    assert_undefined(metrics["c_index"], reason)


def test_monotone_transforms_of_risk_change_nothing() -> None:
    train_time, train_event, _ = survival_cohort(100, 7)
    time_days, event, risk = survival_cohort(64, 8)
    training = {"train_time_days": train_time, "train_event": train_event}

    original = survival_metrics(time_days, event, risk, **training)

    for transformed in (np.exp(risk), 1e-9 * risk + 3.0, np.arctan(risk), risk**3):
        metrics = survival_metrics(time_days, event, transformed, **training)
        for name in ("c_index", "uno_c_index", "auc_1095_days"):
            assert metrics[name] == original[name]
            assert metrics[name].is_defined


def test_order_of_patients_changes_nothing() -> None:
    time_days, event, risk = survival_cohort(53, 9, grid=100.0)
    order = np.random.default_rng(0).permutation(53)

    shuffled = survival_metrics(time_days[order], event[order], risk[order])

    assert shuffled["c_index"].value == pytest.approx(survival_metrics(time_days, event, risk)["c_index"].value)


def test_many_cases_are_compared_in_blocks() -> None:
    time_days, event, risk = survival_cohort(1300, 10)

    metrics = survival_metrics(time_days, event, risk)

    assert event.sum() > 512
    assert metrics["c_index"].value == pytest.approx(concordance_index_censored(event, time_days, risk)[0], abs=1e-12)


def test_censoring_weighted_metrics_say_what_they_lack() -> None:
    time_days, event, risk = survival_cohort(40, 11)
    days = np.array([100.0, 9e4])
    curves = {"survival": np.full((40, 2), 0.5), "survival_days": days}
    training = {"train_time_days": np.array([10.0, 400.0, 500.0]), "train_event": np.array([EVENT, EVENT, CENSORED])}

    untrained = survival_metrics(time_days, event, risk, **curves)
    trained = survival_metrics(time_days, event, risk, **training, **curves)

    for name in ("uno_c_index", "auc_1095_days", "integrated_brier"):
        assert_undefined(untrained[name], "no training patients")
    assert_undefined(trained["auc_1095_days"], "truncation time of 400 days")
    assert_undefined(trained["integrated_brier"], "the predicted curves have fewer than two times before day 400")
    assert_undefined(survival_metrics(time_days, event, risk)["integrated_brier"], "no survival curve")


def test_an_event_on_the_day_of_the_horizon_is_by_it_and_follow_up_that_ends_there_is_not_beyond_it() -> None:
    everybody = np.array([EVENT] * 3)
    training = {"train_time_days": np.array([1.0, 2.0, 900.0]), "train_event": everybody}

    def at_horizon(time_days: list[float]) -> Metric:
        metrics = survival_metrics(
            np.array(time_days), everybody, np.array([3.0, 1.0, 2.0]), **training, horizon_days=500.0
        )
        return metrics["auc_500_days"]

    assert at_horizon([500.0, 600.0, 700.0]).value == 1.0
    assert at_horizon([500.0, 600.0, 400.0]).value == 1.0
    assert_undefined(at_horizon([500.0, 500.0, 400.0]), "nobody was followed beyond day 500")
    assert_undefined(at_horizon([500.0, 500.0, 500.0]), "nobody was followed beyond day 500")
    assert_undefined(at_horizon([501.0, 600.0, 700.0]), "no event by day 500")
    training["train_time_days"] = np.array([1.0, 2.0, 500.0])  # the metrics look up to there
    assert at_horizon([400.0, 600.0, 700.0]).value == 1.0
    assert_undefined(at_horizon([501.0, 600.0, 700.0]), "no event by day 500")


def test_reasons_name_the_class_that_is_there_and_the_limit_of_the_metric_that_has_one() -> None:
    metrics = classification_metrics(np.array([1, 1]), np.array([[0.1, 0.9], [0.2, 0.8]]), classes=["G2", "G3"])
    time_days, event = np.array([5.0, 5.0, 9.0]), np.array([EVENT, EVENT, CENSORED])
    times = {"train_time_days": np.array([1.0, 2.0, 8.0]), "train_event": np.array([EVENT, EVENT, CENSORED])}
    survival = survival_metrics(time_days[:2], event[:2], np.array([1.0, 2.0]), **times)

    assert_undefined(metrics["specificity"], "every patient is of class G3")
    assert_undefined(metrics["quadratic_kappa"], "every patient is of class G3 and predicted so")
    assert survival["c_index"].reason == "no comparable pair"
    assert survival["uno_c_index"].reason == "no comparable pair before the truncation time of 2 days"


def test_numbers_read_as_people_write_them() -> None:
    assert CHANCE == 0.5
    assert pytest.approx(norm.ppf(0.975), abs=1e-3) == NORMAL_95
    assert [metric_title(name) for name in ("c_index", "auc_1095_days", "own")] == ["C-index", "AUC at 3 years", "own"]
    assert [metric_title(name) for name in ("auc_of_mine", "my_days")] == ["auc_of_mine", "my_days"]
    months, years = {30: "1", 45: "1", 46: "2", 364: "12"}, {365: "1", 1095: "3", 1223: "3.3", 1225: "3.4"}
    assert [duration(days).split()[0] for days in (*months, *years)] == [*months.values(), *years.values()]
    assert [duration(days).split()[1] for days in (45, 46, 364, 365, 366)] == [
        "month",
        "months",
        "months",
        "year",
        "year",
    ]
    assert [number(x) for x in (0.12345, -0.5, -0.0001, float("nan"))] == ["0.123", "−0.500", "0.000", "undefined"]
    assert [number(x, signed=True) for x in (0.12345, -0.0001)] == ["+0.123", "+0.000"]
    assert signed_interval(0.1, float("nan")) == "no interval"
    assert signed_interval(0.1, 0.2) == "+0.100 to +0.200"
    assert [p_value_text(x) for x in (0.0009, 0.001, 1.0, float("nan"))] == ["< 0.001", "0.001", "1.000", "undefined"]
    assert [p_text(x) for x in (0.0009, 0.012, float("nan"))] == ["p < 0.001", "p = 0.012", "p undefined"]


@pytest.mark.parametrize(
    ("time_days", "reason"),
    [([600.0, 700.0, 800.0], "no event by day 500"), ([100.0, 200.0, 300.0], "nobody was followed beyond day 500")],
)
def test_horizon_without_cases_or_controls_is_undefined(time_days: list, reason: str) -> None:
    everybody = np.array([EVENT] * 3)
    training = {"train_time_days": np.array([1.0, 2.0, 900.0]), "train_event": everybody}

    metrics = survival_metrics(
        np.array(time_days), everybody, np.array([3.0, 1.0, 2.0]), **training, horizon_days=500.0
    )

    assert_undefined(metrics["auc_500_days"], reason)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"risk": np.array([1.0, np.nan])}, "risk must be finite"),
        ({"time_days": np.array([-1.0, 2.0])}, "not negative"),
        ({"train_time_days": np.array([1.0])}, "given together"),
        ({"survival": np.array([[0.5], [1.5]]), "survival_days": np.array([5.0])}, "from 0 to 1"),
        ({"survival": np.full((2, 2), 0.5), "survival_days": np.array([5.0, 4.0])}, "increase"),
        ({"survival_days": np.array([5.0])}, "both or neither"),
    ],
)
def test_unusable_survival_arguments_are_an_error(changed: dict, message: str) -> None:
    usable = {"time_days": np.array([1.0, 2.0]), "event": np.array([EVENT, CENSORED]), "risk": np.array([2.0, 1.0])}

    with pytest.raises(ValueError, match=message):
        survival_metrics(**{**usable, **changed})

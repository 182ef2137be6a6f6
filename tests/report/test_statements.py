from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest

from subfuse.evaluation.metrics import metric_title, number, p_text
from subfuse.report.statements import ToldBenefit, benefit_told, best_models, mixture_told, model_label
from subfuse.training.models import MODELS, model_title


@pytest.mark.parametrize(
    ("lower", "upper", "p_adjusted", "verdict"),
    [
        pytest.param(0.01, 0.05, 0.01, "better", id="clearly better"),
        pytest.param(-0.05, -0.01, 0.01, "worse", id="clearly worse"),
        pytest.param(-0.01, 0.05, 0.2, "open", id="interval includes zero"),
        pytest.param(0.01, 0.05, 0.06, "open", id="not after adjustment"),
        pytest.param(np.nan, np.nan, np.nan, "untested", id="undefined"),
    ],
)
def test_verdict_needs_interval_and_adjusted_p_value(lower, upper, p_adjusted, verdict):
    assert ToldBenefit("snn", 0.02, lower, upper, p_adjusted, 40).verdict == verdict


def test_benefit_is_what_the_audit_found_against_the_best_single_modality():
    row = {"task": "grade", "model": "subspace", "reference": "snn", "reference_is": "best single modality"}
    row |= {"difference": 0.05, "lower": 0.02, "upper": None, "p_adjusted": 0.01, "n_patients": 40}
    others = [row | {"task": "survival"}, row | {"model": "concat"}, row | {"reference_is": "late fusion"}]
    benefit = benefit_told({"tables": {"fusion": [*others, row]}}, task="grade", model="subspace")
    np.testing.assert_equal(astuple(benefit), ("snn", 0.05, 0.02, np.nan, 0.01, 40, None))
    for audit in (None, {"tables": {}}, {"tables": {"fusion": others}}):
        assert benefit_told(audit, task="grade", model="subspace") is None


def test_ties_share_the_best_place_and_undefined_models_have_none():
    metrics = pd.DataFrame(
        {
            "model": ["a", "b", "c", "a", "b", "c"],
            "metric": ["auc"] * 3 + ["brier"] * 3,
            "value": [0.8, 0.8, np.nan, 0.3, 0.2, 0.4],
        }
    )
    assert best_models(metrics) == {"auc": {"a", "b"}, "brier": {"b"}}


def test_texts_never_hide_an_undefined_number():
    assert number(np.nan) == "undefined"
    assert number(-0.0415, signed=True) == "−0.042"
    assert number(-0.0002, signed=True) == "+0.000"
    assert number(-0.0002) == "0.000"
    assert p_text(np.nan) == "p undefined"
    assert p_text(0.0004) == "p < 0.001"


def test_a_horizon_is_named_in_years():
    assert metric_title("auc_730_days") == "AUC at 2 years"
    assert metric_title("someone's metric") == "someone's metric"


def test_every_model_has_a_name_for_readers_and_says_if_it_reads_one_kind_of_data():
    assert len({model_title(name) for name in MODELS} - set(MODELS)) == len(MODELS)
    assert model_label("clam-sb") == "CLAM-SB (slides only)"
    assert model_label("cox") == "Cox regression (expression only)"
    assert model_label("cox", ["age"]) == "Cox regression (expression and covariates)"
    assert model_label("mcat", ["age"]) == "MCAT"
    assert model_label("clinical") == "Clinical model (covariates only)"
    assert model_label("mcat") == "MCAT"


def test_only_networks_can_lack_a_line():
    asked = {"training": {"linear_path": True}}
    network = asked | {"chosen_epochs": [3]}
    assert mixture_told([asked, asked]) == ""  # linear models
    assert mixture_told([network, network | {"network_share": 0.5}]).startswith(
        "share of the network 0.50; in 1 of 2 folds"
    )

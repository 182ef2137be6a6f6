import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from bright_slides import fit

from subfuse.explanation import faithfulness
from subfuse.explanation.explained_score import attribute_subspaces, explained_score
from subfuse.explanation.faithfulness import (
    deletion_scores,
    faithfulness_curves,
    faithfulness_of,
    faithfulness_summary,
    mean_curves,
)


@pytest.fixture
def explained(make_cohort):
    cohort = make_cohort(n_patients=12)
    fitted = fit(cohort)
    batch = next(fitted.batches([cohort.patients[4]]))
    return fitted, batch, explained_score(fitted, batch)


def test_scores_agree_with_a_loop(explained):
    fitted, batch, score = explained
    order = np.random.default_rng(0).permutation(int(batch.patch_mask.sum()))
    curve = []
    for step in range(11):
        inputs = {name: value.clone() for name, value in batch.inputs().items()}
        for place in order[: round(step * len(order) / 10)]:
            inputs["patches"][0, place] = 0
        with torch.inference_mode():
            curve.append(float(score.of_logits(fitted.model(**inputs).logits)))
    found = deletion_scores(fitted.model, batch, score, np.stack([order, order[::-1]]), input_name="patches")
    assert found[0] == pytest.approx(curve, abs=1e-5)
    assert found[1, [0, -1]] == pytest.approx(found[0, [0, -1]], abs=1e-5)


def test_genes_of_a_trained_model_beat_random_order(explained):
    fitted, batch, score = explained
    attributions = attribute_subspaces(fitted, batch, score, tolerance=0.2)

    def measured():
        generator = np.random.default_rng(0)
        curves = faithfulness_curves(fitted.model, batch, score, attributions, generator=generator)
        return curves, faithfulness_of(fitted, batch, score, attributions, curves, generator=generator)

    curves, table = measured()
    assert curves.groupby(["input", "order"], sort=False).size().tolist() == [11] * 6
    by_input = table.set_index("input")
    assert list(by_input.index) == ["patches", "genes"]
    assert by_input.loc["genes", "deletion"] > 0
    assert by_input.loc["genes", "insertion"] > 0
    of_genes = curves[curves["input"] == "genes"].pivot_table(index="removed", columns="order", values="score")
    assert by_input.loc["genes", "deletion"] == pytest.approx((of_genes["random"] - of_genes["deletion"]).sum() / 10)
    assert table[["random_weights", "random_weights_absolute"]].abs().le(1).all().all()
    pd.testing.assert_frame_equal(table, measured()[1])


def test_mean_curves_compare_every_patient_with_its_own_random_order():
    rows = [
        (patient, "0", "genes", order, removed, level + slope * removed)
        for patient, level in (("a", 5.0), ("b", -2.0), ("c", 1.0))
        for order, slope in (("deletion", -3.0), ("random", -1.0))
        for removed in (0.0, 0.5, 1.0)
    ]
    curves = pd.DataFrame(rows, columns=["patient_id", "fold", "input", "order", "removed", "score"])
    table = mean_curves(curves)
    of_deletion = table[table["order"] == "deletion"]
    assert of_deletion["change"].tolist() == pytest.approx([0.0, -1.5, -3.0])
    assert of_deletion["against_random"].tolist() == pytest.approx([0.0, -1.0, -2.0])
    assert of_deletion["lower"].tolist() == pytest.approx(of_deletion["upper"].tolist())  # all patients are alike
    assert (table[table["order"] == "random"]["against_random"] == 0).all()
    assert set(table["n_patients"]) == {3}
    again = mean_curves(pd.concat([curves, curves[curves["patient_id"] == "a"].assign(fold="1")]))
    pd.testing.assert_frame_equal(again, table)  # a patient of two models counts once


def test_the_summary_covers_the_mean_and_omits_what_is_undefined():
    random = np.random.default_rng(0)
    table = pd.DataFrame({"input": "genes", "deletion": random.normal(1, 1, 50), "insertion": [-1.0] * 25 + [3.0] * 25})
    table["random_weights"], table["random_weights_absolute"] = np.nan, [0.5, 0.6] + [np.nan] * 48
    table["patient_id"] = range(50)
    again = pd.concat([table, table[:3].assign(deletion=[np.nan, 9.0, 9.0])])  # three patients of a second model
    assert faithfulness_summary(again, generator=random)["genes"]["deletion"]["n_patients"] == 50
    found = faithfulness_summary(table, generator=random)["genes"]
    assert found["deletion"]["lower"] < found["deletion"]["mean"] < found["deletion"]["upper"]
    assert found["insertion"]["better_than_random"] == 0.5
    assert found["random_weights"] == {"n_patients": 0, "mean": None, "lower": None, "upper": None}
    assert found["random_weights_absolute"]["lower"] is None


def test_only_patients_above_zero_are_better_than_random():
    table = pd.DataFrame({"patient_id": range(5), "input": "genes", "deletion": [-0.5, -0.2, 0.0, 0.4, 3.0]})
    table = table.assign(insertion=[-0.9, -0.1, -0.3, 0.0, 0.5], random_weights=0.0, random_weights_absolute=0.0)
    found = faithfulness_summary(table, generator=np.random.default_rng(0))["genes"]
    assert found["deletion"]["better_than_random"] == 2 / 5
    assert found["insertion"]["better_than_random"] == 1 / 5


def test_a_correlation_with_attributions_that_are_all_equal_is_missing(explained, monkeypatch):
    fitted, batch, score = explained
    attributions = attribute_subspaces(fitted, batch, score, tolerance=0.2)
    generator = np.random.default_rng(0)
    curves = faithfulness_curves(fitted.model, batch, score, attributions, generator=generator)
    equal = {
        name: replace(part, patch=torch.ones_like(part.patch), gene=torch.ones_like(part.gene))
        for name, part in attributions.items()
    }
    monkeypatch.setattr(faithfulness, "attribute_subspaces", lambda *_, **__: equal)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = faithfulness_of(fitted, batch, score, attributions, curves, generator=generator)
    assert table[["random_weights", "random_weights_absolute"]].isna().all(axis=None)

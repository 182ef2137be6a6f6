import numpy as np
import pandas as pd
import pytest
import torch
from bright_slides import fit

from subfuse.explanation.explained_score import attribute_subspaces, explained_score
from subfuse.explanation.faithfulness import deletion_areas, faithfulness_of, faithfulness_summary


@pytest.fixture
def explained(make_cohort):
    cohort = make_cohort(n_patients=12)
    fitted = fit(cohort)
    batch = next(fitted.batches([cohort.patients[4]]))
    return fitted, batch, explained_score(fitted, batch)


def test_areas_agree_with_a_loop(explained):
    fitted, batch, score = explained
    order = np.random.default_rng(0).permutation(int(batch.patch_mask.sum()))
    curve = []
    for step in range(11):
        inputs = {name: value.clone() for name, value in batch.inputs().items()}
        for place in order[: round(step * len(order) / 10)]:
            inputs["patches"][0, place] = 0
        with torch.inference_mode():
            curve.append(float(score.of_logits(fitted.model(**inputs).logits)))
    expected = (sum(curve) - (curve[0] + curve[-1]) / 2) / 10
    assert deletion_areas(fitted.model, batch, score, order[None], input_name="patches") == pytest.approx(
        expected, abs=1e-5
    )


def test_genes_of_a_trained_model_beat_random_order(explained):
    fitted, batch, score = explained
    attributions = attribute_subspaces(fitted, batch, score, tolerance=0.2)
    table = faithfulness_of(fitted, batch, score, attributions, generator=np.random.default_rng(0)).set_index("input")
    assert list(table.index) == ["patches", "genes"]
    assert table.loc["genes", "deletion"] > 0
    assert table.loc["genes", "insertion"] > 0
    assert table[["random_weights", "random_weights_absolute"]].abs().le(1).all().all()
    again = faithfulness_of(fitted, batch, score, attributions, generator=np.random.default_rng(0)).set_index("input")
    pd.testing.assert_frame_equal(table, again)


def test_the_summary_covers_the_mean_and_omits_what_is_undefined():
    random = np.random.default_rng(0)
    table = pd.DataFrame({"input": "genes", "deletion": random.normal(1, 1, 50), "insertion": [-1.0] * 25 + [3.0] * 25})
    table["random_weights"], table["random_weights_absolute"] = np.nan, [0.5, 0.6] + [np.nan] * 48
    found = faithfulness_summary(table, generator=random)["genes"]
    assert found["deletion"]["lower"] < found["deletion"]["mean"] < found["deletion"]["upper"]
    assert found["insertion"]["better_than_random"] == 0.5
    assert found["random_weights"] == {"n_patients": 0, "mean": None, "lower": None, "upper": None}
    assert found["random_weights_absolute"]["lower"] is None

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from additive_model import GENE, PATCH, AdditiveModel, three_patients
from bright_slides import fit

from subfuse.cohort.batches import BagBatch
from subfuse.evaluation.metrics import NORMAL_95
from subfuse.explanation import faithfulness
from subfuse.explanation.attribution import Attribution
from subfuse.explanation.explained_score import ExplainedScore, attribute_subspaces, explained_score
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


def known(n_patches=PATCH, n_genes=GENE):
    """One patient, the score, and what every patch and gene adds to it; the genes after the first few add nothing."""
    model, batch = AdditiveModel().eval().float(), three_patients()
    mask = torch.arange(PATCH)[None] < n_patches
    batch = BagBatch(
        ("a",), batch.patches[:1].float(), batch.coords[:1], mask, batch.expression[:1].float(),
        batch.expression_mask[:1], None
    )  # fmt: skip
    score = ExplainedScore("risk", torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.5]))
    with torch.no_grad():
        model.gene_weight[..., n_genes:] = 0
        patch = torch.einsum("pf,scf,c->sp", batch.patches[0], model.patch_weight, score.weights) * mask / n_patches
        gene = torch.einsum("g,scg,c->sg", batch.expression[0], model.gene_weight, score.weights)
    zero = torch.zeros(1)
    attributions = {
        name: Attribution(patch=of_patches[None], gene=of_genes[None], gap=zero, steps=1)
        for name, of_patches, of_genes in zip(("tumour", "microenvironment"), patch, gene, strict=True)
    }
    return model, batch, score, attributions, {"patches": patch.sum(dim=0).numpy(), "genes": gene.sum(dim=0).numpy()}


def test_curves_of_an_additive_model_fall_by_what_is_replaced():
    model, batch, score, attributions, adds = known(n_genes=5)
    curves = faithfulness_curves(model, batch, score, attributions, generator=np.random.default_rng(3))
    with torch.no_grad():
        whole = float(score.of_logits(model(**batch.inputs()).logits))
    generator = np.random.default_rng(3)
    expected = []
    for name in ("patches", "genes"):
        value = adds[name][adds[name] != 0]
        assert len(value) == 5
        orders = [np.argsort(-value), np.argsort(value), *(generator.permutation(5) for _ in range(3))]
        removed = [round(5 * step / 10) for step in range(11)]
        falls = [[value[order[:n]].sum() for n in removed] for order in orders]
        for kind, fall in (("deletion", falls[0]), ("insertion", falls[1]), ("random", np.mean(falls[2:], axis=0))):
            for step in range(11):
                row = {"patient_id": "a", "input": name, "order": kind, "removed": step / 10}
                expected.append(row | {"score": whole - fall[step]})
    pd.testing.assert_frame_equal(curves, pd.DataFrame(expected), check_dtype=False, rtol=1e-4, atol=1e-5)


def test_an_input_of_fewer_than_three_elements_has_no_curve():
    def inputs_of(**counts):
        curves = faithfulness_curves(*known(**counts)[:4], generator=np.random.default_rng(0))
        assert list(curves.columns) == ["patient_id", "input", "order", "removed", "score"]
        return list(dict.fromkeys(curves["input"]))

    assert inputs_of(n_patches=2, n_genes=3) == ["genes"]
    assert inputs_of(n_patches=3, n_genes=2) == ["patches"]
    assert inputs_of(n_patches=2, n_genes=2) == []


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
    assert by_input.loc["genes", "insertion"] == pytest.approx((of_genes["insertion"] - of_genes["random"]).sum() / 10)
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


def test_mean_curves_have_an_interval_of_three_patients_or_more_and_keep_their_order():
    rows = [
        (patient, "0", name, order, removed, (slope + (order == "random")) * removed)
        for name in ("patches", "genes")
        for patient, slope in (("a", 1.0), ("b", 2.0), ("c", 6.0))
        for order in ("insertion", "deletion", "random")
        for removed in (0.0, 1.0)
        if (name, patient) != ("genes", "c")
    ]
    curves = pd.DataFrame(rows, columns=["patient_id", "fold", "input", "order", "removed", "score"])
    curves.loc[curves["order"] == "deletion", "score"] *= 2
    table = mean_curves(curves)
    names = ["input", "order", "removed", "change", "against_random", "lower", "upper", "n_patients"]
    assert list(table.columns) == names
    pd.testing.assert_frame_equal(table[names[:3]], curves[names[:3]].drop_duplicates(ignore_index=True))
    end = table[(table["removed"] == 1) & (table["order"] == "deletion")].set_index("input")
    differences = np.array([1.0, 2.0, 6.0]) - 1  # twice the slope, less the slope and 1
    half_width = NORMAL_95 * differences.std(ddof=1) / np.sqrt(3)
    assert end.loc["patches", "against_random"] == pytest.approx(2.0)
    assert end.loc["patches", ["lower", "upper"]].tolist() == pytest.approx([2 - half_width, 2 + half_width])
    assert end.loc["genes", ["lower", "upper"]].isna().all()  # two patients


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
    assert "better_than_random" not in found["random_weights_absolute"]
    three = faithfulness_summary(pd.concat([table[:3], table.assign(input="a")]), generator=random)
    assert list(three) == ["genes", "a"]
    assert three["genes"]["deletion"]["lower"] is not None


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
        monkeypatch.setattr(faithfulness, "attribute_subspaces", lambda *_, **__: attributions)
        turned = faithfulness_of(fitted, batch, score, equal, curves, generator=generator)
        alike = faithfulness_of(fitted, batch, score, attributions, curves, generator=generator)
    assert table[["random_weights", "random_weights_absolute"]].isna().all(axis=None)
    assert turned[["random_weights", "random_weights_absolute"]].isna().all(axis=None)
    np.testing.assert_allclose(alike[["random_weights", "random_weights_absolute"]], 1.0)

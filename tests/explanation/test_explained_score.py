"""What is explained is a fixed linear function of a patient's logits, and every share of it adds up."""

import pytest
import torch
from bright_slides import fit

from subfuse.cohort.batches import BagBatch
from subfuse.explanation.attribution import integrated_gradients
from subfuse.explanation.explained_score import (
    attribute_subspaces,
    explained_score,
    ledger_of,
    points_at_once,
    score_name,
    subspace_parts,
)


@pytest.fixture(params=["survival", "grade"])
def explained(make_cohort, request):
    cohort = make_cohort(n_patients=12)
    fitted = fit(cohort, task=request.param)
    batch = next(fitted.batches([cohort.patients[4]]))
    return fitted, batch, explained_score(fitted, batch)


@pytest.fixture
def output(explained):
    fitted, batch, _ = explained
    with torch.inference_mode():
        return fitted.model(**batch.inputs())


def test_the_predicted_class_or_the_risk_is_explained(explained, output):
    fitted, _, score = explained
    if fitted.task == "survival":
        assert (score.explained, score.name) == ("risk", "the hazard")
    else:
        predicted = fitted.objective.classes[int(output.logits[0].argmax())]
        assert (score.explained, score.name) == (predicted, f"the score of {predicted}")
    torch.testing.assert_close(score.weights, fitted.objective.score_weights(output.logits)[0])


def test_shares_of_subspaces_add_up_to_the_score_without_its_bias(explained, output):
    _, _, score = explained
    shares = score.of_subspaces(output)
    torch.testing.assert_close(shares.sum(dim=1), score.of_logits(output.logits))
    for index in range(shares.shape[1]):
        torch.testing.assert_close(score.share_of(index)(output), shares[:, index])


def test_attributions_of_a_subspace_are_those_of_its_share_of_the_whole_model(explained):
    fitted, batch, score = explained
    found = attribute_subspaces(fitted, batch, score, tolerance=0.02)

    assert list(found) == list(fitted.subspaces)
    for index, attribution in enumerate(found.values()):
        expected = integrated_gradients(fitted.model, batch, score.share_of(index), steps=256)
        scale = expected.patch.abs().sum() + expected.gene.abs().sum()
        assert (attribution.patch - expected.patch).abs().sum() <= 0.05 * scale
        assert (attribution.gene - expected.gene).abs().sum() <= 0.05 * scale
    given = attribute_subspaces(fitted, batch, score, tolerance=0.02, parts=subspace_parts(fitted))
    for name, attribution in given.items():
        torch.testing.assert_close(attribution.gene, found[name].gene)


def test_the_ledger_adds_up_to_the_score(explained, output):
    fitted, batch, score = explained
    ledger = ledger_of(fitted, fitted.model, batch, score)
    assert ledger["contribution"].sum() == pytest.approx(float(score.of_logits(output.logits)[0]), abs=1e-4)
    assert set(ledger["subspace"]) == {"all", *fitted.subspaces}


def test_one_patient_is_explained_at_a_time(make_cohort):
    cohort = make_cohort(n_patients=12)
    fitted = fit(cohort)
    with pytest.raises(ValueError, match=r"one patient\. Found 2"):
        explained_score(fitted, next(fitted.batches(cohort.patients[4:6])))


@pytest.mark.parametrize(("n_patches", "at_once"), [(0, 32), (1, 32), (128, 32), (129, 31), (4096, 1), (9999, 1)])
def test_large_bags_are_evaluated_one_by_one(n_patches, at_once):
    batch = BagBatch(
        patient_id=("a",),
        patches=torch.zeros(1, n_patches, 2),
        coords=torch.zeros(1, n_patches, 2),
        patch_mask=torch.ones(1, n_patches, dtype=torch.bool),
        expression=torch.zeros(1, 3),
        expression_mask=torch.ones(1, dtype=torch.bool),
        target=None,
    )
    assert points_at_once(batch) == at_once


def test_patients_of_several_classes_are_explained_for_their_own():
    assert score_name("G4") == "the score of G4"
    assert score_name("G4", "G2") == score_name("G2", "G4") == "the score of the predicted class"

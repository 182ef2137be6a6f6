from dataclasses import replace

import pytest
import torch
from additive_model import BATCH, FEATURE, OUTPUT, PATCH, SUBSPACE, SUBSPACES, AdditiveModel, three_patients

from subfuse.cohort.batches import BagBatch
from subfuse.explanation import contribution_ledger, converged_gradients, integrated_gradients, subspace_contributions
from subfuse.explanation.attribution import Attribution
from subfuse.explanation.integration import Interval, StraightPath


@pytest.fixture
def batch() -> BagBatch:
    return three_patients()


def third_logit(output):
    return output.logits[:, 2]


def ledger_of(model, batch, score=lambda logits: logits[:, 2], **options):
    baseline = torch.arange(SUBSPACE * OUTPUT, dtype=torch.float64).reshape(SUBSPACE, OUTPUT) / 10
    return contribution_ledger(model, batch, score, baseline=baseline, subspaces=SUBSPACES, **options)


def test_integrated_gradients_are_exact_for_a_linear_model(batch):
    model = AdditiveModel()
    attribution = integrated_gradients(model, batch, third_logit, steps=3)
    counts = batch.patch_mask.sum(dim=1, keepdim=True)
    patch = batch.patches @ model.patch_weight.sum(dim=0)[2] / counts
    gene = batch.expression * model.gene_weight.sum(dim=0)[2]
    torch.testing.assert_close(attribution.patch, patch.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(attribution.gene, gene.detach(), rtol=1e-5, atol=1e-6)
    assert attribution.gap.abs().max() < 1e-5


def test_a_gap_is_relative_to_the_sum_of_absolute_attributions():
    patch = torch.tensor([[1.0, -3.0], [1.0, -3.0], [0.0, 0.0], [2.0, 0.0]])
    gene = torch.tensor([[-2.0, 2.0], [-2.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    attribution = Attribution(patch, gene, torch.tensor([1.0, -1.0, 0.0, -0.5]), steps=8)
    torch.testing.assert_close(attribution.relative_gap, torch.tensor([0.125, 0.125, 0.0, 0.25]))


@pytest.mark.parametrize("options", [{"steps": 0}, {"chunk": 0}])
def test_less_than_one_point_is_an_error_and_one_is_enough(batch, options):
    with pytest.raises(ValueError, match="steps and chunk must be at least 1"):
        integrated_gradients(AdditiveModel(), batch, third_logit, **options)
    assert integrated_gradients(AdditiveModel(), batch, third_logit, steps=1, chunk=1).gap.abs().max() < 1e-5


def test_one_subspaces_share_can_be_explained(batch):
    model = AdditiveModel()
    attribution = integrated_gradients(model, batch, lambda output: output.subspace_logits[:, 1, 0])
    expected = batch.expression * model.gene_weight[1, 0]
    torch.testing.assert_close(attribution.gene, expected.detach(), rtol=1e-5, atol=1e-6)


def test_gap_shrinks_with_steps_for_a_nonlinear_score(batch):
    model = AdditiveModel(interaction=0.5)

    def probability(output):
        return torch.softmax(3 * output.logits, dim=1)[:, 2]

    rough, fine = (integrated_gradients(model, batch, probability, steps=steps).gap.abs().max() for steps in (2, 128))
    assert fine < 1e-4
    assert rough > 10 * fine


def test_chunks_do_not_change_the_attribution(batch):
    model = AdditiveModel(interaction=1.0)
    whole, parts = (integrated_gradients(model, batch, third_logit, steps=7, chunk=chunk) for chunk in (7, 2))
    torch.testing.assert_close(whole.patch, parts.patch)
    torch.testing.assert_close(whole.gene, parts.gene)


def test_padding_and_missing_expression_get_exactly_zero(batch):
    noise = torch.randn(BATCH, PATCH, FEATURE, dtype=torch.float64)
    dirty = replace(batch, patches=torch.where(batch.patch_mask[..., None], batch.patches, noise))
    baseline = torch.full_like(batch.patches, 0.3)
    attribution = integrated_gradients(AdditiveModel(), dirty, third_logit, baseline_patches=baseline)
    assert (attribution.patch[~batch.patch_mask] == 0).all()
    assert (attribution.patch[batch.patch_mask] != 0).all()
    assert (attribution.gene[2] == 0).all()
    assert attribution.gap.abs().max() < 1e-5


def test_baseline_patches_move_the_start(batch):
    model = AdditiveModel()
    attribution = integrated_gradients(model, batch, third_logit, baseline_patches=batch.patches)
    assert (attribution.patch == 0).all()


def test_an_input_that_the_model_ignores_is_attributed_zero(batch):
    attribution = integrated_gradients(AdditiveModel(uses_expression=False), batch, third_logit)
    assert (attribution.gene == 0).all()
    assert attribution.gap.abs().max() < 1e-5


def test_bags_without_any_patch_are_explained_by_their_genes(batch):
    empty = replace(
        batch,
        patches=batch.patches[:, :0],
        coords=batch.coords[:, :0],
        patch_mask=batch.patch_mask[:, :0],
        expression_mask=torch.ones(BATCH, dtype=torch.bool),
    )
    attribution = integrated_gradients(AdditiveModel(), empty, third_logit)
    assert attribution.patch.shape == (BATCH, 0)
    assert attribution.gap.abs().max() < 1e-5


def test_the_model_is_left_as_it_was(batch):
    model = AdditiveModel().train()
    model.dropout.eval()
    integrated_gradients(model, batch, third_logit)
    assert model.training
    assert not model.dropout.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def test_the_model_is_left_as_it_was_when_the_score_fails(batch):
    model = AdditiveModel().train()

    def broken(output):
        raise RuntimeError("no score")

    with pytest.raises(RuntimeError, match="no score"):
        integrated_gradients(model, batch, broken)
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def test_attribution_is_deterministic_with_dropout_in_the_model(batch):
    model = AdditiveModel().train()
    first, second = (integrated_gradients(model, batch, third_logit) for _ in range(2))
    assert torch.equal(first.patch, second.patch)
    assert torch.equal(first.gap, second.gap)


def test_a_baseline_of_another_shape_is_rejected(batch):
    with pytest.raises(ValueError, match="shape of its input"):
        integrated_gradients(AdditiveModel(), batch, third_logit, baseline_expression=batch.expression[:, :1])


def test_subspace_contributions_sum_to_the_logits(batch):
    output = AdditiveModel().eval()(**batch.inputs())
    contributions = subspace_contributions(output)
    assert contributions.shape == (BATCH, SUBSPACE, OUTPUT)
    assert not contributions.requires_grad
    torch.testing.assert_close(contributions.sum(dim=1), output.logits.detach())


@pytest.mark.parametrize(
    "score",
    [
        pytest.param(lambda logits: logits[:, 2], id="logit"),
        pytest.param(lambda logits: -torch.cumprod(torch.sigmoid(-logits), dim=1).sum(dim=1), id="risk"),
        pytest.param(lambda logits: torch.softmax(logits, dim=1)[:, 0], id="probability"),
    ],
)
def test_the_ledger_adds_up_to_the_prediction(batch, score):
    model = AdditiveModel(interaction=0.7)
    ledger = ledger_of(model, batch, score)
    total = ledger.groupby("patient_id", sort=False)["contribution"].sum()
    predicted = score(model.eval()(**batch.inputs()).logits).detach()
    assert list(total.index) == ["a", "b", "c"]
    torch.testing.assert_close(torch.tensor(total.to_numpy()), predicted)
    assert len(ledger) == BATCH * (1 + SUBSPACE * 2)
    assert list(ledger.index) == list(range(len(ledger)))


def test_the_ledger_of_a_linear_score_is_half_first_plus_half_last(batch):
    model = AdditiveModel(interaction=0.7).eval()
    ledger = ledger_of(model, batch).set_index(["patient_id", "subspace", "modality"])["contribution"]
    inputs = batch.inputs()

    def logit(**hidden):
        first = {name: value[:1] for name, value in (inputs | hidden).items()}
        return model(**first).subspace_logits[0, 1, 2].item()

    both = logit()
    slides = logit(expression_mask=torch.zeros(BATCH, dtype=torch.bool))
    expression = logit(patch_mask=torch.zeros(BATCH, PATCH, dtype=torch.bool))
    neither = 0.8  # baseline[1, 2]
    expected = ((slides - neither) + (both - expression)) / 2
    assert ledger["a", "microenvironment", "slides"] == pytest.approx(expected)


def test_a_missing_modality_gets_exactly_zero(batch):
    ledger = ledger_of(AdditiveModel(interaction=0.7), batch).set_index(["patient_id", "subspace", "modality"])
    assert (ledger.loc[("c", ["tumour", "microenvironment"], "expression"), "contribution"] == 0).all()


def test_a_patient_without_slides_is_credited_to_expression_alone(batch):
    without = replace(batch, patch_mask=batch.patch_mask & torch.tensor([[False], [True], [True]]))
    ledger = ledger_of(AdditiveModel(interaction=0.7), without).set_index(["patient_id", "subspace", "modality"])
    assert (ledger.loc[("a", ["tumour", "microenvironment"], "slides"), "contribution"] == 0).all()
    assert (ledger.loc[("a", ["tumour", "microenvironment"], "expression"), "contribution"] != 0).all()


@pytest.mark.parametrize(("reads", "other"), [("slides", "expression"), ("expression", "slides")])
def test_a_model_of_one_modality_never_credits_the_other(batch, reads, other):
    ledger = ledger_of(AdditiveModel(), batch, modalities={reads})
    assert (ledger.loc[ledger["modality"] == other, "contribution"] == 0).all()


@pytest.mark.parametrize("names", [0, 8])
def test_a_ledger_has_one_to_seven_subspaces(batch, names):
    options = {"baseline": torch.zeros(1, OUTPUT, dtype=torch.float64)}
    with pytest.raises(ValueError, match=f"subspaces must be between 1 and 7. Found {names}"):
        contribution_ledger(AdditiveModel(), batch, lambda x: x[:, 0], subspaces=["one"] * names, **options)
    with pytest.raises(ValueError, match="baseline must have one row per subspace"):  # which is looked at afterwards
        contribution_ledger(AdditiveModel(), batch, lambda x: x[:, 0], subspaces=["one"] * 7, **options)


def test_the_ledger_names_the_shape_of_its_baseline(batch):
    with pytest.raises(ValueError, match=r"\(2, 6\).* mean of subspace_logits over the training patients"):
        contribution_ledger(
            AdditiveModel(),
            batch,
            lambda logits: logits[:, 0],
            baseline=torch.zeros(1, OUTPUT, dtype=torch.float64),
            subspaces=SUBSPACES,
        )


def test_points_are_added_until_the_gap_is_small(batch):
    model = AdditiveModel(interaction=0.5)

    def kinked(output):
        return torch.relu(output.logits[:, 2] - 0.3) + 0.1 * output.logits[:, 0]

    rough = integrated_gradients(model, batch, kinked, steps=2)
    fine = converged_gradients(model, batch, kinked, steps=2, chunk=64)
    assert rough.relative_gap.max() > 0.02 >= fine.relative_gap.max()  # the documented tolerance
    assert 2 < fine.steps < 128


def test_points_are_added_where_the_kink_is_and_errors_cannot_hide_in_each_other(batch):
    def kinked(output):
        return torch.relu(output.logits[:, 2] - 0.3) - torch.relu(output.logits[:, 3] - 0.9)

    smooth = converged_gradients(AdditiveModel(), batch, third_logit, tolerance=1e-6)
    assert smooth.steps == 8
    torch.testing.assert_close(smooth.gene, integrated_gradients(AdditiveModel(), batch, third_logit).gene)
    path = StraightPath.from_baseline(AdditiveModel().eval(), batch, kinked)
    rough, fine = (
        sum(
            part.gap.abs()
            for part in path.integrate([Interval(i / n, (i + 1) / n) for i in range(n)], points=4, chunk=9)
        )
        for n in (2, 64)
    )
    found = converged_gradients(AdditiveModel(), batch, kinked, tolerance=1e-4)
    total = found.patch.abs().sum(dim=1) + found.gene.abs().sum(dim=1)
    assert (rough / total).max() > 1e-4
    assert found.relative_gap.max() <= 1e-4
    assert found.steps < 4 * 64
    assert (fine / total).max() > 1e-4  # as many points everywhere are worse


def test_gradients_agree_with_captum(batch):
    captum = pytest.importorskip("captum.attr")
    model = AdditiveModel(interaction=0.5).eval()
    inputs = batch.inputs()

    def score(patches, expression):
        return model(**inputs | {"patches": patches, "expression": expression}).logits[:, 2]

    expected = captum.IntegratedGradients(score).attribute(
        (inputs["patches"], inputs["expression"]), n_steps=6, internal_batch_size=BATCH
    )
    found = integrated_gradients(model, batch, third_logit, steps=6)
    torch.testing.assert_close(found.patch, expected[0].sum(dim=2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.gene, expected[1], rtol=1e-4, atol=1e-5)


def test_no_more_points_than_allowed_are_evaluated(batch):
    def jump(output):
        return (output.logits[:, 2] > 0).to(output.logits) + 1e-3 * output.logits[:, 2]

    for allowed, used in ((8, 6), (10, 10)):  # 2, and 2 more for every interval that is halved
        attribution = converged_gradients(AdditiveModel(), batch, jump, steps=2, max_steps=allowed)
        assert attribution.steps == used
        assert attribution.relative_gap.max() > 0.05


def test_the_worst_interval_of_a_patient_with_too_large_a_gap_is_halved_first(batch):
    model = AdditiveModel().eval()
    linear = integrated_gradients(model, batch, third_logit, steps=1)
    start, change = model.bias[2].detach(), (linear.patch.sum(dim=1) + linear.gene.sum(dim=1)).detach()
    allowed = 0.02 * (linear.patch[1].abs().sum() + linear.gene[1].abs().sum())
    places = []

    def jumps(output):
        logit = output.logits[:, 2].unflatten(0, (-1, BATCH))
        place = ((logit - start) / change).detach()  # on the path from 0 to 1
        places.extend(place[:, 0].tolist())
        first = 4.0 * (place[:, 0] > 0.3) + 10.0 * (place[:, 0] > 0.8)
        second = 0.8 * allowed * (place[:, 1] > 0.3)  # more than an interval's share, but no more than the patient's
        return (logit + torch.stack([first, second, 0 * first], dim=1)).flatten()

    assert converged_gradients(model, batch, jumps, steps=8, max_steps=16).steps == 16
    assert min(places[8 + 3 :]) > 0.49  # after the points and ends of both halves

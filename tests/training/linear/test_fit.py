import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from linear_bags import FEATURE, GENE, N, bags, followed
from sklearn.linear_model import LogisticRegression
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from small_cohort import deal_folds
from subfuse.cohort.batches import BagBatch, ClassTarget
from subfuse.errors import DataError
from subfuse.model.baselines.linear import LinearModel
from subfuse.objective.classification import ClassificationObjective
from subfuse.objective.losses import cox_nll
from subfuse.objective.penalised import L1_SHARE
from subfuse.objective.survival import DiscreteHazardObjective
from subfuse.training.fitting import train_fold
from subfuse.training.linear.fit import fit_line, fit_linear
from subfuse.training.linear.path import INNER_FOLDS, inner_folds
from subfuse.training.settings import TrainingPlan


def log_risk(model: LinearModel, batch: BagBatch) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch.inputs()).logits[:, 0]


def test_an_elastic_net_has_the_coefficients_of_scikit_survival_and_the_loss_of_its_folds():
    latent, target = followed()
    batch = bags(latent, of_genes=2.0)
    model = LinearModel(1, n_genes=GENE)
    fits = fit_linear(model, [batch], target)
    fit = min((fit for fit in fits if "elastic net" in fit.reads), key=lambda fit: fit.loss)
    inputs, event, days = batch.expression.double(), target.event, target.time_days
    fold, out_of_fold = inner_folds(target), torch.empty(N).double()

    def theirs(patients: np.ndarray) -> np.ndarray:
        share = float(event[patients].double().mean())  # their loss is per patient, ours per event
        estimator = CoxnetSurvivalAnalysis(alphas=[fit.penalty * share], l1_ratio=L1_SHARE, tol=1e-12, max_iter=10**6)
        estimator.fit(inputs[patients].numpy(), Surv.from_arrays(event[patients].numpy(), days[patients].numpy()))
        return estimator.coef_[:, 0]

    np.testing.assert_allclose(fit.weight[0].numpy(), theirs(np.ones(N, bool)), atol=2e-3)
    for k in range(INNER_FOLDS):
        out_of_fold[fold == k] = inputs[fold == k] @ torch.from_numpy(theirs(fold != k))
    assert fit.loss == pytest.approx(float(cox_nll(out_of_fold, days, event)), abs=2e-3)


def test_the_chosen_fit_predicts_others_best_and_is_what_the_model_holds():
    latent, target = followed()
    batch, model = bags(latent, of_genes=2.0), LinearModel(1, n_genes=GENE)
    fits = fit_linear(model, [batch], target)
    assert fits[0].loss == min(fit.loss for fit in fits)
    assert all(fit.reads.startswith("expression, ") for fit in fits)
    torch.testing.assert_close(log_risk(model, batch), batch.expression @ fits[0].weight[0].float())
    assert np.corrcoef(log_risk(model, batch), latent)[0, 1] > 0.7


def test_a_ridge_of_classes_has_the_coefficients_of_scikit_learn_on_all_columns():
    label = torch.arange(N) % 3
    batch, model = bags(label.float(), of_genes=1.0), LinearModel(3, n_genes=GENE)
    fit = fit_linear(model, [batch], ClassTarget(label))[0]
    theirs = LogisticRegression(C=fit.penalty, class_weight="balanced", max_iter=1000, tol=1e-8)
    theirs.fit(batch.expression.double().numpy(), label.numpy())
    for ours, expected in ((fit.weight.numpy(), theirs.coef_), (fit.bias.numpy(), theirs.intercept_)):
        np.testing.assert_allclose(ours - ours.mean(axis=0), expected - expected.mean(axis=0), atol=5e-3)


def test_slides_are_read_as_mean_and_spread_of_training_patients():
    latent, target = followed()
    batch, model = bags(latent, of_slides=2.0), LinearModel(1, patch_dim=FEATURE)
    fits = fit_linear(model, [batch], target)
    assert all(fit.reads.startswith("slides, ") for fit in fits)
    values = batch.patches.numpy()
    summary = np.concatenate([values.mean(axis=1), values.std(axis=1)], axis=1)
    expected = (summary - summary.mean(axis=0)) / summary.std(axis=0)
    with torch.no_grad():
        np.testing.assert_allclose(model(**batch.inputs()).embedding[:, 0], expected, atol=1e-5)
    assert np.corrcoef(log_risk(model, batch), latent)[0, 1] > 0.7


def test_a_constant_summary_counts_for_nothing():
    latent, target = followed()
    batch = bags(latent, of_slides=2.0)
    one = replace(batch, patches=batch.patches[:, :1], coords=batch.coords[:, :1], patch_mask=batch.patch_mask[:, :1])
    model = LinearModel(1, patch_dim=FEATURE)
    fit_linear(model, [one], target)
    with torch.no_grad():
        assert not model(**one.inputs()).embedding[:, 0, FEATURE:].any()  # spreads of single patches


@pytest.mark.parametrize(("of_slides", "of_genes"), [(2.0, 0.0), (0.0, 2.0)])
def test_both_finds_the_signal_wherever_it_is_and_does_without_either_modality(of_slides, of_genes):
    latent, target = followed()
    batch = bags(latent, of_slides=of_slides, of_genes=of_genes)
    model = LinearModel(1, n_genes=GENE, patch_dim=FEATURE)
    fits = fit_linear(model, [batch], target)
    assert np.corrcoef(log_risk(model, batch), latent)[0, 1] > 0.6
    slides = log_risk(model, replace(batch, expression_mask=torch.zeros(N, dtype=torch.bool)))
    genes = log_risk(model, replace(batch, patch_mask=torch.zeros_like(batch.patch_mask)))
    torch.testing.assert_close(slides + genes, log_risk(model, batch))  # each as if the other were average
    (weighed,) = (fit for fit in fits if np.isnan(fit.penalty))  # the sum of both alone
    norms = weighed.weight[0, : 2 * FEATURE].norm(), weighed.weight[0, 2 * FEATURE :].norm()
    noise, signal = norms if of_genes else norms[::-1]
    assert noise < 0.2 * signal
    assert weighed.loss == pytest.approx(float(cox_nll(weighed.out_of_fold[:, 0], target.time_days, target.event)))


def test_a_ridge_of_both_penalises_expression_as_slides_less_and_more():
    latent, target = followed()
    batch = bags(latent, of_slides=1.0, of_genes=1.0)
    model = LinearModel(1, n_genes=GENE, patch_dim=FEATURE)
    scales = set()
    for fit in fit_linear(model, [batch], target):
        if found := re.fullmatch(r"slides \+ (\S+) × expression, ridge", fit.reads):
            scales.add(scale := float(found[1]))
            with torch.no_grad():
                inputs = model(**batch.inputs()).embedding[:, 0].double()
            weight = fit.weight[0].clone().requires_grad_()
            loss = cox_nll(inputs @ weight, target.time_days, target.event)
            squared = torch.where(torch.arange(len(weight)) < 2 * FEATURE, 1.0, scale**2)  # of scaled columns
            minimum = loss + (fit.penalty / 2 * weight.square() / squared).sum()
            assert torch.autograd.grad(minimum, weight)[0].abs().max() < 3e-3
    less, same, more = sorted(scales)
    assert same == 1
    assert less * more == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("absent", [0, 3])
def test_a_class_without_training_patients_has_no_probability_and_the_others_are_as_without_it(absent):
    present = [label for label in range(4) if label != absent]
    label = torch.tensor(present * 8)
    renumbered = torch.tensor([present.index(int(value)) for value in label])
    batch = bags(label.float(), of_genes=1.0)
    four, three = LinearModel(4, n_genes=GENE), LinearModel(3, n_genes=GENE)
    fit_linear(four, [batch], ClassTarget(label))
    fit_linear(three, [batch], ClassTarget(renumbered))
    with torch.no_grad():
        probability, expected = (m(**batch.inputs()).logits.softmax(dim=1) for m in (four, three))
    assert probability[:, absent].max() < 1e-8
    torch.testing.assert_close(probability[:, present], expected)


def test_a_class_of_one_patient_is_fitted():
    label = torch.tensor([0] * 10 + [1])
    model = LinearModel(2, n_genes=GENE)
    fit_linear(model, [bags(label.float(), of_genes=1.0)], ClassTarget(label))
    assert model.head.weight.isfinite().all()


def test_training_patients_of_one_class_are_refused():
    with pytest.raises(DataError, match=r"training patients of two classes\. Found one class among 6"):
        fit_linear(LinearModel(2, n_genes=GENE), [bags(torch.ones(6))], ClassTarget(torch.ones(6).long()))


@pytest.mark.walk
@pytest.mark.parametrize(("task", "model"), [("survival", "cox-slides"), ("grade", "logistic-both")])
def test_test_patients_change_nothing_and_validation_patients_train(make_cohort, task, model):
    cohort = make_cohort()
    fold = deal_folds(cohort)[0]

    def fitted(changed: tuple[str, ...]):
        shifted = tuple(
            replace(p, expression=np.full(10, 9, np.float32), time_days=1.0, labels={"grade": "G4"}, slides=())
            if p.patient_id in changed
            else p
            for p in cohort
        )
        return train_fold(replace(cohort, patients=shifted), fold, task=task, model_name=model, plan=TrainingPlan())

    before = fitted(())
    assert before.arrays_sha256() == fitted(fold.test).arrays_sha256()
    assert before.arrays_sha256() != fitted(fold.validation[:2]).arrays_sha256()
    assert before.details["n_validation"] == 0


def test_the_line_of_a_network_is_the_linear_model_with_the_intercepts_of_the_time_bins():
    latent, target = followed()
    batch = bags(latent, of_genes=2.0)
    objective = DiscreteHazardObjective.fit(target.time_days, target.event, bins=3)
    cox, line = LinearModel(1, n_genes=GENE), LinearModel(objective.n_outputs, n_genes=GENE)
    fit = fit_linear(cox, [batch], target)[0]
    offsets = fit_line(line, [batch], target, objective)
    with torch.no_grad():
        intercepts = line.head.bias
        torch.testing.assert_close(line(**batch.inputs()).logits, log_risk(cox, batch)[:, None] + intercepts)
        torch.testing.assert_close(
            offsets, fit.out_of_fold.float() + intercepts
        )  # none from a fit that saw the patient
    reached = np.digitize(target.time_days.numpy(), objective.bin_edges.numpy())
    for k, intercept in enumerate(intercepts.tolist()):  # as many events are expected as there are
        hazard = 1 / (1 + np.exp(-(fit.out_of_fold[:, 0].numpy() + intercept)))
        events = ((reached == k) & target.event.numpy()).sum()
        assert hazard[reached >= k].sum() == pytest.approx(events, abs=0.02)


def test_a_line_through_patients_of_one_class_says_nothing():
    line, grade = LinearModel(2, n_genes=GENE), ClassificationObjective(("a", "b"))
    assert not fit_line(line, [bags(torch.ones(6))], ClassTarget(torch.ones(6).long()), grade).any()
    assert not line.head.weight.any()
    assert not line.head.bias.any()


def test_the_line_through_two_classes_is_their_logistic_regression():
    label = torch.arange(N) % 2
    batch, grade = bags(label.float(), of_genes=2.0), ClassificationObjective(("a", "b"))
    line, alone = LinearModel(2, n_genes=GENE), LinearModel(2, n_genes=GENE)
    fit = fit_linear(alone, [batch], ClassTarget(label))[0]
    torch.testing.assert_close(fit_line(line, [batch], ClassTarget(label), grade), fit.out_of_fold.float())
    torch.testing.assert_close(line.state_dict(), alone.state_dict())

"""The linear model: one line through summaries of slides and expression."""

import numpy as np
import torch
from baseline_inputs import BATCH, FEATURE, GENE, OUTPUT, PATCH, build, inputs

from subfuse.model.baselines.linear import LinearModel


def test_the_linear_model_is_linear_in_expression():
    model, batch = build("linear"), inputs()
    expected = batch["expression"] @ model.head.weight[0].T + model.head.bias
    torch.testing.assert_close(model(**batch).logits, expected)


def test_slides_are_mean_and_spread_of_the_patches_that_are_there():
    model, batch = LinearModel(OUTPUT, n_genes=GENE, patch_dim=FEATURE).double(), inputs()
    batch["patch_mask"][0], batch["patch_mask"][1] = False, torch.arange(PATCH) == 2  # none, and a single one
    batch["patches"][~batch["patch_mask"]] = torch.nan
    summary = model.summarise(batch["patches"].requires_grad_(), batch["patch_mask"])
    (slope,) = torch.autograd.grad(summary.sum(), batch["patches"])
    assert slope.isfinite().all()
    summary, batch["patches"] = summary.detach(), batch["patches"].detach()
    for patient, (patches, is_there) in enumerate(zip(batch["patches"], batch["patch_mask"], strict=True)):
        found = patches[is_there].numpy()
        expected = np.concatenate([found.mean(axis=0), found.std(axis=0)]) if len(found) else np.zeros(2 * FEATURE)
        np.testing.assert_allclose(summary[patient], expected, atol=1e-12)


def test_summaries_are_standardised_over_training_patients_and_constant_ones_count_for_nothing():
    model, batch = LinearModel(OUTPUT, n_genes=GENE, patch_dim=FEATURE).double(), inputs()
    batch["patches"][..., 1] = 7.0  # of everybody
    batch["patch_mask"][3] = False
    has_slides = batch["patch_mask"].any(dim=1)
    summaries = model.summarise(batch["patches"], batch["patch_mask"])[has_slides]
    model.fit_summary(summaries)
    output = model(**batch)
    embedding = output.embedding[:, 0]
    varies = torch.arange(2 * FEATURE) % FEATURE != 1
    of_training = embedding[has_slides, : 2 * FEATURE]
    torch.testing.assert_close(of_training[:, varies].mean(dim=0), torch.zeros(2 * FEATURE - 2).double())
    torch.testing.assert_close(of_training[:, varies].std(dim=0, correction=0), torch.ones(2 * FEATURE - 2).double())
    assert of_training[:, ~varies].abs().max() < 1e-9
    assert not embedding[3, : 2 * FEATURE].any()  # as of the average patient
    torch.testing.assert_close(embedding[:, 2 * FEATURE :], batch["expression"])
    of_expression = torch.cat([torch.zeros(BATCH, 2 * FEATURE).double(), batch["expression"]], dim=1)
    torch.testing.assert_close(output.expression_embedding[:, 0], of_expression)


def test_what_is_constant_up_to_rounding_is_not_scaled():
    model = LinearModel(OUTPUT, patch_dim=2).double()
    values = [[1e6, 0.01, 0.0, 5.0], [1e6 + 0.1, 0.01 + 1e-6, 1e-13, 5.0]]  # only the second varies
    model.fit_summary(torch.tensor(values, dtype=torch.float64))
    torch.testing.assert_close(model.summary_scale, torch.tensor([1.0, 0.5e-6, 1.0, 1.0]).double())
    torch.testing.assert_close(model.summary_mean, torch.tensor(values).double().mean(dim=0), rtol=1e-6, atol=1e-12)


def test_without_slides_there_is_no_summary():
    model, batch = LinearModel(OUTPUT, n_genes=GENE), inputs()
    assert model.summarise(batch["patches"], batch["patch_mask"]).shape == (BATCH, 0)

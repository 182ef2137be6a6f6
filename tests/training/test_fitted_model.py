import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from small_cohort import deal_folds, with_covariates
from subfuse.errors import DataError
from subfuse.training.fitting import train_fold
from subfuse.training.models import MODELS
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings
from subfuse.training.stored_model import load_fitted


def fit(cohort, model="subspace", task="survival"):
    return train_fold(
        cohort,
        deal_folds(cohort)[0],
        task=task,
        model_name=model,
        plan=TrainingPlan(
            training=TrainingSettings(epochs=1, batch_size=8),
            architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=32),
            seed=0,
        ),
    )


@pytest.mark.parametrize("task", ["survival", "grade"])
@pytest.mark.parametrize(
    "model", ["subspace", "abmil", "snn", "concat", "cox", "logistic", "cox-both", "logistic-slides"]
)
def test_a_loaded_model_predicts_identically(make_cohort, tmp_path, model, task):
    cohort = make_cohort()
    if not MODELS[model].suits(cohort.tasks[task].predicts):
        pytest.skip("a linear model of the other kind of task")
    fitted = fit(cohort, model, task)
    fitted.save(tmp_path)
    loaded = load_fitted(tmp_path)
    pd.testing.assert_frame_equal(loaded.predict(cohort.patients), fitted.predict(cohort.patients))
    assert loaded.describe() == fitted.describe()
    assert torch.equal(loaded.baseline_logits, fitted.baseline_logits)


@pytest.mark.parametrize("linear_path", [True, False])
def test_the_mean_of_the_networks_is_what_the_ensemble_says(make_cohort, linear_path):
    cohort = make_cohort(40)
    training = TrainingSettings(epochs=1, batch_size=8, members=3, linear_path=linear_path)
    plan = TrainingPlan(training=training, architecture=ArchitectureSettings(embed_dim=16))
    fitted = train_fold(cohort, deal_folds(cohort)[0], task="grade", model_name="snn", plan=plan)
    patients = [patient for patient in cohort if fitted.usable(patient)]
    alone = [np.log(table["p_G4"] / table["p_G2"]) for table in fitted.predict_networks(patients)]
    together = fitted.predict(patients)
    assert len(alone) == 3
    assert np.ptp(alone, axis=0).min() > 0
    np.testing.assert_allclose(np.mean(alone, axis=0), np.log(together["p_G4"] / together["p_G2"]), atol=1e-4)


def test_patients_without_the_modality_are_not_predicted(make_cohort):
    cohort = make_cohort()
    table = fit(cohort, "abmil", "grade").predict(cohort.patients).set_index("patient_id")
    assert table.loc["P000", ["p_G2", "p_G4"]].isna().all()
    assert not table.loc["P000", "has_slides"]
    assert table.drop(index="P000")[["p_G2", "p_G4"]].sum(axis=1).to_numpy() == pytest.approx(1)


def test_whose_slides_and_expression_are_read_is_said(make_cohort):
    cohort = with_covariates(make_cohort())
    read = {
        model: fit(cohort, model).predict(cohort.patients)[["has_slides", "has_expression"]]
        for model in ("subspace", "snn", "clinical")
    }
    assert read["subspace"]["has_slides"].tolist() == [bool(patient.slides) for patient in cohort]
    for model in ("subspace", "snn"):
        assert read[model]["has_expression"].tolist() == [patient.expression is not None for patient in cohort]
    assert not read["snn"]["has_slides"].any()
    assert not read["clinical"].to_numpy().any()


def test_what_the_linear_path_would_say_can_be_given(make_cohort):
    cohort = make_cohort(48)
    fitted = fit(cohort, "snn", "grade")
    usable = [patient for patient in cohort if fitted.usable(patient)]
    line = torch.linspace(-2, 3, len(usable))[:, None] * torch.tensor([[1.0, -1.0]])
    told = fitted.predict(usable, line=line)
    network = fitted.predict(usable)["contribution_all"]
    np.testing.assert_allclose(told["contribution_all"].abs(), network.abs(), atol=1e-6)
    np.testing.assert_allclose(told["contribution_linear_path"].abs(), line[:, 0].abs(), atol=1e-5)


def test_embeddings_are_what_the_head_sees_of_each_patient(make_cohort):
    cohort = make_cohort()
    fitted = fit(cohort)
    usable = cohort.patients[3:]
    found = fitted.embeddings(usable)
    batch = next(fitted.batches(usable, batch_size=len(usable)))
    with torch.inference_mode():
        expected = fitted.model(**batch.inputs()).embedding
    np.testing.assert_allclose(found, expected.numpy().reshape(len(usable), -1), atol=1e-5)
    assert found.shape == (len(usable), 2 * 16)
    assert fitted.embeddings([]).shape == (0, 0)


def test_the_hash_of_the_arrays_is_of_weights_and_of_standardisation(make_cohort, tmp_path):
    fitted = fit(make_cohort(), "snn")
    fitted.save(tmp_path)
    first = fitted.arrays_sha256()
    assert load_fitted(tmp_path).arrays_sha256() == first
    expression = replace(fitted.standardiser.expression, mean=fitted.standardiser.expression.mean + 1)
    other = replace(fitted, standardiser=replace(fitted.standardiser, expression=expression))
    with torch.no_grad():
        next(fitted.model.parameters()).view(-1)[0] += 1
    assert len({first, other.arrays_sha256(), fitted.arrays_sha256()}) == 3


@pytest.mark.parametrize("covariates", [False, True])
def test_genes_are_the_inputs_before_the_covariates(make_cohort, covariates):
    cohort = with_covariates(make_cohort()) if covariates else make_cohort()
    fitted = fit(cohort)
    batch = next(fitted.batches([p for p in cohort if p.expression is not None]))
    genes, every = fitted.of_genes(batch.expression), batch.expression
    assert genes.shape == (len(every), len(cohort.genes))
    assert every.shape[1] - genes.shape[1] == len(cohort.covariates) == 2 * covariates
    assert torch.equal(genes, every[:, : len(cohort.genes)])
    assert np.array_equal(fitted.of_genes(every.numpy()[0]), genes[0].numpy())


def test_nobody_to_predict_is_a_table_of_unknowns(make_cohort):
    cohort = make_cohort()
    table = fit(cohort, "abmil", "grade").predict(cohort.patients[:1])
    assert table["p_G2"].isna().tolist() == [True]
    assert table["p_G2"].dtype == float


@pytest.mark.walk
@pytest.mark.parametrize("task", ["survival", "grade"])
@pytest.mark.parametrize(("n_patients", "line"), [(24, []), (48, ["contribution_linear_path"])])
def test_contributions_of_the_subspaces_add_up_to_the_score(make_cohort, n_patients, line, task):
    cohort = make_cohort(n_patients)
    fitted = fit(cohort, task=task)
    table = fitted.predict(cohort.patients)
    batch = next(fitted.batches(cohort.patients, batch_size=len(cohort)))
    with torch.inference_mode():
        logits = fitted.model(**batch.inputs()).logits
    score = (logits * fitted.objective.score_weights(logits)).sum(dim=1)
    total = table[["contribution_tumour", "contribution_microenvironment", *line]].sum(axis=1)
    np.testing.assert_allclose(total, score.numpy(), atol=1e-5)


@pytest.mark.parametrize(("model", "covariates"), [
    ("subspace", True), ("clinical", True), ("cox", True), ("snn", False),
])  # fmt: skip
def test_what_kept_covariates_at_the_end_of_the_gene_axis_is_still_read(make_cohort, tmp_path, model, covariates):
    from safetensors.torch import load_file, save_file

    cohort = with_covariates(make_cohort()) if covariates else make_cohort()
    fitted = fit(cohort, model)
    fitted.save(tmp_path)
    description, tensors = json.loads((tmp_path / "model.json").read_text()), load_file(tmp_path / "model.safetensors")
    names = [known["name"] for known in description.pop("covariates")]
    del description["sha256"], description["weights_sha256"]  # these came later
    recipe, genes = description["recipe"], list(cohort.genes)
    places = list(range(len(genes), len(genes) + len(names)))
    del recipe["n_covariates"]
    recipe |= {"n_genes": len(genes) + len(names), "covariates": places}
    recipe["gene_sets"] = {name: [*found, *places] for name, found in recipe["gene_sets"].items()}
    description["genes"] = [*genes, *names]
    mean, scale = (tensors.pop(f"inputs.covariate_{kind}", torch.zeros(0)) for kind in ("mean", "scale"))
    for kind, own in (("mean", mean), ("scale", scale / 5)):
        of_genes = tensors.get(f"inputs.gene_{kind}", torch.ones(len(genes)))
        tensors[f"inputs.gene_{kind}"] = torch.cat([of_genes, own])
        description[f"gene_{kind}"] = tensors[f"inputs.gene_{kind}"].tolist()
    (tmp_path / "model.json").write_text(json.dumps(description))
    save_file(tensors, tmp_path / "model.safetensors")

    pd.testing.assert_frame_equal(load_fitted(tmp_path).predict(cohort.patients), fitted.predict(cohort.patients))


def test_no_pickle_and_a_damaged_file_is_an_error(make_cohort, tmp_path):
    fitted = fit(make_cohort())
    fitted.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"model.json", "model.safetensors"}
    json.loads((tmp_path / "model.json").read_text())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match=r"model\.safetensors: the weights of a model are required"):
        load_fitted(tmp_path)

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from small_cohort import deal_folds, with_covariates
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError
from subfuse.objective.survival import CoxObjective
from subfuse.training.fitting import train_fold
from subfuse.training.models import (
    MODELS,
    ModelRecipe,
    check_model_names,
    compared_in,
    compared_models,
    is_linear,
    is_trivial,
    main_model,
    modalities_of,
    model_title,
    trained_on,
)
from subfuse.training.problem import fitted_downsample
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings
from subfuse.training.stored_model import load_fitted

LINEAR = ("cox", "logistic", "cox-slides", "logistic-slides", "cox-both", "logistic-both")
NUMBERS = ("linear", "linear-slides", "linear-both")
SMALL = ArchitectureSettings(embed_dim=16, max_grid=8, table_size=32)


def recipe(name: str, **changes) -> ModelRecipe:
    described = ModelRecipe(
        name=name,
        n_outputs=3,
        patch_dim=6,
        n_genes=7,
        n_covariates=2,
        gene_sets={"tumour": (0, 1, 2), "microenvironment": (3, 4)},
        pathways={"one": (0, 1), "two": (2, 3)},
        grid=(8, 8),
        architecture=SMALL,
    )
    return described.model_copy(update=changes)


def train(cohort, model: str, task: str, **settings):
    return train_fold(
        cohort,
        deal_folds(cohort)[0],
        task=task,
        model_name=model,
        plan=TrainingPlan(training=TrainingSettings(epochs=1, batch_size=8, **settings), architecture=SMALL, seed=0),
    )


def test_every_model_can_be_built_from_its_description():
    for name, entry in MODELS.items():
        described = recipe(name)
        again = ModelRecipe(**described.model_dump(mode="json"))
        assert again == described
        model, loaded = described.build(), again.build()
        assert f"{type(model).__module__}:{type(model).__name__}" == entry.implementation
        loaded.load_state_dict(model.state_dict())
        assert tuple(model.head.weight.shape[:2]) == (len(described.subspaces), 3)


@pytest.mark.parametrize("model", list(MODELS))
def test_no_patches_are_as_good_as_one_that_is_masked(model):
    """Prediction, gradient and attention of patients without slides, who have an axis of patches of length 0."""
    torch.manual_seed(0)
    network = recipe(model).build().eval()
    one = {
        "patches": torch.randn(4, 1, 6),
        "coords": torch.randn(4, 1, 2),
        "patch_mask": torch.zeros(4, 1, dtype=torch.bool),
        "expression": torch.randn(4, 9),
        "expression_mask": torch.ones(4, dtype=torch.bool),
    }
    none = one | {name: one[name][:, :0] for name in ("patches", "coords", "patch_mask")}
    outputs, gradients = [], []
    for batch in (one, none):
        network.zero_grad()
        outputs.append(network(**batch))
        outputs[-1].logits.square().sum().backward()
        gradients.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()])
    for field in ("logits", "embedding", "expression_embedding", "sampling_grid"):
        torch.testing.assert_close(*(getattr(output, field) for output in outputs))
    torch.testing.assert_close(*gradients)
    attention = network(**none, need_attention=True).attention
    assert attention is None or attention.shape[-1] == 0


def test_an_entry_says_what_the_network_reads():
    for name, entry in MODELS.items():
        network = recipe(name).build().eval()
        batch = {
            "patches": torch.randn(3, 4, 6),
            "coords": 256.0 * torch.randint(8, (3, 4, 2)),
            "patch_mask": torch.ones(3, 4, dtype=torch.bool),
            "expression": torch.randn(3, 9),
            "expression_mask": torch.ones(3, dtype=torch.bool),
        }
        seen = {
            what: not torch.equal(network(**batch).logits, network(**batch | {what: batch[what] + 1}).logits)
            for what in ("patches", "expression")
        }
        assert seen == {"patches": "slides" in entry.modalities, "expression": entry.modalities != {"slides"}}, name


def test_late_fusion_shows_its_branches():
    assert recipe("late-fusion").subspaces == ("slides", "expression")
    assert recipe("subspace").subspaces == ("tumour", "microenvironment")
    assert recipe("mcat").subspaces == ("all",)


def test_survpath_has_a_token_for_the_covariates():
    assert len(recipe("survpath").build().pathway_tokens.sizes) == 3
    assert len(recipe("survpath", n_covariates=0).build().pathway_tokens.sizes) == 2


def test_covariates_follow_the_genes_of_every_subspace():
    assert recipe("subspace").subspace_inputs == {"tumour": (0, 1, 2, 7, 8), "microenvironment": (3, 4, 7, 8)}
    assert recipe("snn").n_inputs == 9


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("survpath", {"pathways": {}}, "survpath needs pathways. The cohort has none."),
        ("clinical", {"n_covariates": 0}, "clinical needs covariates. .* under covariates"),
        ("mcat", {"n_genes": 0, "n_covariates": 0, "gene_sets": {}}, "mcat needs expression"),
        ("subspace", {"n_genes": 0, "n_covariates": 0, "gene_sets": {}}, "subspace needs expression"),
    ],
)
def test_what_the_cohort_lacks_is_named(name: str, changes: dict, message: str):
    with pytest.raises(DataError, match=message):
        recipe(name, **changes).build()


@pytest.mark.parametrize(("changes", "refused"), [
    ({"n_outputs": 1}, {"n_outputs": 0}), ({"patch_dim": 0}, {"patch_dim": -1}),
    ({"patch_dim": 65_536}, {"patch_dim": 65_537}), ({"n_covariates": 0}, {"n_covariates": -1}),
    ({"n_genes": 0, "gene_sets": {}, "pathways": {}}, {"n_genes": -1, "gene_sets": {}, "pathways": {}}),
    ({"downsample": 1}, {"downsample": 0}), ({"downsample": 1000}, {"downsample": 1001}),
    ({"members": 1}, {"members": 0}), ({"members": 100}, {"members": 101}),
    ({"grid": (1, 1000)}, {"grid": (0, 1000)}), ({"grid": (1000, 1)}, {"grid": (1001, 1)}),
    ({"gene_sets": {"a": (0, 6)}}, {"gene_sets": {"a": (0, 7)}}),
    ({"pathways": {"a": (6,)}}, {"pathways": {"a": (-1,)}}),
    ({"gene_sets": {"linear_path": (0,)}}, {"gene_sets": {"linear_path": (0,)}, "linear_path": ("slides",)}),
    ({"linear_path": ("slides",)}, {"name": "resnet"}),
])  # fmt: skip
def test_sizes_are_bounded_and_names_and_places_known(changes, refused):
    described = recipe("subspace").model_dump()
    read = ModelRecipe(**described | changes)
    assert {name: getattr(read, name) for name in changes} == changes
    with pytest.raises(ValidationError):
        ModelRecipe(**described | refused)


def test_what_earlier_versions_did_not_write_is_one_network_on_the_grid_of_the_paper():
    described = recipe("snn").model_dump(exclude={"n_covariates", "pathways", "downsample", "members", "linear_path"})
    read = ModelRecipe(**described)
    assert (read.n_covariates, read.pathways, read.downsample, read.members, read.linear_path) == (0, {}, 4, 1, ())


@pytest.mark.parametrize(
    ("reads", "width"), [(("slides",), 2 * 6), (("expression",), 9), (("slides", "expression"), 21)]
)
def test_a_linear_path_has_a_weight_for_each_of_its_inputs(reads, width):
    """Mean and spread of six features of slides; seven genes and two covariates."""
    described = recipe("concat", linear_path=reads)
    assert tuple(described.build_linear_path().head.weight.shape) == (1, 3, width)
    assert described.subspaces == ("all", "linear_path")
    assert recipe("concat").subspaces == ("all",)


def test_a_single_input_is_enough_and_names_say_what_is_special():
    one = {"n_genes": 1, "n_covariates": 0, "gene_sets": {"all": (0,)}, "pathways": {}}
    assert recipe("snn", **one).build()
    assert recipe("clinical", n_covariates=1).build()
    gated, plain = (recipe(name).build().state_dict().keys() for name in ("gated-abmil", "abmil"))
    assert gated > plain
    assert [name for name in MODELS if is_linear(name)] == ["clinical", "site", "batch", *LINEAR, *NUMBERS]
    assert main_model(["snn", "subspace", "abmil"]) == "subspace"
    assert main_model(["snn", "concat", "abmil"]) == "snn"
    assert [model_title(name) for name in ("snn", "theirs")] == ["SNN", "theirs"]
    assert not any(of("theirs") for of in (modalities_of, is_linear, is_trivial))
    fold = Fold(("a",), ("b",), ("c",))
    assert (set(trained_on("cox", fold)), set(trained_on("snn", fold))) == ({"a", "b"}, {"a"})


def test_the_first_unknown_model_is_asked_about():
    with pytest.raises(ConfigurationError, match=r"Found: abmill, clinicl, tranmil\..*\babmil\b"):
        check_model_names(["snn", "abmill", "clinicl", "tranmil"])


def test_unknown_models_are_refused_with_the_known_names():
    with pytest.raises(ConfigurationError, match=r"transmil.*survpath.*Found: nonsense"):
        check_model_names(["snn", "nonsense"])


def test_tasks_of_linear_models():
    purity = TaskSpec(column="purity", kind="regression")
    survival, grade = TaskSpec(time="time_days", event="event"), TaskSpec(column="grade")
    suited = {name: tuple(MODELS[name].suits(task.predicts) for task in (survival, grade, purity)) for name in MODELS}
    for read in ("", "-slides", "-both"):
        assert suited.pop(f"cox{read}") == (True, False, False)
        assert suited.pop(f"logistic{read}") == (False, True, False)
        assert suited.pop(f"linear{read}") == (False, False, True)
    assert set(suited.values()) == {(True, True, True)}


def test_what_is_compared_unless_models_are_named_has_linear_models_of_every_task_in_it():
    expected = ["subspace", "abmil", "snn", "concat", "clinical", "site", "batch", *LINEAR, *NUMBERS]
    assert compared_models() == expected


@pytest.mark.parametrize("grid", [(8, 8), (8, 20), (12, 12), (20, 40), (31, 50), (50, 50)])
def test_about_as_many_positions_are_sampled_as_in_the_paper_and_they_stay_near_the_slide(grid):
    model = recipe("subspace", grid=grid, downsample=fitted_downsample(grid)).build()
    rows, columns = model.subspaces["tumour"].attention.points
    assert min(144, grid[0] * grid[1]) / 1.6 <= rows * columns <= 144 * 1.6
    assert model.config.offset_scale <= (min(rows, columns) - 1) * 0.6


def test_the_grid_of_the_paper_is_sampled_as_in_the_paper():
    model = recipe("subspace", grid=(50, 50), downsample=fitted_downsample((50, 50))).build()
    assert model.subspaces["tumour"].attention.points == (12, 12)
    assert (model.config.downsample, model.config.offset_kernel) == (4, 6)


@pytest.mark.parametrize(
    ("lacking", "models"),
    [
        ({}, ["subspace", "abmil", "snn", "concat", *LINEAR]),
        ({"slides": ()}, ["subspace", "snn", "cox", "logistic"]),
        ({"expression": None}, ["abmil", "cox-slides", "logistic-slides"]),
    ],
)
def test_a_cohort_is_compared_by_models_whose_inputs_it_has(make_cohort, lacking, models):
    cohort = make_cohort(4)
    patients = tuple(replace(patient, **lacking) for patient in cohort)
    assert compared_in(replace(cohort, patients=patients)) == models
    complete = next(place for place, p in enumerate(cohort) if p.slides and p.expression is not None)
    with_one = (*patients[:complete], cohort.patients[complete], *patients[complete + 1 :])
    assert compared_in(replace(cohort, patients=with_one)) == [
        name for name in compared_models() if not is_trivial(name) and name not in NUMBERS
    ]
    purity = {"purity": TaskSpec(column="purity", kind="regression")}
    of_numbers = set(compared_in(replace(cohort, tasks=purity))) & {*NUMBERS}
    assert of_numbers == {*NUMBERS}


@pytest.mark.parametrize("task", ["survival", "grade"])
@pytest.mark.parametrize("model", sorted(set(MODELS) - set(compared_models()) | {"clinical"}))
def test_further_models_train_save_and_predict_patients_with_either_modality(make_cohort, tmp_path, model, task):
    cohort = with_covariates(make_cohort(16))
    fitted = train(cohort, model, task)
    fitted.save(tmp_path)
    loaded = load_fitted(tmp_path)
    table = fitted.predict(cohort.patients)
    pd.testing.assert_frame_equal(loaded.predict(cohort.patients), table)
    usable = [fitted.usable(patient) for patient in cohort]
    score = table["risk" if task == "survival" else "p_G4"]
    assert np.isfinite(score[usable]).all()
    assert score[~np.array(usable)].isna().all()
    contributions = table.filter(like="contribution_").columns
    assert list(contributions) == [f"contribution_{name}" for name in fitted.subspaces]
    assert isinstance(fitted.objective, CoxObjective) is (model == "clinical" and task == "survival")

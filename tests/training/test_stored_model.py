"""A stored model that was cut, changed or exchanged ends in one line of ours, never in another error."""

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from brief_training import BRIEF, SMALL
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from damage import rounds
from small_cohort import with_covariates
from subfuse.cohort.bags import InputStandardiser, PatchStandardiser
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError
from subfuse.expression.table import ExpressionStandardiser
from subfuse.files import read_sealed_json, write_json, write_sealed_json
from subfuse.objective.classification import ClassificationObjective
from subfuse.run_folder.names import WEIGHTS
from subfuse.training import stored_model
from subfuse.training.fitted_model import FittedModel
from subfuse.training.fitting import train_fold
from subfuse.training.models import MODELS, ModelRecipe, is_trivial
from subfuse.training.settings import ArchitectureSettings, TrainingPlan
from subfuse.training.stored_model import BasisDescription, CovariateDescription, load_fitted

GENES = ("A", "B", "C", "D", "E")
ROUNDS = rounds(40)  # of each file
WRONG = (None, True, -1, 0, 7, 10**30, 1e308, "x", "", [], {}, [1], [["a"]], {"a": 1}, "\ud800")


def untrained(name: str = "subspace", members: int = 1) -> FittedModel:
    recipe = ModelRecipe(
        name=name,
        n_outputs=3,
        patch_dim=4,
        n_genes=5,
        gene_sets={"tumour": (0, 1, 2), "microenvironment": (2, 3, 4)},
        pathways={"first": (0, 1), "second": (3,)},
        grid=(8, 9),
        architecture=ArchitectureSettings(embed_dim=16, table_size=16),
        members=members,
    )
    scaler = ExpressionStandardiser(GENES, np.arange(5, dtype=np.float32), np.ones(5, np.float32))
    patches = PatchStandardiser(np.zeros(4, np.float32), np.ones(4, np.float32))
    return FittedModel(
        task="grade",
        task_spec=TaskSpec(column="grade", classes=("G2", "G3", "G4"), ordinal=True),
        recipe=recipe,
        model=recipe.build().eval(),
        objective=ClassificationObjective(("G2", "G3", "G4")),
        standardiser=InputStandardiser(scaler, patches),
        baseline_logits=torch.zeros(len(recipe.subspaces), 3),
        genes=GENES,
        expression_unit="log2_tpm",
        encoder="fake",
        encoder_sha256="0" * 64,
        patch_um=(112.0, 128.0),
        details={"seed": 0, "split_sha256": "1" * 64},
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    untrained().save(folder)
    return folder


def load_unsealed(stored: Path, folder: Path, described: object) -> FittedModel:
    """Loads the weights with a description that no hash vouches for, as earlier versions wrote it."""
    shutil.copyfile(stored / "model.safetensors", folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(described), encoding="utf-8")
    return load_fitted(folder)


def plain_description(stored: Path) -> dict:
    return {k: v for k, v in read_sealed_json(stored / "model.json").items() if k != "weights_sha256"}


@pytest.mark.parametrize("name", sorted(name for name in MODELS if not is_trivial(name)))
def test_every_model_is_compared_with_its_weights_before_it_is_built(tmp_path, name):
    fitted = untrained(name, members=2 if name == "snn" else 1)
    fitted.save(tmp_path)
    assert load_fitted(tmp_path).describe() == fitted.describe()


def test_a_model_whose_training_patients_had_no_expression_is_read_again(make_cohort, tmp_path):
    cohort = with_covariates(make_cohort(12))
    bare = tuple(replace(patient, expression=None) if i < 8 else patient for i, patient in enumerate(cohort))
    cohort, names = replace(cohort, patients=bare), [patient.patient_id for patient in cohort]
    fold = Fold(tuple(names[1:8]), tuple(names[8:10]), tuple(names[10:]))
    plan = TrainingPlan(training=BRIEF.model_copy(update={"epochs": 1}), architecture=SMALL)
    fitted = train_fold(cohort, fold, task="grade", model_name="concat", plan=plan)
    fitted.save(tmp_path)
    again = load_fitted(tmp_path)
    assert again.recipe.n_covariates == 2
    pd.testing.assert_frame_equal(again.predict(cohort.patients), fitted.predict(cohort.patients))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"task": ""}, "task"),
        ({"genes": ["A", "B", "C", "D", "D"]}, "named once"),
        ({"genes": ["A"]}, "n_genes must be 1. Found 5"),
        ({"recipe.members": 100_000}, "recipe.members"),
        ({"recipe.members": 100}, "members must have weights each"),
        ({"recipe.members": 2}, "names and shapes"),
        ({"recipe.name": "resnet"}, "Found 'resnet'"),
        ({"recipe.n_outputs": 4}, "n_outputs must be 3. Found 4"),
        ({"recipe.n_covariates": 10**15}, "n_covariates must be 0"),
        ({"recipe.patch_dim": 10**15}, "recipe.patch_dim"),
        ({"recipe.patch_dim": 5}, "inputs.patch_"),
        ({"recipe.grid": [10**6, 2]}, "recipe.grid.0"),
        ({"recipe.gene_sets": {"tumour": [0, 1, 99], "microenvironment": [2, 3, 4]}}, "tumour must hold places"),
        ({"recipe.gene_sets": {"tumour": [0, 1], "microenvironment": [2, 3, 4]}}, "names and shapes"),
        ({"recipe.architecture.embed_dim": 10**9}, "embed_dim"),
        ({"objective.classes": ["G4", "G3", "G2"]}, "classes must be those of task_spec"),
        ({"objective.classes": ["G2", "G3"]}, "classes"),
        ({"objective.name": "other"}, "Found 'other'"),
        ({"objective": {"name": "cox"}}, "same kind of task"),
        ({"gene_mean": [0, 1, 2, 3, 5]}, "gene_mean must be that of the weights"),
        ({"gene_scale": None}, "gene_scale must be that of the weights"),
        ({"gene_mean": [0, 1, 2, 3]}, "gene_mean must be that of the weights"),
        ({"unknown": 1}, "json: unknown: "),
        ({"unknown": 1, "task": ""}, "json: task: "),  # the first
        ({"patch_um": [1.0, float("inf")]}, "patch_um"),
    ],
)
def test_what_does_not_fit_is_named(stored, tmp_path, change, named):
    described = plain_description(stored)
    for place, value in change.items():
        *parents, last = place.split(".")
        target = described
        for name in parents:
            target = target[name]
        target[last] = value
    with pytest.raises(DataError) as found:
        load_unsealed(stored, tmp_path, described)
    message = str(found.value)
    assert named in message
    assert "model.json" in message
    assert "\n" not in message


@pytest.mark.parametrize(("described", "named"), [
    ({"genes": []}, "'recipe' is missing"), ({"genes": [], "recipe": 5}, "a model and its weights that fit"),
    ({"genes": [], "recipe": {"name": "snn", "gene_sets": 5}}, "a model and its weights that fit"),
])  # fmt: skip
def test_what_is_no_description_of_an_earlier_version_either_is_one_line(stored, tmp_path, described, named):
    with pytest.raises(DataError, match=rf"model\.json: .*{named}"):
        load_unsealed(stored, tmp_path, described)


@pytest.mark.parametrize(("change", "named"), [
    ({"baseline_logits": None}, "Found no baseline_logits"),
    ({"inputs.gene_mean": torch.zeros(5).double()}, r"32-bit numbers are required\. Found others in inputs"),
    ({"inputs.gene_mean": None}, "inputs of the weights must be mean and scale"),
    ({"inputs.other_mean": torch.ones(5), "inputs.other_scale": torch.ones(5)}, "must be mean and scale of patch"),
    ({"inputs.gene_mean": None, "inputs.gene_scale": None}, "gene_mean must be that of the weights"),
    ({"inputs.patch_scale": torch.tensor([1.0, 0.0, 1.0, 1.0])}, "inputs.patch_scale .* scales positive"),
    ({"inputs.patch_scale": torch.tensor([1.0, -0.5, 1.0, 1.0])}, "inputs.patch_scale .* scales positive"),
    ({"model.head.bias": None}, "names and shapes"), ({"model.other": torch.ones(1)}, "names and shapes"),
    ({"baseline_logits": torch.zeros(1, 3)}, r"baseline_logits must have the shape \(2, 3\)\. Found \(1, 3\)"),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_named(stored, tmp_path, change, named):
    tensors = {**load_file(stored / "model.safetensors"), **change}
    assert tensors.keys() >= change.keys() - {"inputs.other_mean", "inputs.other_scale", "model.other"}
    save_file({name: value for name, value in tensors.items() if value is not None}, tmp_path / WEIGHTS)
    (tmp_path / "model.json").write_text(json.dumps(plain_description(stored)))
    with pytest.raises(DataError, match=named):
        load_fitted(tmp_path)


def test_a_scale_that_no_array_has_is_refused_though_no_mean_is_told(stored, tmp_path):
    tensors = load_file(stored / "model.safetensors")
    save_file({k: v for k, v in tensors.items() if "gene" not in k or k.startswith("model")}, tmp_path / WEIGHTS)
    (tmp_path / "model.json").write_text(json.dumps(plain_description(stored) | {"gene_mean": None}))
    with pytest.raises(DataError, match="gene_scale must be that of the weights"):
        load_fitted(tmp_path)


def test_small_scales_are_read(stored, tmp_path):
    tensors = load_file(stored / "model.safetensors") | {"inputs.patch_scale": torch.full((4,), 1e-3)}
    save_file(tensors, tmp_path / WEIGHTS)
    (tmp_path / "model.json").write_text(json.dumps(plain_description(stored) | {"task": "g"}))
    loaded = load_fitted(tmp_path)
    assert (loaded.task, loaded.standardiser.patches.scale.tolist()) == ("g", pytest.approx([1e-3] * 4))


@pytest.mark.parametrize("kind", [OSError, SafetensorError, ValueError, KeyError, RuntimeError])
def test_whatever_stops_the_reader_of_weights_is_one_line(stored, monkeypatch, kind):
    def fail(_):
        raise kind("not\nthese")

    monkeypatch.setattr("safetensors.torch.load_file", fail)
    with pytest.raises(DataError, match=r"model\.safetensors: the weights of a model are required\. Found: .*these"):
        load_fitted(stored)


@pytest.mark.parametrize(
    "kind", [OverflowError, KeyError, TypeError, ValueError, RuntimeError, AttributeError, DataError]
)
def test_whatever_stops_the_building_of_a_model_is_one_line(stored, monkeypatch, kind):
    def fail(*_):
        raise kind("such\nsizes")

    monkeypatch.setattr(stored_model, "_build", fail)
    with pytest.raises(DataError, match=r"model\.json: a model and its weights that fit are required\. .*sizes"):
        load_fitted(stored)


@pytest.mark.parametrize(("kind", "described", "refused"), [
    (CovariateDescription, {"name": "a", "mean": 0.0, "scale": 1e-3}, {"name": ""}),
    (CovariateDescription, {"name": "age"}, {"scale": 0.0}), (CovariateDescription, {"name": "age"}, {"scale": -0.5}),
    (BasisDescription, {"n_genes": 1, "sha256": "0" * 64}, {"n_genes": 0}),
])  # fmt: skip
def test_covariates_have_names_and_positive_scales_and_sums_have_genes(kind, described, refused):
    assert kind(**described)
    with pytest.raises(ValidationError):
        kind(**described | refused)


@pytest.mark.parametrize("member", ["genes", "gene_sets"])
def test_a_changed_order_is_noticed(stored, tmp_path, member):
    shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
    described = json.loads((tmp_path / "model.json").read_text())
    if member == "genes":
        described["genes"] = described["genes"][::-1]
    else:
        described["recipe"]["gene_sets"] = dict(reversed(described["recipe"]["gene_sets"].items()))
    write_json(tmp_path / "model.json", described)
    with pytest.raises(DataError, match=r"model\.json: .* was changed since"):
        load_fitted(tmp_path)


def test_weights_of_another_model_are_noticed(stored, tmp_path):
    untrained().save(tmp_path)  # the same sizes, other numbers
    shutil.copyfile(stored / "model.json", tmp_path / "model.json")
    with pytest.raises(DataError, match=r"model\.safetensors: the weights that model\.json names are required"):
        load_fitted(tmp_path)


def test_weights_that_are_no_numbers_are_named(stored, tmp_path):
    fitted = untrained()
    with torch.no_grad():
        next(fitted.model.parameters()).fill_(float("nan"))
    fitted.save(tmp_path)
    with pytest.raises(DataError, match=r"model\.safetensors: arrays of finite 32-bit numbers"):
        load_fitted(tmp_path)


def damaged(content: bytes, generator: random.Random) -> bytes:
    """The content cut, or with some bytes changed or inserted."""
    kind, place = generator.randrange(3), generator.randrange(len(content))
    junk = generator.randbytes(generator.randrange(1, 9))
    if kind == 0:
        return content[:place]
    return content[:place] + junk + content[place + (len(junk) if kind == 1 else 0) :]


def places_of(value: object, path: tuple = ()) -> list[tuple]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places_of(item, (*path, key)))]


def with_value(value: object, path: tuple, new: object) -> object:
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = with_value(copied[path[0]], path[1:], new)
    return copied


@pytest.mark.faults
@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_damaged_bytes_are_noticed(stored, tmp_path, name):
    shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
    generator, whole = random.Random(0), (stored / name).read_bytes()
    for _ in range(ROUNDS):
        content = damaged(whole, generator)
        (tmp_path / name).write_bytes(content)
        if content != whole:
            with pytest.raises(DataError, match=r"model\.(json|safetensors)"):
                load_fitted(tmp_path)


@pytest.mark.faults
def test_values_of_the_wrong_kind_end_in_our_error_or_change_nothing(stored, tmp_path):
    described, generator = plain_description(stored), random.Random(1)
    places, messages = places_of(described), []
    for _ in range(ROUNDS):
        changed = with_value(described, generator.choice(places), generator.choice(WRONG))
        try:
            load_unsealed(stored, tmp_path, changed)
        except DataError as error:
            messages.append(str(error))
    assert messages
    assert not [message for message in messages if "\n" in message]


@pytest.mark.real_data
def test_hostile_descriptions_are_one_line(stored, tmp_path, cases):
    shutil.copytree(stored, tmp_path, dirs_exist_ok=True)
    files = sorted((cases / "hostile_model_json").glob("*.json"))
    assert files
    for path in files:
        shutil.copyfile(path, tmp_path / "model.json")
        with pytest.raises(DataError, match=r"model\.json") as refused:
            load_fitted(tmp_path)
        assert not re.search(r"required\. '\w+'\.", str(refused.value)), path  # a bare key says nothing


def test_a_sealed_description_is_read_back(tmp_path):
    write_sealed_json(tmp_path / "x.json", {"b": 1, "a": [1.5, "é"]})
    assert list(read_sealed_json(tmp_path / "x.json").items()) == [("b", 1), ("a", [1.5, "é"])]

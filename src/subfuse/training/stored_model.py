"""`model.json` and `model.safetensors` as they lie on disk: nothing of them is used before all of it was checked."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, Field, FiniteFloat, PositiveFloat, ValidationError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from subfuse.bounded_files import require_regular_file
from subfuse.cohort.bags import InputStandardiser, PatchStandardiser
from subfuse.cohort.covariates import WEIGHT, CovariateCoding
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError, preview
from subfuse.expression.table import ExpressionStandardiser
from subfuse.expression.units import ShareBasis
from subfuse.files import read_sealed_json, sha256_of_file
from subfuse.objective.objective import Objective
from subfuse.objective.stored import objective_from_dict
from subfuse.run_folder.names import MODEL, WEIGHTS
from subfuse.settings import Section
from subfuse.training.fitted_model import EFFECT, SEEN, FittedModel
from subfuse.training.models import COVARIATES, ModelRecipe, modalities_of
from subfuse.training.seen.expression_effect import ExpressionEffect
from subfuse.training.seen.inputs import EXPRESSION, NUMBER, PATCHES, SeenInputs

_REMEDY = "Train it again, or copy the run again from where it was made"


class CovariateDescription(Section):
    """One covariate of `model.json`."""

    name: str = Field(min_length=1)
    levels: tuple[str, ...] = ()
    mean: FiniteFloat | None = None
    scale: FiniteFloat | None = Field(None, gt=0)


class BasisDescription(Section):
    """Which genes the shares of training add up over."""

    n_genes: int = Field(ge=1)
    sha256: str


class ModelDescription(Section):
    """The content of `model.json`."""

    model_config = ConfigDict(allow_inf_nan=False)

    subfuse_version: str
    weights_sha256: str | None = None  # of model.safetensors; earlier versions did not write it
    task: str = Field(min_length=1)
    task_spec: TaskSpec
    recipe: ModelRecipe
    objective: dict[str, Any]
    genes: tuple[str, ...]
    gene_mean: tuple[FiniteFloat, ...] | None
    gene_scale: tuple[FiniteFloat, ...] | None
    covariates: tuple[CovariateDescription, ...]
    expression_unit: str | None
    expression_basis: BasisDescription | None = None
    encoder: str | None
    encoder_sha256: str | None
    patch_um: tuple[PositiveFloat, PositiveFloat] | None = None  # earlier versions did not write it
    details: dict[str, Any]


def load_fitted(folder: Path) -> FittedModel:
    """Returns the model saved in a fold's folder.

    Everything is checked before a model is built: the hashes that were written with both files, types and bounds of
    the description, and that names, sizes and tensors fit one another.

    Raises:
        DataError: A file is missing or damaged, or does not fit the other. Names the file.
    """
    described_in, stored_in = folder / MODEL, folder / WEIGHTS
    described, tensors = read_sealed_json(described_in), _read_tensors(stored_in)
    expected = described.get("weights_sha256")
    if expected is not None and expected != sha256_of_file(stored_in):
        raise DataError(f"{stored_in}: the weights that {MODEL} names are required. Found others. {_REMEDY}.")
    inputs = {name.removeprefix("inputs."): v.numpy() for name, v in tensors.items() if name.startswith("inputs.")}
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    try:
        if "covariates" not in described:
            described, inputs = _with_covariates_apart(described, inputs)
        description = ModelDescription.model_validate(described)
        objective = objective_from_dict(description.objective)
        _check_sizes(description, objective, tensors, inputs)
        seen = _seen_of(tensors, description.recipe)
        effect = ExpressionEffect.from_arrays(_arrays(tensors, EFFECT), description.recipe.n_outputs)
        model = _build(description.recipe, weights)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "its content"
        message = " ".join(problem["msg"].removeprefix("Value error, ").split()).rstrip(".")
        raise DataError(f"{described_in}: {where}: {message}. {_REMEDY}.") from error
    except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError, DataError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{described_in}: a model and its weights that fit are required. {reason}. {_REMEDY}."
        ) from error
    fitted = _fitted(description, objective, model, inputs, tensors["baseline_logits"])
    return replace(fitted, seen=seen, effect=effect)


def _fitted(
    description: ModelDescription,
    objective: Objective,
    model: nn.Module,
    inputs: Mapping[str, np.ndarray],
    baseline_logits: Tensor,
) -> FittedModel:
    basis = description.expression_basis
    return FittedModel(
        task=description.task,
        task_spec=description.task_spec,
        recipe=description.recipe,
        model=model,
        objective=objective,
        standardiser=_standardiser_of(inputs, description),
        baseline_logits=baseline_logits,
        genes=description.genes,
        expression_unit=description.expression_unit,
        encoder=description.encoder,
        encoder_sha256=description.encoder_sha256,
        patch_um=description.patch_um,
        expression_basis=None if basis is None else ShareBasis(basis.n_genes, basis.sha256),
        details=description.details,
    )


def _seen_of(tensors: Mapping[str, Tensor], recipe: ModelRecipe) -> SeenInputs | None:
    """Returns what training saw; a ValueError unless it is of the model's inputs."""
    seen = SeenInputs.from_arrays(_arrays(tensors, SEEN))
    sizes = {EXPRESSION: recipe.n_genes, PATCHES: recipe.patch_dim, NUMBER: 1}
    for name, found in ({} if seen is None else seen.ranges).items():
        if len(found.mean) != sizes[name]:
            raise ValueError(f"what training saw must be of {sizes[name]} inputs ({name}). Found {len(found.mean)}")
    return seen


def _arrays(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, np.ndarray]:
    """Returns the arrays whose names begin so, without that."""
    return {name.removeprefix(prefix): value.numpy() for name, value in tensors.items() if name.startswith(prefix)}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the arrays of a model, which hold finite 32-bit numbers."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    require_regular_file(path, "file of weights")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{path}: the weights of a model are required. Found: {problem}. {_REMEDY}.") from error
    unusable = [name for name, value in tensors.items() if value.dtype != torch.float32 or not value.isfinite().all()]
    if unusable or "baseline_logits" not in tensors:
        found = f"others in {preview(unusable)}" if unusable else "no baseline_logits"
        raise DataError(f"{path}: arrays of finite 32-bit numbers are required. Found {found}. {_REMEDY}.")
    return tensors


def _check_sizes(
    description: ModelDescription,
    objective: Objective,
    tensors: Mapping[str, Tensor],
    inputs: Mapping[str, np.ndarray],
) -> None:
    """Raises a ValueError where names and numbers of the description do not fit one another, or not the arrays."""
    recipe = description.recipe
    if objective.predicts != description.task_spec.predicts:
        raise ValueError("task_spec and objective must be of the same kind of task")
    named = description.task_spec.classes
    if named is not None and named != objective.classes:
        raise ValueError(f"classes must be those of task_spec, {preview(named)}. Found {preview(objective.classes)}")
    counts = {
        "n_outputs": (recipe.n_outputs, objective.n_outputs),
        "n_genes": (recipe.n_genes, len(description.genes)),
        "n_covariates": (recipe.n_covariates, len(description.covariates)),
    }
    if recipe.n_genes and not inputs.keys() & {"gene_mean", "covariate_mean"}:
        counts.pop("n_covariates")  # no training patient had expression: neither was fitted
    for name, (found, expected) in counts.items():
        if found != expected:
            raise ValueError(f"{name} must be {expected}. Found {found}")
    names = [*description.genes, *(known.name for known in description.covariates)]
    if len(set(names)) < len(names):
        raise ValueError("every gene and covariate must be named once")
    _check_inputs(description, inputs)
    shape = (len(recipe.subspaces), recipe.n_outputs)
    if tensors["baseline_logits"].shape != shape:
        raise ValueError(
            f"baseline_logits must have the shape {shape}. Found {tuple(tensors['baseline_logits'].shape)}"
        )


def _check_inputs(description: ModelDescription, inputs: Mapping[str, np.ndarray]) -> None:
    """Raises a ValueError unless the standardisation has a mean and a positive scale for every input, as described."""
    recipe = description.recipe
    sizes = {"patch": recipe.patch_dim, "gene": recipe.n_genes, "covariate": recipe.n_covariates}
    parts = {name.rpartition("_")[0] for name in inputs}
    if parts - sizes.keys() or inputs.keys() != {f"{part}_{what}" for part in parts for what in ("mean", "scale")}:
        raise ValueError(f"inputs of the weights must be mean and scale of {preview(sizes)}. Found {preview(inputs)}")
    for name, value in inputs.items():
        size = sizes[name.rpartition("_")[0]]
        if value.shape != (size,) or (name.endswith("_scale") and not (value > 0).all()):
            raise ValueError(f"inputs.{name} of the weights must be {size} numbers, scales positive")
    for name, listed in (("gene_mean", description.gene_mean), ("gene_scale", description.gene_scale)):
        stored = inputs.get(name)
        if listed is None and stored is None:
            continue
        if listed is None or stored is None or stored.shape != (len(listed),) or not np.allclose(stored, listed, 1e-4):
            raise ValueError(f"{name} must be that of the weights")


def _build(recipe: ModelRecipe, weights: Mapping[str, Tensor]) -> nn.Module:
    """Returns the model with its weights; sizes are compared on a model without memory first."""
    if recipe.members > len(weights):
        raise ValueError(f"members must have weights each. Found {recipe.members} members, {len(weights)} weights")
    with torch.random.fork_rng(devices=[]), _WithoutDraws():
        with torch.device("meta"):
            expected = {name: (value.shape, value.dtype) for name, value in recipe.build().state_dict().items()}
        found = {name: (value.shape, value.dtype) for name, value in weights.items()}
        differing = [name for name in sorted(expected.keys() | found.keys()) if expected.get(name) != found.get(name)]
        if differing:
            raise ValueError(f"weights must have the names and shapes of the model. Others are {preview(differing)}")
        model = recipe.build()
    model.load_state_dict(dict(weights))
    return model.eval()


class _WithoutDraws(TorchFunctionMode):
    """Leaves out the drawing of initial weights, which stored ones replace."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return kwargs["tensor"]  # so these functions pass it on, however they were called
        return func(*args, **kwargs)


def _standardiser_of(arrays: Mapping[str, np.ndarray], description: ModelDescription) -> InputStandardiser:
    expression = patches = coding = None
    if "gene_mean" in arrays:
        expression = ExpressionStandardiser(description.genes, arrays["gene_mean"], arrays["gene_scale"])
    if "covariate_mean" in arrays:
        names = tuple(known.name for known in description.covariates)
        scaler = ExpressionStandardiser(names, arrays["covariate_mean"], arrays["covariate_scale"])
        coding = CovariateCoding({known.name: known.levels for known in description.covariates}, scaler)
    if "patch_mean" in arrays:
        patches = PatchStandardiser(arrays["patch_mean"], arrays["patch_scale"])
    return InputStandardiser(expression, patches, coding)


def _with_covariates_apart(
    description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what earlier versions wrote, which kept covariates at the end of the gene axis, as it is written now.

    The words that training knew were not recorded: every other one is coded 0.
    """
    recipe, genes, arrays = dict(description["recipe"]), list(description["genes"]), dict(arrays)
    n_covariates = len(recipe.pop("covariates", ()))
    n_genes = len(genes) - n_covariates
    names, reads_covariates_alone = genes[n_genes:], modalities_of(recipe["name"]) == COVARIATES
    if n_covariates and "gene_mean" in arrays:
        mean, scale = arrays.pop("gene_mean"), arrays.pop("gene_scale")
        arrays |= {"covariate_mean": mean[n_genes:], "covariate_scale": scale[n_genes:] * np.float32(WEIGHT)}
        if n_genes and not reads_covariates_alone:
            arrays |= {"gene_mean": mean[:n_genes], "gene_scale": scale[:n_genes]}
    if reads_covariates_alone:
        n_genes = 0
        recipe |= {"gene_sets": dict.fromkeys(recipe["gene_sets"], ()), "pathways": {}}
    sets = {name: tuple(place for place in places if place < n_genes) for name, places in recipe["gene_sets"].items()}
    recipe |= {"n_genes": n_genes, "n_covariates": n_covariates, "gene_sets": sets}
    known = [{"name": name, "levels": ()} for name in names]
    listed = {
        name: description[name][:n_genes] if name in arrays and description[name] is not None else None
        for name in ("gene_mean", "gene_scale")
    }
    return {**description, **listed, "recipe": recipe, "genes": genes[:n_genes], "covariates": known}, arrays

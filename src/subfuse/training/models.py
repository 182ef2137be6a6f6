"""Every model that can be trained: one entry each, and what is needed to build it again."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from subfuse.errors import ConfigurationError, DataError, meant
from subfuse.settings import Section
from subfuse.training.settings import LARGEST_ENSEMBLE, LARGEST_GRID, ArchitectureSettings

if TYPE_CHECKING:
    from torch import nn

    from subfuse.cohort.cohort import Cohort
    from subfuse.cohort.fold import Fold
    from subfuse.model.baselines.linear import LinearModel

_LARGEST_PATCH_DIM = 65_536
LINEAR_PATH = "linear_path"  # beside the subspaces of a network
SLIDES, EXPRESSION, COVARIATES = frozenset({"slides"}), frozenset({"expression"}), frozenset({"covariates"})
SITE, BATCH = frozenset({"site"}), frozenset({"batch"})
COLUMNS = COVARIATES | SITE | BATCH  # of the patients' table: what reads nothing else is a trivial baseline
Modality = Literal["slides", "expression"]
Side = Annotated[int, Field(ge=1, le=LARGEST_GRID)]


class ModelRecipe(Section):
    """A model's name and sizes. `build` gives an untrained model; the trained weights fit into it."""

    name: str
    n_outputs: int = Field(ge=1)
    patch_dim: int = Field(ge=0, le=_LARGEST_PATCH_DIM)
    n_genes: int = Field(ge=0, description="Measured genes; covariates follow them in what the model reads.")
    n_covariates: int = Field(0, ge=0)
    gene_sets: Mapping[str, tuple[int, ...]] = Field(description="Subspace -> positions on the gene axis.")
    pathways: Mapping[str, tuple[int, ...]] = Field({}, description="Pathway -> positions on the gene axis.")
    grid: tuple[Side, Side] = Field(description="Rows and columns of the spatial layout.")
    downsample: int = Field(
        4, ge=1, le=LARGEST_GRID, description="Cells per sampling point of the attention, along each axis."
    )
    architecture: ArchitectureSettings = ArchitectureSettings()
    members: int = Field(1, ge=1, le=LARGEST_ENSEMBLE, description="Networks whose logits are averaged.")
    linear_path: tuple[Modality, ...] = Field(
        (), description="What a linear model beside the network reads, expression with covariates; none without one."
    )

    @model_validator(mode="after")
    def _names_and_places_are_known(self) -> "ModelRecipe":
        if self.name not in MODELS:
            raise ValueError(f"name must be one of {', '.join(MODELS)}. Found {self.name!r}")
        if self.linear_path and LINEAR_PATH in self.network_subspaces:
            raise ValueError(f"subspaces must have names other than {LINEAR_PATH} beside a linear path")
        for name, places in {**self.gene_sets, **self.pathways}.items():
            if not all(0 <= place < self.n_genes for place in places):
                raise ValueError(f"{name} must hold places on the axis of {self.n_genes} genes")
        return self

    @property
    def modalities(self) -> frozenset[str]:
        """Which of `slides`, `expression`, `covariates`, `site` and `batch` the model uses."""
        return modalities_of(self.name)

    @property
    def is_binned(self) -> bool:
        """Whether all that the model sees of slides are the means of the cells of its grid."""
        return MODELS[self.name].is_binned

    @property
    def n_inputs(self) -> int:
        """Number of columns that the model reads beside slides: genes, then covariates."""
        return self.n_genes + self.n_covariates

    @property
    def covariates(self) -> tuple[int, ...]:
        """Places of the covariates among the inputs."""
        return tuple(range(self.n_genes, self.n_inputs))

    @property
    def subspace_inputs(self) -> dict[str, tuple[int, ...]]:
        """What each subspace reads: its genes and all covariates."""
        return {name: (*genes, *self.covariates) for name, genes in self.gene_sets.items()}

    @property
    def subspaces(self) -> tuple[str, ...]:
        """Names along the subspace axis of the model's output; most baselines are one subspace named `all`."""
        return (*self.network_subspaces, LINEAR_PATH) if self.linear_path else self.network_subspaces

    @property
    def network_subspaces(self) -> tuple[str, ...]:
        """Those of the network alone, without the linear path."""
        subspaces = MODELS[self.name].subspaces
        return subspaces(self) if callable(subspaces) else subspaces

    def build(self) -> "nn.Module":
        """Returns the untrained model; weights come from PyTorch's global generator.

        Models take the sizes of `architecture` where they follow the paper of subspace fusion, and their own published
        sizes otherwise.

        Raises:
            DataError: The cohort lacks what the model needs.
        """
        from subfuse.model.linear_path import WithLinearPath
        from subfuse.model.output import Ensemble

        networks = [self.build_network() for _ in range(self.members)]
        model = networks[0] if self.members == 1 else Ensemble(networks)
        return WithLinearPath(self.build_linear_path(), model) if self.linear_path else model

    def build_network(self) -> "nn.Module":
        """Returns one untrained network, without a linear path; see `build`."""
        self._check_inputs()
        entry = MODELS[self.name]
        return resolve_name(entry.implementation)(**entry.arguments(self))

    def build_linear_path(self) -> "LinearModel":
        """Returns the linear model beside the network, not yet fitted."""
        from subfuse.model.baselines.linear import LinearModel

        n_genes = self.n_inputs if "expression" in self.linear_path else 0
        return LinearModel(
            self.n_outputs, n_genes=n_genes, patch_dim=self.patch_dim if "slides" in self.linear_path else 0
        )

    def _check_inputs(self) -> None:
        """Raises a DataError if there is no expression, pathway or covariate for a model that cannot be without."""
        required = {
            "expression": "expression" in self.modalities and self.n_inputs == 0,
            "pathways": MODELS[self.name].needs_pathways and not self.pathways,
            **{name: self.modalities == {name} and self.n_covariates == 0 for name in sorted(COLUMNS)},
        }
        remedies = {
            "expression": "Add an expression section to the cohort file and prepare again",
            "pathways": "Prepare the cohort again with gene sets",
            "covariates": "Name columns of the patients under covariates in the cohort file and prepare again",
            "site": "Map the hospital to `site` in patients.columns and prepare again",
            "batch": "Name a column of the patients as `batch` of the cohort file and prepare again",
        }
        for what in [name for name, is_missing in required.items() if is_missing]:
            raise DataError(f"{self.name} needs {what}. The cohort has none. {remedies[what]}, or leave the model out.")


def _of_slides(recipe: ModelRecipe) -> dict[str, Any]:
    return {"n_outputs": recipe.n_outputs, "patch_dim": recipe.patch_dim}


def _of_genes(recipe: ModelRecipe) -> dict[str, Any]:
    return {"n_outputs": recipe.n_outputs, "n_genes": recipe.n_inputs}


def _of_slides_and_genes(recipe: ModelRecipe) -> dict[str, Any]:
    return {**_of_slides(recipe), **_of_genes(recipe)}


def _embedded(recipe: ModelRecipe) -> dict[str, Any]:
    return {"embed_dim": recipe.architecture.embed_dim}


def _dropped(recipe: ModelRecipe) -> dict[str, Any]:
    return {"dropout": recipe.architecture.dropout}


def _of_gene_sets(recipe: ModelRecipe) -> dict[str, Any]:
    return {**_of_slides(recipe), "gene_sets": recipe.subspace_inputs}


def _of_abmil_and_snn(recipe: ModelRecipe) -> dict[str, Any]:
    return {**_of_slides_and_genes(recipe), **_embedded(recipe), **_dropped(recipe)}


def _of_pathways(recipe: ModelRecipe) -> dict[str, Any]:
    """The covariates, which belong to no pathway, are one token more."""
    tokens = {**recipe.pathways, **({"covariates": recipe.covariates} if recipe.covariates else {})}
    return {**_of_slides(recipe), "pathways": tokens}


def _of_subspaces(recipe: ModelRecipe) -> dict[str, Any]:
    from subfuse.model.subspace_fusion import SubspaceFusionConfig

    sizes = recipe.architecture
    config = SubspaceFusionConfig(
        recipe.n_outputs,
        patch_dim=recipe.patch_dim,
        embed_dim=sizes.embed_dim,
        grid=recipe.grid,
        downsample=recipe.downsample,
        offset_kernel=recipe.downsample + 2,
        position_bias=sizes.position_bias,
        table_size=sizes.table_size,
        dropout=sizes.dropout,
    )
    return {"config": config, "gene_sets": recipe.subspace_inputs, "n_genes": recipe.n_inputs}


def _of_slide_subspaces(recipe: ModelRecipe) -> dict[str, Any]:
    return {**_of_subspaces(recipe), "gene_sets": dict.fromkeys(recipe.gene_sets, ()), "n_genes": 0}


def _names_of_subspaces(recipe: ModelRecipe) -> tuple[str, ...]:
    return tuple(recipe.gene_sets)


@dataclass(frozen=True)
class ModelEntry:
    """What there is to know of a model; everything that asks for one by its name reads it here."""

    title: str  # for readers
    implementation: str  # `module:Class`, imported where a network is built: reading tables needs none
    arguments: Callable[[ModelRecipe], Mapping[str, Any]]  # of the class
    modalities: frozenset[str] = SLIDES | EXPRESSION
    subspaces: tuple[str, ...] | Callable[[ModelRecipe], tuple[str, ...]] = ("all",)  # along the output's axis
    task: Literal["survival", "classes", "regression"] | None = None  # the only kind that it is for
    needs_pathways: bool = False
    is_linear: bool = False  # fitted to convergence, its penalty chosen by cross-validation
    is_binned: bool = False  # what it sees of slides are the means of the cells of a grid
    taught_by: str | None = None  # the model of both modalities whose outputs it learns to reproduce
    is_compared: bool = False  # unless models are named; linear ones too: a neural model that loses must be seen to

    def suits(self, kind: str) -> bool:
        """Returns whether the model is for tasks of this kind, `survival`, `classes` or `regression`."""
        return self.task in (None, kind)


_BASELINES = "subfuse.model.baselines"
_SUBSPACES = "subfuse.model.subspace_fusion:SubspaceFusion"
_LINEAR = f"{_BASELINES}.linear:LinearModel"


def _linear(
    title: str,
    arguments: Callable[[ModelRecipe], Mapping[str, Any]],
    modalities: frozenset[str],
    task: Literal["survival", "classes", "regression"],
) -> ModelEntry:
    return ModelEntry(title, _LINEAR, arguments, modalities, task=task, is_linear=True, is_compared=True)


MODELS: dict[str, ModelEntry] = {
    "subspace": ModelEntry(
        "Subspace fusion",
        _SUBSPACES,
        _of_subspaces,
        subspaces=_names_of_subspaces,
        is_binned=True,
        is_compared=True,
    ),
    "subspace-slides": ModelEntry(
        "Subspaces of slides", _SUBSPACES, _of_slide_subspaces, SLIDES, subspaces=_names_of_subspaces, is_binned=True
    ),
    "distilled": ModelEntry(
        "Distilled student",
        _SUBSPACES,
        _of_slide_subspaces,
        SLIDES,
        subspaces=_names_of_subspaces,
        is_binned=True,
        taught_by="subspace",
    ),
    "mean": ModelEntry("Mean pooling", f"{_BASELINES}.mil:MeanMIL", lambda r: _of_slides(r) | _embedded(r), SLIDES),
    "abmil": ModelEntry(
        "ABMIL", f"{_BASELINES}.mil:ABMIL", lambda r: _of_slides(r) | _embedded(r), SLIDES, is_compared=True
    ),
    "gated-abmil": ModelEntry(
        "Gated ABMIL", f"{_BASELINES}.mil:ABMIL", lambda r: _of_slides(r) | _embedded(r) | {"gated": True}, SLIDES
    ),
    "clam-sb": ModelEntry("CLAM-SB", f"{_BASELINES}.mil:CLAMSB", _of_slides, SLIDES),
    "dsmil": ModelEntry("DSMIL", f"{_BASELINES}.mil:DSMIL", lambda r: _of_slides(r) | _embedded(r), SLIDES),
    "transmil": ModelEntry("TransMIL", f"{_BASELINES}.transmil:TransMIL", _of_slides, SLIDES),
    "snn": ModelEntry(
        "SNN",
        f"{_BASELINES}.expression:SNN",
        lambda r: _of_genes(r) | _embedded(r) | _dropped(r),
        EXPRESSION,
        is_compared=True,
    ),
    "concat": ModelEntry("Concatenation", f"{_BASELINES}.fusion:ConcatFusion", _of_abmil_and_snn, is_compared=True),
    "late-fusion": ModelEntry(
        "Late fusion", f"{_BASELINES}.fusion:LateFusion", _of_abmil_and_snn, subspaces=("slides", "expression")
    ),
    "pathomic": ModelEntry(
        "Pathomic Fusion",
        f"{_BASELINES}.kronecker_fusion:PathomicFusion",
        lambda r: _of_slides_and_genes(r) | _embedded(r) | {"gene_dropout": r.architecture.dropout},
    ),
    "porpoise": ModelEntry("PORPOISE", f"{_BASELINES}.kronecker_fusion:PORPOISE", _of_slides_and_genes),
    "mcat": ModelEntry("MCAT", f"{_BASELINES}.mcat:MCAT", _of_gene_sets),
    "cmta": ModelEntry("CMTA", f"{_BASELINES}.cmta:CMTA", _of_gene_sets),
    "survpath": ModelEntry("SurvPath", f"{_BASELINES}.survpath:SurvPath", _of_pathways, needs_pathways=True),
    "clinical": ModelEntry("Clinical model", _LINEAR, _of_genes, COVARIATES, is_linear=True, is_compared=True),
    "site": ModelEntry("Hospital alone", _LINEAR, _of_genes, SITE, is_linear=True, is_compared=True),
    "batch": ModelEntry("Batch alone", _LINEAR, _of_genes, BATCH, is_linear=True, is_compared=True),
    "cox": _linear("Cox regression", _of_genes, EXPRESSION, "survival"),
    "logistic": _linear("Logistic regression", _of_genes, EXPRESSION, "classes"),
    "cox-slides": _linear("Cox regression of slides", _of_slides, SLIDES, "survival"),
    "logistic-slides": _linear("Logistic regression of slides", _of_slides, SLIDES, "classes"),
    "cox-both": _linear("Cox regression of both", _of_slides_and_genes, SLIDES | EXPRESSION, "survival"),
    "logistic-both": _linear("Logistic regression of both", _of_slides_and_genes, SLIDES | EXPRESSION, "classes"),
    "linear": _linear("Linear regression", _of_genes, EXPRESSION, "regression"),
    "linear-slides": _linear("Linear regression of slides", _of_slides, SLIDES, "regression"),
    "linear-both": _linear("Linear regression of both", _of_slides_and_genes, SLIDES | EXPRESSION, "regression"),
}
MAIN_MODEL = "subspace"  # others are compared with it, and it is explained


def main_model(models: Sequence[str]) -> str:
    """Returns the one of these models that others are compared with: subspace fusion, or the first without it."""
    return MAIN_MODEL if MAIN_MODEL in models else models[0]


def compared_models() -> list[str]:
    """Returns the models that are compared unless others are named."""
    return [name for name, entry in MODELS.items() if entry.is_compared]


def compared_in(cohort: "Cohort", folds: Sequence["Fold"] = ()) -> list[str]:
    """Returns the compared models whose inputs somebody of the cohort has. Subspace fusion can be without slides.

    Those of numbers alone are left out of a cohort without a task of numbers.

    Args:
        cohort: A prepared cohort.
        folds: Those of the run; `site` and `batch` are left out where no fold tests what it trained on.
    """
    there = {
        "slides": any(patient.slides for patient in cohort),
        "expression": any(patient.expression is not None for patient in cohort),
        "covariates": bool(cohort.covariates),
        **{name: _recurs(cohort, column_read(name, cohort), folds) for name in (*SITE, *BATCH)},
    }
    lacking = frozenset(name for name, is_there in there.items() if not is_there)
    optional = {MAIN_MODEL: SLIDES}
    others = set() if any(task.is_regression for task in cohort.tasks.values()) else {"regression"}
    return [
        name
        for name in compared_models()
        if not modalities_of(name) & lacking - optional.get(name, frozenset()) and MODELS[name].task not in others
    ]


def model_title(name: str) -> str:
    """Returns a model's name for readers; one that the package lacks keeps its own."""
    return MODELS[name].title if name in MODELS else name


def subspace_title(name: str) -> str:
    """Returns the name of a subspace, or of the linear path beside them, for readers; tables in files keep theirs.

    Example:
        >>> subspace_title("tumour"), subspace_title("linear_path")
        ('tumour', 'linear path')
    """
    return "linear path" if name == LINEAR_PATH else name


def modalities_of(name: str) -> frozenset[str]:
    """Returns what a model reads: `slides`, `expression`, `covariates`, `site` or `batch`; none if it is not known."""
    return MODELS[name].modalities if name in MODELS else frozenset()


def is_trivial(name: str) -> bool:
    """Returns whether a model reads nothing but columns of the patients' table: what others must add to."""
    return reads_columns_alone(modalities_of(name))


def reads_columns_alone(modalities: Collection[str]) -> bool:
    """Returns whether what a model reads, where it is known, is nothing but columns of the patients' table."""
    return bool(modalities) and COLUMNS.issuperset(modalities)


def column_read(name: str, cohort: "Cohort") -> str | None:
    """Returns the column that `site` or `batch` reads instead of covariates; None of others, or without one."""
    if modalities_of(name) == SITE:
        return "site"
    return cohort.batch if modalities_of(name) == BATCH else None


def _recurs(cohort: "Cohort", column: str | None, folds: Sequence["Fold"]) -> bool:
    """Returns whether a column has two values or more, of which a fold's training patients share some with its test."""
    if column is None:
        return False
    values = {patient.patient_id: patient.columns.get(column) for patient in cohort}
    return len({*values.values()} - {None}) > 1 and (
        not folds
        or any({values.get(i) for i in fold.train} & {values.get(i) for i in fold.test} - {None} for fold in folds)
    )


def is_linear(name: str) -> bool:
    """Returns whether a model is one of the package's linear models."""
    return name in MODELS and MODELS[name].is_linear


def trained_on(name: str, fold: "Fold") -> tuple[str, ...]:
    """Returns on whom a model trains: of linear ones, which choose by cross-validation within, everybody not tested."""
    return fold.development if is_linear(name) else fold.train


def check_model_names(names: Sequence[str]) -> None:
    """Raises a ConfigurationError that lists the valid names if one is unknown."""
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        hint = meant(unknown[0], MODELS)
        raise ConfigurationError(f"models must be among {', '.join(MODELS)}. Found: {', '.join(unknown)}.{hint}")

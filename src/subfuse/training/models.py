"""What is needed to build a model again: its name, its sizes and its gene sets."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from subfuse.cohort.bags import FeatureCache, side_by_side
from subfuse.cohort.cohort import Patient
from subfuse.errors import ConfigurationError, DataError
from subfuse.model.baselines.cmta import CMTA
from subfuse.model.baselines.expression import SNN, ClinicalModel, LinearModel
from subfuse.model.baselines.fusion import ConcatFusion, LateFusion
from subfuse.model.baselines.kronecker_fusion import PORPOISE, PathomicFusion
from subfuse.model.baselines.mcat import MCAT
from subfuse.model.baselines.mil import ABMIL, CLAMSB, DSMIL, MeanMIL
from subfuse.model.baselines.survpath import SurvPath
from subfuse.model.baselines.transmil import TransMIL
from subfuse.model.output import Ensemble
from subfuse.model.subspace_fusion import SubspaceFusion, SubspaceFusionConfig
from subfuse.settings import Section
from subfuse.training.settings import LARGEST_ENSEMBLE, LARGEST_GRID, ArchitectureSettings

SlideModel = MeanMIL | ABMIL | CLAMSB | DSMIL | TransMIL
ExpressionModel = SNN | LinearModel
MultimodalModel = ConcatFusion | LateFusion | PathomicFusion | PORPOISE | MCAT | CMTA | SurvPath
Model = SubspaceFusion | SlideModel | ExpressionModel | MultimodalModel

MODELS: dict[str, type[Model]] = {
    "subspace": SubspaceFusion,
    "mean": MeanMIL,
    "abmil": ABMIL,
    "gated-abmil": ABMIL,
    "clam-sb": CLAMSB,
    "dsmil": DSMIL,
    "transmil": TransMIL,
    "snn": SNN,
    "concat": ConcatFusion,
    "late-fusion": LateFusion,
    "pathomic": PathomicFusion,
    "porpoise": PORPOISE,
    "mcat": MCAT,
    "cmta": CMTA,
    "survpath": SurvPath,
    "clinical": ClinicalModel,
    "cox": LinearModel,
    "logistic": LinearModel,
}
LINEAR_MODELS = {"clinical", "cox", "logistic"}
# What is compared unless models are named. A neural model that loses to a linear one must be seen to
COMPARED_MODELS = ("subspace", "abmil", "snn", "concat", "cox", "logistic")
SMALLEST_GRID = 8
LARGEST_PATCH_DIM = 65_536
Side = Annotated[int, Field(ge=1, le=LARGEST_GRID)]
SAMPLING_POINTS = 144  # of the paper: 12 × 12 on its grid of 50 × 50


class ModelRecipe(Section):
    """A model's name and sizes. `build` gives an untrained model; the trained weights fit into it."""

    name: str
    n_outputs: int = Field(ge=1)
    patch_dim: int = Field(ge=0, le=LARGEST_PATCH_DIM)
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

    @model_validator(mode="after")
    def _names_and_places_are_known(self) -> "ModelRecipe":
        if self.name not in MODELS:
            raise ValueError(f"name must be one of {', '.join(MODELS)}. Found {self.name!r}")
        for name, places in {**self.gene_sets, **self.pathways}.items():
            if not all(0 <= place < self.n_genes for place in places):
                raise ValueError(f"{name} must hold places on the axis of {self.n_genes} genes")
        return self

    @property
    def modalities(self) -> frozenset[str]:
        """Which of `slides`, `expression` and `covariates` the model uses."""
        return modalities_of(self.name)

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
        if self.name == "subspace":
            return tuple(self.gene_sets)
        return LateFusion.branches if self.name == "late-fusion" else ("all",)

    def build(self) -> Model | Ensemble:
        """Returns the untrained model; weights come from PyTorch's global generator.

        Models take the sizes of `architecture` where they follow the paper of subspace fusion, and their own published
        sizes otherwise.

        Raises:
            DataError: The cohort lacks what the model needs.
        """
        self._check_inputs()
        networks = [BUILDERS[self.name](self) for _ in range(self.members)]
        return networks[0] if self.members == 1 else Ensemble(networks)

    def _check_inputs(self) -> None:
        """Raises a DataError if there is no expression, pathway or covariate for a model that cannot be without."""
        required = {
            "expression": "expression" in self.modalities and self.n_inputs == 0,
            "pathways": self.name == "survpath" and not self.pathways,
            "covariates": self.modalities == {"covariates"} and self.n_covariates == 0,
        }
        remedies = {
            "expression": "Add an expression section to the cohort file and prepare again",
            "pathways": "Prepare the cohort again with gene sets",
            "covariates": "Name columns of the patients under covariates in the cohort file and prepare again",
        }
        for what in [name for name, is_missing in required.items() if is_missing]:
            raise DataError(f"{self.name} needs {what}. The cohort has none. {remedies[what]}, or leave the model out.")


def _subspace_fusion(recipe: ModelRecipe) -> SubspaceFusion:
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
    return SubspaceFusion(config, recipe.subspace_inputs, n_genes=recipe.n_inputs)


def _abmil(recipe: ModelRecipe, *, gated: bool = False) -> ABMIL:
    return ABMIL(recipe.n_outputs, patch_dim=recipe.patch_dim, embed_dim=recipe.architecture.embed_dim, gated=gated)


def _of_abmil_and_snn(
    model: type[ConcatFusion] | type[LateFusion],
) -> Callable[[ModelRecipe], ConcatFusion | LateFusion]:
    return lambda recipe: model(
        recipe.n_outputs,
        n_genes=recipe.n_inputs,
        patch_dim=recipe.patch_dim,
        embed_dim=recipe.architecture.embed_dim,
        dropout=recipe.architecture.dropout,
    )


def _survpath(recipe: ModelRecipe) -> SurvPath:
    """The covariates, which belong to no pathway, are one token more."""
    tokens = {**recipe.pathways, **({"covariates": recipe.covariates} if recipe.covariates else {})}
    return SurvPath(recipe.n_outputs, pathways=tokens, patch_dim=recipe.patch_dim)


def _linear(recipe: ModelRecipe) -> LinearModel:
    return LinearModel(recipe.n_outputs, n_genes=recipe.n_inputs)


BUILDERS: dict[str, Callable[[ModelRecipe], Model]] = {
    "subspace": _subspace_fusion,
    "mean": lambda r: MeanMIL(r.n_outputs, patch_dim=r.patch_dim, embed_dim=r.architecture.embed_dim),
    "abmil": _abmil,
    "gated-abmil": lambda r: _abmil(r, gated=True),
    "clam-sb": lambda r: CLAMSB(r.n_outputs, patch_dim=r.patch_dim),
    "dsmil": lambda r: DSMIL(r.n_outputs, patch_dim=r.patch_dim, embed_dim=r.architecture.embed_dim),
    "transmil": lambda r: TransMIL(r.n_outputs, patch_dim=r.patch_dim),
    "snn": lambda r: SNN(
        r.n_outputs, n_genes=r.n_inputs, embed_dim=r.architecture.embed_dim, dropout=r.architecture.dropout
    ),
    "concat": _of_abmil_and_snn(ConcatFusion),
    "late-fusion": _of_abmil_and_snn(LateFusion),
    "pathomic": lambda r: PathomicFusion(
        r.n_outputs,
        n_genes=r.n_inputs,
        patch_dim=r.patch_dim,
        embed_dim=r.architecture.embed_dim,
        gene_dropout=r.architecture.dropout,
    ),
    "porpoise": lambda r: PORPOISE(r.n_outputs, n_genes=r.n_inputs, patch_dim=r.patch_dim),
    "mcat": lambda r: MCAT(r.n_outputs, gene_sets=r.subspace_inputs, patch_dim=r.patch_dim),
    "cmta": lambda r: CMTA(r.n_outputs, gene_sets=r.subspace_inputs, patch_dim=r.patch_dim),
    "survpath": _survpath,
    "clinical": lambda r: ClinicalModel(r.n_outputs, n_genes=r.n_inputs),
    "cox": _linear,
    "logistic": _linear,
}


def modalities_of(name: str) -> frozenset[str]:
    """Returns which of `slides`, `expression` and `covariates` the named model uses."""
    return MODELS[name].modalities


def check_model_names(names: Sequence[str]) -> None:
    """Raises a ConfigurationError that lists the valid names if one is unknown."""
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        nearest = get_close_matches(unknown[0], MODELS, n=1)
        meant = f" Did you mean {nearest[0]}?" if nearest else ""
        raise ConfigurationError(f"models must be among {', '.join(MODELS)}. Found: {', '.join(unknown)}.{meant}")


def suits_task(name: str, *, is_survival: bool) -> bool:
    """False for Cox and logistic regression on the other kind of task."""
    return name not in ("cox", "logistic") or (name == "cox") == is_survival


def fitted_grid(patients: Sequence[Patient], features: FeatureCache, *, largest: int) -> tuple[int, int]:
    """Returns (rows, columns) that hold the widest and the tallest training bag at one patch per cell.

    Relative to the paper: there the grid is always 50 × 50, however small the tissue.
    """
    sides = np.array([SMALLEST_GRID, SMALLEST_GRID])
    for patient in patients:
        if patient.slides:
            slides = [features.read(path) for path in patient.slides]
            pitch = slides[0].patch_size_level0 * slides[0].level0_mpp
            width, height = np.ptp(side_by_side(slides), axis=0) / pitch + 1
            sides = np.maximum(sides, np.ceil([height, width]).astype(int))
    rows, columns = np.minimum(sides, largest).tolist()
    return rows, columns


def fitted_downsample(grid: tuple[int, int]) -> int:
    """Returns the cells per sampling point that leave about as many points as the paper has.

    Relative to the paper: there it is always 4, for a grid of 50 × 50. A small grid would keep a handful of points,
    which move by more than the slide is wide: training would see a few random patches of a slide and learn little.
    """
    return max(1, round((grid[0] * grid[1] / SAMPLING_POINTS) ** 0.5))

"""What is needed to build a model again: its name, its sizes and its gene sets."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from subfuse.data.bags import FeatureCache, side_by_side
from subfuse.data.cohort import Patient
from subfuse.data.cohort_file import Section
from subfuse.errors import ConfigurationError
from subfuse.model.baselines import ABMIL, SNN, ConcatFusion, LinearModel
from subfuse.model.subspace_fusion import SubspaceFusion, SubspaceFusionConfig
from subfuse.training.settings import ArchitectureSettings

Model = SubspaceFusion | ABMIL | SNN | ConcatFusion | LinearModel
MODELS: dict[str, type[Model]] = {
    "subspace": SubspaceFusion,
    "abmil": ABMIL,
    "snn": SNN,
    "concat": ConcatFusion,
    "cox": LinearModel,
    "logistic": LinearModel,
}
LINEAR_MODELS = {"cox", "logistic"}
SMALLEST_GRID = 8  # two sampled points per side


class ModelRecipe(Section):
    """A model's name and sizes. `build` gives an untrained model; the trained weights fit into it."""

    name: str
    n_outputs: int
    patch_dim: int
    n_genes: int
    gene_sets: Mapping[str, tuple[int, ...]] = Field(description="Subspace -> positions on the gene axis.")
    grid: tuple[int, int] = Field(description="Rows and columns of the spatial layout.")
    architecture: ArchitectureSettings = ArchitectureSettings()

    @property
    def modalities(self) -> frozenset[str]:
        """Which of `slides` and `expression` the model uses."""
        return modalities_of(self.name)

    def build(self) -> Model:
        """Returns the untrained model; weights come from PyTorch's global generator."""
        sizes = self.architecture
        match self.name:
            case "subspace":
                config = SubspaceFusionConfig(
                    self.n_outputs,
                    patch_dim=self.patch_dim,
                    embed_dim=sizes.embed_dim,
                    grid=self.grid,
                    position_bias=sizes.position_bias,
                    table_size=sizes.table_size,
                    dropout=sizes.dropout,
                )
                return SubspaceFusion(config, self.gene_sets, n_genes=self.n_genes)
            case "abmil":
                return ABMIL(self.n_outputs, patch_dim=self.patch_dim, embed_dim=sizes.embed_dim)
            case "snn":
                return SNN(self.n_outputs, n_genes=self.n_genes, embed_dim=sizes.embed_dim, dropout=sizes.dropout)
            case "concat":
                return ConcatFusion(
                    self.n_outputs,
                    patch_dim=self.patch_dim,
                    n_genes=self.n_genes,
                    embed_dim=sizes.embed_dim,
                    dropout=sizes.dropout,
                )
            case _:
                return LinearModel(self.n_outputs, n_genes=self.n_genes)


def modalities_of(name: str) -> frozenset[str]:
    """Returns which of `slides` and `expression` the named model uses."""
    return MODELS[name].modalities


def check_model_names(names: Sequence[str]) -> None:
    """Raises a ConfigurationError that lists the valid names if one is unknown."""
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise ConfigurationError(f"models must be among {', '.join(MODELS)}. Found: {', '.join(unknown)}.")


def suits_task(name: str, *, is_survival: bool) -> bool:
    """False for a linear model on the other kind of task."""
    return name not in LINEAR_MODELS or (name == "cox") == is_survival


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

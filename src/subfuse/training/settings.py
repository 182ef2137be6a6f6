"""Settings of training: how, of which sizes, and the plan of a run."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from subfuse.devices import AUTO
from subfuse.settings import Section

Selection = Literal["ranking", "loss"]
LARGEST_ENSEMBLE = 100  # these bounds keep a slip of the finger from asking for more memory than there is
LARGEST_GRID = 1000
_LARGEST_SEED = 2**63 - 1  # of torch's generators


class TrainingSettings(Section):
    """How a neural model is trained; identical for every model of a comparison."""

    model_config = ConfigDict(allow_inf_nan=False)

    epochs: int = Field(30, ge=1, description="At most this many passes over the training patients.")
    members: int = Field(
        1,
        ge=1,
        le=LARGEST_ENSEMBLE,
        description="Networks that differ in their initial weights; their logits are averaged (deep ensemble).",
    )
    patience: int = Field(10, ge=1, description="Stop after this many epochs without a better validation metric.")
    selection: Selection = Field(
        "ranking", description="What judges an epoch: ranking (C-index or AUC) or loss of the validation patients."
    )
    batch_size: int = Field(8, ge=1, description="Patients of one forward pass.")
    accumulate: int = Field(1, ge=1, description="Batches per update, on each process; losses see all their patients.")
    optimizer: Literal["adamw", "adam"] = Field("adamw", description="adamw or adam.")
    lr: float = Field(3e-4, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(
        1.0, ge=0, description="Strong, since cohorts are small. Decoupled with adamw; with adam an L2 penalty."
    )
    gene_penalty: float = Field(
        0.2, ge=0, description="Group lasso on each gene's weights into the gene encoders: few genes are kept."
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps with a rising learning rate; then cosine.")
    clip: float = Field(1.0, gt=0, description="Largest gradient norm.")
    consistency: float = Field(0.5, ge=0, description="Weight of the gene-guided consistency loss.")
    coordination: Literal["paper", "released", "none"] = Field("paper", description="Gradient coordination rule.")
    linear_path: bool = Field(
        True,
        description="Fit a linear model of the same inputs first; networks start from half of it, and their share is "
        "chosen on the validation patients.",
    )
    modality_dropout: float = Field(
        0.15, ge=0, lt=1, description="Chance that a patient with both modalities is shown with only one of them."
    )
    time_bins: int = Field(4, ge=2, le=100, description="Discrete time bins for survival.")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="Numerical precision.")
    deterministic: bool = Field(
        False, description="On a GPU, the same weights and predictions in every run, for more time."
    )
    logger: Literal["csv", "tensorboard", "mlflow", "wandb"] = Field(
        "csv", description="log.csv is always written; another name adds that tracker."
    )


class ArchitectureSettings(Section):
    """Sizes of the neural models; the defaults are the paper's."""

    embed_dim: int = Field(128, ge=8, le=8192, multiple_of=8, description="Width of the embeddings.")
    max_grid: int = Field(
        50, ge=4, le=LARGEST_GRID, description="Largest grid side; the grid is fitted to the training patients."
    )
    position_bias: Literal["table", "exact"] = Field("table", description="Position bias of the deformable attention.")
    table_size: int = Field(64, ge=16, le=8192, description="Rows of the position-bias table; its error is recorded.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout of the attention, alpha dropout of the gene encoder.")


class TrainingPlan(Section):
    """How the models of a run are trained: the same plan for every model, task and fold."""

    training: TrainingSettings = TrainingSettings()
    architecture: ArchitectureSettings = ArchitectureSettings()
    seed: int = Field(
        0, ge=0, le=_LARGEST_SEED, description="Decides initial weights, batch order and newly drawn folds."
    )
    search: int = Field(
        0,
        ge=0,
        description="Trials of a search for every neural model's settings on the inner validation patients of each "
        "fold; 0 takes the settings as they are.",
    )
    device: str = Field(
        AUTO,
        pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$",
        description="Where networks are trained and predict, see `chosen_device`.",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, values: Any) -> Any:
        """Takes the device from the settings of training, among which it was."""
        training = values.get("training") if isinstance(values, dict) else None
        if not isinstance(training, dict) or "accelerator" not in training:
            return values
        others = {name: value for name, value in training.items() if name != "accelerator"}
        device = {"gpu": "cuda"}.get(training["accelerator"], training["accelerator"])
        return {"device": device, **values, "training": others}

    def with_seed(self, seed: int) -> "TrainingPlan":
        """Returns the plan with another seed."""
        return self.model_validate({**dict(self), "seed": seed})

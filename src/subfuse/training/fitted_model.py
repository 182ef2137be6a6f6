"""A trained model with everything fitted beside its weights: what prediction on new patients needs."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from subfuse import __version__
from subfuse.cohort.bags import BagReader, InputStandardiser
from subfuse.cohort.batches import BagBatch, BinnedReader, KeptBags, draw_batches
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.covariates import CovariateCoding
from subfuse.cohort.task import TaskSpec
from subfuse.devices import deterministic
from subfuse.expression.gene_names import MatchedGenes, gene_aliases, match_genes
from subfuse.expression.units import ShareBasis, renormalise
from subfuse.files import atomic_path, sha256_of_file, write_sealed_json
from subfuse.model.linear_path import networks_of, with_line, with_network
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.objective import Objective
from subfuse.run_folder.names import MODEL, WEIGHTS
from subfuse.training.models import SLIDES, ModelRecipe
from subfuse.training.seen.expression_effect import ExpressionEffect
from subfuse.training.seen.inputs import SeenInputs

SEEN = "seen."  # before the names of arrays of `SeenInputs` in the weights
EFFECT = "effect."  # of `ExpressionEffect`
_PREDICTION_BATCH = 8
_Inputs = TypeVar("_Inputs", np.ndarray, Tensor)


@dataclass(frozen=True)
class FittedModel:
    """A trained model, its objective and its input standardisation."""

    task: str
    task_spec: TaskSpec
    recipe: ModelRecipe
    model: nn.Module
    objective: Objective
    standardiser: InputStandardiser
    baseline_logits: Float[Tensor, "subspace output"]  # mean over training patients: what is said of an unknown patient
    genes: tuple[str, ...]  # measured ones that the model reads; its covariates are in `standardiser`
    expression_unit: str | None  # None: trained without expression, perhaps with covariates
    encoder: str | None
    encoder_sha256: str | None
    patch_um: tuple[float, float] | None = None  # sides of training's narrowest and widest patches; None: unknown
    expression_basis: ShareBasis | None = None  # genes below the sums of training's shares; None: unknown or no shares
    seen: SeenInputs | None = None  # None: too few training patients, or a model of an earlier version
    effect: ExpressionEffect | None = None  # None: reads not both, or too few validation patients with both
    details: Mapping[str, Any] = field(default_factory=dict)  # seed, split hash, settings, chosen epoch ...

    @property
    def device(self) -> torch.device:
        """Where the model computes; everything else, and what `predict` returns, is on the processor."""
        return next(self.model.parameters()).device

    def to(self, device: str | torch.device) -> "FittedModel":
        """Returns the same with its model moved, in place, to a device."""
        self.model.to(device)
        return self

    @property
    def subspaces(self) -> tuple[str, ...]:
        """Names of the model's subspaces; most baselines are one subspace named `all`."""
        return self.recipe.subspaces

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariates that the model reads."""
        return () if self.standardiser.covariates is None else self.standardiser.covariates.names

    def of_genes(self, values: _Inputs) -> _Inputs:
        """Returns the genes' part of values whose last axis is the model's inputs: genes, then covariates."""
        return values[..., : len(self.genes)]

    def usable(self, patient: Patient) -> bool:
        """True if the patient has at least one modality that this model was trained with."""
        return self.standardiser.reads(patient, self.recipe.modalities)

    def batches(self, patients: Sequence[Patient], *, batch_size: int = _PREDICTION_BATCH) -> Iterator[BagBatch]:
        """Yields batches without targets, standardised as in training, on the model's device."""
        return self._drawn(BagReader(self.standardiser), patients, batch_size)

    def _drawn(
        self, reader: BagReader | BinnedReader, patients: Sequence[Patient], batch_size: int
    ) -> Iterator[BagBatch]:
        drawn = draw_batches(patients, reader, batch_size=batch_size, n_inputs=self.recipe.n_inputs)
        return (batch.to(self.device) for batch in drawn)

    def predict(
        self,
        patients: Sequence[Patient],
        *,
        line: Float[Tensor, "patient output"] | None = None,
        kept: KeptBags | None = None,
    ) -> pd.DataFrame:
        """Returns one row per patient: risk, survival, probabilities or number, and contributions of the subspaces.

        Columns are those of `predictions.csv`. A patient without any modality that the model uses has NaN
        throughout, never a default. `contribution_<subspace>` is the subspace's share of the mean hazard logit
        (survival), of the predicted class's logit relative to the mean over classes, or of the distance of a predicted
        number from the training mean; the shares of a patient add up to that quantity.

        Args:
            patients: Any, on the model's gene axis.
            line: What the linear path says of each usable patient, in their order, instead of what it would.
            kept: Bags that training kept of some of them, which are not read again.
        """
        return self.predict_with_logits(patients, line=line, kept=kept)[0]

    def predict_with_logits(
        self,
        patients: Sequence[Patient],
        *,
        line: Float[Tensor, "patient output"] | None = None,
        kept: KeptBags | None = None,
    ) -> tuple[pd.DataFrame, Float[np.ndarray, "patient output"]]:
        """Returns what `predict` does, and the logits behind it; NaN of patients who are not usable."""
        places = [i for i, patient in enumerate(patients) if self.usable(patient)]
        usable = [patients[i] for i in places]
        if line is not None and len(line) != len(usable):
            raise ValueError(f"line must have a row for each usable patient, {len(usable)}. Found {len(line)}.")
        told = iter(() if line is None else line.split(_PREDICTION_BATCH))
        self.model.eval()
        tables, outputs = [], []
        with torch.inference_mode(), self._deterministic():
            for batch in self._batches(usable, kept):
                output = self.model(**batch.inputs()).cpu()
                output = output if line is None else with_line(output, next(told))
                tables.append(self._table(batch, output))
                outputs.append(output.logits)
        logits = np.full((len(patients), self.recipe.n_outputs), np.nan)
        if outputs:
            logits[places] = torch.cat(outputs).double().numpy()
        predicted = pd.concat(tables) if tables else pd.DataFrame(columns=["patient_id", *self.prediction_columns()])
        everyone = pd.DataFrame({"patient_id": [patient.patient_id for patient in patients]})
        everyone["has_slides"] = [bool(p.slides) and self.standardiser.patches is not None for p in patients]
        knows_expression = self.standardiser.expression is not None or self.recipe.modalities == SLIDES
        everyone["has_expression"] = [p.expression is not None and knows_expression for p in patients]
        predicted = predicted.set_index("patient_id").reindex(everyone["patient_id"]).astype(float)
        return everyone.join(predicted.reset_index(drop=True)), logits

    def predict_networks(self, patients: Sequence[Patient]) -> list[pd.DataFrame]:
        """Returns what `predict` would say of usable patients with each network of the ensemble alone."""
        alone = [with_network(self.model, network).eval() for network in networks_of(self.model)]
        tables: list[list[pd.DataFrame]] = [[] for _ in alone]
        with torch.inference_mode(), self._deterministic():
            for batch in self._batches(patients, None):
                for model, found in zip(alone, tables, strict=True):
                    found.append(self._table(batch, model(**batch.inputs()).cpu()))
        return [pd.concat(found, ignore_index=True) for found in tables]

    def _deterministic(self) -> AbstractContextManager[None]:
        """Returns what lets the model predict as it was trained: the same in every run where that was asked for."""
        return deterministic(self.details.get("training", {}).get("deterministic", False))

    def _batches(self, patients: Sequence[Patient], kept: KeptBags | None) -> Iterator[BagBatch]:
        """Yields batches as `batches` does, of cells instead of patches where the model sees no more."""
        if not self.recipe.is_binned:
            return self.batches(patients)
        return self._drawn(
            BinnedReader(BagReader(self.standardiser), self.recipe.grid, kept), patients, _PREDICTION_BATCH
        )

    def embeddings(self, patients: Sequence[Patient]) -> Float[np.ndarray, "patient column"]:
        """Returns what the head sees of usable patients, subspace after subspace; of an ensemble, the mean."""
        self.model.eval()
        with torch.inference_mode():
            found = [self.model(**batch.inputs()).embedding for batch in self.batches(patients)]
        return torch.cat(found).flatten(1).double().cpu().numpy() if found else np.empty((0, 0))

    def expected_change(
        self, patients: Sequence[Patient], logits: Float[np.ndarray, "patient output"]
    ) -> Float[np.ndarray, " patient"]:
        """Returns how much expression would change the predictions of usable patients; see `ExpressionEffect`.

        NaN of those who have expression or no slides, and where that is not known of the model.

        Args:
            patients: Usable ones.
            logits: Theirs.
        """
        found = np.full(len(patients), np.nan)
        places = [i for i, patient in enumerate(patients) if patient.slides and patient.expression is None]
        if self.effect is not None and places:
            found[places] = self.effect.expected_change(self.objective, logits[places])
        return found

    def prediction_columns(self) -> list[str]:
        """Returns the numeric columns that `predict` writes for this task."""
        return self.objective.columns + [f"contribution_{name}" for name in self.subspaces]

    def _table(self, batch: BagBatch, output: SubspaceFusionOutput) -> pd.DataFrame:
        prediction = self.objective.predict(output.logits)
        weights = self.objective.score_weights(output.logits)
        shares = torch.einsum("bso,bo->bs", output.subspace_logits, weights)
        single = (None if found is None else found[:, None] for found in (prediction.risk, prediction.value))
        known = (prediction.probabilities, *single, prediction.survival, shares)
        values = [part for part in known if part is not None]
        table = pd.DataFrame(torch.cat(values, dim=1).double().cpu().numpy(), columns=self.prediction_columns())
        table.insert(0, "patient_id", list(batch.patient_id))
        return table

    def unlike(self, patients: Sequence[Patient]) -> list[list[str]]:
        """Returns by what patients, on the model's gene axis, are unlike those of training, see `SeenInputs`."""
        return [[] for _ in patients] if self.seen is None else self.seen.unlike(patients, self.standardiser)

    def align(self, cohort: Cohort) -> Cohort:
        """Returns the cohort with expression on this model's gene axis; see `subfuse.runs.compatibility`."""
        if not cohort.genes:
            return cohort
        if self.sums_over_axis and cohort.expression_basis != self.expression_basis:
            cohort = self._renormalised(cohort)
        if cohort.genes == self.genes:
            return cohort
        position = {gene: i for i, gene in enumerate(cohort.genes)}
        names = self.find_genes(cohort).names
        order = [position[names[gene]] for gene in self.genes]
        patients = tuple(
            patient if patient.expression is None else replace(patient, expression=patient.expression[order])
            for patient in cohort
        )
        return replace(cohort, patients=patients, genes=self.genes)

    @property
    def sums_over_axis(self) -> bool:
        """True where training's shares are those of the model's genes: new ones can be made so from any others."""
        return self.expression_basis is not None and self.expression_basis == ShareBasis.of(self.genes)

    def _renormalised(self, cohort: Cohort) -> Cohort:
        """Returns the cohort with shares over the model's measured genes."""
        names = self.find_genes(cohort).names
        position = {gene: i for i, gene in enumerate(cohort.genes)}
        columns = [position[names[gene]] for gene in self.genes]

        def renormalised(values: np.ndarray) -> np.ndarray:
            values = values.copy()
            values[columns] = renormalise(values[None, columns])[0]
            return values

        patients = tuple(
            patient
            if patient.expression is None or np.isnan(patient.expression[columns]).any()
            else replace(patient, expression=renormalised(patient.expression))
            for patient in cohort
        )
        return replace(cohort, patients=patients, expression_basis=self.expression_basis)

    def find_genes(self, cohort: Cohort) -> MatchedGenes:
        """Returns where the model's genes are in a cohort."""
        return match_genes(self.genes, cohort.genes, {**gene_aliases(), **cohort.gene_aliases})

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `model.json`, each atomically; `load_fitted` reads and checks them."""
        from safetensors.torch import save_file

        with atomic_path(folder / WEIGHTS) as temporary:
            save_file(self._tensors(), temporary)
        weights_sha256 = sha256_of_file(folder / WEIGHTS)
        write_sealed_json(folder / MODEL, {"weights_sha256": weights_sha256, **self.describe()})

    def arrays_sha256(self) -> str:
        """Returns the hexadecimal SHA-256 of weights and standardisation, which `describe` does not tell."""
        digest = hashlib.sha256()
        for name, value in sorted(self._tensors().items()):
            digest.update(name.encode())
            digest.update(value.detach().numpy().tobytes())
        return digest.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        """All arrays, by name."""
        tensors = {f"model.{name}": value.cpu().contiguous() for name, value in self.model.state_dict().items()}
        for name, value in _standardiser_arrays(self.standardiser).items():
            tensors[f"inputs.{name}"] = torch.from_numpy(value)
        for name, value in ({} if self.seen is None else self.seen.arrays()).items():
            tensors[f"{SEEN}{name}"] = torch.from_numpy(value).contiguous()
        for name, value in ({} if self.effect is None else self.effect.arrays()).items():
            tensors[f"{EFFECT}{name}"] = torch.from_numpy(value).contiguous()
        return {**tensors, "baseline_logits": self.baseline_logits.contiguous()}

    def describe(self) -> dict[str, Any]:
        """Returns everything but the weights, as JSON."""
        scaler = self.standardiser.expression
        return {
            "subfuse_version": __version__,
            "task": self.task,
            "task_spec": self.task_spec.model_dump(mode="json"),
            "recipe": self.recipe.model_dump(mode="json"),
            "objective": self.objective.to_dict(),
            "genes": list(self.genes),
            "gene_mean": None if scaler is None else [float(f"{value:.6g}") for value in scaler.mean],
            "gene_scale": None if scaler is None else [float(f"{value:.6g}") for value in scaler.scale],
            "covariates": _describe_covariates(self.standardiser.covariates),
            "expression_unit": self.expression_unit,
            "expression_basis": None if self.expression_basis is None else asdict(self.expression_basis),
            "encoder": self.encoder,
            "encoder_sha256": self.encoder_sha256,
            "patch_um": self.patch_um,
            "details": dict(self.details),
        }


def _standardiser_arrays(standardiser: InputStandardiser) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    if standardiser.patches is not None:
        arrays |= {"patch_mean": standardiser.patches.mean, "patch_scale": standardiser.patches.scale}
    if standardiser.expression is not None:
        arrays |= {"gene_mean": standardiser.expression.mean, "gene_scale": standardiser.expression.scale}
    if standardiser.covariates is not None:
        scaler = standardiser.covariates.scaler
        arrays |= {"covariate_mean": scaler.mean, "covariate_scale": scaler.scale}
    return arrays


def _describe_covariates(coding: CovariateCoding | None) -> list[dict[str, Any]]:
    if coding is None:
        return []
    scaled = zip(coding.names, coding.scaler.mean, coding.scaler.scale, strict=True)
    return [
        {
            "name": name,
            "levels": list(coding.levels[name]),
            "mean": float(f"{mean:.6g}"),
            "scale": float(f"{scale:.6g}"),
        }
        for name, mean, scale in scaled
    ]

"""A trained model with everything fitted beside its weights: what prediction on new patients needs."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from subfuse import __version__
from subfuse.cohort.bags import BagReader, InputStandardiser
from subfuse.cohort.batches import BagBatch, draw_batches
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.covariates import CovariateCoding, check_values, column_of
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError, preview
from subfuse.expression.gene_names import MatchedGenes, case_hint, gene_aliases, match_genes
from subfuse.expression.table import FAR
from subfuse.expression.units import ShareBasis, renormalise, units_of
from subfuse.features.store import read_sample
from subfuse.files import atomic_path, sha256_of_file, write_sealed_json
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.objective import Objective
from subfuse.slides.patch_width import beyond_training
from subfuse.training.models import BATCH, SITE, ModelRecipe

PREDICTION_BATCH = 8
_PATCHES_COMPARED, _LEAST_COMPARED = 64, 10  # of a slide, whose scale is compared with that of training
CLOSE_BASIS = 0.05  # of the number of genes: data releases differ by less, and by genes that hardly count


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
    details: Mapping[str, Any] = field(default_factory=dict)  # seed, split hash, settings, chosen epoch ...

    @property
    def subspaces(self) -> tuple[str, ...]:
        """Names of the model's subspaces; most baselines are one subspace named `all`."""
        return self.recipe.subspaces

    @property
    def covariates(self) -> tuple[str, ...]:
        """Names of the covariates that the model reads."""
        return () if self.standardiser.covariates is None else self.standardiser.covariates.names

    def usable(self, patient: Patient) -> bool:
        """True if the patient has at least one modality that this model was trained with."""
        standardiser, uses = self.standardiser, self.recipe.modalities
        has_slides = bool(patient.slides) and standardiser.patch_mean is not None
        return (has_slides and "slides" in uses) or (uses != {"slides"} and standardiser.has_profile(patient))

    def batches(self, patients: Sequence[Patient], *, batch_size: int = PREDICTION_BATCH) -> Iterator[BagBatch]:
        """Yields batches without targets, standardised as in training."""
        reader = BagReader(self.standardiser)
        return draw_batches(patients, reader, batch_size=batch_size, n_genes=self.recipe.n_inputs)

    def predict(self, patients: Sequence[Patient]) -> pd.DataFrame:
        """Returns one row per patient: risk, survival, class probabilities and contributions of the subspaces.

        Columns are those of `predictions.csv`. A patient without any modality that the model uses has NaN
        throughout, never a default. `contribution_<subspace>` is the subspace's share of the mean hazard logit
        (survival) or of the predicted class's logit relative to the mean over classes; the shares of a patient add up
        to that quantity.
        """
        usable = [patient for patient in patients if self.usable(patient)]
        device = next(self.model.parameters()).device
        self.model.eval()
        tables = []
        with torch.inference_mode():
            for batch in self.batches(usable):
                output = self.model(**batch.to(device).inputs())
                tables.append(self._table(batch, output))
        predicted = pd.concat(tables) if tables else pd.DataFrame(columns=["patient_id", *self.prediction_columns()])
        everyone = pd.DataFrame({"patient_id": [patient.patient_id for patient in patients]})
        everyone["has_slides"] = [bool(p.slides) and self.standardiser.patch_mean is not None for p in patients]
        everyone["has_expression"] = [
            p.expression is not None and self.standardiser.expression is not None for p in patients
        ]
        predicted = predicted.set_index("patient_id").reindex(everyone["patient_id"]).astype(float)
        return everyone.join(predicted.reset_index(drop=True))

    def prediction_columns(self) -> list[str]:
        """Returns the numeric columns that `predict` writes for this task."""
        return self.objective.columns + [f"contribution_{name}" for name in self.subspaces]

    def _table(self, batch: BagBatch, output: SubspaceFusionOutput) -> pd.DataFrame:
        prediction = self.objective.predict(output.logits)
        weights = self.objective.score_weights(output.logits)
        shares = torch.einsum("bso,bo->bs", output.subspace_logits, weights)
        risk = None if prediction.risk is None else prediction.risk[:, None]
        known = (prediction.probabilities, risk, prediction.survival, shares)
        values = [part for part in known if part is not None]
        table = pd.DataFrame(torch.cat(values, dim=1).double().cpu().numpy(), columns=self.prediction_columns())
        table.insert(0, "patient_id", list(batch.patient_id))
        return table

    def check_compatible(self, cohort: Cohort) -> list[str]:
        """Raises a DataError where a cohort cannot be predicted; returns notes on what is ignored or unknown.

        Genes are matched by name, whatever their order, and by the approved symbol behind an earlier one (`align`).
        """
        notes: list[str] = []
        has_expression = any(patient.expression is not None for patient in cohort)
        if self.standardiser.expression is not None and has_expression:
            if self.expression_unit is not None and cohort.expression_unit != self.expression_unit:
                raise DataError(
                    f"expression of cohort {cohort.name!r} must be on the scale of training, {self.expression_unit}. "
                    f"Found {cohort.expression_unit}. Prepare the cohort from data in a unit that becomes that scale "
                    f"({units_of(self.expression_unit)})."
                )
            notes += self._check_basis(cohort)
            found = self._find_genes(cohort)
            if found.missing:
                raise DataError(
                    f"expression of cohort {cohort.name!r} must have the {len(self.genes)} genes of training. "
                    f"Missing: {preview(found.missing)}.{case_hint(found.missing, cohort.genes)} Name "
                    "later symbols of these in expression.aliases of the cohort file, or train on the genes both share."
                )
            if found.renamed:
                pairs = preview([f"{gene} as {name}" for gene, name in found.renamed.items()])
                notes.append(f"{len(found.renamed)} genes of the model are in the cohort under another symbol: {pairs}")
            notes += self._range_notes(cohort)
        notes += self._covariate_notes(cohort)
        if not any(patient.slides for patient in cohort):
            return notes
        if "slides" not in self.recipe.modalities:
            return notes
        if self.standardiser.patch_mean is None:
            notes.append("no training patient had slides: slides are ignored")
        else:
            self._check_encoder(cohort)
            notes += self._width_notes(cohort) + self._feature_notes(cohort)
        return notes

    def _check_encoder(self, cohort: Cohort) -> None:
        """Refuses features of another encoder, or of other weights or another number under the same name."""
        scaler = self.standardiser
        if scaler.patch_mean is None or cohort.encoder_sha256 == self.encoder_sha256:
            return
        if cohort.encoder != self.encoder:
            problem = f"must be encoded by {self.encoder} as in training. Found {cohort.encoder}"
        elif cohort.patch_dim not in (None, len(scaler.patch_mean)):
            problem = f"must have {len(scaler.patch_mean)} features per patch as in training. Found {cohort.patch_dim}"
        else:
            problem = (
                f"must be encoded by the weights of {self.encoder} that training had. Found features that record "
                "other weights, or none"
            )
        raise DataError(
            f"slides of cohort {cohort.name!r} {problem}. Extract features as for the training patients (slides: "
            f"prepare with --encoder {self.encoder})."
        )

    def _width_notes(self, cohort: Cohort) -> list[str]:
        """Returns a note where patches show more or less tissue than in training, as with a wrong pixel size."""
        if self.patch_um is None:
            return []
        widths = {p.patient_id: [cohort.patch_um[s] for s in p.slides if s in cohort.patch_um] for p in cohort}
        other = {
            patient: found
            for patient, all_of in widths.items()
            if (found := [width for width in all_of if beyond_training(width, self.patch_um)])
        }
        if not other:
            return []
        found = sorted(width for its in other.values() for width in its)
        return [
            f"slides of cohort {cohort.name!r}: patches of {len(other)} of {sum(map(bool, widths.values()))} patients "
            f"({preview(other)}) are {_span(found[0], found[-1])} µm wide, those of training {_span(*self.patch_um)} "
            "µm. Features of another scale mislead the model. Correct mpp, or extract features as for the training "
            "patients."
        ]

    def _feature_notes(self, cohort: Cohort) -> list[str]:
        """Returns a note where features of slides have another scale than in training, as if normalised otherwise."""
        slides = {
            p.patient_id: [_scale_of(s, s.stat().st_mtime_ns if s.exists() else 0) for s in p.slides]
            for p in cohort
            if p.slides
        }
        far = [patient for patient, scales in slides.items() if any(self.standardiser.is_far(*s) for s in scales)]
        if not far:
            return []
        return [
            f"slides of cohort {cohort.name!r}: features of {len(far)} of {len(slides)} patients ({preview(far)}) have "
            "another scale than those of training. Predictions from such values cannot be trusted. Extract features "
            "with the same weights and the same normalisation as for the training patients."
        ]

    def _range_notes(self, cohort: Cohort) -> list[str]:
        """Returns a note where most genes of a patient are far from all that training had, whatever the reason."""
        scaler = self.standardiser.expression
        assert scaler is not None
        measured = {p.patient_id: p.expression for p in self.align(cohort) if p.expression is not None}
        shares = {patient: scaler.far_genes(values) for patient, values in measured.items()}
        far = {patient: sides for patient, sides in shares.items() if sum(sides) > 0.5}
        if not far:
            return []
        above, below = np.mean(list(far.values()), axis=0)
        side = "above" if above > 2 * below else "below" if below > 2 * above else "away from"
        own, other = self.expression_basis, cohort.expression_basis
        cause = (
            f"These are shares of a million over {other.n_genes} genes, those of training over others: give all genes"
            if own is None and other is not None
            else "Another unit is likely: check the declared one"
        )
        return [
            f"expression of cohort {cohort.name!r}: most genes of {len(far)} of {len(measured)} patients "
            f"({preview(far)}) lie more than {FAR:g} standard deviations {side} the mean of training. Predictions from "
            f"such values cannot be trusted. {cause}, or give values that were made as for the training patients."
        ]

    def _covariate_notes(self, cohort: Cohort) -> list[str]:
        """Returns what is unknown of covariates; a DataError if one of the model's is not declared or no number."""
        if self.standardiser.covariates is None or self.recipe.modalities == {"slides"}:
            return []
        declared = {column_of(name) for name in cohort.covariates}
        trained = list(dict.fromkeys(map(column_of, self.covariates)))
        missing = [name for name in trained if name not in declared]
        if missing and not self.recipe.modalities <= SITE | BATCH:  # without which a patient is not predicted
            raise DataError(
                f"cohort {cohort.name!r} must have the covariates of training, {preview(trained)}. Missing: "
                f"{preview(missing)}. Map these columns in patients.columns, name them under covariates of the cohort "
                "file, and prepare it again; empty cells are taken as those of an average training patient."
            )
        try:
            check_values(self.covariates, {patient.patient_id: patient.columns for patient in cohort})
        except DataError as error:
            raise DataError(f"cohort {cohort.name!r}, {error} Then prepare it again.") from None
        return self.standardiser.covariates.notes([patient.columns for patient in cohort])

    def align(self, cohort: Cohort) -> Cohort:
        """Returns the cohort with expression on this model's gene axis; see `check_compatible`."""
        if not cohort.genes:
            return cohort
        if self._sums_over_axis and cohort.expression_basis != self.expression_basis:
            cohort = self._renormalised(cohort)
        if cohort.genes == self.genes:
            return cohort
        position = {gene: i for i, gene in enumerate(cohort.genes)}
        names = self._find_genes(cohort).names
        order = [position[names[gene]] for gene in self.genes]
        patients = tuple(
            patient if patient.expression is None else replace(patient, expression=patient.expression[order])
            for patient in cohort
        )
        return replace(cohort, patients=patients, genes=self.genes)

    @property
    def _sums_over_axis(self) -> bool:
        """True where training's shares are those of the model's genes: new ones can be made so from any others."""
        return self.expression_basis is not None and self.expression_basis == ShareBasis.of(self.genes)

    def _check_basis(self, cohort: Cohort) -> list[str]:
        """Refuses shares over other genes than in training, where they cannot be made shares over the model's genes."""
        own, other = self.expression_basis, cohort.expression_basis
        if own is None or own == other:
            return []
        found = "a part of unknown genes" if other is None else f"{other.n_genes} genes"
        if self._sums_over_axis:
            return [
                f"expression of {cohort.name!r} has shares over {found}: taken as shares over the {own.n_genes} genes "
                "of training"
            ]
        close = other is not None and abs(other.n_genes - own.n_genes) <= CLOSE_BASIS * own.n_genes
        if other is not None and not close:
            raise DataError(
                f"expression of cohort {cohort.name!r} must be shares over the {own.n_genes} genes of training. Found "
                f"shares over {found}. Give a table of the same genes, or train on the genes that both have."
            )
        return [
            f"expression of {cohort.name!r} has shares over {found}, not exactly the {own.n_genes} genes of training"
        ]

    def _renormalised(self, cohort: Cohort) -> Cohort:
        """Returns the cohort with shares over the model's measured genes."""
        names = self._find_genes(cohort).names
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

    def _find_genes(self, cohort: Cohort) -> MatchedGenes:
        """Returns where the model's genes are in a cohort."""
        return match_genes(self.genes, cohort.genes, {**gene_aliases(), **cohort.gene_aliases})

    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `model.json`, each atomically; `load_fitted` reads and checks them."""
        from safetensors.torch import save_file

        with atomic_path(folder / "model.safetensors") as temporary:
            save_file(self._tensors(), temporary)
        weights_sha256 = sha256_of_file(folder / "model.safetensors")
        write_sealed_json(folder / "model.json", {"weights_sha256": weights_sha256, **self.describe()})

    def arrays_sha256(self) -> str:
        """Returns the hexadecimal SHA-256 of weights and standardisation, which `describe` does not tell."""
        digest = hashlib.sha256()
        for name, value in sorted(self._tensors().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        """All arrays, by name."""
        tensors = {f"model.{name}": value.contiguous() for name, value in self.model.state_dict().items()}
        for name, value in _standardiser_arrays(self.standardiser).items():
            tensors[f"inputs.{name}"] = torch.from_numpy(value)
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


@lru_cache(maxsize=4096)
def _scale_of(
    path: Path, modified_ns: int
) -> tuple[Float[np.ndarray, " feature"], Float[np.ndarray, " feature"] | None]:
    """Mean and spread of a slide's features over some patches, read once for all models of a run."""
    features = read_sample(path, _PATCHES_COMPARED).features.astype(np.float32)
    return features.mean(axis=0), features.std(axis=0) if len(features) >= _LEAST_COMPARED else None


def _span(least: float, most: float) -> str:
    low, high = f"{least:.0f}", f"{most:.0f}"
    return low if low == high else f"{low} to {high}"


def _standardiser_arrays(standardiser: InputStandardiser) -> dict[str, np.ndarray]:
    arrays = {"patch_mean": standardiser.patch_mean, "patch_scale": standardiser.patch_scale}
    if standardiser.expression is not None:
        arrays |= {"gene_mean": standardiser.expression.mean, "gene_scale": standardiser.expression.scale}
    if standardiser.covariates is not None:
        scaler = standardiser.covariates.scaler
        arrays |= {"covariate_mean": scaler.mean, "covariate_scale": scaler.scale}
    return {name: value for name, value in arrays.items() if value is not None}


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

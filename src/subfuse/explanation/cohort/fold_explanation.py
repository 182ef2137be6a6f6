"""What the model of one fold relies on, patient by patient: the tables that are kept of it."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from subfuse import __version__
from subfuse.bounded_files import require_regular_file
from subfuse.cohort.cohort import Patient
from subfuse.cohort.fingerprint import fingerprint_of
from subfuse.devices import chosen_device
from subfuse.errors import DataError
from subfuse.execution import Attempts
from subfuse.explanation.attribution import Attribution
from subfuse.explanation.explained_score import (
    ExplainedScore,
    attribute_subspaces,
    explained_score,
    ledger_of,
    subspace_parts,
)
from subfuse.explanation.faithfulness import COLUMNS as FAITHFULNESS_COLUMNS
from subfuse.explanation.faithfulness import (
    CURVE_COLUMNS,
    faithfulness_curves,
    faithfulness_of,
)
from subfuse.explanation.projection import ProjectedModel, project_patches
from subfuse.files import sha256_of_file, sha256_of_json, write_json, write_table, write_text
from subfuse.run_folder.names import DONE, MODEL_TABLES, MODELS, PROVENANCE
from subfuse.training.fitted_model import FittedModel

logger = logging.getLogger(__name__)

SEED = 0  # of random orders, random weights and random outcomes
FAITHFULNESS_PATIENTS = 3  # of each model: every one costs as much as three that are only explained
TABLES = tuple(MODEL_TABLES)


@dataclass(frozen=True)
class FoldModel:
    """The model of one fold and the patients that it was tested on."""

    fold: str  # unique among the models of a cohort: `0`, or `1.0` for fold 0 of repeat 1
    fitted: FittedModel
    patients: tuple[Patient, ...]  # on the model's gene axis


def explain_model(tested: FoldModel, folder: Path, tolerance: float, device: str = "cpu") -> None:
    """Explains the patients of one model and writes the tables of `TABLES`, and last of all that they are complete.

    A patient who cannot be explained is left out with a warning, and the others go on. Such a model is not marked as
    complete, so that repeating the call tries it again.

    Args:
        tested: The model and its patients.
        folder: Where the tables are written.
        tolerance: Completeness gap at which integration stops; see `converged_gradients`.
        device: Where the model is explained, see `chosen_device`.

    Raises:
        DataError: None of the model's patients could be explained.
    """
    rows: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    start = time.monotonic()
    generator = np.random.default_rng([SEED, *map(ord, tested.fold)])
    usable = [patient for patient in tested.patients if tested.fitted.usable(patient)]
    scrutinised = set(generator.permutation(len(usable))[:FAITHFULNESS_PATIENTS].tolist())
    explained = _ExplainedModel.of(tested.fitted.to(chosen_device(device)))
    of_model = f"{tested.fitted.task}, model {tested.fold}"
    attempts = Attempts(
        on_failure=lambda who, reason: logger.warning("%s: %s not explained: %s", of_model, who, reason)
    )
    for index, patient in enumerate(usable):
        with attempts.attempt(f"patient {patient.patient_id}"):
            found = list(  # whole before it is kept: half an explanation would count the patient in some tables alone
                _explained_patient(explained, patient, generator, tolerance=tolerance, scrutinise=index in scrutinised)
            )
            for name, table in found:
                rows[name].append(table.assign(fold=tested.fold))
    if usable and not rows["contributions"]:
        attempts.raise_for_failures()
    (folder / DONE).unlink(missing_ok=True)  # of tables that were made from something else
    for name in TABLES:
        table = pd.concat(rows[name], ignore_index=True) if rows[name] else _empty(name)
        write_table(folder / MODEL_TABLES[name], table)
    write_json(folder / PROVENANCE, {"explaining_seconds": round(time.monotonic() - start, 2)})
    if attempts.table().empty:
        write_text(folder / DONE, "\n".join([_key(tested, tolerance), *_hashes(folder)]) + "\n")


def model_folder(tested: FoldModel, out: Path) -> Path:
    """Returns where the tables of one model are kept."""
    return out / tested.fitted.task / MODELS / tested.fold


def _key(tested: FoldModel, tolerance: float) -> str:
    """Returns what the tables of a model depend on."""
    fitted = tested.fitted
    inputs = fingerprint_of(tested.patients, modalities=fitted.recipe.modalities)
    model = [fitted.describe(), fitted.arrays_sha256()]
    return sha256_of_json([__version__, *model, inputs, tolerance, SEED, TABLES, FAITHFULNESS_PATIENTS])


def is_explained(tested: FoldModel, folder: Path, tolerance: float) -> bool:
    """Returns whether a folder holds the tables of this very model, of these patients, complete and as written."""
    try:
        require_regular_file(folder / DONE, "file")
        key, *hashes = (folder / DONE).read_text(encoding="utf-8").split() or [""]
        return key == _key(tested, tolerance) and hashes == _hashes(folder)
    except (OSError, UnicodeDecodeError, DataError):  # one of the files is absent or damaged: made again
        return False


def _hashes(folder: Path) -> list[str]:
    """Returns the SHA-256 of each table, in the order of `TABLES`."""
    return [sha256_of_file(folder / MODEL_TABLES[name]) for name in TABLES]


@dataclass(frozen=True)
class _ExplainedModel:
    """A trained model, and what is evaluated in its stead for all its patients."""

    fitted: FittedModel
    whole: ProjectedModel
    parts: Sequence[ProjectedModel]

    @classmethod
    def of(cls, fitted: FittedModel) -> "_ExplainedModel":
        return cls(fitted, project_patches(fitted.model, range(len(fitted.subspaces))), subspace_parts(fitted))


def _explained_patient(
    explained: _ExplainedModel, patient: Patient, generator: np.random.Generator, *, tolerance: float, scrutinise: bool
) -> Iterable[tuple[str, pd.DataFrame]]:
    fitted, model = explained.fitted, explained.whole.model
    batch = next(fitted.batches([patient]))
    projected = explained.whole.project(batch)
    score = explained_score(fitted, batch)
    attributions = attribute_subspaces(fitted, batch, score, tolerance=tolerance, parts=explained.parts)
    yield "contributions", ledger_of(fitted, model, projected, score).assign(explained=score.explained)
    gaps = {name: float(attribution.relative_gap) for name, attribution in attributions.items()}
    yield (
        "gaps",
        pd.DataFrame({"patient_id": patient.patient_id, "subspace": list(gaps), "relative_gap": gaps.values()}),
    )
    if batch.expression_mask[0] and "expression" in fitted.recipe.modalities:
        expression = batch.expression[0].double().cpu().numpy()
        with torch.inference_mode():
            shares = score.of_subspaces(model(**projected.inputs()))[0].tolist()
        rows = _gene_rows(fitted, patient, score, attributions, expression)
        yield "genes", rows.assign(share=rows["subspace"].map(dict(zip(fitted.subspaces, shares, strict=True))))
    if scrutinise:
        curves = faithfulness_curves(model, projected, score, attributions, generator=generator)
        yield "curves", curves
        yield "faithfulness", faithfulness_of(fitted, batch, score, attributions, curves, generator=generator)


def _gene_rows(
    fitted: FittedModel,
    patient: Patient,
    score: ExplainedScore,
    attributions: Mapping[str, Attribution],
    expression: np.ndarray,
) -> pd.DataFrame:
    """One row per subspace and gene of it; most baselines see all genes in their one subspace."""
    tables = []
    for name, attribution in attributions.items():
        table = pd.DataFrame(
            {
                "patient_id": patient.patient_id,
                "explained": score.explained,
                "subspace": name,
                "gene": fitted.genes,
                "expression": fitted.of_genes(expression),
                "attribution": fitted.of_genes(attribution.gene[0]).double().cpu().numpy(),
            }
        )
        places = fitted.recipe.gene_sets.get(name)
        tables.append(table if places is None else table.iloc[list(places)])
    return pd.concat(tables, ignore_index=True)


def _empty(name: str) -> pd.DataFrame:
    columns = {
        "genes": ["patient_id", "explained", "subspace", "gene", "expression", "attribution", "share", "fold"],
        "contributions": ["patient_id", "subspace", "modality", "contribution", "explained", "fold"],
        "gaps": ["patient_id", "subspace", "relative_gap", "fold"],
        "faithfulness": list(FAITHFULNESS_COLUMNS),
        "curves": list(CURVE_COLUMNS),
    }
    return pd.DataFrame(columns=columns[name])

"""The explanations of a run: where they lie, and how they are read."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from subfuse.files import read_json
from subfuse.run_folder import names
from subfuse.run_folder.tables import read_optional

FAILED_EXPLANATIONS = Path(names.EXPLANATIONS, names.FAILURES)  # what, reason: what could not be explained
_OF_GENES = (names.GENES, names.GENE_VALUES, names.GENE_STABILITY, names.ENRICHMENT)  # all, or none without genes


@dataclass(frozen=True)
class Explanation:
    """One explained prediction: the content of `explanation.json` with the tables beside it."""

    folder: Path
    content: Mapping[str, Any]
    ledger: pd.DataFrame  # subspace, modality, contribution
    genes: pd.DataFrame  # gene, subspace, contribution

    @property
    def subspaces(self) -> list[str]:
        """Subspaces in the order of the ledger."""
        shares = self.ledger[self.ledger["modality"] != "baseline"]
        return list(dict.fromkeys([*shares["subspace"], *self.genes["subspace"].dropna()]))

    @property
    def score_name(self) -> str:
        """What is explained, for people: `the hazard`, or `the score of G4`."""
        return str(self.content.get("score_name", "the explained score"))

    def patches(self) -> pd.DataFrame:
        """Returns slide, place and scores of every patch; empty where no slide was read."""
        return read_optional(self.folder / names.PATCHES)

    def points(self) -> pd.DataFrame:
        """Returns where the deformable attention looked; empty for a model that has none."""
        return read_optional(self.folder / names.POINTS)


@dataclass(frozen=True)
class CohortExplanation:
    """What the models of one task rely on over all patients; a table that was not written is empty."""

    task: str
    genes: pd.DataFrame  # per subspace and gene: strength, direction, rank, stability
    values: pd.DataFrame  # per patient: expression and attribution of the top genes
    stability: pd.DataFrame  # per subspace: rank correlation between folds
    enrichment: pd.DataFrame | None  # None: not computed
    faithfulness: Mapping[str, Any]  # input, then measure, then mean with interval
    curves: pd.DataFrame  # per input, order and share replaced: change of the score, difference from random order
    summary: Mapping[str, Any]  # numbers of patients and models, shares, completeness gaps


def explanations_of(run: Path, model: str | None = None) -> Path:
    """Returns where a run's explanations are: those of a model that is not the main one apart from the others.

    Args:
        run: Run folder.
        model: The model; None: the main one, whose explanations report and viewer show.
    """
    return run / (names.EXPLANATIONS if model is None else f"{names.EXPLANATIONS}_{model}")


def explanation_name(patient_id: str) -> str:
    """Returns the name of the folder of a patient's explanations: the identifier where that is surely a file name.

    Example:
        >>> explanation_name("TCGA-02-0047"), explanation_name("../x")
        ('TCGA-02-0047', 'patient-d6b96a97d147daaa')
    """
    is_plain = patient_id.replace("-", "").replace("_", "").replace(".", "").isalnum() and patient_id[0] != "."
    is_taken = patient_id in (names.COHORT, names.FAILURES) or patient_id.startswith(f"{names.COHORT}-")
    if is_plain and not is_taken:
        return patient_id
    return f"patient-{hashlib.sha256(patient_id.encode()).hexdigest()[:16]}"


def explained(folder: Path) -> list[Path]:
    """Returns the folders of the explained predictions below a folder."""
    return [path.parent for path in sorted(folder.rglob(names.EXPLANATION))]


def explained_tasks(run: Path) -> list[Path]:
    """Returns the folders of what the main model relies on over a run's own cohort, one for each task."""
    return [path.parent for path in sorted((explanations_of(run) / names.COHORT).glob(f"*/{names.SUMMARY}"))]


def read_explained(folder: Path) -> Explanation:
    """Returns one explained prediction.

    Raises:
        DataError: A file is missing or damaged.
    """
    content = read_json(folder / names.EXPLANATION)
    return Explanation(
        folder=folder,
        content=content,
        ledger=pd.DataFrame(content.get("ledger", []), columns=["subspace", "modality", "contribution"]),
        genes=read_optional(folder / names.GENES).reindex(columns=["gene", "subspace", "contribution"]),
    )


def read_explained_task(folder: Path) -> CohortExplanation:
    """Returns what the models of the task of this folder's name rely on.

    Raises:
        DataError: A file is damaged.
    """
    enrichment, faithfulness = folder / names.ENRICHMENT, folder / names.FAITHFULNESS_SUMMARY
    return CohortExplanation(
        task=folder.name,
        genes=read_optional(folder / names.GENES),
        values=read_optional(folder / names.GENE_VALUES),
        stability=read_optional(folder / names.GENE_STABILITY),
        enrichment=read_optional(enrichment) if enrichment.exists() else None,
        faithfulness=read_json(faithfulness) if faithfulness.exists() else {},
        curves=read_optional(folder / names.FAITHFULNESS_CURVES),
        summary=read_json(folder / names.SUMMARY),
    )


def lost_of_explanations(run: Path) -> list[Path]:
    """Returns the files of explanations that are absent where those that are written beside them are there."""
    lost = [folder / names.GENES for folder in explained(explanations_of(run))]
    for folder in explained_tasks(run):
        of_genes = [folder / name for name in _OF_GENES]
        lost += [folder / names.FAITHFULNESS_SUMMARY, *(of_genes if any(path.exists() for path in of_genes) else ())]
    return [path for path in lost if not path.exists()]

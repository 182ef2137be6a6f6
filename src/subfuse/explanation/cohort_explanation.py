"""What the models of a cross-validation rely on, over all patients that they did not train on."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from subfuse.cohort.cohort import Patient
from subfuse.errors import ConfigurationError, DataError
from subfuse.execution import Progress
from subfuse.explanation.attribution import Attribution, contribution_ledger
from subfuse.explanation.cohort_genes import gene_summary, rank_stability, values_of_top_genes
from subfuse.explanation.enrichment import COLUMNS as ENRICHMENT_COLUMNS
from subfuse.explanation.enrichment import enrich
from subfuse.explanation.explained_score import RISK, ExplainedScore, attribute_subspaces, explained_score
from subfuse.explanation.faithfulness import COLUMNS as FAITHFULNESS_COLUMNS
from subfuse.explanation.faithfulness import (
    CURVE_COLUMNS,
    faithfulness_curves,
    faithfulness_of,
    faithfulness_summary,
    mean_curves,
)
from subfuse.files import read_table, sha256_of_json, write_json, write_table, write_text
from subfuse.training.fitted_model import FittedModel

logger = logging.getLogger(__name__)

TOLERANCE = 0.05  # relative gap: means over patients need less precision than one patient
FAITHFULNESS_PATIENTS = 5  # of each model: every one costs some hundred passes through it
TABLES = ("genes", "contributions", "gaps", "faithfulness", "curves")


@dataclass(frozen=True)
class FoldModel:
    """The model of one fold and the patients that it was tested on."""

    fold: str  # unique among the models of a cohort: `0`, or `1.0` for fold 0 of repeat 1
    fitted: FittedModel
    patients: tuple[Patient, ...]  # on the model's gene axis


def explain_cohort(
    models: Iterable[FoldModel],
    out: Path,
    *,
    gene_sets: Mapping[str, Sequence[str]],
    tolerance: float = TOLERANCE,
    seed: int = 0,
    progress: Progress | None = None,
    total: int = 0,
) -> Path:
    """Writes what the models of one task rely on; returns the folder.

    Every patient is explained by a model that did not train on it. Files:

    - `genes.csv`: `gene_summary`; `gene_values.csv`: per-patient expression and attribution of the top genes;
      `gene_stability.csv`: `rank_stability`.
    - `contributions.csv`: the ledger of every patient, subspace x modality.
    - `enrichment.csv`: gene sets among the genes, ranked by `strength` and, for survival, by `direction` (strength
      with the sign of the direction).
    - `faithfulness.csv` and `faithfulness.json`: `faithfulness_of` for some patients of each model, and its summary;
      `faithfulness_curves.csv`: `mean_curves` of the same patients.
    - `summary.json`: shares of subspaces and modalities, completeness gaps.

    Finished models are kept in `models/` and not explained again.

    Args:
        models: The models of one task.
        out: Folder to write to.
        gene_sets: Sets to look for among the ranked genes.
        tolerance: Completeness gap at which integration stops; see `converged_gradients`.
        seed: Of random orders, random weights and permutations.
        progress: Called after each model.
        total: Number of models, for the progress.

    Raises:
        DataError: No model has a patient to explain.
    """
    parts: list[dict[str, pd.DataFrame]] = []
    for done, tested in enumerate(models, start=1):
        parts.append(_explained_model(tested, out / "models" / tested.fold, tolerance=tolerance, seed=seed))
        if progress is not None:
            progress(done, total, f"explain: {out.name} · model {tested.fold}")
    tables = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in TABLES} if parts else {}
    if not tables or tables["contributions"].empty:
        raise DataError(f"{out}: a patient with the modalities of the model is required to explain it. Found none.")
    values, contributions, faithfulness = tables["genes"], tables["contributions"], tables["faithfulness"]
    if len(values):
        _write_genes(out, values, gene_sets, is_survival=bool((contributions["explained"] == RISK).all()), seed=seed)
    write_table(out / "contributions.csv", contributions)
    write_table(out / "faithfulness.csv", faithfulness)
    write_table(out / "faithfulness_curves.csv", mean_curves(tables["curves"]))
    generator = np.random.default_rng(seed)
    write_json(out / "faithfulness.json", faithfulness_summary(faithfulness, generator=generator))
    write_json(out / "summary.json", _summary(contributions, tables["gaps"]) | {"gap_tolerance": tolerance})
    return out


def modality_shares(contributions: pd.DataFrame) -> pd.DataFrame:
    """Returns subspace, modality, mean, mean_absolute and share: of the mean absolute contributions, 0 to 1.

    Args:
        contributions: Rows of `contributions.csv`. The baseline, which says nothing about a patient, has no share.
    """
    shares = contributions[contributions["modality"] != "baseline"]
    grouped = shares.assign(absolute=shares["contribution"].abs()).groupby(["subspace", "modality"], sort=False)
    table = grouped.agg(mean=("contribution", "mean"), mean_absolute=("absolute", "mean")).reset_index()
    total = table["mean_absolute"].sum()
    return table.assign(share=table["mean_absolute"] / total if total > 0 else np.nan)


def _explained_model(tested: FoldModel, folder: Path, *, tolerance: float, seed: int) -> dict[str, pd.DataFrame]:
    """Explains the patients of one model, or reads what was written when that was done before."""
    identifiers = [patient.patient_id for patient in tested.patients]
    key = sha256_of_json([tested.fitted.describe(), identifiers, tolerance, seed, TABLES])
    marker = folder / "done.txt"
    if marker.exists() and marker.read_text(encoding="utf-8").strip() == key:
        return {name: read_table(folder / f"{name}.csv", text=["fold"]) for name in TABLES}
    rows: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    generator = np.random.default_rng([seed, *map(ord, tested.fold)])
    usable = [patient for patient in tested.patients if tested.fitted.usable(patient)]
    scrutinised = set(generator.permutation(len(usable))[:FAITHFULNESS_PATIENTS].tolist())
    for index, patient in enumerate(usable):
        explained = _explained_patient(
            tested.fitted, patient, generator, tolerance=tolerance, scrutinise=index in scrutinised
        )
        for name, table in explained:
            rows[name].append(table.assign(fold=tested.fold))
    found = {name: pd.concat(rows[name], ignore_index=True) if rows[name] else _empty(name) for name in TABLES}
    for name, table in found.items():
        write_table(folder / f"{name}.csv", table)
    write_text(marker, key + "\n")
    return found


def _explained_patient(
    fitted: FittedModel, patient: Patient, generator: np.random.Generator, *, tolerance: float, scrutinise: bool
) -> Iterable[tuple[str, pd.DataFrame]]:
    batch = next(fitted.batches([patient]))
    score = explained_score(fitted, batch)
    attributions = attribute_subspaces(fitted, batch, score, tolerance=tolerance)
    ledger = contribution_ledger(
        fitted.model,
        batch,
        score.of_logits,
        baseline=fitted.baseline_logits,
        subspaces=fitted.subspaces,
        modalities=fitted.recipe.modalities,
    )
    yield "contributions", ledger.assign(explained=score.explained)
    gaps = {name: float(attribution.relative_gap) for name, attribution in attributions.items()}
    yield (
        "gaps",
        pd.DataFrame({"patient_id": patient.patient_id, "subspace": list(gaps), "relative_gap": gaps.values()}),
    )
    if batch.expression_mask[0] and "expression" in fitted.recipe.modalities:
        expression = batch.expression[0].double().numpy()
        with torch.inference_mode():
            shares = score.of_subspaces(fitted.model(**batch.inputs()))[0].tolist()
        rows = _gene_rows(fitted, patient, score, attributions, expression)
        yield "genes", rows.assign(share=rows["subspace"].map(dict(zip(fitted.subspaces, shares, strict=True))))
    if scrutinise:
        curves = faithfulness_curves(fitted.model, batch, score, attributions, generator=generator)
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
        places = list(fitted.recipe.gene_sets.get(name, range(len(fitted.genes))))
        tables.append(
            pd.DataFrame(
                {
                    "patient_id": patient.patient_id,
                    "explained": score.explained,
                    "subspace": name,
                    "gene": [fitted.genes[place] for place in places],
                    "expression": expression[places],
                    "attribution": attribution.gene[0].double().numpy()[places],
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _write_genes(
    out: Path, values: pd.DataFrame, gene_sets: Mapping[str, Sequence[str]], *, is_survival: bool, seed: int
) -> None:
    summary = gene_summary(values)
    write_table(out / "genes.csv", summary)
    write_table(out / "gene_values.csv", values_of_top_genes(values, summary))
    write_table(out / "gene_stability.csv", rank_stability(values))
    strength = summary.groupby("gene", sort=False)["mean_absolute"].sum()
    rankings = {"strength": strength}
    if is_survival:  # the explained class changes from patient to patient: a direction would mix them
        signed = summary.assign(signed=summary["mean_absolute"] * np.sign(summary["direction"].fillna(0)))
        rankings["direction"] = signed.groupby("gene", sort=False)["signed"].sum()
    try:
        found = [enrich(ranking, gene_sets, name=name, seed=seed) for name, ranking in rankings.items()]
    except ConfigurationError as error:
        logger.warning("no enrichment.csv: %s", error)
        return
    filled = [table for table in found if len(table)]
    write_table(out / "enrichment.csv", pd.concat(filled) if filled else pd.DataFrame(columns=list(ENRICHMENT_COLUMNS)))


def _summary(contributions: pd.DataFrame, gaps: pd.DataFrame) -> dict[str, object]:
    table = modality_shares(contributions)
    shares = [
        {name: None if value != value else value for name, value in row.items()} for row in table.to_dict("records")
    ]
    gap = gaps["relative_gap"].replace(np.inf, np.nan).dropna()
    return {
        "n_patients": int(contributions["patient_id"].nunique()),
        "n_models": int(contributions["fold"].nunique()),
        "explained": contributions.drop_duplicates(["patient_id", "fold"])["explained"].value_counts().to_dict(),
        "shares": shares,
        "relative_gap": {"median": float(gap.median()), "largest": float(gap.max())} if len(gap) else None,
    }


def _empty(name: str) -> pd.DataFrame:
    columns = {
        "genes": ["patient_id", "explained", "subspace", "gene", "expression", "attribution", "share", "fold"],
        "contributions": ["patient_id", "subspace", "modality", "contribution", "explained", "fold"],
        "gaps": ["patient_id", "subspace", "relative_gap", "fold"],
        "faithfulness": list(FAITHFULNESS_COLUMNS),
        "curves": list(CURVE_COLUMNS),
    }
    return pd.DataFrame(columns=columns[name])

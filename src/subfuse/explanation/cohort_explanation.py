"""What the models of a cross-validation rely on, over all patients that they did not train on."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from subfuse import __version__
from subfuse.cohort.cohort import Patient
from subfuse.cohort.fingerprint import fingerprint_of
from subfuse.errors import DataError
from subfuse.execution import Attempts, Progress, run_jobs, with_time_left
from subfuse.explanation.attribution import Attribution, contribution_ledger
from subfuse.explanation.cohort_genes import gene_summary, rank_stability, values_of_top_genes
from subfuse.explanation.enrichment import enrich_subspaces
from subfuse.explanation.explained_score import (
    RISK,
    ExplainedScore,
    attribute_subspaces,
    explained_score,
    score_name,
    subspace_parts,
)
from subfuse.explanation.faithfulness import COLUMNS as FAITHFULNESS_COLUMNS
from subfuse.explanation.faithfulness import (
    CURVE_COLUMNS,
    faithfulness_curves,
    faithfulness_of,
    faithfulness_summary,
    mean_curves,
)
from subfuse.explanation.projection import ProjectedModel, project_patches
from subfuse.files import read_table, sha256_of_json, write_json, write_table, write_text
from subfuse.training.fitted_model import FittedModel

logger = logging.getLogger(__name__)

TOLERANCE = 0.05  # relative gap: means over patients need less precision than one patient
_SEED = 0  # of random orders, random weights and random outcomes
FAITHFULNESS_PATIENTS = 3  # of each model: every one costs as much as three that are only explained
TABLES = ("genes", "contributions", "gaps", "faithfulness", "curves")


@dataclass(frozen=True)
class FoldModel:
    """The model of one fold and the patients that it was tested on."""

    fold: str  # unique among the models of a cohort: `0`, or `1.0` for fold 0 of repeat 1
    fitted: FittedModel
    patients: tuple[Patient, ...]  # on the model's gene axis


def explain_cohort(
    models: Sequence[FoldModel],
    out: Path,
    *,
    gene_sets: Mapping[str, Sequence[str]],
    tolerance: float = TOLERANCE,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes what the models of each task rely on into `out/<task>`; returns `out`.

    Every patient is explained by a model that did not train on it. Files of a task:

    - `genes.csv`: `gene_summary`; `gene_values.csv`: per-patient expression and attribution of the top genes;
      `gene_stability.csv`: `rank_stability`.
    - `contributions.csv`: the ledger of every patient, subspace x modality.
    - `enrichment.csv`: `enrich_subspaces` of the genes, ranked by `strength` and, for survival, by `direction`
      (strength with the sign of the direction).
    - `faithfulness.csv` and `faithfulness.json`: `faithfulness_of` for some patients of each model, and its summary;
      `faithfulness_curves.csv`: `mean_curves` of the same patients.
    - `summary.json`: shares of subspaces and modalities, completeness gaps.

    Models are independent jobs. Finished ones are kept in `models/` and not explained again.

    Args:
        models: The models of one task or several.
        out: Folder to write to.
        gene_sets: Sets to look for among the ranked genes.
        tolerance: Completeness gap at which integration stops; see `converged_gradients`.
        workers: Local processes.
        scheduler: Address of a running Dask scheduler, instead of local processes.
        progress: Called after each model.

    Raises:
        DataError: There is no model, or a task has no patient to explain or could not be explained. Other tasks are
            written all the same.
    """
    if not models:
        raise DataError(f"{out}: a model is required to explain a cohort. Found none.")
    jobs = [(tested, model_folder(tested, out), tolerance) for tested in models]
    open_jobs = [job for job in jobs if not _is_explained(*job)]
    done = len(jobs) - len(open_jobs)
    report = None if progress is None else with_time_left(progress, done=done)
    attempts = Attempts()
    failed: set[str] = set()
    for index, outcome in run_jobs(_explain_model, open_jobs, workers=workers, scheduler=scheduler):
        tested, done = open_jobs[index][0], done + 1
        if isinstance(outcome, Exception):
            attempts.failed(f"{tested.fitted.task}, model {tested.fold}", outcome)
            failed.add(tested.fitted.task)
        if report is not None:
            report(done, len(jobs), f"explain: {tested.fitted.task} · model {tested.fold}")
    by_task: dict[str, list[FoldModel]] = {}
    for tested in models:
        by_task.setdefault(tested.fitted.task, []).append(tested)
    for task, of_task in by_task.items():
        if task in failed:
            continue
        with attempts.attempt(task):
            _write_task(of_task, out / task, out, gene_sets=gene_sets, tolerance=tolerance)
    attempts.raise_for_failures()
    return out


def _write_task(
    models: Sequence[FoldModel],
    folder: Path,
    out: Path,
    *,
    gene_sets: Mapping[str, Sequence[str]],
    tolerance: float,
) -> None:
    """Writes the tables of one task from those of its models."""
    parts = [
        {name: read_table(model_folder(tested, out) / f"{name}.csv", text=["fold"], exact=True) for name in TABLES}
        for tested in models
    ]
    tables = {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in TABLES}
    if tables["contributions"].empty:
        raise DataError(f"{folder}: a patient with the modalities of the model is required to explain it. Found none.")
    (folder / "summary.json").unlink(missing_ok=True)  # it marks the folder complete
    values, contributions, faithfulness = tables["genes"], tables["contributions"], tables["faithfulness"]
    if len(values):
        _write_genes(folder, values, gene_sets, is_survival=bool((contributions["explained"] == RISK).all()))
    write_table(folder / "contributions.csv", contributions)
    write_table(folder / "faithfulness.csv", faithfulness)
    write_table(folder / "faithfulness_curves.csv", mean_curves(tables["curves"]))
    generator = np.random.default_rng(_SEED)
    write_json(folder / "faithfulness.json", faithfulness_summary(faithfulness, generator=generator))
    write_json(folder / "summary.json", _summary(contributions, tables["gaps"]) | {"gap_tolerance": tolerance})


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


def _explain_model(tested: FoldModel, folder: Path, tolerance: float) -> None:
    """Explains the patients of one model and writes the tables of `TABLES`, and last of all that they are complete.

    A patient who cannot be explained is left out with a warning, and the others go on. Such a model is not marked as
    complete, so that repeating the call tries it again.

    Raises:
        DataError: None of the model's patients could be explained.
    """
    rows: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    start = time.monotonic()
    generator = np.random.default_rng([_SEED, *map(ord, tested.fold)])
    usable = [patient for patient in tested.patients if tested.fitted.usable(patient)]
    scrutinised = set(generator.permutation(len(usable))[:FAITHFULNESS_PATIENTS].tolist())
    explained = _ExplainedModel.of(tested.fitted)
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
    (folder / "done.txt").unlink(missing_ok=True)  # of tables that were made from something else
    for name in TABLES:
        write_table(folder / f"{name}.csv", pd.concat(rows[name], ignore_index=True) if rows[name] else _empty(name))
    write_json(folder / "provenance.json", {"explaining_seconds": round(time.monotonic() - start, 2)})
    if attempts.table().empty:
        write_text(folder / "done.txt", _key(tested, tolerance) + "\n")


def model_folder(tested: FoldModel, out: Path) -> Path:
    """Returns where the tables of one model are kept."""
    return out / tested.fitted.task / "models" / tested.fold


def _key(tested: FoldModel, tolerance: float) -> str:
    """Returns what the tables of a model depend on."""
    fitted = tested.fitted
    inputs = fingerprint_of(tested.patients, modalities=fitted.recipe.modalities)
    model = [fitted.describe(), fitted.arrays_sha256()]
    return sha256_of_json([__version__, *model, inputs, tolerance, _SEED, TABLES, FAITHFULNESS_PATIENTS])


def _is_explained(tested: FoldModel, folder: Path, tolerance: float) -> bool:
    marker = folder / "done.txt"
    return marker.exists() and marker.read_text(encoding="utf-8").strip() == _key(tested, tolerance)


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
    ledger = contribution_ledger(
        model,
        projected,
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


def _write_genes(out: Path, values: pd.DataFrame, gene_sets: Mapping[str, Sequence[str]], *, is_survival: bool) -> None:
    summary, stability = gene_summary(values), rank_stability(values)
    write_table(out / "genes.csv", summary)
    write_table(out / "gene_values.csv", values_of_top_genes(values, summary))
    write_table(out / "gene_stability.csv", stability)
    by_gene = summary.set_index(["subspace", "gene"])
    rankings = {"strength": by_gene["mean_absolute"]}
    if is_survival:  # the explained class changes from patient to patient: a direction would mix them
        rankings["direction"] = by_gene["mean_absolute"] * np.sign(by_gene["direction"].fillna(0))
    table = enrich_subspaces(
        rankings,
        gene_sets,
        expression=values.pivot_table(index="patient_id", columns="gene", values="expression"),
        stability=dict(zip(stability["subspace"], stability["mean_rank_correlation"], strict=True)),
        seed=_SEED,
    )
    write_table(out / "enrichment.csv", table)


def _summary(contributions: pd.DataFrame, gaps: pd.DataFrame) -> dict[str, object]:
    table = modality_shares(contributions)
    shares = [
        {name: None if value != value else value for name, value in row.items()} for row in table.to_dict("records")
    ]
    gap = gaps["relative_gap"].replace(np.inf, np.nan).dropna()
    return {
        "score_name": score_name(*contributions["explained"].unique()),
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

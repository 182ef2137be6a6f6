"""What the models of a cross-validation rely on, over all patients that they did not train on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.devices import gpus_of
from subfuse.errors import DataError
from subfuse.evaluation.regression.columns import PREDICTED_VALUE
from subfuse.execution import Attempts, Progress, run_jobs, with_time_left
from subfuse.explanation.cohort.cohort_genes import (
    gene_summary,
    of_speaking_models,
    rank_stability,
    values_of_top_genes,
)
from subfuse.explanation.cohort.enrichment import enrich_subspaces
from subfuse.explanation.cohort.fold_explanation import (
    SEED,
    TABLES,
    FoldModel,
    explain_model,
    is_explained,
    model_folder,
)
from subfuse.explanation.explained_score import (
    RISK,
    score_name,
)
from subfuse.explanation.faithfulness import (
    faithfulness_summary,
    mean_curves,
)
from subfuse.files import json_value, read_table, write_json, write_table
from subfuse.run_folder import names

TOLERANCE = 0.05  # relative gap: means over patients need less precision than one patient


def explain_cohort(
    models: Sequence[FoldModel],
    out: Path,
    *,
    gene_sets: Mapping[str, Sequence[str]],
    tolerance: float = TOLERANCE,
    device: str = "cpu",
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes what the models of each task rely on into `out/<task>`; returns `out`.

    Every patient is explained by a model that did not train on it, and weighs the same in every mean, by however many
    models it is explained. Files of a task:

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
        device: Where the models are explained.
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
    open_jobs = [job for job in jobs if not is_explained(*job)]
    done = len(jobs) - len(open_jobs)
    report = None if progress is None else with_time_left(progress, done=done, workers=workers)
    attempts = Attempts()
    failed: set[str] = set()
    gpus = [] if scheduler is not None else gpus_of(device, min(workers, len(open_jobs)))
    explained = run_jobs(
        explain_model, [(*job, device) for job in open_jobs], workers=workers, scheduler=scheduler, gpus=gpus
    )
    for index, outcome in explained:
        tested, done = open_jobs[index][0], done + 1
        if isinstance(outcome, Exception):
            attempts.failed(f"{tested.fitted.task}, model {tested.fold}", outcome)
            failed.add(tested.fitted.task)
        if report is not None:
            report(done, len(jobs), f"{tested.fitted.task} · model {tested.fold}")
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
    folders = [model_folder(tested, out) for tested in models]
    parts = [
        {name: read_table(place / names.MODEL_TABLES[name], text=["fold"], exact=True) for name in TABLES}
        for place in folders
    ]
    tables = {name: _joined([part[name] for part in parts]) for name in TABLES}
    if tables["contributions"].empty:
        raise DataError(f"{folder}: a patient with the modalities of the model is required to explain it. Found none.")
    (folder / names.SUMMARY).unlink(missing_ok=True)  # it marks the folder complete
    values, contributions, faithfulness = tables["genes"], tables["contributions"], tables["faithfulness"]
    if len(values):
        _write_genes(
            folder,
            values,
            gene_sets,
            has_direction=bool(contributions["explained"].isin([RISK, PREDICTED_VALUE]).all()),
        )
    write_table(folder / names.CONTRIBUTIONS, contributions)
    write_table(folder / names.FAITHFULNESS, faithfulness)
    write_table(folder / names.FAITHFULNESS_CURVES, mean_curves(tables["curves"]))
    generator = np.random.default_rng(SEED)
    write_json(folder / names.FAITHFULNESS_SUMMARY, faithfulness_summary(faithfulness, generator=generator))
    write_json(folder / names.SUMMARY, reliance_summary(contributions, tables["gaps"]) | {"gap_tolerance": tolerance})


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns one table; an empty one has nothing to say of the types of columns."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def modality_shares(contributions: pd.DataFrame) -> pd.DataFrame:
    """Returns subspace, modality, mean, mean_absolute and share: of the mean absolute contributions, 0 to 1.

    Args:
        contributions: Rows of `contributions.csv`: patients weigh the same, whatever the number of their models. The
            baseline, which says nothing about a patient, has no share.
    """
    shares = contributions[contributions["modality"] != "baseline"]
    keys = ["subspace", "modality"]
    of_models = shares.assign(absolute=shares["contribution"].abs()).groupby([*keys, "patient_id"], sort=False)
    grouped = of_models[["contribution", "absolute"]].mean().groupby(keys, sort=False)
    table = grouped.agg(mean=("contribution", "mean"), mean_absolute=("absolute", "mean")).reset_index()
    total = table["mean_absolute"].sum()
    return table.assign(share=table["mean_absolute"] / total if total > 0 else np.nan)


def _write_genes(
    out: Path, values: pd.DataFrame, gene_sets: Mapping[str, Sequence[str]], *, has_direction: bool
) -> None:
    values = of_speaking_models(values)
    summary, stability = gene_summary(values), rank_stability(values)
    write_table(out / names.GENES, summary)
    write_table(out / names.GENE_VALUES, values_of_top_genes(values, summary))
    write_table(out / names.GENE_STABILITY, stability)
    by_gene = summary.set_index(["subspace", "gene"])
    rankings = {"strength": by_gene["mean_absolute"]}
    if has_direction:  # else the explained class changes from patient to patient: a direction would mix them
        rankings["direction"] = by_gene["mean_absolute"] * np.sign(by_gene["direction"].fillna(0))
    table = enrich_subspaces(
        rankings,
        gene_sets,
        expression=values.pivot_table(index="patient_id", columns="gene", values="expression"),
        stability=dict(zip(stability["subspace"], stability["mean_rank_correlation"], strict=True)),
        seed=SEED,
    )
    write_table(out / names.ENRICHMENT, table)


def _explained(contributions: pd.DataFrame) -> pd.Series:
    """Returns what is explained of each patient: where its models differ, what most of them have."""
    of_models = contributions.drop_duplicates(["patient_id", "fold"])
    return of_models.groupby("patient_id", sort=False)["explained"].agg(lambda found: found.mode().iloc[0])


def reliance_summary(contributions: pd.DataFrame, gaps: pd.DataFrame) -> dict[str, object]:
    """Returns what the models of one task rely on, as `summary.json` holds it.

    Args:
        contributions: Rows of `contributions.csv`.
        gaps: Of every patient and subspace, `relative_gap` of the attribution.
    """
    table = modality_shares(contributions)
    shares = [{name: json_value(value) for name, value in row.items()} for row in table.to_dict("records")]
    gap = gaps["relative_gap"].replace(np.inf, np.nan).dropna()
    return {
        "score_name": score_name(*contributions["explained"].unique()),
        "n_patients": int(contributions["patient_id"].nunique()),
        "n_models": int(contributions["fold"].nunique()),
        "explained": _explained(contributions).value_counts().to_dict(),
        "shares": shares,
        "relative_gap": {"median": float(gap.median()), "largest": float(gap.max())} if len(gap) else None,
    }

"""Do explanations find what was planted? Patches, genes and subspaces of the simulated cohort against its truth.

python benchmarks/explanations.py [--patients 100] [--seed 1] [--tasks survival diagnosis] [--work benchmarks/work]

Every patient is explained by the model that did not train on it. Resumable: cohort, run and finished tasks are kept.
"""

import argparse
import platform
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from subfuse.data.cohort import Cohort, Patient, read_cohort
from subfuse.data.feature_store import read_features
from subfuse.data.preparation import prepare
from subfuse.data.synthetic import simulate
from subfuse.evaluation.cross_validation import cross_validate
from subfuse.execution import available_cores
from subfuse.explanation import contribution_ledger
from subfuse.explanation.cohort_genes import gene_summary
from subfuse.explanation.explained_score import attribute_subspaces, explained_score
from subfuse.explanation.occlusion import occlude_patches
from subfuse.files import write_table
from subfuse.runs import load_run
from subfuse.training.checkpoint import FittedModel

PLANTED = ("lymphocyte", "vascular", "necrotic")
RESULT = Path(__file__).parent / "explanations.md"
BAR = 0.8
RANDOM_MODELS = 3


def prepared_run(folder: Path, patients: int, seed: int, tasks: list[str]) -> None:
    if (folder / "run" / "predictions.csv").exists():
        return
    cohort_file = simulate(folder / "cohort", patients=patients, seed=seed, workers=available_cores())
    prepare(cohort_file, folder / "prepared", workers=available_cores())
    cohort = read_cohort(folder / "prepared")
    cross_validate(cohort, task=tasks, models=("subspace",), seed=seed, out=folder / "run", workers=1)


def explain(folder: Path, task: str) -> dict[str, pd.DataFrame]:
    """Genes, patches and ledger of every tested patient."""
    kept = {name: folder / "explained" / f"{task}_{name}.csv" for name in ("genes", "patches", "ledger")}
    if all(path.exists() for path in kept.values()):
        return {name: pd.read_csv(path, dtype={"patient_id": str}) for name, path in kept.items()}
    run = load_run(folder / "run")
    cohort: Cohort = run.cohort()
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in kept}
    for job in run.jobs(model="subspace", task=task):
        known = run.predictions.query("task == @job.task and fold == @job.fold_index and split == 'test'")
        fitted = run.fitted(job)
        for patient in fitted.align(cohort.select(set(known["patient_id"]))):
            for name, table in explain_patient(fitted, patient, folder / "cohort" / "truth" / "regions").items():
                tables[name].append(table.assign(fold=job.fold_index, patient_id=patient.patient_id))
    for name, path in kept.items():
        write_table(path, pd.concat(tables[name]))
    return explain(folder, task)


def explain_patient(fitted: FittedModel, patient: Patient, regions: Path) -> dict[str, pd.DataFrame]:
    batch = next(fitted.batches([patient]))
    score = explained_score(fitted, batch)
    attributions = attribute_subspaces(fitted, batch, score, tolerance=0.05)
    with torch.inference_mode():
        shares = score.of_subspaces(fitted.model(**batch.inputs()))[0].tolist()
    found = {
        "ledger": contribution_ledger(
            fitted.model, batch, score.of_logits, baseline=fitted.baseline_logits, subspaces=fitted.subspaces
        )
    }
    if patient.expression is not None:
        parts = []
        for (name, attribution), share in zip(attributions.items(), shares, strict=True):
            places = list(fitted.recipe.gene_sets[name])
            table = pd.DataFrame({"subspace": name, "gene": [fitted.genes[place] for place in places]})
            table["expression"] = batch.expression[0].numpy()[places]
            parts.append(table.assign(attribution=attribution.gene[0].numpy()[places], share=share))
        found["genes"] = pd.concat(parts)
    if patient.slides:
        falls = occlude_patches(fitted.model, batch, score).numpy()
        scores = {f"gradients_{name}": attribution.patch[0].numpy() for name, attribution in attributions.items()}
        scores |= {f"occlusion_{name}": fall for name, fall in zip(fitted.subspaces, falls, strict=True)}
        planted = np.concatenate([planted_share(path, regions / f"{path.stem}.csv") for path in patient.slides])
        found["patches"] = pd.DataFrame({"planted": planted, **scores})
    return found


def planted_share(features: Path, regions: Path) -> np.ndarray:
    """Share of each patch's tissue that is a microenvironment region."""
    slide, table = read_features(features), pd.read_csv(regions)
    cell, layout = int(table["size"].iloc[0]), table.pivot_table("region", "y", "x", aggfunc="first").to_numpy()
    shares = []
    for left, top in slide.coords // cell:
        side = slide.patch_size_level0 // cell
        inside = layout[top : top + side, left : left + side]
        shares.append(np.isin(inside, PLANTED).sum() / max(1, (inside != "glass").sum()))
    return np.array(shares)


def random_share(folder: Path, task: str, genes: pd.DataFrame, draw: int) -> pd.DataFrame:
    """The table of genes with the shares of untrained models."""
    run = load_run(folder / "run")
    cohort, shares = run.cohort(), {}
    for job in run.jobs(model="subspace", task=task):
        fitted = run.fitted(job)
        torch.manual_seed(100 * draw + job.fold_index)
        model = fitted.recipe.build().eval()
        for patient in fitted.align(cohort.select(set(genes.loc[genes["fold"] == job.fold_index, "patient_id"]))):
            batch = next(fitted.batches([patient]))
            score = explained_score(fitted, batch)
            with torch.inference_mode():
                values = score.of_subspaces(model(**batch.inputs()))[0].tolist()
            shares |= {(patient.patient_id, name): v for name, v in zip(fitted.subspaces, values, strict=True)}
    return genes.assign(share=[shares[key] for key in zip(genes["patient_id"], genes["subspace"], strict=True)])


def first_component(genes: pd.DataFrame) -> pd.Series:
    """Absolute loadings of the first principal component of a subspace's genes: no model, no outcome."""
    wide = genes.pivot_table(index="patient_id", columns="gene", values="expression")
    scaled = (wide - wide.mean()) / wide.std().clip(lower=1e-6)
    return pd.Series(np.abs(np.linalg.svd(scaled.to_numpy(), full_matrices=False)[2][0]), index=wide.columns)


def measure(folder: Path, task: str) -> list[tuple[str, str, float]]:
    """Task, what, AUROC or share."""
    tables = explain(folder, task)
    causal = pd.read_csv(folder / "cohort" / "truth" / "genes.csv").groupby("subspace")["gene"].apply(set)
    rows = []
    for subspace, summary in gene_summary(tables["genes"]).groupby("subspace", sort=False):
        planted = summary["gene"].isin(causal[subspace])
        for column in ("mean_absolute", "association"):
            name = f"genes of {subspace}: {column.replace('_', ' ')}"
            rows.append((task, name, float(roc_auc_score(planted, summary[column].abs().fillna(0)))))
    untrained = [gene_summary(random_share(folder, task, tables["genes"], draw)) for draw in range(RANDOM_MODELS)]
    for subspace, of_subspace in tables["genes"].groupby("subspace", sort=False):
        drawn = [table[table["subspace"] == subspace] for table in untrained]
        found = [roc_auc_score(t["gene"].isin(causal[subspace]), t["association"].abs().fillna(0)) for t in drawn]
        rows.append((task, f"control, genes of {subspace}: association, random weights", float(np.mean(found))))
        loading = first_component(of_subspace)
        found = roc_auc_score(loading.index.isin(causal[subspace]), loading)
        rows.append((task, f"control, genes of {subspace}: first principal component, no model", float(found)))
    patches = tables["patches"]
    columns = [name for name in patches if name.startswith(("gradients", "occlusion"))]
    found = []
    for _, of_patient in patches.groupby("patient_id"):
        planted = of_patient["planted"] >= 0.5
        if min(planted.sum(), (~planted).sum()) >= 3:
            found.append([roc_auc_score(planted, of_patient[name]) for name in columns])
    values = np.mean(found, axis=0)
    rows += [(task, f"patches: {name.replace('_', ' of ')}", float(v)) for name, v in zip(columns, values, strict=True)]
    ledger = tables["ledger"].assign(absolute=tables["ledger"]["contribution"].abs())
    total = ledger.groupby(["modality", "subspace"])["absolute"].sum()
    for modality, right in (("expression", "tumour"), ("slides", "microenvironment")):
        rows.append(
            (task, f"share of {right} in what {modality} adds", float(total[modality, right] / total[modality].sum()))
        )
    return rows


def write_result(rows: list[tuple[str, str, float]], options: argparse.Namespace) -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    tasks = list(dict.fromkeys(task for task, _, _ in rows))
    table = pd.DataFrame(rows, columns=["task", "what", "value"])
    wide = table.pivot_table("value", "what", "task", sort=False)[tasks]
    lines = [
        "# Are explanations true? What was planted in the simulated cohort",
        "",
        f"`python benchmarks/explanations.py --patients {options.patients} --seed {options.seed} "
        f"--tasks {' '.join(tasks)}`",
        "",
        f"Written at commit {commit.strip()}; {platform.machine()}, {available_cores()} cores; "
        f"{options.patients} patients, 5 folds, seed {options.seed}; "
        "every patient explained by the model that did not train on it.",
        "",
        "Genes and patches: AUROC of the score for what was planted (genes that follow the subspace's latent; patches "
        "that are at least half lymphocyte-rich, vascular or necrotic, mean over patients); 0.5 is chance. Shares: of "
        "the absolute contributions. `mean absolute` is integrated gradients, i.e. which genes the network uses; "
        "`association` is the rank correlation of a gene with the subspace's share, i.e. which genes go along with it. "
        "Expression shows the microenvironment poorly, and slides the tumour, by construction.",
        "",
        "| what | " + " | ".join(tasks) + " |",
        "|---" * (len(tasks) + 1) + "|",
    ]
    lines += [f"| {what} | " + " | ".join(f"{row[task]:.3f}" for task in tasks) + " |" for what, row in wide.iterrows()]
    scored = wide[wide.index.str.startswith(("genes", "patches"))]
    reached = int((scored >= BAR).to_numpy().sum())
    lines += ["", f"The bar is {BAR}: {reached} of {scored.size} AUROCs reach it."]
    lines += [
        "",
        "How to read it. Integrated gradients and occlusion miss the bar: the "
        "reason was not established (few patients, and genes that rise and fall together, are candidates). "
        "`association` was added after they were "
        "seen to miss it, on this same cohort, and has not been measured on another seed: it is a result of choosing. "
        "With random weights it finds nothing, so it depends on what was learned; but the planted genes are also the "
        "main axis of the cohort's expression, which the first principal component finds without any model. Reaching "
        "the bar with it says that the subspace follows that axis, not that the planted genes were singled out. No "
        "patch score is better than chance by much.",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tasks", nargs="+", default=["survival", "diagnosis"])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    options = parser.parse_args()
    folder = options.work / "explanations" / f"seed_{options.seed}"
    prepared_run(folder, options.patients, options.seed, options.tasks)
    write_result([row for task in options.tasks for row in measure(folder, task)], options)
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

"""Do explanations find what was planted? Patches, genes and subspaces of simulated cohorts against their truth.

python benchmarks/explanations.py [--patients 200] [--seeds 1 2] [--visible 1] [--folds 1] [--tasks survival diagnosis]

Every patient is explained by a model that did not train on it. Beside subspace fusion, mean pooling of the slides is
explained in the same way, and references are given that need no explanation, so that a low value can be told apart:
nothing to see in the features, a model that did not learn it, or attributions that do not show what was learned.
Resumable: cohort, models and explained patients are kept in `--work`. About 35 minutes a seed with the defaults, on two
cores that are busy with other work; 14 of them for simulating and preparing the cohort.
"""

import argparse
import platform
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold

from subfuse.cohort.batches import BagBatch
from subfuse.cohort.cohort import Cohort, Patient, read_cohort
from subfuse.execution import available_cores
from subfuse.explanation import contribution_ledger, converged_gradients
from subfuse.explanation.cohort.cohort_genes import gene_summary
from subfuse.explanation.explained_score import ExplainedScore, explained_score, points_at_once
from subfuse.explanation.faithfulness import occlude_patches
from subfuse.features.store import read_features
from subfuse.files import write_table
from subfuse.objective.classification import ClassificationObjective
from subfuse.preparation.prepare import prepare
from subfuse.runs.folds import choose_repeats
from subfuse.simulation.cohort import simulate
from subfuse.training.fitted_model import FittedModel
from subfuse.training.fitting import train_fold
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings
from subfuse.training.stored_model import load_fitted

PLANTED = ("lymphocyte", "vascular", "necrotic")
# The class that each latent speaks most against in the simulation: the score explained is the mean of the other classes
# minus this one, so that more of the latent is always a higher score, whatever class is predicted.
OPPOSED = {"tumour": "Oligodendroglioma", "microenvironment": "Astrocytoma"}
MODELS = ("subspace", "mean")
TABLES = ("patients", "patches", "genes", "ledger")
RESULT = Path(__file__).parent / "results" / "explanations.md"
BAR = 0.8
CHOSEN_ON = 1  # the seed that was looked at while this benchmark was written
TOLERANCE = 0.05
RIDGE = 3000.0  # of the supervised reference


def prepared_cohort(folder: Path, patients: int, seed: int, visibility: float) -> Cohort:
    """The cohort of a seed, simulated and prepared where that was not done before."""
    cohort_file = simulate(
        folder / "cohort", patients=patients, seed=seed, visibility=visibility, workers=available_cores()
    )
    prepare(cohort_file, folder / "prepared", workers=available_cores())
    return read_cohort(folder / "prepared")


def trained(folder: Path, cohort: Cohort, task: str, model: str, fold: int, seed: int) -> FittedModel:
    """The model of a fold with the default settings."""
    place = folder / "models" / task / model / f"fold_{fold}"
    if not (place / "model.json").exists():
        fitted = train_fold(
            cohort,
            choose_repeats(cohort, None, seed=seed)[0][fold],
            task=task,
            model_name=model,
            plan=TrainingPlan(
                training=TrainingSettings(), architecture=ArchitectureSettings(), seed=seed + 1000 * fold
            ),
        )
        fitted.save(place)
    return load_fitted(place)


def explain(folder: Path, cohort: Cohort, task: str, model: str, folds: int, seed: int) -> dict[str, pd.DataFrame]:
    """Patients, patches, genes and ledger of every tested patient of the first folds."""
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    for fold in range(folds):
        place = folder / "explained" / task / model / f"fold_{fold}"
        if not (place / "ledger.csv").exists():
            fitted = trained(folder, cohort, task, model, fold, seed)
            tested = cohort.select(choose_repeats(cohort, None, seed=seed)[0][fold].test)
            found = [explain_patient(fitted, p, folder / "cohort" / "truth") for p in tested if fitted.usable(p)]
            for name in TABLES:
                parts = [tables_of[name].assign(fold=fold) for tables_of in found if name in tables_of]
                write_table(place / f"{name}.csv", pd.concat(parts) if parts else pd.DataFrame(columns=["fold"]))
        for name in TABLES:
            tables[name].append(pd.read_csv(place / f"{name}.csv", dtype={"patient_id": str}))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def contrast(fitted: FittedModel, score: ExplainedScore, latent: str) -> ExplainedScore:
    """The score that rises with a latent: the risk, or the other classes against the one that it speaks against."""
    if not isinstance(fitted.objective, ClassificationObjective):
        return score
    classes = fitted.objective.classes
    weights = torch.full_like(score.weights, 1 / (len(classes) - 1))
    weights[classes.index(OPPOSED[latent])] = -1.0
    return ExplainedScore(f"not {OPPOSED[latent]}", weights)


def explain_patient(fitted: FittedModel, patient: Patient, truth: Path) -> dict[str, pd.DataFrame]:
    batch = next(fitted.batches([patient]))
    of_patches, *_ = scores = [contrast(fitted, explained_score(fitted, batch), name) for name in reversed(OPPOSED)]
    slides_alone = batch.inputs() | {"expression_mask": torch.zeros_like(batch.expression_mask)}
    with torch.inference_mode():
        whole = float(of_patches.of_logits(fitted.model(**batch.inputs()).logits))
        from_slides = float(of_patches.of_logits(fitted.model(**slides_alone).logits)) if patient.slides else np.nan
    ids = {"patient_id": patient.patient_id}
    ledger = contribution_ledger(
        fitted.model, batch, of_patches.of_logits, baseline=fitted.baseline_logits, subspaces=fitted.subspaces,
        modalities=fitted.recipe.modalities,
    )  # fmt: skip
    found = {"patients": pd.DataFrame([ids | {"score": whole, "from_slides": from_slides}]), "ledger": ledger}
    if patient.slides:
        columns = {
            f"gradients of {name}": converged_gradients(
                fitted.model, batch, of_patches.share_of(place), tolerance=TOLERANCE, chunk=points_at_once(batch)
            ).patch[0].numpy()
            for place, name in enumerate(fitted.subspaces)
        }  # fmt: skip
        falls = occlude_patches(fitted.model, batch, of_patches).numpy()
        columns |= {f"occlusion of {name}": fall for name, fall in zip(fitted.subspaces, falls, strict=True)}
        for kind in ("gradients", "occlusion"):
            columns[f"{kind} of the whole score"] = sum(columns[f"{kind} of {name}"] for name in fitted.subspaces)
        planted = [planted_share(path, truth / "regions" / f"{path.stem}.csv") for path in patient.slides]
        found["patches"] = pd.DataFrame(ids | {"planted": np.concatenate(planted)} | columns)
    if patient.expression is not None and fitted.recipe.name == "subspace":
        by_latent = dict(zip(reversed(OPPOSED), scores, strict=True))
        found["genes"] = pd.concat(gene_rows(fitted, batch, by_latent)).assign(**ids)
    return found


def gene_rows(fitted: FittedModel, batch: BagBatch, scores: dict[str, ExplainedScore]) -> list[pd.DataFrame]:
    tables = []
    for place, name in enumerate(fitted.subspaces):
        score, columns = scores[name], list(fitted.recipe.gene_sets[name])
        attribution = converged_gradients(
            fitted.model, batch, score.share_of(place), tolerance=TOLERANCE, chunk=points_at_once(batch)
        )
        with torch.inference_mode():
            share = float(score.of_subspaces(fitted.model(**batch.inputs()))[0, place])
        table = pd.DataFrame({"subspace": name, "gene": [fitted.genes[column] for column in columns], "share": share})
        table["expression"] = batch.expression[0].numpy()[columns]
        tables.append(table.assign(attribution=attribution.gene[0].numpy()[columns]))
    return tables


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


def within_patients(patches: pd.DataFrame, column: str) -> float:
    """Mean over patients of the AUROC for patches of which at least half is planted."""
    found = []
    for _, rows in patches.groupby("patient_id"):
        planted = rows["planted"] >= 0.5
        if min(planted.sum(), (~planted).sum()) >= 3:
            found.append(roc_auc_score(planted, rows[column]))
    return float(np.mean(found))


def first_component(genes: pd.DataFrame) -> pd.Series:
    """Absolute loadings of the first principal component of a subspace's genes: no model, no outcome."""
    wide = genes.pivot_table(index="patient_id", columns="gene", values="expression")
    scaled = (wide - wide.mean()) / wide.std().clip(lower=1e-6)
    return pd.Series(np.abs(np.linalg.svd(scaled.to_numpy(), full_matrices=False)[2][0]), index=wide.columns)


def references(cohort: Cohort, truth: Path) -> dict[str, float]:
    """What the features hold: planted patches by a regression that is told which they are, on other patients."""
    parts = []
    for patient in cohort:
        for path in patient.slides:
            planted = planted_share(path, truth / "regions" / f"{path.stem}.csv")
            parts.append((patient.patient_id, planted, read_features(path).features.astype(np.float32)))
    patches = pd.DataFrame({"patient_id": np.repeat([p[0] for p in parts], [len(p[1]) for p in parts])})
    patches["planted"] = np.concatenate([part[1] for part in parts])
    features = np.concatenate([part[2] for part in parts])
    features = (features - features.mean(axis=0)) / features.std(axis=0).clip(min=1e-6)
    patches["predicted"] = 0.0
    for train, test in GroupKFold(4).split(features, groups=patches["patient_id"]):
        told = Ridge(RIDGE).fit(features[train], patches["planted"].to_numpy()[train])
        patches.loc[test, "predicted"] = told.predict(features[test])
    return {"reference, patches: regression told which are planted": within_patients(patches, "predicted")}


def measure(folder: Path, cohort: Cohort, task: str, folds: int, seed: int) -> dict[str, float]:
    """What was found, by name."""
    truth, rows = folder / "cohort" / "truth", {}
    latents = pd.read_csv(truth / "latents.csv").set_index("patient_id")
    for model in MODELS:
        tables = explain(folder, cohort, task, model, folds, seed)
        patches = tables["patches"]
        for column in (c for c in patches.columns if " of " in c and not (model == "mean" and c.endswith(" all"))):
            rows[f"patches, {model}: {column}"] = within_patients(patches, column)
        patients = tables["patients"].join(latents, on="patient_id")
        by_fold = patients.groupby("fold")[["from_slides", "slide_microenvironment"]]
        correlations = [part.corr(method="spearman").iloc[0, 1] for _, part in by_fold]
        rows[f"learned, {model}: rank correlation of the score from slides alone with the planted amount"] = float(
            np.mean(correlations)
        )
        if model == "subspace":
            rows |= measure_genes(tables["genes"], truth) | measure_shares(tables["ledger"])
    return rows


def measure_genes(genes: pd.DataFrame, truth: Path) -> dict[str, float]:
    causal = pd.read_csv(truth / "genes.csv").groupby("subspace")["gene"].apply(set)
    rows = {}
    for subspace, summary in gene_summary(genes).groupby("subspace", sort=False):
        planted = summary["gene"].isin(causal[subspace])
        for column in ("mean_absolute", "association"):
            rows[f"genes of {subspace}: {column.replace('_', ' ')}"] = float(
                roc_auc_score(planted, summary[column].abs().fillna(0))
            )
        loadings = first_component(genes[genes["subspace"] == subspace])
        rows[f"reference, genes of {subspace}: first principal component, no model"] = float(
            roc_auc_score(loadings.index.isin(causal[subspace]), loadings)
        )
    return rows


def measure_shares(ledger: pd.DataFrame) -> dict[str, float]:
    absolute = ledger.assign(absolute=ledger["contribution"].abs())
    total = absolute.groupby(["modality", "subspace"])["absolute"].sum()
    return {
        f"share of {right} in what {modality} adds": float(total[modality, right] / total[modality].sum())
        for modality, right in (("expression", "tumour"), ("slides", "microenvironment"))
    }


def write_result(found: dict[tuple[float, int, str], dict[str, float]], options: argparse.Namespace) -> None:
    """Writes the table as Markdown with the conditions of the measurement."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    columns = list(found)
    names = sorted(dict.fromkeys(name for rows in found.values() for name in rows), key=lambda name: name.split(",")[0])
    seeds, visible = (" ".join(map(str, values)) for values in (options.seeds, options.visible))
    lines = [
        "# Are explanations true? What was planted in the simulated cohort",
        "",
        f"`python benchmarks/explanations.py --patients {options.patients} --seeds {seeds} "
        f"--visible {visible} --folds {options.folds} --tasks {' '.join(options.tasks)}`",
        "",
        f"Package at commit {commit.strip()}; {platform.machine()}, {available_cores()} cores; {options.patients} "
        f"patients per seed, those of {options.folds} of 5 folds explained by models that did not train on them.",
        "",
        "Patches: AUROC for patches of which at least half is lymphocyte-rich, vascular or necrotic, mean over "
        "patients. Genes: AUROC for genes that follow the subspace's latent, by mean absolute integrated gradients or "
        "by association with the subspace's share. 0.5 is chance. Explained is the risk, or for classes the score "
        "against the class that the latent speaks most against, the same for every patient.",
        "",
        "Visibility is the share of a latent's variance that its better modality shows: slides the microenvironment, "
        "expression the tumour. The other modality shows its sixth power: a quarter at 0.8, so that genes of the "
        "microenvironment say little that slides do not say better; three quarters at 0.95.",
        "",
        "| what | " + " | ".join(f"{task}, visibility {shown}, seed {seed}" for shown, seed, task in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    lines += [f"| {name} | " + " | ".join(f"{found[key][name]:.3f}" for key in columns) + " |" for name in names]
    scored = [name for name in names if name.startswith(("genes", "patches, subspace"))]
    reached = sum(found[key][name] >= BAR for key in columns for name in scored)
    lines += ["", f"The bar is {BAR}: {reached} of {len(scored) * len(columns)} AUROCs of subspace fusion reach it."]
    lines += [
        "",
        "What is explained, the references, the number of patients and how densely attention samples small slides "
        f"were chosen while looking at seed {CHOSEN_ON}; other seeds were not looked at before.",
        "",
        "How to read it. The regression that is told which patches are planted says what the features hold; mean "
        "pooling is explained by the same code; `learned` says how far each model's score follows the planted amount "
        "when it sees slides alone: an explanation can only show what was learned. Genes of the microenvironment say "
        "something new only where visibility is high; the group lasso keeps few of many genes that say the same, which "
        "lowers `mean absolute` and not `association`. Both subspaces see all patches, so what slides add is shared "
        "between them, and the right one's share is near a half.",
    ]
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="cohorts of visibility 0.8")
    parser.add_argument("--visible", type=int, nargs="*", default=[1], help="seeds of cohorts of visibility 0.95")
    parser.add_argument("--folds", type=int, default=1, choices=range(1, 6))
    parser.add_argument("--tasks", nargs="+", default=["survival", "diagnosis"])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "explanations")
    options = parser.parse_args()
    found = {}
    for visibility, seed in [*((0.8, seed) for seed in options.seeds), *((0.95, seed) for seed in options.visible)]:
        folder = options.work / f"{options.patients}_patients_visibility_{visibility}_seed_{seed}"
        cohort = prepared_cohort(folder, options.patients, seed, visibility)
        shared = references(cohort, folder / "cohort" / "truth")
        for task in options.tasks:
            found[visibility, seed, task] = measure(folder, cohort, task, options.folds, seed) | shared
    write_result(found, options)
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

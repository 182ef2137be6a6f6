"""A realistic run folder without any training: random but plausible numbers, in the documented files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image, ImageDraw, ImageFilter

from subfuse.audit.findings import Audit, Finding
from subfuse.explanation import heat_map
from subfuse.explanation.cohort.cohort_genes import gene_summary, rank_stability, values_of_top_genes
from subfuse.explanation.cohort.enrichment import COLUMNS
from subfuse.report import write_report
from subfuse.run_folder.tables import order_columns

SCRIPT = "<script>alert(1)</script>"
GRADES = ("G2", "G3", "G4")
MODELS = ("subspace", "abmil", "snn", "concat")
SKILL = {"subspace": 1.6, "abmil": 0.8, "snn": 1.25, "concat": 1.35}
CLASSIFICATION_METRICS = (
    "auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "f1", "quadratic_kappa",
    "brier", "expected_calibration_error",
)  # fmt: skip
SURVIVAL_METRICS = ("c_index", "uno_c_index", "auc_730_days", "integrated_brier")
LOWER = ("brier", "expected_calibration_error", "integrated_brier")
SUBSPACES = ("tumour", "microenvironment")
FOLDS = 5
GENES = {
    "tumour": "EGFR PTEN IDH1 CDK4 CDKN2A MDM2 TP53 NF1 PDGFRA RB1 MKI67 TOP2A ATRX CIC".split(),  # noqa: SIM905
    "microenvironment": "CD163 CD68 CCL2 VEGFA CD8A GZMB FOXP3 CXCL10 IL10 TGFB1 COL1A1 THY1 PECAM1".split(),  # noqa: SIM905
}


def made_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with everything, reported; made once per test process, for tests that only look at it."""
    run = tmp_path_factory.getbasetemp() / "reported" / "run"
    if not (run / "report.html").exists():
        write_audit(write_fake_run(run, patients=120, tasks=("survival", "grade", "diagnosis")))
        write_report(run)
    return run


def write_audit(run: Path) -> None:
    """Writes findings that hold a hostile name, and how fusion compares."""
    fusion = pd.DataFrame(
        [("survival", "subspace", "snn", "best single modality", "c_index", 0.0512, 0.011, 0.092, 0.012, 90),
         ("grade", "subspace", "snn", "best single modality", "auc", -0.0123, -0.04, 0.02, 0.5, 90)],
        columns=["task", "model", "reference", "reference_is", "metric", "difference", "lower", "upper", "p_adjusted",
                 "n_patients"],
    )  # fmt: skip
    findings = (
        Finding("failure", "patient leakage", f"7 persons {SCRIPT}", "why", "Split by patient."),
        Finding("warning", "fusion benefit", "fusion does not help", "why", "Prefer snn.", "grade", "subspace"),
        Finding("ok", "labels", "test patients: G2 20", task="grade"),
        *(finding for task in ("survival", "grade", "diagnosis") for finding in _of_main_model(task)),
    )
    of_metric = {"survival": "c_index", "grade": "auc", "diagnosis": "auc"}
    added = pd.DataFrame({"task": list(of_metric), "metric": of_metric.values()}).assign(
        model="subspace", trivial="clinical", difference=-0.0123, lower=-0.14, upper=0.116, p_value=0.5, p_adjusted=0.5,
        n_patients=90, fitted_on="validation patients", reason=None,
    )  # fmt: skip
    tables = {"fusion": fusion, "added_value": added}
    (run / "audit.json").write_text(json.dumps(Audit(findings, tables).to_dict()), encoding="utf-8")


def _of_main_model(task: str) -> tuple[Finding, ...]:
    """What the audit of a usual run asks of the main model, in its longest words."""
    numbers = "−0.012 (−0.140 to +0.116)"
    why, of = "Why it matters.", {"task": task, "model": "subspace"}
    beat, add = "is not shown to be better than Clinical model", "is not shown to add to Clinical model"
    clinical = f"0.769, difference {numbers}; combined {numbers}"
    off = "Subspace fusion: clear evidence that probabilities are off"
    return (
        Finding("warning", "trivial baseline", f"Subspace fusion {beat}", why, short=f"{beat}: {numbers}", **of),
        Finding("note", "added value", f"Subspace fusion {add}", why, short=f"{add}: {numbers}", **of),
        Finding("note", "clinical model", f"Subspace fusion {add}", why, short=clinical, **of),
        Finding("warning", "calibration", off, why, short="recalibrate before use", **of),
        *(
            Finding("note", "outcome in disguise", f"input {gene} is allowed by name", why, task=task, short=gene)
            for gene in ("METTL7B", "PDGFRA", "LINC01088")
        ),
    )


def write_fake_run(
    run: Path,
    *,
    patients: int = 240,
    seed: int = 0,
    tasks: tuple[str, ...] = ("survival", "grade"),
    optional: bool = True,
    explained: int = 2,
) -> Path:
    """Writes the files of a run; without `optional` only those that a report needs."""
    generator = np.random.default_rng(seed)
    table = _patients(generator, patients)
    run.mkdir(parents=True, exist_ok=True)
    predictions = pd.concat(
        [_predictions(generator, table, task, model) for task in tasks for model in MODELS], ignore_index=True
    )
    order_columns(predictions).to_csv(run / "predictions.csv", index=False)
    metrics = pd.DataFrame([row for task in tasks for model in MODELS for row in _metrics(generator, task, model)])
    metrics.to_csv(run / "metrics.csv", index=False)
    if optional:
        _comparisons(metrics).to_csv(run / "comparisons.csv", index=False)
        _write_config(run, tasks)
        _write_cohort(run / "cohort", table)
        _write_logs(generator, run, tasks)
        tested = predictions.query("model == 'subspace' and fold == 2 and split == 'test'")
        for task in tasks:
            _write_cohort_explanation(generator, run / "explanations" / "cohort" / task, table)
        for number, patient in enumerate((SCRIPT, tested["patient_id"].iloc[0])[:explained]):
            _write_explanation(generator, run / "explanations" / f"patient_{number}", patient, tasks[0])
    return run


def _patients(generator: np.random.Generator, n: int) -> pd.DataFrame:
    grade = generator.choice(3, n, p=(0.3, 0.3, 0.4))
    hazard = np.exp(0.9 * grade + generator.normal(0, 0.5, n))
    time = np.round(generator.exponential(3200 / hazard)) + 1
    censoring = np.round(generator.uniform(200, 5200, n))
    return pd.DataFrame(
        {
            "patient_id": [f"TCGA-{site:02d}-{number:04d}" for number, site in enumerate(generator.integers(2, 30, n))],
            "cohort": "tcga-gbmlgg",
            "site": "02",
            "time_days": np.minimum(time, censoring),
            "event": time <= censoring,
            "grade": np.array(GRADES)[grade],
            "n_slides": generator.choice(4, n, p=(0.05, 0.75, 0.15, 0.05)),
            "has_expression": generator.random(n) < 0.9,
            "log_hazard": np.log(hazard),
        }
    )


def _predictions(generator: np.random.Generator, table: pd.DataFrame, task: str, model: str) -> pd.DataFrame:
    rows = []
    test_fold = generator.integers(0, FOLDS, len(table))
    for fold in range(FOLDS):
        known = table[["patient_id", "cohort"]].copy()
        known[["task", "model", "repeat", "fold"]] = [task, model, 0, fold]
        is_validation = generator.random(len(table)) < 0.15
        known["split"] = np.select([test_fold == fold, is_validation], ["test", "validation"], "train")
        signal = SKILL[model] * (table["log_hazard"] - 1) + generator.normal(0, 1, len(table)) + 0.2 * fold
        if task == "survival":
            known["time_days"], known["event"], known["risk"] = table["time_days"], table["event"], signal
            for days in (365, 730, 1825):
                known[f"survival_{days}"] = np.exp(-np.exp(signal / 3) * days / 2500)
        else:
            known["label"] = table["grade"]
            place = table["grade"].map(GRADES.index).to_numpy()
            logits = SKILL[model] * np.eye(3)[place] * 0.9 + generator.normal(0, 1, (len(table), 3))
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            known[[f"p_{name}" for name in GRADES]] = probabilities
        known["has_slides"], known["has_expression"] = table["n_slides"] > 0, table["has_expression"]
        rows.append(known)
    return pd.concat(rows, ignore_index=True)


def _metrics(generator: np.random.Generator, task: str, model: str) -> list[dict]:
    rows = []
    for metric in SURVIVAL_METRICS if task == "survival" else CLASSIFICATION_METRICS:
        value = 0.52 + 0.19 * SKILL[model] + generator.normal(0, 0.008)
        value = 1 - value if metric in LOWER else value
        width = abs(generator.normal(0.045, 0.008))
        row = {"task": task, "model": model, "metric": metric, "value": value, "sd": width / 2}
        row |= {"lower": value - width, "upper": value + width, "n_patients": 240, "n_events": 131, "reason": None}
        if task != "survival":
            row["n_events"] = None
        if (model, metric) in {("abmil", "precision"), ("snn", "integrated_brier")}:
            row |= dict.fromkeys(("value", "sd", "lower", "upper"), np.nan)
            row["reason"] = "class G3 never predicted" if metric == "precision" else "the model predicts no curve"
        if (model, metric) == ("concat", "uno_c_index"):
            row["reason"] = "undefined in 1 of 5 folds: no comparable pair before the truncation time of 700 days"
        rows.append(row)
    return rows


def _comparisons(metrics: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for task, headline in (("survival", "c_index"), ("grade", "auc")):
        values = metrics[(metrics["task"] == task) & (metrics["metric"] == headline)].set_index("model")["value"]
        for model in values.index.drop("subspace", errors="ignore"):
            difference = values[model] - values["subspace"]
            width = 0.04 if task == "survival" else 0.09
            rows.append(
                {
                    "task": task,
                    "metric": headline,
                    "model": model,
                    "reference": "subspace",
                    "difference": difference,
                    "lower": difference - width,
                    "upper": difference + width,
                    "p_value": 0.004 if task == "survival" else 0.031,
                    "p_adjusted": 0.0009 if model == "abmil" else 0.012 if task == "survival" else 0.062,
                    "reason": None,
                }
            )
    return pd.DataFrame(rows)


def _write_config(run: Path, tasks: tuple[str, ...]) -> None:
    grade = {"column": "grade", "classes": list(GRADES)}
    specs = {"survival": {"time": "time_days", "event": "event"}, "grade": grade, "diagnosis": grade}
    config = {
        "cohort": "tcga-gbmlgg",
        "prepared": "../prepared",
        "tasks": {task: specs[task] for task in tasks},
        "models": list(MODELS),
        "seed": 7,
        "training": {"epochs": 40, "patience": 10, "batch_size": 8, "lr": 5e-4, "coordination": "paper"},
        "architecture": {"embed_dim": 128, "max_grid": 50, "position_bias": "table"},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    provenance = {
        "date": "2026-11-23",
        "command": ["subfuse", "crossval", "prepared", "--tasks", *tasks, "--models", *MODELS, "--out", "run"],
        "versions": {"subfuse": "0.1.0", "torch": "2.14.1", "python": "3.11.7", "platform": "Linux-6.1-x86_64"},
        "hashes": {"patients.csv": "9f2c" * 16, "expression.h5ad": "07ab" * 16, "encoder": "c3d1" * 16},
        "splits": {"name": "default", "folds": 5, "sha256": "51e7" * 16},
    }
    (run / "provenance.json").write_text(json.dumps(provenance))


def _write_cohort(folder: Path, table: pd.DataFrame) -> None:
    (folder / "contact_sheets").mkdir(parents=True)
    table.drop(columns="log_hazard").to_csv(folder / "patients.csv", index=False)
    exclusions = [("patient", f"TCGA-99-{number:04d}", "no follow-up and no label of any task") for number in range(11)]
    exclusions += [("patient", SCRIPT, "neither slides nor expression")]
    exclusions += [("slide", f"TCGA-02-{number:04d}-01Z", "no tissue found") for number in range(3)]
    exclusions += [("slide", "TCGA-06-0125-01Z", "level-0 resolution unknown: add an `mpp` column to the slide table")]
    exclusions += [("gene", f"LINC{number:05d}", "constant in every patient") for number in range(212)]
    pd.DataFrame(exclusions, columns=["level", "id", "reason"]).to_csv(folder / "exclusions.csv", index=False)
    slides = pd.DataFrame({"slide_id": ["a", "b"], "patient_id": ["x", "y"], "n_patches": [412345, 200877]})
    slides.to_csv(folder / "slides.csv", index=False)
    quality = slides.assign(
        tissue_mm2=[212.5, 103.5], pen_share=[0.0, 0.125], sharpness=[412.0, 98.5], sharpness_mpp=0.5, mpp=[0.25, 0.5],
        mpp_source="slide", warnings=[None, "12% of the stained area is pen marks and was left out"],
    )  # fmt: skip
    quality.to_csv(folder / "slide_quality.csv", index=False)
    harmonised = [("hospital", "tcga-gbmlgg", "tumour", 59, 57, "H3F3A", None, 0.31, 1.4, 0.2, 0.3)]
    columns = ["cohort", "reference", "gene_set", "n_genes", "n_shared", "missing", "missing_in_reference", "shift"]
    columns += ["shift_max", "ks", "wasserstein"]
    pd.DataFrame(harmonised, columns=columns).to_csv(folder / "harmonisation.csv", index=False)
    coverage = [("tumour", 59, 57, 57 / 59, "H3F3A, HIST1H3B", "microenvironment: 2 (THY1, VIM)")]
    coverage += [("microenvironment", 361, 338, 338 / 361, "C10orf54, GPR171, KIAA1462, LOC1, PPAP2B and 18 more", "")]
    columns = ["subspace", "n_genes", "n_found", "fraction", "missing", "overlap"]
    pd.DataFrame(coverage, columns=columns).to_csv(folder / "gene_set_coverage.csv", index=False)
    for number in range(3):
        _thumbnail(np.random.default_rng(number))[0].save(folder / "contact_sheets" / f"slide_{number}.jpg")


def _write_cohort_explanation(generator: np.random.Generator, folder: Path, table: pd.DataFrame) -> None:
    """Writes what `explain_cohort` writes: the first gene of each subspace acts in one direction, the others do not."""
    folder.mkdir(parents=True)
    patients = table["patient_id"]
    rows = []
    for subspace, genes in GENES.items():
        for place, gene in enumerate(genes):
            expression = generator.normal(size=len(patients))
            effect = 0.3 * expression if place == 0 else generator.normal(0, 0.1 / (1 + place), len(patients))
            known = {"fold": generator.integers(0, FOLDS, len(patients)), "patient_id": patients, "subspace": subspace}
            rows.append(pd.DataFrame(known | {"gene": gene, "expression": expression, "attribution": effect}))
            rows[-1]["share"] = effect + expression
    values = pd.concat(rows, ignore_index=True)
    summary = gene_summary(values)
    summary.to_csv(folder / "genes.csv", index=False)
    values_of_top_genes(values, summary).to_csv(folder / "gene_values.csv", index=False)
    rank_stability(values).to_csv(folder / "gene_stability.csv", index=False)
    leading = "EGFR PTEN IDH1 CDK4 CDKN2A MDM2 TP53 NF1 PDGFRA"
    found = [
        (subspace, "strength", f"{SCRIPT} set {n}", 12, 0.5, 1.7 - n / 10, 0.002, 0.01 + n / 50, 0.7, leading)
        for subspace in GENES
        for n in range(20)
    ]
    enrichment = pd.DataFrame(found, columns=COLUMNS)
    enrichment.loc[enrichment["subspace"] == list(GENES)[-1], ["fdr", "stability"]] = np.nan, 0.2
    enrichment.to_csv(folder / "enrichment.csv", index=False)
    entry = {"n_patients": 12, "mean": 0.21, "lower": 0.15, "upper": 0.27, "better_than_random": 0.92}
    undefined = {"n_patients": 1, "mean": None, "lower": None, "upper": None}
    faithfulness = {"patches": {"deletion": entry, "insertion": entry, "random_weights": undefined}}
    (folder / "faithfulness.json").write_text(json.dumps(faithfulness))
    _removal_curves().to_csv(folder / "faithfulness_curves.csv", index=False)
    shares = [
        {"subspace": subspace, "modality": modality, "mean": 0.01, "mean_absolute": 0.2, "share": share}
        for subspace, modality, share in zip(
            np.repeat(SUBSPACES, 2), ("slides", "expression") * 2, (0.1, 0.5, 0.25, 0.15), strict=True
        )
    ]
    explained = {"risk": len(table)} if folder.name == "survival" else {"class G2": 20, "class G3": len(table) - 20}
    content = {"n_patients": len(table), "n_models": FOLDS, "explained": explained, "shares": shares}
    content["score_name"] = "the hazard" if folder.name == "survival" else "the score of the predicted class"
    content["relative_gap"] = {"median": 0.012, "largest": 0.11}
    (folder / "summary.json").write_text(json.dumps(content))


def _removal_curves() -> pd.DataFrame:
    """Straight lines: half of the patches replaced changes the score by -0.3, -0.2 (random) and -0.1."""
    removed = np.linspace(0, 1, 11)
    tables = []
    for order, bend in (("deletion", -0.1), ("insertion", 0.1), ("random", 0.0)):
        against = bend * (1 - np.abs(2 * removed - 1))
        known = {"input": "patches", "order": order, "change": against - 0.4 * removed, "against_random": against}
        known |= {"lower": against - 0.02, "upper": against + 0.03, "removed": removed, "n_patients": 12}
        tables.append(pd.DataFrame(known))
    return pd.concat(tables)


def _write_logs(generator: np.random.Generator, run: Path, tasks: tuple[str, ...]) -> None:
    for task in tasks:
        for model in MODELS:
            for fold in range(FOLDS):
                folder = run / task / model / f"fold_{fold}"
                folder.mkdir(parents=True)
                epochs = np.arange(int(generator.integers(18, 40)))
                train = 1.4 * np.exp(-epochs / 9) + 0.3 + generator.normal(0, 0.02, len(epochs))
                validation = 1.2 * np.exp(-epochs / 6) + 0.6 + 0.008 * epochs + generator.normal(0, 0.03, len(epochs))
                log = pd.DataFrame(
                    {"epoch": epochs, "train_loss": train, "train_task": train, "validation_loss": validation}
                )
                log.to_csv(folder / "log.csv", index=False)


def _thumbnail(generator: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """Returns a stained-looking thumbnail and the corners of its tissue patches (level 0)."""
    width, height, patch = 760, 520, 13  # in thumbnail pixels, each 40 level-0 pixels wide
    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    for _ in range(7):
        x, y = generator.uniform((180, 140), (560, 380))
        rx, ry = generator.uniform(70, 150, 2)
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=255)
    tissue = np.asarray(mask.filter(ImageFilter.GaussianBlur(6)), dtype=float)[..., None] / 255
    noise = Image.fromarray(generator.integers(0, 255, (height // 3, width // 3), dtype=np.uint8))
    noise = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), dtype=float)[..., None] / 255
    stain = np.array([226, 160, 196]) * (1 - 0.45 * noise) + np.array([90, 60, 140]) * 0.45 * noise
    picture = np.array([244, 243, 246]) * (1 - tissue) + stain * tissue
    corners = np.array([(x, y) for y in range(0, height - patch, patch) for x in range(0, width - patch, patch)])
    corners = corners[np.asarray(mask)[corners[:, 1] + patch // 2, corners[:, 0] + patch // 2] > 128]
    return Image.fromarray(picture.astype(np.uint8)), corners * 40


def _write_explanation(generator: np.random.Generator, folder: Path, patient: str, task: str) -> None:
    folder.mkdir(parents=True)
    ledger = [
        {"subspace": subspace, "modality": modality, "contribution": float(generator.normal(0.15, 0.3))}
        for subspace in SUBSPACES
        for modality in ("slides", "expression")
    ]
    ledger.append({"subspace": "all", "modality": "baseline", "contribution": -0.412})
    for slide in ("01Z-DX1",):
        picture, corners = _thumbnail(generator)
        for subspace in ("total", *SUBSPACES):
            score = np.sin(corners[:, 0] / 2800 + len(subspace)) * np.cos(corners[:, 1] / 2200) * 0.02
            options: dict = {
                "slide_width_px": 760 * 40,
                "slide_height_px": 520 * 40,
                "label": "contribution to the hazard",
            }
            name = f"heatmap_{subspace}_{slide}.png"
            heat_map(picture, corners, 13 * 40, scores=score, limit=0.02, **options).save(folder / name)
    picture.save(folder / "sampling_01Z-DX1.png")
    picture.resize((380, 260)).save(folder / "gallery_tumour.jpg")
    genes = [
        {"gene": gene, "subspace": subspace, "contribution": generator.normal(0, 0.08)}
        for subspace, names in GENES.items()
        for gene in names
    ]
    pd.DataFrame(genes).to_csv(folder / "genes.csv", index=False)
    prediction = {"patient_id": patient, "has_slides": True, "has_expression": True, "risk": 0.482}
    prediction |= {"survival_365": 0.713, "survival_730": 0.412, "contribution_tumour": 0.2}
    content = {
        "patient_id": patient,
        "task": task,
        "model": "subspace",
        "fold": 2,
        "score": 0.51,
        "prediction": prediction,
        "gap": {"tumour": 0.0021, "microenvironment": -0.0004},
        "relative_gap": {"tumour": 0.004, "microenvironment": 0.08},
        "gap_tolerance": 0.02,
        "tiles_not_shown": {"01Z-DX1": "the slide is not where it was"},
        "ledger": ledger,
        "slides": ["01Z-DX1"],
    }
    (folder / "explanation.json").write_text(json.dumps(content))

"""Does a student of slides alone gain from a teacher that reads expression? Where it is known what slides show.

python benchmarks/distillation.py [--work benchmarks/work] [--parts inner test] [--patients 150]
    [--seeds 0 1 2]

Patients, outcomes and counts are those of `subfuse simulate`, at two visibilities; instead of pictures, the features of
6 × 6 patches are drawn: an inflamed region as large as the slide's view of the microenvironment, and tumour patches
shifted by its view of the tumour. One third of a cohort is tested. Term weights are compared on inner splits: a third
of those who are not tested, whom no model of the comparison trained on. Cohorts are small and models brief: ten
minutes of processor time in all. Resumable.
"""

import argparse
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from subfuse.cohort.batches import SurvivalTarget, make_target
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.drawn_folds import stratified_folds
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.expression.gene_sets import GeneSetSource, load_gene_sets
from subfuse.features.store import SlideFeatures, write_features
from subfuse.files import write_table, write_text
from subfuse.objective.ranking import concordance, macro_auc
from subfuse.simulation.genes import GeneModel, draw_counts, draw_genes
from subfuse.simulation.patients import DIAGNOSES, LATENTS, SyntheticPatients, draw_patients
from subfuse.training.distillation import Teacher, TermWeights
from subfuse.training.fitted_model import FittedModel
from subfuse.training.fitting import train_fold
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

RESULT = Path(__file__).parent / "results" / "distillation.md"
VISIBILITIES = (0.6, 0.9)
TASKS = {
    "survival": TaskSpec(time="time_days", event="event"),
    "diagnosis": TaskSpec(column="diagnosis", classes=DIAGNOSES),
}
SIDE, FEATURES, FOLDS = 6, 16, 3
SIZES = ArchitectureSettings(embed_dim=32, max_grid=SIDE, table_size=32)
SHORT = TrainingSettings(epochs=10, batch_size=16, lr=1e-3)
NONE = TermWeights(0.0, 0.0, 0.0)
TERMS = {
    "no teacher": NONE,
    "predictions": TermWeights(1.0, 0.0, 0.0),
    "embeddings": TermWeights(0.0, 1.0, 0.0),
    "positions": TermWeights(0.0, 0.0, 1.0),
    "predictions, positions": TermWeights(1.0, 0.0, 1.0),
    "predictions, positions, a tenth of embeddings": TermWeights(1.0, 0.1, 1.0),
    "all": TermWeights(1.0, 1.0, 1.0),
}
SECTIONS = {  # title, and with which model the others are compared
    "inner": ("Terms of the teacher, on inner splits", "no teacher"),
    "test": ("On test patients, with the default terms", "slides alone"),
}
TESTED = ("teacher, both modalities", "student", "slides alone", "abmil", "teacher, expression masked")


def draw_cohort(folder: Path, patients: int, visibility: float, seed: int) -> Cohort:
    """Returns a cohort in memory whose features are files; every patient has both modalities."""
    of_patients, of_genes, *of_each = np.random.SeedSequence(seed).spawn(2 + patients)
    truth = draw_patients(patients, visibility=visibility, generator=np.random.default_rng(of_patients))
    genes = draw_genes(np.random.default_rng(of_genes))
    sets = load_gene_sets({latent: GeneSetSource() for latent in LATENTS})
    known = [symbol in set().union(*sets.values()) for symbol in genes.symbol]
    symbols = tuple(np.array(genes.symbol)[known].tolist())
    drawn = tuple(
        _patient(folder, truth, index, np.random.default_rng(own), genes, np.array(known))
        for index, own in enumerate(of_each)
    )
    return Cohort(
        "drawn",
        drawn,
        symbols,
        "log2_tpm",
        gene_sets={name: tuple(gene for gene in symbols if gene in chosen) for name, chosen in sets.items()},
        tasks=TASKS,
        encoder="drawn",
        encoder_sha256="0" * 64,
        patch_dim=FEATURES,
    )


def _patient(
    folder: Path,
    truth: SyntheticPatients,
    index: int,
    draw: np.random.Generator,
    genes: GeneModel,
    known: np.ndarray,
) -> Patient:
    slide, expression = truth.views[index]
    path = folder / f"{index:04d}.h5"
    features = _slide(draw, *slide)  # drawn also where the file is there: what is drawn next does not depend on it
    if not path.exists():
        write_features(path, features, tile_px=256)
    counts = draw_counts(genes, tuple(expression), draw) / genes.length
    return Patient(
        f"{index:04d}",
        "drawn",
        slides=(path,),
        expression=np.log2(1 + 1e6 * counts / counts.sum())[known].astype(np.float32),
        time_days=float(truth.time_days[index]),
        event=bool(truth.event[index]),
        labels={"diagnosis": DIAGNOSES[truth.diagnosis[index]]},
    )


def _slide(draw: np.random.Generator, tumour: float, microenvironment: float) -> SlideFeatures:
    """Returns patches of which a disc, whose area grows with the microenvironment, is inflamed."""
    places = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
    features = draw.normal(size=(len(places), FEATURES))
    share = 1 / (1 + np.exp(-microenvironment))
    distance = np.linalg.norm(places - draw.uniform(0, SIDE - 1, size=2), axis=1)
    is_inflamed = distance.argsort().argsort() < share * len(places)
    features[is_inflamed, 0] += 2.0
    features[~is_inflamed, 1] += tumour
    return SlideFeatures(
        features=features.astype(np.float16),
        coords=(places * 256).astype(np.int32),
        patch_size_level0=256,
        level0_mpp=0.5,
        target_mpp=0.5,
        encoder="drawn",
        encoder_sha256="0" * 64,
        slide_width_px=SIDE * 256,
        slide_height_px=SIDE * 256,
    )


@dataclass(frozen=True)
class Split:
    """Who trains and is tested in a cohort, for one task."""

    visibility: float
    seed: int
    task: str
    is_inner: bool

    @property
    def name(self) -> str:
        """Of the file of its rows."""
        kind = "inner" if self.is_inner else "test"
        return f"{kind}_{self.visibility:g}_{self.seed}_{self.task}.csv"

    def patients(self, cohort: Cohort) -> Fold:
        """Returns who trains and is tested; an inner split is of those whom the other does not test."""
        table = pd.DataFrame(
            [
                {"patient_id": p.patient_id, "outcome": p.event if self.task == "survival" else p.labels["diagnosis"]}
                for p in cohort
            ]
        )
        drawn = {"folds": FOLDS, "validation": 0.2, "stratify": ["outcome"], "seed": self.seed}
        fold = stratified_folds(table, **drawn)[0]
        if not self.is_inner:
            return fold
        return stratified_folds(table[table["patient_id"].isin(fold.development)], **drawn)[0]


def ranking(fitted: FittedModel, cohort: Cohort, fold: Fold, *, masked: bool = False) -> float:
    """Returns C-index or macro AUC on the test patients of a fold."""
    patients = [p for p in cohort if p.patient_id in fold.test]
    seen = [replace(p, expression=None) for p in patients] if masked else patients
    predicted = fitted.predict(seen)
    target = make_target(patients, fitted.task_spec, fitted.objective.classes)
    if isinstance(target, SurvivalTarget):
        return float(concordance(torch.tensor(predicted[["risk"]].to_numpy()), target)[0])
    columns = [f"p_{name}" for name in fitted.objective.classes]
    return macro_auc(predicted[columns].to_numpy(), target.label.numpy())


def measured(cohort: Cohort, split: Split) -> pd.DataFrame:
    """Returns what each model reaches on a split: all terms on an inner one, what is compared on a test fold."""
    fold, plan = split.patients(cohort), TrainingPlan(training=SHORT, architecture=SIZES, seed=split.seed, device="cpu")

    def trained(model: str, teacher: Teacher | None = None) -> FittedModel:
        return train_fold(cohort, fold, task=split.task, model_name=model, plan=plan, teacher=teacher)

    teacher = trained("subspace")
    if split.is_inner:
        found = {
            name: ranking(trained("distilled", Teacher(teacher, weights)), cohort, fold)
            for name, weights in TERMS.items()
        }
    else:
        models = (teacher, trained("distilled", Teacher(teacher)), trained("subspace-slides"), trained("abmil"))
        found = dict(zip(TESTED, [ranking(fitted, cohort, fold) for fitted in models], strict=False))
        found[TESTED[-1]] = ranking(teacher, cohort, fold, masked=True)
    return pd.DataFrame([{**vars(split), "model": name, "value": value} for name, value in found.items()])


def rows(work: Path, patients: int, splits: Sequence[Split]) -> Iterator[pd.DataFrame]:
    """Yields the rows of all splits, measuring those that are not there yet."""
    for split in splits:
        path = work / f"{patients}" / split.name
        if not path.exists():
            folder = work / f"{patients}" / f"features_{split.visibility:g}_{split.seed}"
            write_table(path, measured(draw_cohort(folder, patients, split.visibility, split.seed), split))
        yield pd.read_csv(path)


def interval(differences: pd.Series) -> str:
    """Returns a mean with a 95 % interval: Student's t over seeds; none of one seed."""
    mean, n = differences.mean(), len(differences)
    if n < 2:
        return f"{mean:+.3f}"
    half = stats.t.ppf(0.975, n - 1) * differences.std() / n**0.5
    return f"{mean:+.3f} ({mean - half:+.3f} to {mean + half:+.3f})"


def table_of(found: pd.DataFrame, reference: str) -> Iterator[str]:
    """Yields lines of Markdown: per visibility and task the mean of each model, and its difference to another."""
    yield f"| visibility | task | model | mean | difference to {reference} |"
    yield "|---|---|---|---|---|"
    by_cohort = found.groupby(["visibility", "task", "model", "seed"], sort=False)["value"].mean()
    for (visibility, task), values in by_cohort.groupby(level=["visibility", "task"], sort=False):
        wide = values.unstack("seed").droplevel(["visibility", "task"])
        for model, row in wide.iterrows():
            difference = "" if model == reference else interval(row - wide.loc[reference])
            yield f"| {visibility:g} | {task} | {model} | {row.mean():.3f} | {difference} |"
    everything = by_cohort.unstack("model")
    for model in everything.columns.drop(reference):
        of_cohort = (everything[model] - everything[reference]).groupby(level="seed").mean()  # one draw, seen twice
        yield f"| all | both | {model} | {everything[model].mean():.3f} | {interval(of_cohort)} |"


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "distillation")
    parser.add_argument("--parts", choices=["inner", "test"], nargs="+", default=["inner", "test"])
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    every = [
        Split(visibility, seed, task, part == "inner")
        for part in arguments.parts
        for seed in arguments.seeds
        for visibility in VISIBILITIES
        for task in TASKS
    ]
    found = pd.concat(rows(arguments.work, arguments.patients, every))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    asked = f"--parts {' '.join(arguments.parts)} --seeds {' '.join(map(str, arguments.seeds))}"
    lines = [
        "# A student of slides alone",
        "",
        f"`python benchmarks/distillation.py --patients {arguments.patients} {asked}`",
        "",
        f"Commit {commit.strip()}; {platform.machine()}. {arguments.patients} patients per cohort, a third of them "
        f"tested, {len(arguments.seeds)} cohorts per visibility; embeddings of {SIZES.embed_dim}, {SHORT.epochs} "
        "epochs. Means over cohorts of C-index (survival) and macro AUC (diagnosis); 95 % intervals are Student's t "
        "over cohorts.",
    ]
    for part in arguments.parts:
        title, reference = SECTIONS[part]
        lines += ["", f"## {title}", "", *table_of(found[found["is_inner"] == (part == "inner")], reference)]
    write_text(RESULT, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()

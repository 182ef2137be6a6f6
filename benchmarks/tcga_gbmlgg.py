"""Expression models on the real TCGA-GBM/LGG patients and the five published folds, and what else explains them.

SUBFUSE_REAL_DATA=... python benchmarks/tcga_gbmlgg.py [--work benchmarks/work] [--workers N]
    [--seeds 0 1 2] [--variants as-published cleaned] [--only networks ensembles linear markers]

No slides are available for these patients: every model sees expression, age and sex only, and subspace fusion runs with
the slide modality masked. Once on the table as published, for comparison with others' numbers, and once without the
genes that each tell the project a patient is from, as the others together still do (see
examples/tcga_gbmlgg/cohort.yaml). Networks are trained with every seed, ensembles of five with the first, linear
models, which draw nothing, once.

What is finished stays in `--work` and is not done again: the parts can be run one after the other. The tables of what
there is are printed; once nothing is missing, they become the file of results.
"""

import argparse
import platform
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from subfuse.audit.confounding.strata import strata_of
from subfuse.cohort.cohort import read_cohort
from subfuse.evaluation import compare_models, evaluate_predictions
from subfuse.evaluation.benefit.added_value import added_value
from subfuse.evaluation.benefit.optimism import optimism_gap
from subfuse.evaluation.predictions import TaskPredictions, read_tasks
from subfuse.evaluation.strata import pair_decomposition, stratified_metrics
from subfuse.execution import available_cores
from subfuse.files import write_text
from subfuse.preparation.prepare import prepare
from subfuse.run_folder.cohort_copy import read_run_patients
from subfuse.run_folder.layout import read_audit
from subfuse.run_folder.names import AUDIT, HELD_OUT_SITES, PREDICTIONS
from subfuse.run_folder.tables import read_predictions, stack_predictions
from subfuse.runs.cross_validation import cross_validate
from subfuse.training.models import MAIN_MODEL
from subfuse.training.settings import TrainingPlan, TrainingSettings

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "tcga_gbmlgg" / "cohort.yaml"
RESULT = ROOT / "benchmarks" / "results" / "tcga_gbmlgg.md"
SEEDS = (0, 1, 2)
MEMBERS = 5  # networks of an ensemble, whose logits are averaged
HEADLINE = {"survival": "c_index", "grade": "auc", "grade_2_3": "auc", "diagnosis": "auc"}
GROUPS = {
    "networks": ("subspace", "snn"),
    "ensembles": ("subspace", "snn"),
    "linear": ("cox", "logistic", "clinical", "site", "batch"),
}
DRAWN = ("networks",)  # with every seed
MARKERS = {  # the clinical model of survival with further covariates, by what it is called here
    "clinical + IDH, 1p/19q": ["idh", "codeletion_1p19q"],
    "clinical + IDH, 1p/19q, grade": ["idh", "codeletion_1p19q", "grade"],
    "clinical + WHO class, grade": ["diagnosis", "grade"],
}
ONLY = (*GROUPS, "markers")
OF_ENSEMBLES = f", {MEMBERS} networks"
STRATA = ["idh", "project"]
BESIDE = ("subspace", "snn", "cox", "clinical", "clinical + IDH, 1p/19q")  # shown within strata
VARIANTS = {
    "as-published": "All 1544 genes, as published",
    "cleaned": "Without 269 genes that each tell the project (the others together still do)",
}
NAMING_THE_PROJECT = (  # alone, in a fold of patients or of hospitals
    "CSHL1", "LACRT", "IFNA4", "DEFB4A", "GPHB5", "IL1F10", "DEFA5", "IL36A", "IL17A", "IFNA10", "IFNL2", "PTH",
)  # fmt: skip
PUBLISHED = """\
Published on the same patients and folds, all genes, without age and sex: survival (C-index, recomputed from the
published out-of-fold risks; these models stopped early on the reported fold, so they are optimistic) SNN on expression
0.598 ± 0.054, ABMIL on slides 0.787 ± 0.028, ABMIL + expression 0.816 ± 0.011, MCAT 0.817 ± 0.021, Patch-GCN
0.805 ± 0.021. Linear models without an inner validation split: elastic-net Cox 0.800 ± 0.043; logistic regression grade
0.865, diagnosis 0.943.

What slides add to expression or to markers, and how they rank within IDH classes, is not in this table: the slides and
the published predictions are not part of the data.

GBM and LGG were scaled separately in this table, so genes that many patients do not express name the project: every G4
patient is a GBM patient. Published grade and diagnosis numbers on this table profit from it."""


N_BOOTSTRAP = 1000


@dataclass(frozen=True)
class Part:
    """One run: models of a group with a seed, on a variant of the cohort."""

    variant: str
    group: str
    seed: int

    def folder(self, work: Path) -> Path:
        """Returns the run folder."""
        return work / "tcga" / self.variant / f"{self.group}-{self.seed}"

    @property
    def holds_out_sites(self) -> bool:
        """Whether whole hospitals are held out as well."""
        return self.seed == 0 and self.variant in VARIANTS and self.group != "ensembles"

    def is_done(self, work: Path) -> bool:
        """Returns whether the run needs nothing more."""
        of_sites = self.folder(work) / HELD_OUT_SITES / PREDICTIONS
        return (self.folder(work) / AUDIT).exists() and (not self.holds_out_sites or of_sites.exists())


def parts_of(variants: Iterable[str], groups: Sequence[str], seeds: Sequence[int]) -> Iterator[Part]:
    """Yields the runs, quickest first."""
    if "markers" in groups:
        yield from (Part(f"markers-{number}", "linear", 0) for number in range(len(MARKERS)))
    for variant in variants:
        yield from (
            Part(variant, group, seed)
            for group in reversed(GROUPS)
            if group in groups
            for seed in (seeds if group in DRAWN else [0])
        )


def prepared_cohort(variant: str, work: Path) -> Path:
    """Returns the prepared cohort of a variant: the example, no gene excluded, or markers among its covariates."""
    content = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    if variant == "as-published":
        del content["expression"]["exclude"]
    if variant.startswith("markers"):
        content["covariates"] += list(MARKERS.values())[int(variant.removeprefix("markers-"))]
        content["tasks"] = {"survival": content["tasks"]["survival"]}
    folder = work / "tcga" / variant
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "cohort.yaml"
    write_text(path, yaml.safe_dump(content, sort_keys=False))
    prepare(path, folder / "prepared")
    return folder / "prepared"


def train(part: Part, work: Path, *, workers: int) -> None:
    of_markers = part.variant not in VARIANTS
    cross_validate(
        read_cohort(prepared_cohort(part.variant, work)),
        task="survival" if of_markers else list(HEADLINE),
        models=["clinical"] if of_markers else GROUPS[part.group],
        out=part.folder(work),
        plan=TrainingPlan(training=TrainingSettings(members=MEMBERS if part.group == "ensembles" else 1)),
        seed=part.seed,
        allow_inputs=NAMING_THE_PROJECT if part.variant == "as-published" else (),
        held_out_sites=part.holds_out_sites,
        workers=workers,
    )


def predictions_of(variant: str, work: Path) -> pd.DataFrame:
    """Returns what is predicted so far: a repeat for every seed, and in each the models that are fitted once."""
    done = [part for part in parts_of([variant], ONLY, SEEDS) if part.is_done(work)]
    seeds = sorted({part.seed for part in done if part.group in DRAWN}) or [0]
    tables = []
    for part in reversed(done):  # networks first
        table = read_predictions(part.folder(work) / PREDICTIONS)
        if part.variant not in VARIANTS:
            table["model"] = list(MARKERS)[int(part.variant.removeprefix("markers-"))]
        if part.group == "ensembles":
            table["model"] += OF_ENSEMBLES
        repeats = [part.seed] if part.group in DRAWN else seeds
        tables += [table.assign(repeat=seeds.index(seed)) for seed in repeats]
    return stack_predictions(tables)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *([*map(str, row)] for row in rows)]
    return [*(f"| {' | '.join(cells)} |" for cells in lines), ""]


def shown(value: float, lower: float = float("nan"), upper: float = float("nan"), sign: str = "") -> str:
    """Returns a number with its interval, where it has one."""
    number = f"{sign}.3f"
    if pd.isna(value):
        return "undefined"
    return f"{value:{number}}" if pd.isna(lower) else f"{value:{number}} ({lower:{number}} to {upper:{number}})"


def overall(predictions: pd.DataFrame) -> Iterator[str]:
    """Yields every model's headline metric, and the paired comparisons with subspace fusion."""
    metrics = evaluate_predictions(predictions, n_bootstrap=N_BOOTSTRAP)
    rows = metrics[metrics["metric"] == metrics["task"].map(HEADLINE)].itertuples()
    yield from table(
        ["task", "metric", "model", "mean (95 % interval)", "sd over folds", "patients"],
        ((r.task, r.metric, r.model, shown(r.value, r.lower, r.upper), shown(r.sd), r.n_patients) for r in rows),
    )
    if MAIN_MODEL in set(predictions["model"]):
        compared = compare_models(predictions, reference=MAIN_MODEL, n_bootstrap=N_BOOTSTRAP).itertuples()
        yield from ["Paired differences to subspace fusion on the same patients:", ""]
        yield from table(
            ["task", "model", "difference (95 % interval)", "Holm-adjusted p"],
            ((r.task, r.model, shown(r.difference, r.lower, r.upper, "+"), shown(r.p_adjusted)) for r in compared),
        )


def beyond_markers(survival: TaskPredictions) -> Iterator[str]:
    """Yields what models add to each clinical model of survival."""
    models = [model for model in survival.models if model in BESIDE[:3]]
    tables = [
        added_value(survival, trivial, models, n_bootstrap=N_BOOTSTRAP, seed=0)
        for trivial in ("clinical", *MARKERS)
        if trivial in survival.models and models
    ]
    if tables:
        yield from [
            "What a model adds to a clinical one (C-index of both risks combined, less that of the clinical one):",
            "",
        ]
        yield from table(
            ["clinical model", "added", "difference (95 % interval)", "weights from", "Holm-adjusted p"],
            (
                (r.trivial, r.model, shown(r.difference, r.lower, r.upper, "+"), r.fitted_on, shown(r.p_adjusted))
                for found in tables
                for r in found.itertuples()
            ),
        )


def within_strata(survival: TaskPredictions, columns: pd.DataFrame) -> Iterator[str]:
    """Yields the C-index within strata, and which pairs the whole one is made of."""
    models = [model for model in BESIDE if model in survival.models]
    within = stratified_metrics(survival, models, columns, n_bootstrap=N_BOOTSTRAP, seed=0).itertuples()
    yield from ["Survival within strata (C-index of pairs within the stratum):", ""]
    yield from table(
        ["column", "stratum", "model", "C-index (95 % interval)", "patients", "events"],
        ((r.column, r.stratum, r.model, shown(r.value, r.lower, r.upper), r.n_patients, r.n_events) for r in within),
    )
    pairs = pair_decomposition(survival, models[:1], columns).itertuples()
    yield from [f"Pairs that make up the C-index of {models[0]}:", ""]
    yield from table(
        ["column", "pairs", "share", "C-index", "contribution"],
        (
            (r.column, f"within {r.stratum}" if r.stratum == r.other else f"{r.stratum} with {r.other}",
             f"{r.share:.1%}", f"{r.c_index:.3f}", f"{r.contribution:.3f}")
            for r in pairs
        ),
    )  # fmt: skip


def hospitals_held_out(runs: Sequence[Path]) -> Iterator[str]:
    """Yields what random folds promise beyond whole hospitals, with seed 0."""
    folders = [run for run in runs if (run / HELD_OUT_SITES / PREDICTIONS).exists()]
    if not folders:
        return
    random_folds, of_sites = (
        {
            task.name: task
            for task in read_tasks(stack_predictions([read_predictions(folder / name) for folder in folders]))
        }
        for name in (PREDICTIONS, f"{HELD_OUT_SITES}/{PREDICTIONS}")
    )
    gaps = pd.concat(
        optimism_gap(task, of_sites[name], n_bootstrap=N_BOOTSTRAP, seed=0)
        for name, task in random_folds.items()
        if name in of_sites
    ).itertuples()
    yield from ["Whole hospitals held out (seed 0):", ""]
    yield from table(
        ["task", "model", "random folds", "hospitals held out", "gap (95 % interval)"],
        (
            (r.task, r.model, shown(r.random_folds), shown(r.held_out), shown(r.gap, r.lower, r.upper, "+"))
            for r in gaps
        ),
    )


def confounders(run: Path) -> Iterator[str]:
    """Yields how well inputs tell site and project, and what these explain, as the audit of seed 0 found it."""
    rows = (read_audit(run) or {"tables": {}})["tables"].get("confounders", [])
    if not rows:
        return
    yield from [f"What tells hospital and project (audit of seed 0; the model is {rows[0]['model']}):", ""]
    numbers = ("auc", "auc_within", "outcome_share", "prediction_share")
    yield from table(
        ["task", "column", "input", "AUC", "AUC among patients alike", "of the outcome", "of predictions among alike"],
        (
            (row["task"], row["column"], row["input"], *("" if row[n] is None else f"{row[n]:.3f}" for n in numbers))
            for row in rows
        ),
    )


def report(variant: str, work: Path) -> list[str]:
    """Returns what is known of a variant as Markdown."""
    predictions = predictions_of(variant, work)
    first = [part.folder(work) for part in parts_of([variant], tuple(GROUPS), [0]) if part.is_done(work)]
    patients = read_run_patients(first[0])
    columns = strata_of(patients, STRATA)[1][STRATA]
    survival = next(task for task in read_tasks(predictions) if task.name == "survival")
    return [
        f"## {VARIANTS[variant]}",
        "",
        *overall(predictions),
        *beyond_markers(survival),
        *within_strata(survival, columns),
        *hospitals_held_out(first),
        *confounders(first[-1]),  # of the networks where they are there
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--workers", type=int, default=available_cores())
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=SEEDS)
    parser.add_argument("--variants", nargs="+", choices=tuple(VARIANTS), default=tuple(VARIANTS))
    parser.add_argument("--only", nargs="+", choices=ONLY, default=ONLY)
    options = parser.parse_args()
    for part in parts_of(options.variants, options.only, options.seeds):
        if not part.is_done(options.work):
            train(part, options.work, workers=options.workers)
    missing = [part for part in parts_of(VARIANTS, ONLY, SEEDS) if not part.is_done(options.work)]
    there = [name for name in VARIANTS if any(p.is_done(options.work) for p in parts_of([name], tuple(GROUPS), SEEDS))]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    lines = [
        "# TCGA-GBM/LGG, expression, age and sex",
        "",
        "    SUBFUSE_REAL_DATA=... python benchmarks/tcga_gbmlgg.py",
        "",
        f"Commit {commit.strip()}; {platform.machine()}, {available_cores()} cores. 569 patients, z-scores as "
        "published, standardised again on training patients; five published folds, 15 % of the training patients kept "
        f"for inner validation; seeds {', '.join(map(str, SEEDS))}, default settings; ensembles of {MEMBERS} networks "
        "with seed 0. Every expression model sees the same genes, age and sex; `clinical` is age and sex, "
        "with what is named beside it; `site` and `batch` read the hospital's code and the project alone. "
        "Mean over the test folds of all seeds with the 95 % bootstrap interval by patient. Nobody of G2 or G3 is of "
        "GBM: `grade_2_3` is grade within a project.",
        "",
        *(line for name in there for line in report(name, options.work)),
        PUBLISHED,
    ]
    print("\n".join(lines))
    if missing:
        print(f"\n{len(missing)} runs are missing, the first {missing[0]}: {RESULT.name} was not written.")
    else:
        RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

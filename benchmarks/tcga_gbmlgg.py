"""Expression models on the real TCGA-GBM/LGG patients and the five published folds.

SUBFUSE_REAL_DATA=... python benchmarks/tcga_gbmlgg.py [--work benchmarks/work] [--workers N]

No slides are available for these patients: every model sees expression, age and sex only, and subspace fusion runs with
the slide modality masked. Once on the table as published, for comparison with others' numbers, and once without the
genes that each tell the project a patient is from, as the others together still do (see
examples/tcga_gbmlgg/cohort.yaml). Resumable.
"""

import argparse
import platform
import subprocess
from pathlib import Path

import pandas as pd
import yaml

from subfuse.cohort.cohort import read_cohort
from subfuse.execution import available_cores
from subfuse.files import write_text
from subfuse.preparation.prepare import prepare
from subfuse.runs.cross_validation import cross_validate
from subfuse.training.settings import TrainingPlan, TrainingSettings

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "tcga_gbmlgg" / "cohort.yaml"
RESULT = ROOT / "benchmarks" / "results" / "tcga_gbmlgg.md"
MODELS = ("subspace", "snn", "cox", "logistic", "clinical")
MEMBERS = 5  # networks whose logits are averaged
HEADLINE = {"survival": "c_index", "grade": "auc", "diagnosis": "auc"}
VARIANTS = {
    "as-published": "All 1544 genes, as published",
    "cleaned": "Without 269 genes that each tell the project (the others together still do)",
}
NAMING_THE_PROJECT = ("CSHL1", "LACRT", "IFNA4", "DEFB4A", "GPHB5", "IL1F10", "DEFA5", "IL36A", "IL17A")
PUBLISHED = """\
Published on the same patients and folds, all genes, without age and sex: survival (C-index, recomputed from the
published out-of-fold risks; these models stopped early on the reported fold, so they are optimistic) SNN on expression
0.598 ± 0.054, ABMIL on slides 0.787 ± 0.028, ABMIL + expression 0.816 ± 0.011, MCAT 0.817 ± 0.021, Patch-GCN
0.805 ± 0.021. Linear models without an inner validation split: elastic-net Cox 0.800 ± 0.043; logistic regression grade
0.865, diagnosis 0.943.

GBM and LGG were scaled separately in this table, so genes that many patients do not express name the project: every G4
patient is a GBM patient. Published grade and diagnosis numbers on this table profit from it."""


def variant_cohort(name: str, work: Path) -> Path:
    """Returns the cohort file of a variant: the example, or the example with no gene excluded."""
    if name == "cleaned":
        return EXAMPLE
    content = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    del content["expression"]["exclude"]
    path = work / "as-published.yaml"
    write_text(path, yaml.safe_dump(content, sort_keys=False))
    return path


def tables(title: str, metrics: pd.DataFrame, comparisons: pd.DataFrame) -> list[str]:
    """Every model's headline metric and the paired comparisons as Markdown."""
    lines = [f"## {title}", "", "| task | metric | model | mean | 95 % interval | sd over folds |"]
    lines.append("|---|---|---|---|---|---|")
    for row in metrics[metrics["metric"] == metrics["task"].map(HEADLINE)].itertuples():
        interval = f"{row.lower:.3f} to {row.upper:.3f}"
        lines.append(f"| {row.task} | {row.metric} | {row.model} | {row.value:.3f} | {interval} | {row.sd:.3f} |")
    lines += ["", "Paired differences to subspace fusion on the same patients:", ""]
    lines += ["| task | model | difference | 95 % interval | Holm-adjusted p |", "|---|---|---|---|---|"]
    for row in comparisons.itertuples():
        interval = f"{row.lower:+.3f} to {row.upper:+.3f}"
        lines.append(f"| {row.task} | {row.model} | {row.difference:+.3f} | {interval} | {row.p_adjusted:.3f} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--workers", type=int, default=available_cores())
    options = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    lines = [
        "# TCGA-GBM/LGG, expression, age and sex",
        "",
        "    SUBFUSE_REAL_DATA=... python benchmarks/tcga_gbmlgg.py",
        "",
        f"Commit {commit.strip()}; {platform.machine()}, {available_cores()} cores. 569 patients, z-scores as "
        "published, standardised again on training patients; five published folds, 15 % of the training patients kept "
        f"for inner validation; seed 0, default settings but ensembles of {MEMBERS} networks (chosen on inner splits). "
        "Every expression model sees the same genes. Mean over test folds with the 95 % bootstrap interval by patient.",
        "",
    ]
    for name, title in VARIANTS.items():
        folder = options.work / "tcga" / name
        folder.mkdir(parents=True, exist_ok=True)
        prepare(variant_cohort(name, folder), folder / "prepared")
        result = cross_validate(
            read_cohort(folder / "prepared"),
            task=list(HEADLINE),
            models=MODELS,
            out=folder / "run",
            plan=TrainingPlan(training=TrainingSettings(members=MEMBERS)),
            allow_inputs=NAMING_THE_PROJECT if name == "as-published" else (),
            workers=options.workers,
        )
        lines += tables(title, result.metrics, result.comparisons)
    RESULT.write_text("\n".join([*lines, PUBLISHED]) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

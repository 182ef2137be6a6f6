"""How often the audit's check for confounding is wrong: false alarms on clean cohorts, batches scaled apart found.

python benchmarks/audit_calibration.py [--cohorts 200]

Cohorts are drawn in memory: 300 patients, 200 genes that follow a marker (of two values), severity and a third factor,
survival that follows severity, two batches, five folds, and the held-out risks of a ridge regression on all genes.
"""

import argparse
import time
from collections import Counter

import numpy as np
import pandas as pd

from audit_page import write_section
from subfuse.audit.audited_task import audited_tasks
from subfuse.audit.confounding.confounders import TOLD, MeanFeatures, confounder_findings
from subfuse.audit.confounding.signal import martingale_residuals
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.task import TaskSpec

N, GENES, FOLDS = 300, 200, 5
RIDGE = 100.0
KINDS = {
    "random": "clean: batches drawn at random",
    "case-mix": "clean: 80 % of one batch and 20 % of the other have the marker, which is a stratum",
    "unnamed": "clean, but batches follow severity (log odds 1 per standard deviation), which no stratum names",
    "scaled": "case mix as above, and every gene standardised within each batch",
}


def draw_cohort(kind: str, seed: int) -> Cohort:
    """Returns a cohort whose batches are of one of the kinds."""
    draw = np.random.default_rng(seed)
    marker = draw.random(N) < 0.5
    severity = draw.normal(size=N) if kind == "unnamed" else 1.5 * marker + 0.7 * draw.normal(size=N)
    chance = {"random": np.full(N, 0.5), "unnamed": 1 / (1 + np.exp(-severity))}.get(kind, np.where(marker, 0.8, 0.2))
    batch = draw.random(N) < chance
    factors = np.stack([severity, marker, draw.normal(size=N)], axis=1)
    genes = factors @ draw.normal(scale=0.5, size=(3, GENES)) + draw.normal(size=(N, GENES))
    if kind == "scaled":
        for chosen in (batch, ~batch):
            genes[chosen] = (genes[chosen] - genes[chosen].mean(axis=0)) / genes[chosen].std(axis=0)
    time_days, last_contact = 1000 * draw.exponential(np.exp(-severity)), draw.uniform(0, 4000, N)
    patients = tuple(
        Patient(
            f"P{i:03d}",
            "drawn",
            expression=genes[i].astype(np.float32),
            time_days=float(min(time_days[i], last_contact[i])),
            event=bool(time_days[i] <= last_contact[i]),
            labels={"project": "y" if batch[i] else "x", "idh": "mutant" if marker[i] else "wildtype"},
        )
        for i in range(N)
    )
    strata = () if kind == "unnamed" else ("idh",)
    names = tuple(f"G{i}" for i in range(GENES))
    tasks = {"survival": TaskSpec(time="time_days", event="event")}
    return Cohort("drawn", patients, names, "zscore", gene_sets={}, tasks=tasks, batch="project", strata=strata)


def held_out_predictions(cohort: Cohort, fold: np.ndarray) -> pd.DataFrame:
    """Returns test rows with the risks of a ridge regression of martingale residuals, fitted on the other folds."""
    genes = np.stack([patient.expression for patient in cohort]).astype(np.float64)
    time_days, event = (np.array([getattr(patient, name) for patient in cohort]) for name in ("time_days", "event"))
    outcome, risk = martingale_residuals(time_days.astype(float), event.astype(bool)), np.zeros(len(cohort))
    for held_out in np.unique(fold):
        train = fold != held_out
        spread = genes[train].std(axis=0)
        scaled = (genes - genes[train].mean(axis=0)) / np.where(spread > 0, spread, 1)
        inner = scaled[train] @ scaled[train].T + RIDGE * np.eye(train.sum())
        weight = scaled[train].T @ np.linalg.solve(inner, outcome[train] - outcome[train].mean())
        risk[~train] = scaled[~train] @ weight
    return pd.DataFrame(
        {
            "task": "survival", "model": "ridge", "repeat": 0, "fold": fold, "split": "test", "cohort": cohort.name,
            "patient_id": [patient.patient_id for patient in cohort], "time_days": time_days, "event": event,
            "risk": risk,
        }
    )  # fmt: skip


def level_of(kind: str, seed: int) -> tuple[str, pd.Series]:
    """Returns the level of the finding in a drawn cohort, and its numbers."""
    cohort = draw_cohort(kind, seed)
    fold = np.random.default_rng(seed).permutation(N) % FOLDS
    (task,) = audited_tasks(held_out_predictions(cohort, fold), seed=seed)
    (finding,), table = confounder_findings(cohort, task, MeanFeatures(), dict)
    return finding.level, table.iloc[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", type=int, default=200)
    n, start = parser.parse_args().cohorts, time.monotonic()
    rows = []
    for kind, words in KINDS.items():
        found = [level_of(kind, seed) for seed in range(n)]
        levels, numbers = Counter(level for level, _ in found), pd.DataFrame([row for _, row in found])
        within = numbers["auc_within"].quantile([0.05, 0.5, 0.95])
        shares = [f"{(numbers[p] < 0.05).mean():.1%}" for p in ("p_within", "p_outcome", "p_prediction")]
        middle = ", ".join(f"{value:.2f}" for value in within)
        rows.append(f"| {words} | {levels['warning'] / n:.1%} | {middle} | {' | '.join(shares)} |")
    header = (
        "| cohorts | warnings | AUC among patients alike (5, 50, 95 %) | told | explains outcome | and predictions |"
    )
    write_section(
        "How often the check for confounding is wrong",
        f"python benchmarks/audit_calibration.py --cohorts {n}",
        f"{(time.monotonic() - start) / n / len(KINDS):.1f} s per cohort. {n} cohorts of each kind, {N} patients, "
        f"{GENES} genes. A warning takes all three at 5 % (genes tell the batch among patients alike, it explains the "
        f"outcome, it explains the predictions among patients alike) and an AUC of {TOLD} of the first.",
        [header, "|---|---|---|---|---|---|", *rows],
    )


if __name__ == "__main__":
    main()

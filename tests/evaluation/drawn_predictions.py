"""Drawn patients in folds, and tables of what models that see their severity predict of them."""

import numpy as np
import pandas as pd

N, FOLDS = 90, 3
CLASSES = ("G2", "G3", "G4")


def cohort(seed: int = 0, *, n: int = N, folds: int = FOLDS) -> pd.DataFrame:
    """Outcomes of patients, with a latent severity that good models see."""
    generator = np.random.default_rng(seed)
    severity = generator.normal(size=n)
    survival_time, last_contact = generator.exponential(1500 * np.exp(-severity)), generator.uniform(0, 5000, n)
    return pd.DataFrame(
        {
            "patient_id": [f"TCGA-{index:03d}" for index in range(n)],
            "cohort": "tcga",
            "time_days": np.ceil(np.minimum(survival_time, last_contact)),
            "event": survival_time <= last_contact,
            "label": np.array(CLASSES)[np.digitize(severity, [-0.5, 0.5])],
            "severity": severity,
            "fold_tested": generator.permutation(n) % folds,
        }
    )


def predictions(
    patients: pd.DataFrame,
    *,
    task: str = "survival",
    model: str = "subspace",
    noise: float = 1.0,
    seed: int = 1,
    repeat: int = 0,
) -> pd.DataFrame:
    """One model's rows for all folds and splits; every fold's model has its own risk scale."""
    generator = np.random.default_rng(seed)
    rows = []
    n_folds = patients["fold_tested"].max() + 1
    for fold in range(n_folds):
        seen = patients["severity"] + noise * generator.normal(size=len(patients))
        distance = (patients["fold_tested"] - fold) % n_folds
        split = np.select([distance == 0, distance == 1], ["test", "validation" if n_folds > 2 else "train"], "train")
        table = patients[["patient_id", "cohort", "time_days", "event", "label"]].assign(
            task=task, model=model, repeat=repeat, fold=fold, split=split
        )
        if task == "survival":
            rows.append(table.assign(label=None, risk=seen * 10.0**fold + 7 * fold))
        else:
            logits = -((seen.to_numpy()[:, None] - np.array([-1.0, 0.0, 1.0])) ** 2)
            odds = np.exp(logits)
            columns = {f"p_{name}": odds[:, c] / odds.sum(axis=1) for c, name in enumerate(CLASSES)}
            rows.append(table.assign(risk=np.nan, **columns))
    return pd.concat(rows, ignore_index=True)


def row_of(table: pd.DataFrame, metric: str) -> pd.Series:
    found = table[table["metric"] == metric]
    assert len(found) == 1
    return found.iloc[0]


def folds_of(table: pd.DataFrame) -> list[pd.DataFrame]:
    return [fold for _, fold in table[table["split"] == "test"].groupby(["repeat", "fold"])]

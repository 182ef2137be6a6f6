"""Is expression worth ordering for this patient? What the expected change, told from slides alone, is worth.

python benchmarks/worth_ordering.py [--work benchmarks/work] [--patients 150] [--seeds 0 1 2]

Cohorts are those of `distillation.py`: everybody has slides and expression, and what they show is known. In three folds
every test patient is predicted by a model of both, with expression and with it hidden. Then expression is ordered for
some, whom a rule names, and the others keep the prediction from slides: which share of the gain of having it for all is
recovered? `ceiling` is what a rule could recover at most, on thousands of patients whose true views are known. One
process, a quarter of an hour. Resumable.
"""

import argparse
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from lifelines import CoxPHFitter
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import PolynomialFeatures

from distillation import SHORT, SIZES, TASKS, VISIBILITIES, draw_cohort, interval
from subfuse.cohort.batches import SurvivalTarget
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.drawn_folds import stratified_folds
from subfuse.evaluation.predictions import EXPECTED_CHANGE
from subfuse.files import write_table, write_text
from subfuse.objective.ranking import concordance, macro_auc
from subfuse.simulation.patients import DIAGNOSES, draw_patients
from subfuse.training.distillation import Teacher
from subfuse.training.fitting import train_fold
from subfuse.training.settings import TrainingPlan

RESULT = Path(__file__).parent / "results" / "worth_ordering.md"
FOLDS, CEILING_PATIENTS, ORDERS = 3, 8000, 20
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
BAR, AT = 0.8, 0.3
RULES = {  # title, and how patients are scored
    "random": "random",
    "student": "uncertainty of the student",
    "alone": "uncertainty without expression",
    "expected": "expected change",
    "actual": "actual change (RNA is known)",
}
Values = Float[np.ndarray, " patient"]


def measure(cohort: Cohort, task: str, seed: int, fold_index: int) -> pd.DataFrame:
    """Returns the test patients of a fold with what is predicted of them: both, slides alone, and by a student."""
    outcome = {p.patient_id: p.event if task == "survival" else p.labels["diagnosis"] for p in cohort}
    table = pd.DataFrame({"patient_id": outcome.keys(), "outcome": outcome.values()})
    fold = stratified_folds(table, folds=FOLDS, validation=0.2, stratify=["outcome"], seed=seed)[fold_index]
    plan = TrainingPlan(training=SHORT, architecture=SIZES, seed=seed, device="cpu")
    model = train_fold(cohort, fold, task=task, model_name="subspace", plan=plan)
    student = train_fold(cohort, fold, task=task, model_name="distilled", plan=plan, teacher=Teacher(model))
    tested = list(cohort.select(fold.test))
    hidden = [replace(patient, expression=None) for patient in tested]
    found = pd.DataFrame(
        {
            "patient_id": [p.patient_id for p in tested],
            "time_days": [p.time_days for p in tested],
            "event": [p.event for p in tested],
            "label": [DIAGNOSES.index(p.labels["diagnosis"]) for p in tested],
            EXPECTED_CHANGE: model.expected_change(hidden, model.predict_with_logits(hidden)[1]),
        }
    )
    said = {"both": model.predict(tested), "alone": model.predict(hidden), "student": student.predict(hidden)}
    columns = model.objective.columns
    return found.join([rows[columns].add_prefix(f"{name}:") for name, rows in said.items()])


def numbers(rows: pd.DataFrame, of: str, kind: str) -> np.ndarray:
    """Returns what is predicted: columns of this kind (`p_`, `survival_`, `risk`) from these inputs."""
    return rows[[name for name in rows if name.startswith(f"{of}:{kind}")]].to_numpy(float)


def scores(rows: pd.DataFrame, task: str) -> dict[str, list[Values]]:
    """Returns by how much every rule wants expression for each patient; of random several draws."""
    kind = "p_" if task == "diagnosis" else "survival_"
    said = {of: numbers(rows, of, kind) for of in ("both", "alone", "student")}
    apart = np.abs(said["both"] - said["alone"])
    actual = apart.sum(axis=1) / 2 if task == "diagnosis" else apart.mean(axis=1)

    def uncertainty(of: str) -> Values:
        share = np.clip(said[of], 1e-9, 1 - 1e-9)
        return -(share * np.log(share)).sum(axis=1) if task == "diagnosis" else (share * (1 - share)).mean(axis=1)

    draw = np.random.default_rng(0)
    return {
        "random": [draw.random(len(rows)) for _ in range(ORDERS)],
        "student": [uncertainty("student")],
        "alone": [uncertainty("alone")],
        "expected": [rows[EXPECTED_CHANGE].to_numpy(float)],
        "actual": [actual],
    }


def ranking(predicted: np.ndarray, rows: pd.DataFrame, task: str) -> float:
    """Returns C-index of risks, or macro AUC of probabilities."""
    if task == "diagnosis":
        return macro_auc(predicted, rows["label"].to_numpy())
    target = SurvivalTarget(torch.tensor(rows["time_days"].to_numpy(float)), torch.tensor(rows["event"].to_numpy(bool)))
    return float(concordance(torch.tensor(predicted), target)[0])


def curve(score: Values, alone: np.ndarray, both: np.ndarray, rank: Callable[[np.ndarray], float]) -> list[float]:
    """Returns the gain where the patients of the highest scores have expression: one for each of SHARES."""
    order, found = np.argsort(-score, kind="stable"), []
    for share in SHARES:
        mixed, chosen = alone.copy(), order[: round(share * len(order))]
        mixed[chosen] = both[chosen]
        found.append(rank(mixed) - rank(alone))
    return found


def gains(rows: pd.DataFrame, task: str) -> pd.DataFrame:
    """Returns one row per rule: gain at each share, and that of expression for all."""
    kind = "p_" if task == "diagnosis" else "risk"
    alone, both = numbers(rows, "alone", kind), numbers(rows, "both", kind)

    def rank(predicted: np.ndarray) -> float:
        return ranking(predicted, rows, task)

    found = {
        rule: np.mean([curve(score, alone, both, rank) for score in each], axis=0)
        for rule, each in scores(rows, task).items()
    }
    table = pd.DataFrame.from_dict(found, orient="index", columns=list(SHARES)).rename_axis("rule").reset_index()
    return table.assign(all=rank(both) - rank(alone))


def ceiling(visibility: float, seed: int = 0) -> dict[str, dict[str, float]]:
    """Returns the share of the gain that the best rule recovers, by task: told from slides, and of the actual change.

    Predictions are regressions on the true views, their squares and product, of 4,000 patients; the best rule that sees
    slides is a regression of the actual change on what slides show. Both are tested on 4,000 others.
    """
    truth = draw_patients(CEILING_PATIENTS, visibility=visibility, generator=np.random.default_rng(seed))
    spread = PolynomialFeatures(2, include_bias=False)
    seen = {"alone": truth.views[:, 0], "both": truth.views.reshape(len(truth.views), -1)}
    seen = {name: spread.fit_transform(values) for name, values in seen.items()}
    known, tested = np.split(np.arange(CEILING_PATIENTS), 2)
    outcomes = pd.DataFrame({"time_days": truth.time_days, "event": truth.event, "label": truth.diagnosis})
    found = {}
    for task in TASKS:
        said = {name: _predicted(task, values, outcomes, known) for name, values in seen.items()}
        actual = np.abs(said["both"] - said["alone"]).sum(axis=1)
        rule = HistGradientBoostingRegressor(max_depth=3, random_state=0).fit(truth.views[known, 0], actual[known])
        rows = outcomes.iloc[tested]
        alone, both = said["alone"][tested], said["both"][tested]

        def recovered(score: Values, task: str = task, rows: pd.DataFrame = rows, alone=alone, both=both) -> float:
            gain = curve(score, alone, both, lambda predicted: ranking(predicted, rows, task))
            return gain[SHARES.index(AT)] / (ranking(both, rows, task) - ranking(alone, rows, task))

        found[task] = {"slides": recovered(rule.predict(truth.views[tested, 0])), "actual": recovered(actual[tested])}
    return found


def _predicted(task: str, values: np.ndarray, outcomes: pd.DataFrame, known: np.ndarray) -> np.ndarray:
    if task == "diagnosis":
        model = LogisticRegression(max_iter=1000).fit(values[known], outcomes["label"].to_numpy()[known])
        return model.predict_proba(values)
    table = pd.DataFrame(values).add_prefix("x").join(outcomes[["time_days", "event"]])
    fitted = CoxPHFitter(penalizer=1e-3).fit(table.iloc[known], "time_days", "event")
    return fitted.predict_log_partial_hazard(table).to_numpy()[:, None]


def rows_of(work: Path, patients: int, seeds: Sequence[int]) -> Iterator[tuple[Mapping[str, object], pd.DataFrame]]:
    """Yields which fold it is, and its test patients; measured where they are not there yet."""
    for visibility, seed, task, fold in product(VISIBILITIES, seeds, TASKS, range(FOLDS)):
        path = work / f"{patients}" / f"{visibility:g}_{seed}_{task}_{fold}.csv"
        if not path.exists():
            cohort = draw_cohort(work / f"{patients}" / f"features_{visibility:g}_{seed}", patients, visibility, seed)
            write_table(path, measure(cohort, task, seed, fold))
        yield {"visibility": visibility, "seed": seed, "task": task, "fold": fold}, pd.read_csv(path)


def recovered_lines(found: pd.DataFrame) -> Iterator[str]:
    """Yields a table: which share of the gain each rule recovers, at each share of patients."""
    yield "| visibility | task | rule | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |"
    yield "|---" * (len(SHARES) + 3) + "|"
    for (visibility, task), of_task in found.groupby(["visibility", "task"], sort=False):
        for rule, rows in of_task.groupby("rule", sort=False):
            shares = rows[[*SHARES]].mean() / rows["all"].mean()
            cells = " | ".join(f"{share:.2f}" for share in shares)
            yield f"| {visibility:g} | {task} | {RULES[str(rule)]} | {cells} |"


def verdict_lines(found: pd.DataFrame) -> Iterator[str]:
    """Yields a table: all cohorts together at the share that is asked for, with intervals over cohorts."""
    yield f"| rule | share of the gain, RNA for {AT:.0%} | beyond random |"
    yield "|---|---|---|"
    by_cohort = found.groupby(["rule", "seed"], sort=False)[[AT, "all"]].mean()
    share = (by_cohort[AT] / by_cohort["all"].groupby("seed").transform("mean")).unstack("seed")
    for rule, shares in share.iterrows():
        beyond = "" if rule == "random" else interval(shares - share.loc["random"])
        yield f"| {RULES[str(rule)]} | {interval(shares).replace('+', '')} | {beyond} |"
    reached = share.loc["expected"].mean()
    is_reached = "is" if reached >= BAR else "is not"
    yield ""
    yield f"The expected change recovers {reached:.0%} of the gain: {BAR:.0%} {is_reached} reached."


def size_lines(parts: Sequence[tuple[Mapping[str, object], pd.DataFrame]]) -> Iterator[str]:
    """Yields a table: expected and actual change, and how they are related within folds."""
    rows = []
    for where, table in parts:
        actual = scores(table, str(where["task"]))["actual"][0]
        expected = table[EXPECTED_CHANGE]
        rows.append({**where, "expected": expected.mean(), "actual": actual.mean(),
                     "rho": expected.corr(pd.Series(actual), method="spearman")})  # fmt: skip
    yield "| visibility | task | expected | actual | Spearman's correlation |"
    yield "|---|---|---|---|---|"
    for (visibility, task), of_task in pd.DataFrame(rows).groupby(["visibility", "task"], sort=False):
        mean = of_task[["expected", "actual"]].mean()
        rho = interval(of_task.groupby("seed")["rho"].mean())
        yield f"| {visibility:g} | {task} | {mean['expected']:.3f} | {mean['actual']:.3f} | {rho} |"


def ceiling_lines() -> Iterator[str]:
    """Yields a table: what any rule could recover."""
    yield f"| visibility | task | best rule of slides, RNA for {AT:.0%} | the actual change |"
    yield "|---|---|---|---|"
    for visibility in VISIBILITIES:
        for task, most in ceiling(visibility).items():
            yield f"| {visibility:g} | {task} | {most['slides']:.2f} | {most['actual']:.2f} |"


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work" / "worth_ordering")
    parser.add_argument("--patients", type=int, default=150)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = list(rows_of(arguments.work, arguments.patients, arguments.seeds))
    found = pd.concat([gains(table, str(where["task"])).assign(**where) for where, table in parts], ignore_index=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    lines = [
        "# Is expression worth ordering for this patient?",
        "",
        f"`python benchmarks/worth_ordering.py --patients {arguments.patients} --seeds "
        f"{' '.join(map(str, arguments.seeds))}`",
        "",
        f"Commit {commit.strip()}; {platform.machine()}. {arguments.patients} patients per cohort in {FOLDS} folds, "
        f"{len(arguments.seeds)} cohorts per visibility; embeddings of {SIZES.embed_dim}, {SHORT.epochs} epochs. "
        "A patient without expression is predicted from slides by the same model of both. Shares are of the gain in "
        "C-index (survival) and macro AUC (diagnosis), means over folds and cohorts; 95 % intervals are Student's t "
        "over cohorts.",
        "",
        f"## All cohorts: does RNA for {AT:.0%} recover {BAR:.0%} of the gain?",
        "",
        *verdict_lines(found),
        "",
        "## What any rule could recover",
        "",
        f"Predictions from the true views of {CEILING_PATIENTS // 2} patients, rules tested on as many others.",
        "",
        *ceiling_lines(),
        "",
        "## The curve",
        "",
        *recovered_lines(found),
        "",
        "## Is its size right?",
        "",
        "Of diagnosis the probability that moves to other classes, of survival the mean difference of the curves.",
        "",
        *size_lines(parts),
        "",
    ]
    write_text(RESULT, "\n".join(lines))


if __name__ == "__main__":
    main()

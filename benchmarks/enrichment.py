"""Are the p-values of enrichment those of chance where nothing was planted?

python benchmarks/enrichment.py [--cohorts 300]

Cohorts of 60 patients and 120 genes in 10 sets, with an outcome that has nothing to do with them. Linear models learn
the outcome anyway: one step of gradient descent, ridge regression, and the lasso, which keeps few genes. Genes are
ranked by the mean absolute attribution, as `explain_cohort` does, and enriched. Beside the null of the package, in
which genes go together as they do in the patients, the same is done with independent genes, which is what permuting
genes assumes.
"""

import argparse
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from sklearn.linear_model import Lasso, Ridge

from subfuse.explanation.cohort.enrichment import enrich

N_PATIENTS, N_SETS, SET_SIZE, PERMUTATIONS = 60, 10, 12, 500
LEVELS = (0.01, 0.05, 0.1, 0.5)
RESULT = Path(__file__).parent / "results" / "enrichment.md"
LEARNERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "one gradient step": lambda x, y: x.T @ y,
    "ridge": lambda x, y: Ridge(30.0).fit(x, y).coef_,
    "lasso": lambda x, y: Lasso(0.1).fit(x, y).coef_,
}


def nothing_planted(seed: int, shared: float) -> tuple[pd.DataFrame, np.ndarray]:
    """Expression, in which the genes of a set share a part, and an outcome of its own."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(N_PATIENTS, N_SETS, SET_SIZE)) + shared * random.normal(size=(N_PATIENTS, N_SETS, 1))
    values = values.reshape(N_PATIENTS, -1)
    genes = [f"{number}-{gene}" for number in range(N_SETS) for gene in range(SET_SIZE)]
    return pd.DataFrame((values - values.mean(0)) / values.std(0), columns=genes), random.normal(size=N_PATIENTS)


def p_values(learner: str, shared: float, seed: int, *, independent: bool) -> np.ndarray:
    """The p-values of all sets of one cohort."""
    expression, outcome = nothing_planted(seed, shared)
    weight = LEARNERS[learner](expression.to_numpy(), outcome - outcome.mean())
    sets = {str(k): list(expression.columns[k * SET_SIZE : (k + 1) * SET_SIZE]) for k in range(N_SETS)}
    if independent:
        noise = np.random.default_rng([seed, 1]).normal(size=expression.shape)
        null = pd.DataFrame(noise, columns=expression.columns)
    table = enrich(
        expression.abs().mean() * np.abs(weight),
        sets,
        expression=null if independent else expression,
        seed=seed,
        permutations=PERMUTATIONS,
    )
    return table["p_value"].to_numpy()


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cohorts", type=int, default=300)
    n_cohorts = parser.parse_args().cohorts
    rows = []
    for learner in LEARNERS:
        for shared in (0.0, 1.0):
            for independent in (False, True):
                found = [p_values(learner, shared, seed, independent=independent) for seed in range(n_cohorts)]
                together = np.concatenate(found)
                false = np.mean([(false_discovery_control(p) <= 0.05).any() for p in found])
                rates = [f"{np.mean(together <= level):.3f}" for level in LEVELS]
                null = "independent genes" if independent else "the patients' genes"
                rows.append([learner, "together" if shared else "independently", null, *rates, f"{false:.3f}"])
    columns = ["model", "genes of a set vary", "chance", *(f"p <= {level}" for level in LEVELS), "any FDR <= 0.05"]
    lines = [columns, ["---"] * len(columns), *rows]
    text = f"""# Enrichment where nothing was planted

    python benchmarks/enrichment.py --cohorts {n_cohorts}

- machine: {platform.machine()}; numpy {np.__version__}, Python {platform.python_version()}
- {n_cohorts} cohorts of {N_PATIENTS} patients, {N_SETS} sets of {SET_SIZE} genes, {PERMUTATIONS} random outcomes

Shares of the p-values below each level: a calibrated test has the level itself. Last column: cohorts with a false
discovery at 5 %.

""" + "\n".join("| " + " | ".join(line) + " |" for line in lines)
    print(text)
    RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

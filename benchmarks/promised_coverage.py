"""How often sets of classes and lower bounds of survival hold that promise 90 %, of models that are wrong.

python benchmarks/promised_coverage.py [--draws 1000]

Classes follow the model's probabilities, but the model states their cube (too sure by far). Deaths are exponential with
hazards that the model takes for twice as high and half as different between patients; so are last contacts.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from audit_page import write_section
from subfuse.evaluation.benefit.conformal import PROMISED, conformal_sets, survival_bounds
from subfuse.evaluation.censoring import SurvivalCurves

DAYS = np.linspace(100.0, 3000.0, 30)
N_NEW = 200


def draw_classes(draw: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns stated probabilities of three classes, and the classes."""
    logits = draw.normal(size=(n, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (draw.random((n, 1)) > true.cumsum(axis=1)[:, :2]).sum(axis=1)
    stated = np.exp(3 * logits)
    return stated / stated.sum(axis=1, keepdims=True), label


def draw_survival(
    draw: np.random.Generator, n: int, follow_up: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, SurvivalCurves]:
    """Returns days of death, followed days, events and stated curves.

    Args:
        draw: Generator.
        n: Patients.
        follow_up: Mean days to the last contact.
    """
    risk = draw.normal(size=n)
    death = draw.exponential(1000 * np.exp(-risk))
    last = draw.exponential(follow_up, size=n)
    curves = SurvivalCurves(DAYS, np.exp(-2 * np.exp(0.5 * risk)[:, None] * DAYS / 1000))
    return death, np.minimum(death, last), death <= last, curves


def rows(n_draws: int) -> Iterator[str]:
    """Yields the lines of the table."""
    draw = np.random.default_rng(0)
    for n_known in (10, 20, 60, 200):
        held = []
        for _ in range(n_draws):
            known, label = draw_classes(draw, n_known)
            new, true = draw_classes(draw, N_NEW)
            held.append(conformal_sets(known, label, new)[np.arange(N_NEW), true].mean())
        yield f"| sets of classes | {n_known} | | {np.mean(held):.1%} |"
        for follow_up in (3000.0, 700.0):
            held, censored = [], []
            for _ in range(n_draws):
                _, time_days, event, curves = draw_survival(draw, n_known, follow_up)
                death, _, _, new = draw_survival(draw, N_NEW, follow_up)
                held.append((death >= survival_bounds(time_days, event, curves, new)).mean())
                censored.append(1 - event.mean())
            yield f"| bounds of survival | {n_known} | {np.mean(censored):.0%} | {np.mean(held):.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    n = parser.parse_args().draws
    write_section(
        f"How often promises of {PROMISED:.0%} hold",
        f"python benchmarks/promised_coverage.py --draws {n}",
        f"{n} draws of known patients, each with {N_NEW} new ones. Stated probabilities are wrong on purpose; see the "
        "script.",
        ["| promise | known patients | censored | held |", "|---|---|---|---|", *rows(n)],
    )


if __name__ == "__main__":
    main()

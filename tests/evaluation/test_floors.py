"""Numbers of patients below which nothing is said: counted one by one, and at the number itself."""

import numpy as np
import pandas as pd
import pytest

from subfuse.evaluation.floors import LEAST, too_few_at
from subfuse.evaluation.predictions import ClassOutcome, SurvivalOutcome


def followed(time_days: list[float], event: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"time_days": time_days, "event": event})


@pytest.mark.parametrize("n_events", [0, LEAST - 1, LEAST, LEAST + 1])
def test_events_are_counted_and_patients_without_one_are_not(n_events: int) -> None:
    tested = followed([10.0] * 30, [True] * n_events + [False] * (30 - n_events))
    expected = f"{n_events} events among the test patients, {LEAST} are needed" if n_events < LEAST else None
    assert SurvivalOutcome().too_few(tested) == expected


def test_the_rarest_class_decides_and_a_class_of_nobody_does_not_count() -> None:
    labels = pd.DataFrame({"label": ["G2"] * 9 + ["G3"] * LEAST})
    outcome = ClassOutcome(("G2", "G3", "G4"))
    assert outcome.too_few(labels) is None
    assert outcome.too_few(labels.iloc[1:-1]) == f"{LEAST - 1} test patients of class G3, 5 are needed"
    assert outcome.too_few(labels.iloc[:0]) is None


def test_at_a_horizon_events_by_that_day_are_told_from_follow_up_beyond_it() -> None:
    generator = np.random.default_rng(0)
    for _ in range(40):
        tested = followed(generator.choice([90.0, 100.0, 110.0], 14).tolist(), (generator.random(14) < 0.5).tolist())
        rows = list(tested.itertuples(index=False))
        n_events = sum(row.event and row.time_days <= 100 for row in rows)
        n_later = sum(row.time_days > 100 for row in rows)
        found = too_few_at(100.0, tested)
        assert (found is None) == (min(n_events, n_later) >= LEAST)
        if found is not None:
            which = "with an event by" if n_events <= n_later else "followed beyond"
            assert found == f"{min(n_events, n_later)} test patients {which} day 100, {LEAST} are needed"

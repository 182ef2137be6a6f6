"""Numbers of patients below which nothing is said: counted one by one, and at the number itself."""

import itertools

import numpy as np
import pandas as pd

from subfuse.evaluation.floors import LEAST, too_few_at


def followed(time_days: list[float], event: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"time_days": time_days, "event": event})


def test_the_least_number_is_the_first_of_which_there_are_more_than_a_hundred_bootstrap_samples() -> None:
    samples = [len(list(itertools.combinations_with_replacement(range(n), n))) for n in (LEAST - 1, LEAST)]
    assert samples == [35, 126]


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

import itertools

import numpy as np

from subfuse.evaluation.censoring import known_orders
from subfuse.evaluation.weighted_metrics import wins


def test_an_event_is_known_to_come_before_later_follow_up_and_before_last_contacts_of_its_day() -> None:
    time_days = np.array([5.0, 5.0, 5.0, 9.0, 2.0])
    event = np.array([True, True, False, True, False])

    ordered = known_orders(time_days, event)

    for first, second in itertools.product(range(5), repeat=2):
        is_later = time_days[second] > time_days[first]
        is_contact = time_days[second] == time_days[first] and not event[second]
        assert ordered[first, second] == (event[first] and (is_later or is_contact))
    assert not (ordered & ordered.T).any()


def test_ties_count_one_half() -> None:
    assert wins(np.array([[2.0, 0.0, -1.0]])).tolist() == [[1.0, 0.5, 0.0]]

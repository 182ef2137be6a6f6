"""Which patients are compared in survival, and what a comparison counts: the same for metrics, nulls and checks."""

import numpy as np
from jaxtyping import Bool, Float


def known_orders(
    time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
) -> Bool[np.ndarray, "patient patient"]:
    """Returns True where the row's patient is known to have had the event before the column's (Harrell's pairs).

    An event comes before later follow-up of any kind, and before a last contact on the same day; two events on the same
    day have no order.

    Args:
        time_days: Follow-up.
        event: True where the event was observed.
    """
    return event[:, None] & (
        (time_days > time_days[:, None]) | ((time_days == time_days[:, None]) & ~event)
    )  # (case, patient)


def wins(difference: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Returns what comparisons count: 1 where the case's score is higher, one half for ties, else 0.

    Args:
        difference: Score of the case minus that of the other patient.
    """
    return np.where(difference > 0, 1.0, np.where(difference == 0, 0.5, 0.0))

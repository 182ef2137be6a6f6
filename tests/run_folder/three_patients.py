"""Three patients as a run keeps them."""

import pandas as pd

PATIENTS = pd.DataFrame(
    {
        "patient_id": ["P1", "P2", "P3"],
        "cohort": "a",
        "site": "x",
        "time_days": [10.0, 20.0, 30.0],
        "event": [True, False, True],
        "grade": ["G2", "G3", "G4"],
        "n_slides": 1,
        "has_expression": True,
    }
)

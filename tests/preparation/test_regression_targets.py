"""Targets of regression that cannot be learnt are one line, before anything else is done."""

import numpy as np
import pandas as pd
import pytest

from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError
from subfuse.preparation.regression_targets import require_numbers, require_spread

TASKS = {"purity": TaskSpec(column="purity", kind="regression"), "grade": TaskSpec(column="grade")}


def patients(*cells: str | None) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": [f"p{i}" for i in range(len(cells))], "purity": cells, "grade": "G2"})


def test_plain_numbers_pass_and_unknown_ones_do_too() -> None:
    table = patients("1", "2.5", "-3e1", None, "4", "0", "17")
    require_numbers(TASKS, table)
    require_spread(TASKS, table)


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [
        ("high", "leave out `kind: regression` to predict classes"),
        ("2019-05-02", "leave out `kind: regression`"),
        ("nan", "leave out"),
        ("1_000", "leave out"),
        ("12,5", "Write it with a decimal point, as 12.5"),
        ("<5", "Write one number in its place"),
        ("80 %", "Write it without the sign, as 80"),
    ],
)
def test_what_is_no_number_names_the_patient_and_what_to_do(cell, remedy) -> None:
    with pytest.raises(DataError, match=r"tasks\.purity: numbers of purity are required") as error:
        require_numbers(TASKS, patients("1", cell, "2", cell))
    assert f"Found {cell!r} of p1 (2 such cells)." in str(error.value)
    assert remedy in str(error.value)


def test_four_different_numbers_are_classes_and_five_are_not() -> None:
    with pytest.raises(DataError, match=r"Found 4 among 9 patients \(0, 1, 2, 3\)"):
        require_spread(TASKS, patients(*map(str, np.arange(9) % 4)))
    require_spread(TASKS, patients(*map(str, np.arange(9) % 5)))
    with pytest.raises(DataError, match=r"Found 0 among 0 patients \(none\)"):
        require_spread(TASKS, patients(None, None))

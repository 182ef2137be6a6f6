"""Tables of numbers on a terminal: nothing undefined is printed as a number."""

import re

import pandas as pd

from subfuse.cli.console import print_metrics


def test_what_is_undefined_is_said_once_and_no_nan_is_printed(capsys):
    nan, few = float("nan"), "no interval: 3 test patients of class G4, 5 are needed"
    rows = [
        ("survival", "cox", "c_index", 0.61, 0.5, 0.7, None),
        ("grade", "snn", "auc", 0.71, nan, nan, few),
        ("grade", "abmil", "auc", nan, nan, nan, "no prediction"),
        ("grade", "abmil", "f1", nan, nan, nan, "another"),
    ]
    print_metrics(pd.DataFrame(rows, columns=["task", "model", "metric", "value", "lower", "upper", "reason"]))
    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert "0.500 to 0.700" in shown
    assert shown.count("undefined") == 1
    assert re.search(r"SNN\W+AUC\W+0\.710\W+none", shown)
    assert shown.splitlines()[-2:] == [
        "grade (SNN): no interval: 3 test patients of class G4, 5 are needed",
        "Undefined for grade (ABMIL): no prediction",
    ]

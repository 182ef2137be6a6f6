import re
import shlex

import pandas as pd

from subfuse.cli.cohorts import _next_step, _print_exclusions
from subfuse.cli.console import print_metrics
from subfuse.exclusions import commonest_reasons, exclusion_table


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


def test_the_next_step_after_preparing_an_external_cohort_uses_a_run(tmp_path):
    class Plan:
        def __init__(self, repeats, tasks):
            self.repeats, self.tasks = repeats, tasks

    assert _next_step(tmp_path, Plan((1,), {"os": 1})) == f"subfuse crossval {tmp_path} --out run"
    evaluated = f"subfuse evaluate RUN --cohort {tmp_path}, or "
    predicted = f"subfuse predict RUN --cohort {tmp_path}, with the RUN of another cohort"
    assert _next_step(tmp_path, Plan((), {"os": 1})) == evaluated + predicted
    assert _next_step(tmp_path, Plan((), {})) == predicted
    spaced = _next_step(tmp_path / "A data", Plan((1,), {"os": 1}))
    assert shlex.split(spaced) == ["subfuse", "crossval", str(tmp_path / "A data"), "--out", "run"]


def test_exclusions_are_printed_where_there_are_any_and_a_reason_that_an_error_tells_once(capsys):
    _print_exclusions(exclusion_table())
    assert capsys.readouterr().out == ""
    reason = "a.h5: the pixel size is required. Declare `mpp`."
    table = exclusion_table([("slide", "a", reason), ("slide", "b", "no tissue")])
    _print_exclusions(table)
    assert "Excluded (2)" in capsys.readouterr().out
    _print_exclusions(table, told=f"c: a slide is required. Commonest reason: {commonest_reasons(table, 1)}.")
    shown = capsys.readouterr().out
    assert "Also excluded (1)" in shown
    assert "pixel size" not in shown

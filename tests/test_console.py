import pandas as pd

from subfuse.cli.cohorts import _next_step
from subfuse.cli.console import print_metrics


def test_what_is_undefined_is_said_once_and_no_nan_is_printed(capsys):
    nan, few = float("nan"), "no interval: 3 test patients of class G4, 5 are needed"
    rows = [
        ("survival", "cox", "c_index", 0.61, 0.5, 0.7, None),
        ("grade", "snn", "auc", 0.71, nan, nan, few),
        ("grade", "abmil", "auc", nan, nan, nan, few),
        ("grade", "abmil", "f1", nan, nan, nan, "another"),
    ]
    print_metrics(pd.DataFrame(rows, columns=["task", "model", "metric", "value", "lower", "upper", "reason"]))
    shown = capsys.readouterr().out
    assert "nan" not in shown
    assert "0.500 to 0.700" in shown
    assert shown.count("undefined") == 3
    assert shown.splitlines()[-1] == f"Undefined for grade (snn, abmil): {few}"


def test_the_next_step_after_preparing_an_external_cohort_uses_a_run(tmp_path):
    class Plan:
        def __init__(self, repeats, tasks):
            self.repeats, self.tasks = repeats, tasks

    assert _next_step(tmp_path, Plan((1,), {"os": 1})) == f"subfuse crossval {tmp_path} --out run"
    evaluated = f"subfuse evaluate RUN --cohort {tmp_path}, or "
    predicted = f"subfuse predict RUN --cohort {tmp_path}, with the RUN of another cohort"
    assert _next_step(tmp_path, Plan((), {"os": 1})) == evaluated + predicted
    assert _next_step(tmp_path, Plan((), {})) == predicted

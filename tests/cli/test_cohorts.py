"""Commands up to a prepared cohort: what they print, and what follows."""

import shlex

import pytest

from subfuse.cli import main
from subfuse.cli.cohorts import next_step, print_exclusions
from subfuse.exclusions import commonest_reasons, exclusion_table

pytestmark = pytest.mark.walk


def test_the_next_step_after_preparing_an_external_cohort_uses_a_run(tmp_path):
    class Plan:
        def __init__(self, repeats, tasks):
            self.repeats, self.tasks = repeats, tasks

    assert next_step(tmp_path, Plan((1,), {"os": 1})) == f"subfuse crossval {tmp_path} --out run"
    evaluated = f"subfuse evaluate RUN --cohort {tmp_path}, or "
    predicted = f"subfuse predict RUN --cohort {tmp_path}, with the RUN of another cohort"
    assert next_step(tmp_path, Plan((), {"os": 1})) == evaluated + predicted
    assert next_step(tmp_path, Plan((), {})) == predicted
    spaced = next_step(tmp_path / "A data", Plan((1,), {"os": 1}))
    assert shlex.split(spaced) == ["subfuse", "crossval", str(tmp_path / "A data"), "--out", "run"]


def test_exclusions_are_printed_where_there_are_any_and_a_reason_that_an_error_tells_once(capsys):
    print_exclusions(exclusion_table())
    assert capsys.readouterr().out == ""
    reason = "a.h5: the pixel size is required. Declare `mpp`."
    table = exclusion_table([("slide", "a", reason), ("slide", "b", "no tissue")])
    print_exclusions(table)
    assert "Excluded (2)" in capsys.readouterr().out
    print_exclusions(table, told=f"c: a slide is required. Commonest reason: {commonest_reasons(table, 1)}.")
    shown = capsys.readouterr().out
    assert "Also excluded (1)" in shown
    assert "pixel size" not in shown


def test_init_writes_a_file_that_check_understands(tmp_path, capsys):
    assert main(["init", str(tmp_path)]) == 0
    assert main(["init", str(tmp_path)]) == 2
    assert main(["check", str(tmp_path / "cohort.yaml")]) == 3  # the tables it names are not there
    assert "patients.csv" in capsys.readouterr().err

"""What an audit prints: failures whole, warnings by kind, everything else counted."""

from subfuse.audit.findings import Audit, Finding
from subfuse.audit.simple_baselines import ADDED_VALUE, TRIVIAL_BASELINE
from subfuse.cli.audit_text import audit_lines, print_audit


def test_warnings_of_a_kind_are_the_first_and_who_else_and_failures_are_whole() -> None:
    late = [Finding("warning", "fusion", f"m{i} is not better", "Twice the cost.", f"Prefer r{i}.", "abc"[i % 3],
                    f"m{i}") for i in range(6)]  # fmt: skip
    leaks = [Finding("failure", "leak", f"leak {i}", "Bad.", "Mend it.", model=f"m{i}") for i in range(4)]
    few = [Finding("warning", "labels", f"few of {task}", "Noise.", "", task) for task in "abc"]
    rest = [Finding("ok", "labels", "fine", task="a")] * 40 + [Finding("note", "slides", "not checked")] * 9

    lines = list(audit_lines(Audit((*leaks, *late, *few, *rest))))

    assert lines == [
        "Do not use these results: 4 failures, 9 warnings.",
        "",
        "FAILURE leak (4): Bad. Mend it.",
        *(f"  leak {i}" for i in range(4)),
        "",
        "WARNING fusion (6): Twice the cost.",
        "  a: m0 is not better. Prefer r0.",
        "  likewise b: m1, m4; c: m2, m5; a: m3",
        "",
        "WARNING labels (3): Noise.",
        *(f"  {task}: few of {task}" for task in "abc"),
        "",
        "Notes and what was not checked (9): slides 9",
        "Checked, nothing found (40): labels 40",
    ]
    many = list(audit_lines(Audit(tuple(Finding("failure", "inputs", f"input {i}") for i in range(1258)))))
    assert many[-3:] == ["  input 9", "  and 1248 more", ""]


def test_one_of_many_is_written_in_the_singular(capsys) -> None:
    print_audit(Audit((Finding("warning", "labels", "1 test patients of class G4, 5 are needed; 11 patients"),)))
    assert "  1 test patient of class G4, 5 are needed; 11 patients\n" in capsys.readouterr().out


def test_where_nothing_trivial_is_there_to_compare_with_the_first_lines_say_so() -> None:
    missed = Finding("note", TRIVIAL_BASELINE, "cannot be checked: there is none", "Why.", "Give --patients.", "os")
    added = Finding("ok", ADDED_VALUE, "m adds to c", task="os", model="m")
    assert list(audit_lines(Audit((missed,))))[1] == (
        "os: trivial baseline cannot be checked: there is none. Give --patients."
    )
    assert "Give --patients." not in " ".join(audit_lines(Audit((missed, added))))

"""Follow-ups beside overall survival, by the names of their columns."""

import pandas as pd
import pytest
import yaml

from subfuse.recognition.endpoints import endpoint_columns, endpoint_lines

DAYS = ["30", "410", "77", "2000"]


def found(**columns):
    """The endpoints that are declared, the columns they read, and the text of the lines."""
    table = pd.DataFrame(columns, dtype=str)
    lines, read = endpoint_lines(table, endpoint_columns(list(table)))
    text = "\n".join(lines)
    return (yaml.safe_load(text) or {}).get("endpoints", {}), read, text


@pytest.mark.parametrize(
    ("time", "event", "name"),
    [
        ("survival_months_pfi", "censorship_pfi", "pfi"),
        ("PFI.time", "PFI", "pfi"),
        ("DFS_MONTHS", "DFS_STATUS", "dfs"),
        ("pfs_days", "pfs_event", "pfs"),
        ("time_rfs", "event_rfs", "rfs"),
        ("Disease-specific Survival (Months)", "Disease-specific Survival status", "dss"),
        ("Progress Free Survival (Months)", "Progression Free Status", "pfs"),
        ("Disease Free (Months)", "Disease Free Status", "dfs"),
    ],
)
def test_columns_are_known_by_their_names(time, event, name):
    assert endpoint_columns(["age", event, "OS", "OS.time", time]) == {name: (time, event)}


@pytest.mark.parametrize(
    "names", [["OS.time", "OS"], ["EFS", "TTP"], ["DSS.time"], ["PFS_days", "PFS_months", "PFS"], ["time", "event"]]
)
def test_others_are_none(names):
    assert endpoint_columns(names) == {}


def test_units_and_meanings_are_those_of_the_names():
    endpoints, read, text = found(
        PFS_MONTHS=DAYS, PFS_STATUS=["0:CENSORED", "1:PROGRESSION"] * 2, dss_days=DAYS, dss_event=["1", "0"] * 2
    )
    assert endpoints == {
        "pfs": {"time": "PFS_MONTHS", "event": "PFS_STATUS", "time_unit": "months"},
        "dss": {"time": "dss_days", "event": "dss_event", "time_unit": "days"},
    }
    assert list(read) == ["PFS_MONTHS", "PFS_STATUS", "dss_days", "dss_event"]
    assert "1 in dss_event means that it was observed, in 2 of 4 rows" in text
    assert "QUESTION" not in text


@pytest.mark.parametrize(
    "columns",
    [
        {"PFI.time": DAYS, "PFI": ["1", "0"] * 2},  # of which unit?
        {"pfi_months": DAYS, "pfi_status": ["1", "0"] * 2},  # what is 1?
    ],
)
def test_an_endpoint_of_which_something_is_open_is_a_question_beside_the_draft(columns):
    endpoints, read, text = found(**columns)
    assert (endpoints, read) == ({}, {})
    (offered,) = (line.partition("# endpoints: ")[2] for line in text.splitlines() if "# endpoints: " in line)
    assert "FILL-IN" in str(yaml.safe_load(offered)["pfi"])
    assert text.count("QUESTION") == 1


def test_a_column_of_many_words_is_no_event():
    assert found(pfi_months=DAYS * 3, pfi_status=[f"word {i}" for i in range(12)]) == ({}, {}, "")

"""Endpoints beside a cohort's own follow-up: each with its columns, unit and meaning, or one line why not."""

import numpy as np
import pandas as pd
import pytest
from clinical_tables import plain
from pydantic import ValidationError

from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError

HEADER = "patient_id,time_days,event,months,pfs,grade\n"
ROWS = "a,900,1,12,yes,G4\nb,800,0,,no,G3\nc,700,1,6,NA,G2\nd,600,0,-1,no,G2\ne,500,1,2.5,no,\n"
PFS = {"time": "months", "event": "pfs", "time_unit": "months", "event_values": {"yes": True, "no": False}}
TASK = TaskSpec(time="pfs_days", event="pfs_event")


def test_an_endpoint_is_read_in_days_and_paired_by_itself(tmp_path) -> None:
    table = plain(tmp_path, HEADER + ROWS, endpoints={"pfs": PFS})
    patients = table.patients.set_index("patient_id")
    found = TASK.outcomes(patients)
    np.testing.assert_allclose(found["pfs_days"], [12 * 30.4375, np.nan, np.nan, np.nan, 2.5 * 30.4375])
    assert found["pfs_event"].isna().tolist() == [False, True, True, True, False]
    assert found["pfs_event"].dropna().tolist() == [True, False]
    assert patients["time_days"].tolist() == [900.0, 800.0, 700.0, 600.0, 500.0]
    assert patients["event"].tolist() == [True, False, True, False, True]
    assert not {"months", "pfs"} & set(patients)  # nothing is left that a model could take for a label
    assert any(text.startswith("pfs: 2 patient(s) have only one of time and event") for text in table.warnings)
    assert any(text.startswith("pfs: time_days is negative for 1 patient(s)") for text in table.warnings)


def test_a_table_without_endpoints_is_as_ever(tmp_path) -> None:
    pd.testing.assert_frame_equal(
        plain(tmp_path, HEADER + ROWS).patients,
        plain(tmp_path, HEADER + ROWS, endpoints={}).patients,
    )


def test_endpoints_may_share_a_time_and_come_from_the_table_of_labels(tmp_path) -> None:
    (tmp_path / "more.csv").write_text("id,m,p,d\na,12,1:PROGRESSION,0\nb,3,0:CENSORED,1\n")
    labels = {"table": tmp_path / "more.csv", "columns": {"patient_id": "id", "t": "m", "pfs_status": "p", "dss": "d"}}
    endpoints = {
        "pfs": {"time": "t", "event": "pfs_status"},
        "dss": {"time": "t", "event": "dss", "event_values": {"1": False, "0": True}},
    }
    patients = plain(tmp_path, "patient_id\na\nb\nc\n", labels=labels, endpoints=endpoints).patients
    assert patients["pfs_days"].tolist() == patients["dss_days"].tolist() == ["12", "3", None]
    assert patients["pfs_event"].tolist() == ["True", "False", None]
    assert patients["dss_event"].tolist() == ["True", "False", None]


def test_an_endpoint_may_be_told_by_dates(tmp_path) -> None:
    rows = "a,900,1,2019-05-31,2019-06-10,1\nb,800,0,2019-01-01,2020-01-01,0\nc,7,1,2019-01-01,,1\n"
    dates = {"time_from": "seen", "time_to": "worse", "event": "pfs"}
    table = plain(tmp_path, "patient_id,time_days,event,seen,worse,pfs\n" + rows, endpoints={"pfs": dates})
    patients = table.patients.set_index("patient_id")
    assert patients["pfs_days"].tolist() == ["10", "365", None]
    assert patients["pfs_event"].tolist() == ["True", "False", None]
    assert not {"seen", "worse", "pfs"} & set(patients)
    with pytest.raises(DataError, match=r"row 3, pfs \(b\), time_to: a date with day.* Found 'soon'"):
        plain(
            tmp_path, "patient_id,seen,worse,pfs\n" + "a,2019-05-31,2019-06-10,1\nb,2019-05-31,soon,0\n",
            endpoints={"pfs": dates},
        )  # fmt: skip


@pytest.mark.parametrize(
    "keys",
    [
        {}, {"time_from": "months"}, {"time": "months", "time_to": "months"},
        {"time_from": "months", "time_to": "months", "time_unit": "months"},
    ],
)  # fmt: skip
def test_an_endpoint_has_a_time_or_two_dates(tmp_path, keys) -> None:
    with pytest.raises(ValidationError, match=r"either `time`, or both|is that of `time`"):
        plain(tmp_path, HEADER + ROWS, endpoints={"pfs": {"event": "pfs", **keys}})


@pytest.mark.parametrize(
    ("endpoints", "columns", "error", "message"),
    [
        ({"pfs": PFS | {"time": "month"}}, {}, ConfigurationError, "endpoints.pfs.time: 'month' is not a column"),
        ({"pfs": PFS | {"time": "time_days"}}, {}, ConfigurationError, "time_days, which has a meaning of its own"),
        ({"pfs": PFS | {"time_unit": None}}, {}, ConfigurationError, r"endpoints\.pfs\.time_unit: .* 'months'"),
        ({"pfs": PFS | {"time": "t", "time_unit": None}}, {"t": "months"}, ConfigurationError, "column 'months' does"),
        ({"pfs": PFS | {"event_values": None}}, {}, DataError, r"true, false, 1 or 0 .* in patients\.endpoints\.pfs"),
        ({"pfs": PFS | {"event_values": {"yes": True}}}, {}, DataError, r"row 3 \(b\), column pfs: a declared value"),
        ({"pfs": PFS | {"event_values": {"yes": "tumour"}}}, {}, ValidationError, "Found tumour, and no false"),
        (
            {"pfs": PFS | {"event_values": {"yes": "tumour", "maybe": "other", "NA": False}}},
            {},
            DataError,
            r"row 3 \(b\), column pfs: a declared value is required \(yes, maybe, NA\)\. Found 'no'",
        ),
        ({"pfs": PFS | {"time": "grade"}}, {}, DataError, r"row 2: grade must be a number of months\. Found 'G4'"),
        ({"time": PFS}, {}, ConfigurationError, "endpoints.time: a name whose columns time_days and time_event"),
        ({"x": PFS}, {"x_days": "grade"}, ConfigurationError, "endpoints.x: a name .* Found x_days among"),
        ({"p s/": PFS}, {}, ValidationError, "a name must be"),
    ],
)
def test_an_endpoint_that_cannot_be_read_is_one_line(tmp_path, endpoints, columns, error, message) -> None:
    declared = {name: name for name in HEADER.strip().split(",")} | columns if columns else None
    with pytest.raises(error, match=message) as caught:
        plain(tmp_path, HEADER + ROWS, columns=declared, endpoints=endpoints)
    if error is not ValidationError:
        assert "\n" not in str(caught.value)


def test_an_event_column_whose_name_may_mean_the_contrary_must_be_declared(tmp_path) -> None:
    text = "patient_id,days,censored\na,3,1\nb,4,0\n"
    with pytest.raises(
        ConfigurationError, match=r"patients\.endpoints\.x\.event_values: the name of column 'censored'"
    ):
        plain(tmp_path, text, endpoints={"x": {"time": "days", "event": "censored"}})

"""Follow-up from two dates: days between them, and whatever is not clear refused in one line."""

import datetime

import pandas as pd
import pytest
from clinical_tables import plain
from hypothesis import given
from hypothesis import strategies as st

from subfuse.clinical.follow_up_dates import days_between
from subfuse.errors import ConfigurationError, DataError

DATES = st.dates(datetime.date(1900, 1, 1), datetime.date(2030, 12, 31))
WRITINGS = ["%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%Y-%m-%d 00:00:00", "%Y-%m-%dT10:30:00Z"]


def _table(rows: list[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "patient_id": [f"p{i}" for i in range(len(rows))],
            "place": [f"p.csv, row {i + 2}" for i in range(len(rows))],
            "time_from": [start for start, _ in rows],
            "time_to": [end for _, end in rows],
        }
    )


@given(st.lists(st.tuples(DATES, DATES).map(sorted), min_size=1, max_size=5), st.sampled_from(WRITINGS))
def test_days_are_those_between_the_dates_however_they_are_written(tmp_path_factory, pairs, writing):
    rows = [tuple(date.strftime(writing) for date in pair) for pair in pairs]
    days, notes = days_between(_table(rows), tmp_path_factory.getbasetemp() / "p.csv")
    assert days.tolist() == [(end - start).days for start, end in pairs]
    assert notes == ()


@pytest.mark.parametrize(
    ("rows", "days", "order"),
    [
        ([("05/06/2019", "25/06/2019"), ("01/02/2019", "02/02/2019")], [20, 1], "day, month, year"),
        ([("05/06/2019", "05/26/2019"), ("01/02/2019", "02/02/2019")], [20, 31], "month, day, year"),
        ([("1-6-2019", "13-6-2019")], [12], "day, month, year"),
    ],
)
def test_the_order_of_day_and_month_is_that_of_the_dates_that_tell_it_and_said(tmp_path, rows, days, order):
    found, notes = days_between(_table(rows), tmp_path / "p.csv")
    assert found.tolist() == days
    assert notes == (f"p.csv: dates such as {rows[0][0]} are read as {order}",)


def test_a_follow_up_without_one_of_its_dates_is_unknown(tmp_path):
    text = "patient_id,time_from,time_to,event\na,2019-01-01,2019-01-31,1\nb,NA,2019-01-31,0\nc,2019-01-01,,1\n"
    read = plain(tmp_path, text)
    assert read.patients["time_days"].tolist()[0] == 30
    assert read.patients["time_days"].isna().tolist() == [False, True, True]
    assert read.patients["event"].isna().tolist() == [False, True, True]
    assert not {"time_from", "time_to"} & set(read.patients)
    assert any("2 patient(s) have only one of time and event" in said for said in read.warnings)


def test_dates_are_mapped_as_other_columns_are(tmp_path):
    text = "id;first;last;dead\na;01.03.2019;31.03.2019;yes\n"
    columns = {"patient_id": "id", "time_from": "first", "time_to": "last", "event": "dead"}
    read = plain(tmp_path, text, columns=columns, event_values={"yes": True, "no": False})
    assert read.patients[["time_days", "event"]].to_numpy().tolist() == [[30, True]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["2019-01-01,31.01.2019"], r"row 2 \(a\), time_to: all dates must be written alike\. Found '31\.01\.2019', "
                                    r"and '2019-01-01' in .*row 2 \(a\), time_from"),
        (["2019-01-01,2019-01-31", "2019/01/01,2019/01/31"], r"row 3 \(b\), time_from: all dates must be .* alike"),
        (["13/13/2019,25/01/2019"], r"time_from: a day of the calendar is required\. Found '13/13/2019'"),
        (["25/01/2019,01/26/2019"], r"all dates must be written alike\. Found '01/26/2019', and '25/01/2019'"),
        (["01/02/2019,03/04/2019"], r"patients\.csv: dates whose order of day and month is clear are required"),
        (["2019-01-31,2019-01-01"], r"row 2 \(a\): a follow-up that ends after it begins .* time_from 2019-01-31"),
        (["2019-02-28,2019-02-29"], r"row 2 \(a\), time_to: a day of the calendar is required\. Found '2019-02-29'"),
        (["2019-01-01,2019-01-31", "1.1.19,2.1.19"], r"row 3 \(b\), time_from: a date .* four digits .* '1\.1\.19'"),
        (["2019-01,2019-02"], "a date with day, month and year"),
        (["43466,43496"], r"a date with day, month and year .* Found '43466'"),
        (["2019-01-01,alive"], r"time_to: a date .* Found 'alive'"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_by_its_place(tmp_path, rows, message):
    lines = [f"{patient},{row},1" for patient, row in zip("ab", rows, strict=False)]
    with pytest.raises(DataError, match=message) as caught:
        plain(tmp_path, "\n".join(["patient_id,time_from,time_to,event", *lines]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "more", "message"),
    [
        (("time_from", "event"), {}, "both time_from and time_to are required. Found time_from"),
        (("time_from", "time_to", "time_days", "event"), {}, "Found time_from and time_to and time_days"),
        (("time_from", "time_to"), {}, "declared together. Found only time_from and time_to"),
        (("time_from", "time_to", "event"), {"time_unit": "days"}, r"patients\.time_unit: .* Found days beside dates"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, columns, more, message):
    text = "patient_id,time_from,time_to,time_days,event\na,2019-01-01,2019-01-02,1,1\n"
    mapped = {name: name for name in ("patient_id", *columns)}
    with pytest.raises(ConfigurationError, match=message):
        plain(tmp_path, text, columns=mapped, **more)


def test_portals_and_further_tables_give_no_dates(tmp_path):
    (tmp_path / "l.csv").write_text("patient_id,time_from\na,2019-01-01\n")
    with pytest.raises(ConfigurationError, match=r"patients\.labels\.columns: time_from .* gives the follow-up"):
        plain(tmp_path, "patient_id,grade\na,G2\n", labels={"table": tmp_path / "l.csv"})

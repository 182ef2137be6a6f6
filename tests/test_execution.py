import logging
import os
import signal
import threading
from pathlib import Path

import pytest
from distributed import LocalCluster
from threadpoolctl import threadpool_info

from subfuse.errors import DataError
from subfuse.execution import available_cores, failure_reason, one_ahead, run_jobs, with_time_left


def divide(a: int, b: int) -> float:
    return a / b


def process_id(_: int) -> int:
    return os.getpid()


def process_and_line(text: str) -> tuple[int, str]:
    record = logging.makeLogRecord({"levelname": "WARNING", "msg": text})
    return os.getpid(), logging.root.handlers[0].format(record)


def threads_of_linear_algebra(_: int) -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


def die(code: int) -> None:
    if code:
        os._exit(code)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_has_its_outcome_and_a_failure_stops_no_other(workers):
    outcomes = dict(run_jobs(divide, [(6, 3), (1, 0), (9, 3)], workers=workers))
    assert (outcomes[0], outcomes[2]) == (2, 3)
    assert isinstance(outcomes[1], ZeroDivisionError)


def test_one_worker_stays_in_this_process_and_two_do_not_and_print_warnings_as_commands_do():
    assert dict(run_jobs(process_id, [(0,), (1,)], workers=1)) == {0: os.getpid(), 1: os.getpid()}
    processes, lines = zip(*dict(run_jobs(process_and_line, [("a",), ("a",)], workers=2)).values(), strict=True)
    assert os.getpid() not in processes
    assert set(lines) == {"warning: a"}


def test_a_dead_worker_is_an_outcome_not_a_hang():
    outcomes = dict(run_jobs(die, [(1,), (1,)], workers=2))
    assert set(outcomes) == {0, 1}
    assert all(isinstance(outcome, DataError) and "fewer workers" in str(outcome) for outcome in outcomes.values())


def test_no_jobs_is_no_outcome():
    assert list(run_jobs(divide, [], workers=4)) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")
def test_a_dask_scheduler_runs_the_same_jobs():
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        outcomes = dict(run_jobs(divide, [(6, 3), (1, 0)], scheduler=cluster.scheduler_address))
    assert outcomes[0] == 2
    assert isinstance(outcomes[1], ZeroDivisionError)


def die_once(marker: Path) -> int:
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")
def test_a_job_outlives_the_death_of_its_dask_worker(tmp_path):
    marker = tmp_path / "died"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        outcomes = dict(run_jobs(die_once, [(marker,), (marker,)], scheduler=cluster.scheduler_address))
    assert marker.exists()
    assert set(outcomes) == {0, 1}
    assert all(isinstance(outcome, int) and outcome != os.getpid() for outcome in outcomes.values())


def test_there_is_at_least_one_core():
    assert available_cores() >= 1


def test_a_reason_is_one_line_and_only_a_defect_is_logged(caplog):
    assert failure_reason(DataError("slide.h5: damaged")) == "slide.h5: damaged"
    assert not caplog.records
    assert failure_reason(ValueError("two\nlines")) == "unexpected ValueError: two lines"
    assert caplog.records


def test_time_left_counts_only_what_was_done_since():
    told, clock = [], iter([100.0, 130.0, 220.0, 400.0])
    report = with_time_left(lambda *step: told.append(step), done=3, clock=lambda: next(clock))
    for done in (4, 5, 6):
        report(done, 6, "fold")
    assert told == [(4, 6, "fold, 60 s left"), (5, 6, "fold, 60 s left"), (6, 6, "fold")]


def test_the_first_of_several_steps_at_once_tells_no_time_left():
    told, clock = [], iter([0.0, 60.0, 61.0])
    report = with_time_left(lambda *step: told.append(step), workers=2, clock=lambda: next(clock))
    for done in (1, 2):
        report(done, 6, "fold")
    assert told == [(1, 6, "fold"), (2, 6, "fold, 2 min left")]


def test_workers_share_the_cores_also_in_linear_algebra():
    found = dict(run_jobs(threads_of_linear_algebra, [(1,), (2,)], workers=2))
    assert all(threads == {max(1, available_cores() // 2)} for threads in found.values())


def test_the_next_item_is_made_while_the_last_is_worked_with_and_none_beyond_it():
    made, begun = [], [threading.Event() for _ in range(6)]

    def items():
        for number in range(5):
            begun[number].set()
            made.append((number, threading.current_thread() is threading.main_thread()))
            yield number

    with one_ahead(items()) as ahead:
        for number in ahead:
            assert number == 4 or begun[number + 1].wait(10)
            assert not begun[min(number + 2, 5)].wait(0.02)
    assert made == [(number, False) for number in range(5)]


class Stops(BaseException):
    pass


@pytest.mark.parametrize("stop", [DataError("slide.h5: is damaged."), KeyboardInterrupt(), Stops()])
@pytest.mark.parametrize("where", ["made", "worked with"])
def test_what_stops_the_making_or_the_work_is_raised_in_its_place_and_no_thread_stays(stop, where):
    before, done = threading.active_count(), []

    def items():
        for number in range(5):
            if where == "made" and number == 2:
                raise stop
            yield number

    def work():
        with one_ahead(items()) as ahead:
            for number in ahead:
                if where == "worked with" and number == 2:
                    raise stop
                done.append(number)

    with pytest.raises(type(stop)) as found:
        work()
    assert found.value is stop
    assert done == [0, 1]
    assert threading.active_count() == before

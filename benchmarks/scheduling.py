"""What it costs to hand out jobs, and what is left of them when workers die.

    python benchmarks/scheduling.py [--jobs 2000] [--workers 4]

A real Dask scheduler and workers, each a process of its own on this machine, as on a cluster. A job is as tiny as can
be, so that its time is what handing it out costs; it carries what a job of a cross-validation carries, a path and
names, and takes a few milliseconds where workers are killed, so that they die at work.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client

from subfuse.execution import available_cores, run_jobs

RESULT = Path(__file__).parent / "results" / "scheduling.md"
SENT = ("/data/prepared", "survival", "subspace", "fold_3", "f" * 64)  # where the cohort is, the job, a fold's hash
SECONDS_AT_WORK = 0.005
REPEATS = 3


def job(number: int, seconds: float, sent: tuple[str, ...]) -> tuple[int, int]:
    """Returns its own number and who did it."""
    assert len(sent) == len(SENT)
    time.sleep(seconds)
    return number, os.getpid()


@contextmanager
def cluster(n_workers: int) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """Yields the address of a scheduler and its workers, which nobody restarts."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "scheduler.json"
        variables = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}

        def start(name: str, *options: str) -> subprocess.Popen:
            command = [sys.executable, "-m", f"distributed.cli.{name}", "--scheduler-file", str(place), *options]
            return subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL, cwd=folder)

        started = [start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")]
        try:
            while not place.exists():
                time.sleep(0.1)
            workers = [
                start("dask_worker", "--no-nanny", "--nthreads", "1", "--no-dashboard") for _ in range(n_workers)
            ]
            started += workers
            with Client(scheduler_file=str(place), set_as_default=False) as client:
                client.wait_for_workers(n_workers)
                address = client.scheduler.address
            yield address, workers
        finally:
            for process in reversed(started):
                process.kill()
                process.wait()


def milliseconds_per_job(n_jobs: int, scheduler: str | None) -> float:
    """Returns the time that a job takes that does nothing."""
    jobs = [(number, 0.0, SENT) for number in range(n_jobs)]
    start = time.perf_counter()
    done = list(run_jobs(job, jobs, scheduler=scheduler))
    assert sorted(index for index, _ in done) == list(range(n_jobs))
    return (time.perf_counter() - start) / n_jobs * 1000


def outcomes_where_workers_die(n_jobs: int, scheduler: str, victims: list[subprocess.Popen]) -> Counter[str]:
    """Returns how jobs ended, where workers are killed one by one while the jobs are at work."""
    jobs = [(number, SECONDS_AT_WORK, SENT) for number in range(n_jobs)]
    ended: Counter[str] = Counter()
    waiting = list(victims)
    for done, (index, outcome) in enumerate(run_jobs(job, jobs, scheduler=scheduler), start=1):
        right = isinstance(outcome, tuple) and outcome[0] == index
        ended["right" if right else f"{type(outcome).__name__}: {outcome}"] += 1
        if waiting and done * (len(victims) + 1) > n_jobs * (len(victims) - len(waiting) + 1):
            waiting.pop().send_signal(signal.SIGKILL)
    assert not waiting
    assert sum(ended.values()) == n_jobs
    return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    here = milliseconds_per_job(options.jobs, None)
    with cluster(options.workers) as (scheduler, _):
        milliseconds_per_job(options.workers, scheduler)  # the first job of a worker imports
        handed_out = [milliseconds_per_job(options.jobs, scheduler) for _ in range(REPEATS)]
    ended: Counter[str] = Counter()
    for _ in range(REPEATS):
        with cluster(options.workers) as (scheduler, workers):
            ended += outcomes_where_workers_die(options.jobs, scheduler, workers[: options.workers // 2])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    text = f"""\
# Handing out jobs

    python benchmarks/scheduling.py --jobs {options.jobs} --workers {options.workers}

Commit {commit.strip()}; {platform.machine()}, {available_cores()} cores, which scheduler, workers and client share.
{options.jobs} jobs that do nothing, through `run_jobs`, as `prepare` and `crossval` hand out theirs.

| where | ms per job |
|---|---|
| in this process | {here:.3f} |
| Dask scheduler, {options.workers} workers, {REPEATS} times | {", ".join(f"{x:.1f}" for x in handed_out)} |

## Workers that die

The same number of jobs of {SECONDS_AT_WORK * 1000:.0f} ms, {REPEATS} times with new workers;
{options.workers // 2} of {options.workers} workers are killed (SIGKILL) while they work, and nobody starts others. How
the jobs ended:

| | jobs |
|---|---|
{chr(10).join(f"| {how} | {number} |" for how, number in ended.items())}
"""
    RESULT.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()

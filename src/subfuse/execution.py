"""Independent jobs on local processes or on an existing Dask cluster."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import active_children, forkserver, get_context, parent_process, resource_tracker
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, TypeVar

from subfuse.errors import ConfigurationError, DataError, SubfuseError

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    import pandas

logger = logging.getLogger(__name__)

SECONDS_TO_CONNECT = 15  # to a scheduler
_SECONDS_BETWEEN_LOOKS = 0.5
_SLOW_TO_IMPORT = ("torch._dynamo", "lightning.fabric", "anndata")  # ten seconds, once and not per worker

_Item = TypeVar("_Item")
Progress = Callable[[int, int, str], None]  # done, total, what was done last


def available_cores() -> int:
    """Returns the number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    function: Callable[..., Any],
    jobs: Sequence[tuple],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    gpus: Sequence[str] = (),
) -> Iterator[tuple[int, Any]]:
    """Yields `(index, outcome)` of `function(*jobs[index])` as jobs finish.

    The outcome of a job that raised is its exception: one failed job never stops the others. Local processes end with
    this one, however it ends, and at once when it is interrupted.

    Args:
        function: A module-level function, so that other processes can import it.
        jobs: One tuple of arguments per job.
        workers: Local processes; with 1 the jobs run in this process, in order.
        scheduler: Address of a running Dask scheduler (`tcp://host:8786`); overrides `workers`.
        gpus: Names of the GPUs (`CUDA_VISIBLE_DEVICES`) of which each local process sees one, in turn; none: all see
            all.
    """
    if scheduler is None and min(workers, len(jobs)) <= 1:
        for index, job in enumerate(jobs):
            yield index, _outcome(function, job)
        return
    with _executor(min(workers, len(jobs)), scheduler, gpus) as executor:
        with ctrl_c_held():
            futures = {executor.submit(_outcome, function, job): index for index, job in enumerate(jobs)}
        for future in as_completed(futures):
            error = future.exception()
            yield futures[future], future.result() if error is None else _death(error)


@contextmanager
def ctrl_c_held() -> Iterator[None]:
    """Processes started within never see Ctrl-C, which a terminal sends to all of them: their parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # else it starts with the first process, and lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(parent: int) -> None:
    """Ends this process soon after its parent has ended, whatever it is doing then; files are complete or absent.

    Args:
        parent: The parent's process number, for a process that multiprocessing did not start.
    """
    starter = parent_process()  # not the parent, where a fork server stands between them

    def watch() -> None:
        if starter is not None:
            starter.join()
        while starter is None and os.getppid() == parent:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def with_time_left(
    progress: Progress, *, done: int = 0, workers: int = 1, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Returns a progress that also says how long the rest takes, by the speed since this call.

    Args:
        progress: Told of every step.
        done: Steps that were complete before; they took no time, so the speed does not count them.
        workers: Steps that are worked on at once; nothing is said before so many are done.
        clock: A clock in seconds that never goes back.
    """
    start = clock()

    def told(n_done: int, total: int, what: str) -> None:
        left = (clock() - start) / max(1, n_done - done) * (total - n_done)
        is_known = n_done < total and n_done - done >= workers
        progress(n_done, total, f"{what}, {duration(left)} left" if is_known else what)

    return told


def duration(seconds: float) -> str:
    """Returns seconds, minutes, or hours and minutes.

    Example:
        >>> duration(42.0), duration(300.0), duration(8000.0)
        ('42 s', '5 min', '2 h 13 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def failure_reason(error: BaseException) -> str:
    """Returns in one line why a job failed, for a table of failures; a defect is logged with its traceback.

    Example:
        >>> failure_reason(ConfigurationError("the disk is full"))
        'the disk is full'
    """
    if not isinstance(error, SubfuseError):
        logger.error("a job failed", exc_info=error)
    return _one_line(error)


class Attempts:
    """Steps that are all tried: one that fails does not keep the others from being done."""

    def __init__(self, *, on_failure: Callable[[str, str], None] | None = None) -> None:
        """Takes what is told of each failure at once: which step, and why."""
        self._errors: list[tuple[str, Exception]] = []
        self._on_failure = on_failure

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Ends at the first exception of the block, which is kept."""
        try:
            yield
        except Exception as error:
            self.failed(what, error)

    def failed(self, what: str, error: Exception) -> None:
        """Keeps why a step failed."""
        logger.debug("%s failed", what, exc_info=error)
        self._errors.append((what, error))
        if self._on_failure is not None:
            self._on_failure(what, _one_line(error))

    def table(self) -> "pandas.DataFrame":
        """Returns which steps failed, and why: what, reason."""
        import pandas

        rows = [(what, _one_line(error)) for what, error in self._errors]
        return pandas.DataFrame(rows, columns=["what", "reason"], dtype=str)

    def raise_for_failures(self) -> None:
        """Raises what stopped a step, at the end of all of them.

        Raises:
            Exception: That of the only step that failed, or of all that failed if it is the same.
            DataError: Several steps failed for different reasons.
        """
        steps: dict[str, list[str]] = {}
        for what, error in self._errors:
            steps.setdefault(_one_line(error), []).append(what)
        if len(steps) == 1:
            raise self._errors[0][1]
        if steps:
            parts = [f"{', '.join(names)}: {reason.rstrip('.')}" for reason, names in steps.items()]
            raise DataError("; ".join(parts) + ".") from self._errors[0][1]


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, SubfuseError) else f"unexpected {type(error).__name__}: {text}"


def _death(error: BaseException) -> BaseException:
    """Returns why a worker itself ended, in words that help where the system killed it."""
    if not isinstance(error, BrokenExecutor):
        return error
    return DataError(
        "a worker process ended: stopped by the system, as where memory is short (run it again with fewer workers: "
        "what is complete is kept), or since it ran the calling script again, whose calls must then stand below "
        '`if __name__ == "__main__":`.'
    )


def _outcome(function: Callable[..., Any], job: tuple) -> Any:
    try:
        return function(*job)
    except Exception as error:
        return error


@contextmanager
def _executor(workers: int, scheduler: str | None, gpus: Sequence[str]) -> Iterator[Executor]:
    if scheduler is None:
        threads = max(1, available_cores() // workers)
        others = set(active_children())
        context = _context()
        of_processes = context.SimpleQueue()  # which GPU a process is to see
        for index in range(workers if gpus else 0):
            of_processes.put(gpus[index % len(gpus)])
        start = (os.getpid(), threads, of_processes if gpus else None)
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=start) as executor:
            try:
                yield executor
            except BaseException:
                for process in set(active_children()) - others:
                    process.terminate()
                executor.shutdown(cancel_futures=True)  # waits for its thread, which Python would disturb as it ends
                raise
        return
    require_scheduler(scheduler)
    from distributed import Client

    with Client(scheduler, set_as_default=False, timeout=SECONDS_TO_CONNECT) as client:
        yield client.get_executor(pure=False)


def require_scheduler(address: str) -> None:
    """Checks that something answers at the address of a Dask scheduler.

    Raises:
        ConfigurationError: Nothing does, it is no address, or Dask is missing.
    """
    try:
        from distributed.comm import get_address_host_port
    except ImportError:
        raise ConfigurationError("--scheduler needs Dask. Install it with: pip install 'subfuse[cluster]'.") from None
    if address.startswith("inproc://"):  # of this very process
        return
    try:
        socket.create_connection(get_address_host_port(address), timeout=SECONDS_TO_CONNECT).close()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"--scheduler must be the address of a running Dask scheduler, such as tcp://host:8786. Found {address}: "
            f"{' '.join(str(error).split())}."
        ) from error


@contextmanager
def one_ahead(items: Iterator[_Item]) -> Iterator[Iterator[_Item]]:
    """Gives the items in order; a thread makes the next one while the caller works with the last.

    What making an item raises is raised where the item is asked for. The thread ends with the block, however that ends,
    after the item that it is making.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="one-ahead") as thread:

        def given() -> Iterator[_Item]:
            end = object()
            coming = thread.submit(next, items, end)
            while (item := coming.result()) is not end:
                coming = thread.submit(next, items, end)
                yield item  # type: ignore[misc]

        yield given()


def _context() -> BaseContext:
    """Returns how processes start: on Linux as copies of one that has imported what is slow, elsewhere afresh.

    That one has computed nothing, so that its copies may use threads and GPUs.
    """
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(list(_SLOW_TO_IMPORT))
    return context


def import_ahead() -> None:
    """Begins, in another process, the imports that workers need; without this call, the first jobs wait for them."""
    if sys.platform == "linux":
        _context()
        with ctrl_c_held():
            forkserver.ensure_running()


def log_lines(level: int) -> None:
    """Prints what is logged where errors go, as `warning: ...`; with the logger's name where everything is logged."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    logging.basicConfig(level=level, handlers=[handler])


class _Line(logging.Formatter):
    """A record under its level, as a warning of a command is printed."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the level, the text, and the traceback where there is one."""
        place = f" {record.name}" if logging.root.level < logging.WARNING else ""
        return f"{record.levelname.lower()}{place}: {super().format(record)}"


def _start_worker(parent: int, threads: int, gpus: "SimpleQueue[str] | None") -> None:
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()  # before anything asks for a GPU
    end_with_parent(parent)
    log_lines(logging.WARNING)
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)  # of the linear algebra of NumPy and SciPy; else workers slow each other down manifold

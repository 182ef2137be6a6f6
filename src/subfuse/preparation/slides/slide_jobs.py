"""Slides as independent jobs: prepared or imported each on its own, with the speed and the time left."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from subfuse.errors import ConfigurationError
from subfuse.execution import Progress, duration, failure_reason, run_jobs

_SECONDS_BETWEEN = 10.0  # reports within one slide
_SECONDS_TO_JUDGE = 10.0  # of work, before which the first slides tell little of the others


class FinishedSlide(NamedTuple):
    """What the job of one slide returns."""

    record: Any  # has `slide_id` and `n_patches`
    is_new: bool  # False: it was complete before
    seconds: float | None = None  # of work on the slide, without what its process needed to start


class SlideProgress:
    """Says how many slides are done, how many patches pass per second and how long the rest takes.

    Both are taken over what this run did itself: slides that were complete before take no time and tell nothing, and
    what processes need to start, such as loading the encoder, is not work on slides. Both are told after ten seconds
    of work, once there are as many slides as are worked on at once.
    """

    def __init__(
        self,
        n_slides: int,
        report: Progress | None,
        *,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts the clock.

        Args:
            n_slides: Slides in all.
            report: Told of progress; None: nobody is.
            workers: Slides that are worked on at once.
            clock: Seconds that grow.
        """
        self._n_slides = n_slides
        self._report = report
        self._workers = workers
        self._clock = clock
        self._start = self._reported = clock()
        self._n_done = self._n_new = self._n_patches = 0

    def within(self, slide_id: str, n_patches: int, n_expected: int) -> None:
        """Tells how far one slide is, now and then; `n_patches` of `n_expected` are encoded."""
        if n_patches < n_expected and self._clock() - self._reported >= _SECONDS_BETWEEN:
            self._tell(f"{slide_id} ({n_patches} of {n_expected} patches)", n_patches, n_patches / n_expected)

    def finished(self, slide_id: str, *, n_patches: int, is_new: bool, seconds: float | None = None) -> None:
        """Tells that a slide is done.

        Args:
            slide_id: The slide.
            n_patches: Its patches.
            is_new: False for one that failed or was complete before.
            seconds: Of work on it: the clock starts with the first slide's. None: with this object.
        """
        self._n_done += 1
        if is_new:
            if self._n_new == 0 and seconds is not None:
                self._start = max(self._start, self._clock() - seconds)
            self._n_new += 1
            self._n_patches += n_patches
        self._tell(slide_id)

    def _tell(self, what: str, n_patches: int = 0, share: float = 0.0) -> None:
        """Reports, with what is encoded of the slide in work."""
        if self._report is None:
            return
        now = self._clock()
        self._reported, elapsed = now, now - self._start
        n_slides, n_patches = self._n_new + share, self._n_patches + n_patches
        if elapsed >= _SECONDS_TO_JUDGE and (share or n_slides >= min(self._workers, self._n_slides)):
            left = elapsed / n_slides * (self._n_slides - self._n_done - share)
            what += f", {n_patches / elapsed:,.0f} patches/s, {duration(left)} left"
        self._report(self._n_done, self._n_slides, what)


def run_slides(
    function: Callable[..., FinishedSlide],
    jobs: Sequence[tuple],
    *,
    workers: int,
    scheduler: str | None,
    gpus: Sequence[str] = (),
    progress: SlideProgress,
) -> tuple[list[Any], list[tuple[str, str, str]]]:
    """Runs one job per slide; a slide that fails is listed and the rest goes on.

    Args:
        function: A module-level function that does one slide.
        jobs: Its arguments; the first is the slide's source.
        workers: Local processes; with 1 the slides are done in this process.
        scheduler: Address of a running Dask scheduler, instead of local processes.
        gpus: Of which each local process sees one, see `run_jobs`.
        progress: Told of each slide.

    Returns:
        The records, sorted by slide, and (level, id, reason) of each slide that failed, sorted.

    Raises:
        ConfigurationError: No slide can be done: a library, the encoder or space on the disk is missing.
    """
    records, failures = [], []
    defects: dict[str, str] = {}  # told of once each, with a traceback
    for index, outcome in run_jobs(function, jobs, workers=workers, scheduler=scheduler, gpus=gpus):
        slide_id = jobs[index][0].slide_id
        if isinstance(outcome, ConfigurationError):
            raise outcome
        if isinstance(outcome, BaseException):
            kind = repr(outcome)
            defects[kind] = defects.get(kind) or failure_reason(outcome)
            failures.append(("slide", slide_id, defects[kind]))
            progress.finished(slide_id, n_patches=0, is_new=False)
        else:
            records.append(outcome.record)
            n_patches = outcome.record.n_patches
            progress.finished(slide_id, n_patches=n_patches, is_new=outcome.is_new, seconds=outcome.seconds)
    return sorted(records, key=lambda record: record.slide_id), sorted(failures)

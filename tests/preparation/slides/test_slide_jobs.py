from dataclasses import dataclass

import pytest

from subfuse.errors import ConfigurationError, DataError
from subfuse.preparation.slides.slide_jobs import FinishedSlide, SlideProgress, run_slides


@dataclass(frozen=True)
class Slide:
    slide_id: str
    n_patches: int = 0


class Clock:
    """Time that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Lines(list):
    def __call__(self, done: int, total: int, what: str) -> None:
        self.append((done, total, what))


def do(slide: Slide) -> FinishedSlide:
    if slide.slide_id == "broken":
        raise DataError("broken.svs: damaged")
    if slide.slide_id == "no disk":
        raise ConfigurationError("the disk is full")
    return FinishedSlide(slide, is_new=True)


def test_speed_and_time_left_are_those_of_this_run() -> None:
    clock, lines = Clock(), Lines()
    progress = SlideProgress(9, lines, clock=clock)
    for name in ("a", "b", "c"):  # complete before: they took no time
        progress.finished(name, n_patches=5000, is_new=False)
    clock.seconds = 120.0
    progress.finished("d", n_patches=1200, is_new=True)
    clock.seconds = 240.0
    progress.finished("e", n_patches=600, is_new=True)

    assert lines[2] == (3, 9, "c")
    assert lines[3] == (4, 9, "d, 10 patches/s, 10 min left")  # five slides of two minutes
    assert lines[4] == (5, 9, "e, 8 patches/s, 8 min left")


def test_loading_an_encoder_is_not_work_on_slides() -> None:
    clock, lines = Clock(), Lines()
    progress = SlideProgress(11, lines, clock=clock)
    clock.seconds = 300.0
    progress.finished("a", n_patches=600, is_new=True, seconds=60.0)
    clock.seconds = 360.0
    progress.finished("b", n_patches=600, is_new=True, seconds=60.0)

    assert lines == [(1, 11, "a, 10 patches/s, 10 min left"), (2, 11, "b, 10 patches/s, 9 min left")]


def test_within_a_slide_it_is_told_now_and_then() -> None:
    clock, lines = Clock(), Lines()
    progress = SlideProgress(2, lines, clock=clock)
    for seconds in range(1, 41):
        clock.seconds = float(seconds)
        progress.within("a", 10 * seconds, 400)
    progress.finished("a", n_patches=400, is_new=True)

    assert [what for _, _, what in lines] == [
        "a (100 of 400 patches), 10 patches/s, 70 s left",
        "a (200 of 400 patches), 10 patches/s, 60 s left",
        "a (300 of 400 patches), 10 patches/s, 50 s left",
        "a, 10 patches/s, 40 s left",
    ]
    assert {(done, total) for done, total, _ in lines[:3]} == {(0, 2)}


def test_the_first_seconds_and_the_first_of_several_at_once_tell_no_speed() -> None:
    clock, lines = Clock(), Lines()
    quick = SlideProgress(30, lines, clock=clock)
    for name, seconds in (("a", 7.0), ("b", 7.5), ("c", 8.0)):  # the first one imported what all need
        clock.seconds = seconds
        quick.finished(name, n_patches=100, is_new=True)
    assert [what for _, _, what in lines] == ["a", "b", "c"]
    lines.clear()
    at_once = SlideProgress(8, lines, workers=2, clock=clock)
    for name in "ab":
        clock.seconds += 30.0
        at_once.finished(name, n_patches=60, is_new=True)
    assert [what for _, _, what in lines] == ["a", "b, 2 patches/s, 3 min left"]


def test_hours_are_told() -> None:
    clock, lines = Clock(), Lines()
    progress = SlideProgress(101, lines, clock=clock)
    clock.seconds = 80.0
    progress.finished("a", n_patches=160, is_new=True)

    assert lines == [(1, 101, "a, 2 patches/s, 2 h 13 min left")]


def test_a_slide_that_fails_is_listed_and_the_rest_goes_on() -> None:
    lines = Lines()
    slides = [Slide("z", 3), Slide("broken"), Slide("a", 4)]
    jobs = [(slide,) for slide in slides]
    records, failures = run_slides(do, jobs, workers=1, scheduler=None, progress=SlideProgress(3, lines))

    assert records == [slides[2], slides[0]]
    assert failures == [("slide", "broken", "broken.svs: damaged")]
    assert [(done, total, what.partition(",")[0]) for done, total, what in lines] == [
        (1, 3, "z"),
        (2, 3, "broken"),
        (3, 3, "a"),
    ]


def test_what_concerns_every_slide_ends_the_run() -> None:
    jobs = [(Slide("no disk"),), (Slide("a"),)]
    with pytest.raises(ConfigurationError, match="disk is full"):
        run_slides(do, jobs, workers=1, scheduler=None, progress=SlideProgress(2, None))

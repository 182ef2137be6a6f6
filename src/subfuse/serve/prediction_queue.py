"""Predictions of uploads, one after another in a thread of their own, so that tiles never wait for them."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from fastapi import HTTPException

_Result = TypeVar("_Result")

_MOST_WAITING = 4  # beside the one that is computed
_SECONDS_TO_ARRIVE = 60.0  # of an upload, which holds a place meanwhile


class PredictionQueue:
    """A bounded queue; who does not fit is told when to come back."""

    def __init__(self, most_waiting: int = _MOST_WAITING, seconds_to_arrive: float = _SECONDS_TO_ARRIVE) -> None:
        """Takes how many may wait beside the one that is computed, and for how long an upload may arrive."""
        self._places, self._seconds_to_arrive = most_waiting + 1, seconds_to_arrive
        self._pending = 0  # changed by the event loop's thread alone
        self._seconds = 1.0  # the last one took
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prediction")

    async def run(self, receive: Callable[[], Awaitable[bytes]], predict: Callable[[bytes], _Result]) -> _Result:
        """Returns what `predict` makes of what is received, once its turn has come.

        A place is taken before anything is received: uploads that wait are as few as predictions that wait.

        Raises:
            HTTPException: The queue is full (429, with `Retry-After` in seconds), or what is to be received takes
                longer than a minute (408).
        """
        if self._pending >= self._places:
            wait = max(1, math.ceil(self._pending * self._seconds))
            raise HTTPException(
                429,
                f"{self._pending} predictions are being made or wait. Try again in {wait} s.",
                headers={"Retry-After": str(wait)},
            )
        self._pending += 1
        try:
            async with asyncio.timeout(self._seconds_to_arrive):
                content = await receive()
        except BaseException as error:
            self._pending -= 1
            if isinstance(error, TimeoutError):
                raise HTTPException(408, f"the file must arrive within {self._seconds_to_arrive:g} s.") from error
            raise
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._timed, partial(predict, content))
        future.add_done_callback(self._left)  # also where nobody waits for the answer any more
        return await future

    def stop(self) -> None:
        """Forgets who waits; the one that is computed ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _timed(self, predict: Callable[[], _Result]) -> _Result:
        start = time.monotonic()
        try:
            return predict()
        finally:
            self._seconds = time.monotonic() - start

    def _left(self, future: object) -> None:
        self._pending -= 1

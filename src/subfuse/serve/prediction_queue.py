"""Predictions one after another in a thread of their own, so that tiles never wait for them."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fastapi import HTTPException

_Result = TypeVar("_Result")

_MOST_WAITING = 4  # beside the one that is computed


class PredictionQueue:
    """A bounded queue; who does not fit is told when to come back."""

    def __init__(self, most_waiting: int = _MOST_WAITING) -> None:
        """Takes how many may wait beside the one that is computed."""
        self._places = most_waiting + 1
        self._pending = 0  # changed by the event loop's thread alone
        self._seconds = 1.0  # the last one took
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prediction")

    def require_place(self) -> None:
        """Raises a 429 with `Retry-After`, in seconds, while the queue is full."""
        if self._pending >= self._places:
            wait = max(1, math.ceil(self._pending * self._seconds))
            raise HTTPException(
                429,
                f"{self._pending} predictions are being made or wait. Try again in {wait} s.",
                headers={"Retry-After": str(wait)},
            )

    async def run(self, predict: Callable[[], _Result]) -> _Result:
        """Returns what `predict` returns once its turn has come.

        Raises:
            HTTPException: The queue is full (429).
        """
        self.require_place()
        self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._timed, predict)
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

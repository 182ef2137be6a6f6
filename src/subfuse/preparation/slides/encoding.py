"""Patches of one slide, read ahead by threads and encoded in batches."""

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32, Int32

from subfuse.errors import DataError
from subfuse.features.encoder import BATCH, PatchEncoder, QueueingEncoder
from subfuse.slides.review import sharpness
from subfuse.slides.tissue import Patch

_FIRST_BATCH = 16  # patches handed to the encoder first: it starts early, then gets more, up to BATCH
_READ_AHEAD = 3 * BATCH // 2  # patches read before the encoder asks for them

_Measured = tuple[Patch, float]  # a patch and its sharpness


def encoded_patches(
    read: Callable[[Any], list[Patch]],
    parts: Sequence[Any],
    encoder: PatchEncoder,
    *,
    patches_per_part: int,
    normalise: Callable[[np.ndarray], np.ndarray] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Int32[np.ndarray, "patch 2"], Float16[np.ndarray, "patch feature"], float]:
    """Returns corners, features and median sharpness of all patches of a slide.

    Threads read ahead, so that the encoder does not wait; no more than a few batches of images are in memory. None
    reads any more when this returns or raises: the slide may then be closed.

    Args:
        read: Reads the patches of a part of the slide, from any thread.
        parts: The parts of the slide, in the order of the result.
        encoder: What makes features of patches.
        patches_per_part: At most.
        normalise: What changes an image before it is encoded, if anything; sharpness is that before.
        progress: Called with the patches encoded and expected.

    Raises:
        DataError: The encoder returns features that are no numbers.
    """
    expected = len(parts) * patches_per_part
    corners: list[tuple[int, int]] = []
    rows: list[np.ndarray] = []
    sharp: list[float] = []
    measured = partial(_read_measured, read, normalise)
    with closing(_read_ahead(measured, parts, window=_READ_AHEAD // patches_per_part)) as patches:
        for batch, found in _each_encoded(encoder, _batches(patches)):
            corners.extend((patch.x, patch.y) for patch, _ in batch)
            sharp.extend(value for _, value in batch)
            _require_finite(found, encoder)
            with np.errstate(over="ignore"):  # values beyond float16 are reported when they are written
                rows.append(found.astype(np.float16))
            if progress is not None:
                progress(len(corners), max(expected, len(corners)))
    if progress is not None:
        progress(len(corners), len(corners))
    features = np.concatenate(rows) if rows else np.empty((0, encoder.dim), np.float16)
    return np.array(corners, np.int32).reshape(-1, 2), features, float(np.median(sharp)) if sharp else math.nan


def _require_finite(features: Float32[np.ndarray, "batch feature"], encoder: PatchEncoder) -> None:
    """Refuses features that are none: the slide was read, and another attempt at it gives the same.

    Raises:
        DataError: Names the encoder.
    """
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise DataError(
            f"encoder {encoder.name}: finite features of every patch are required. Found NaN or infinity for "
            f"{int(bad.sum())} of {len(features)} patches, which the encoder returned. Check its weights and how it "
            "normalises images, or use another with --encoder."
        )


def _each_encoded(
    encoder: PatchEncoder, batches: Iterator[list[_Measured]]
) -> Iterator[tuple[list[_Measured], Float32[np.ndarray, "batch feature"]]]:
    """Yields batches with their features; an encoder that can be is given the next before the last is waited for."""
    waiting: deque[tuple[list[_Measured], Callable[[], Float32[np.ndarray, "batch feature"]]]] = deque()
    for batch in batches:
        images = np.stack([patch.image for patch, _ in batch])
        if not isinstance(encoder, QueueingEncoder):
            yield batch, encoder.encode(images)
            continue
        waiting.append((batch, encoder.queue(images)))
        if len(waiting) == 2:
            done, features = waiting.popleft()
            yield done, features()
    for done, features in waiting:
        yield done, features()


def _read_measured(
    read: Callable[[Any], list[Patch]], normalise: Callable[[np.ndarray], np.ndarray] | None, part: Any
) -> list[_Measured]:
    """Patches as they are encoded, with the sharpness that they were scanned with."""
    patches = [(patch, sharpness(patch.image)) for patch in read(part)]
    if normalise is None:
        return patches
    return [(patch._replace(image=normalise(patch.image)), value) for patch, value in patches]


def _batches(parts: Iterator[list[_Measured]]) -> Iterator[list[_Measured]]:
    waiting: list[_Measured] = []
    size = _FIRST_BATCH
    for patches in parts:
        waiting.extend(patches)
        while len(waiting) >= size:
            yield waiting[:size]
            waiting = waiting[size:]
            size = min(2 * size, BATCH)
    if waiting:
        yield waiting


def _read_ahead(
    read: Callable[[Any], list[_Measured]], parts: Sequence[Any], *, window: int
) -> Generator[list[_Measured], None, None]:
    """Reads parts in threads and yields them in order, at most `window` ahead of the consumer."""
    threads = min(8, os.cpu_count() or 1)
    pending: deque[Future[list[_Measured]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for part in parts:
                pending.append(pool.submit(read, part))
                if len(pending) >= max(window, 2 * threads):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

"""Which batches an encoder is given, of a slide that is a list of patches."""

import threading
import time

import numpy as np
import pytest

from subfuse.errors import DataError
from subfuse.features.encoder import BATCH
from subfuse.preparation.slides.encoding import encoded_patches
from subfuse.slides.tissue import Patch

N_PATCHES = 400


class Recording:
    """Encodes the first pixel of a patch, and records what it is given and asked for."""

    name, dim, sha256 = "recording", 3, "c0" * 32

    def __init__(self) -> None:
        self.given: list[int] = []

    def encode(self, images: np.ndarray) -> np.ndarray:
        self.given.append(len(images))
        return images[:, 0, 0].astype(np.float32)


class Queueing(Recording):
    """Takes images before it is asked for the features of the last ones."""

    def __init__(self) -> None:
        super().__init__()
        self.most_at_once = self.at_once = 0

    def queue(self, images: np.ndarray):
        features = self.encode(images)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)

        def waited() -> np.ndarray:
            self.at_once -= 1
            return features

        return waited


def encoded(encoder: Recording, n_patches: int = N_PATCHES, patches_per_part: int = 1, **options):
    """Of a slide whose patch i stands at (i, 2 i) and has the colour (i mod 256, i div 256, 7)."""

    def read(first: int) -> list[Patch]:
        return [
            Patch(i, 2 * i, np.full((4, 4, 3), (i % 256, i // 256, 7), np.uint8))
            for i in range(first, min(first + patches_per_part, n_patches))
        ]

    parts = range(0, n_patches, patches_per_part)
    return encoded_patches(read, parts, encoder, patches_per_part=patches_per_part, **options)


@pytest.mark.parametrize("encoder", [Recording(), Queueing()])
@pytest.mark.parametrize("patches_per_part", [1, 7, 300])
def test_an_encoder_starts_early_and_then_gets_as_many_as_it_encodes_at_once(encoder, patches_per_part):
    encoder.given, seen = [], []
    corners, features, sharp = encoded(
        encoder, patches_per_part=patches_per_part, progress=lambda done, total: seen.append((done, total))
    )
    assert encoder.given == [16, 32, 64, BATCH, BATCH, N_PATCHES - 112 - 2 * BATCH]
    index = np.arange(N_PATCHES)
    np.testing.assert_array_equal(corners, np.stack([index, 2 * index], axis=1))
    np.testing.assert_array_equal(features, np.stack([index % 256, index // 256, np.full(N_PATCHES, 7)], axis=1))
    assert sharp == 0
    assert [done for done, _ in seen] == [*np.cumsum(encoder.given), N_PATCHES]
    assert seen[-1] == (N_PATCHES, N_PATCHES)


def test_an_encoder_that_can_is_given_one_batch_before_the_last_is_waited_for_and_no_more():
    encoder = Queueing()
    encoded(encoder)
    assert (encoder.most_at_once, encoder.at_once) == (2, 0)


def test_without_patches_there_are_no_features():
    corners, features, sharp = encoded(Queueing(), n_patches=0)
    assert (corners.shape, features.shape) == ((0, 2), (0, 3))
    assert np.isnan(sharp)


def test_no_thread_reads_any_more_when_the_encoder_has_failed():
    """A slide is closed then, and a library of slides that reads a closed one ends the process."""
    reading = 0
    lock = threading.Lock()

    def read(first: int) -> list[Patch]:
        nonlocal reading
        with lock:
            reading += 1
        time.sleep(0.02)
        with lock:
            reading -= 1
        return [Patch(first, 0, np.zeros((4, 4, 3), np.uint8))]

    class Failing(Recording):
        def encode(self, images: np.ndarray) -> np.ndarray:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        encoded_patches(read, range(500), Failing(), patches_per_part=1)
    assert reading == 0


@pytest.mark.parametrize("kind", [Recording, Queueing])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_encoder_that_returns_no_numbers_is_the_cause(kind, value):
    class Broken(kind):
        def encode(self, images: np.ndarray) -> np.ndarray:
            features = super().encode(images)
            features[:2, 1] = value
            return features

    with pytest.raises(
        DataError, match=r"encoder recording: finite .* for 2 of 16 patches, which the encoder returned"
    ):
        encoded(Broken(), 40)

"""Predictions wait in a bounded queue of their own, uploads among them; everything else is answered meanwhile."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from subfuse.serve.prediction_queue import PredictionQueue

NEVER_ARRIVES = 99


class SlowViewer:
    """A viewer whose predictions last until they are let go, and whose tiles are ready."""

    def __init__(self, most_waiting: int, seconds_to_arrive: float = 60.0) -> None:
        self.queue, self.go = PredictionQueue(most_waiting, seconds_to_arrive), threading.Event()
        self.app, self.at_once, self.most_at_once = FastAPI(), 0, 0

        @self.app.post("/predict")
        async def predict(number: int) -> int:
            return await self.queue.run(partial(self._received, number), self._predicted)

        @self.app.get("/tile")
        def tile() -> str:
            return "tile"

        @self.app.get("/pending")
        async def pending() -> int:
            return self.queue._pending

    async def _received(self, number: int) -> bytes:
        if number == NEVER_ARRIVES:
            await asyncio.sleep(60)
        return str(number).encode()

    def _predicted(self, content: bytes) -> int:
        number = int(content)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.go.wait(30)
        self.at_once -= 1
        if number == 1:
            raise LookupError("a defect of one prediction")
        return number


def test_tiles_answer_while_predictions_wait_and_who_does_not_fit_is_told_when_to_return():
    viewer = SlowViewer(most_waiting=2)
    with (
        TestClient(viewer.app, raise_server_exceptions=False) as client,
        ThreadPoolExecutor(3) as others,
    ):
        waiting = []
        for number in range(3):
            waiting.append(others.submit(client.post, "/predict", params={"number": number}))
            while client.get("/pending").json() < number + 1:
                pass
        assert client.get("/tile").json() == "tile"
        refused = client.post("/predict", params={"number": 3})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/tile").json() == "tile"
        viewer.go.set()
        answers = [future.result(30) for future in waiting]
        assert sorted(answer.status_code for answer in answers) == [200, 200, 500]  # one that fails leaves its place
        assert client.get("/pending").json() == 0
        assert client.post("/predict", params={"number": 4}).json() == 4
    assert viewer.most_at_once == 1


@pytest.mark.parametrize("most_waiting", [0, 1])
def test_at_least_one_is_predicted(most_waiting):
    viewer = SlowViewer(most_waiting)
    viewer.go.set()
    with TestClient(viewer.app) as client:
        assert client.post("/predict", params={"number": 7}).json() == 7


def test_an_upload_holds_a_place_until_it_is_there_and_not_for_ever():
    viewer = SlowViewer(most_waiting=0, seconds_to_arrive=1.0)
    viewer.go.set()
    with TestClient(viewer.app) as client, ThreadPoolExecutor(1) as other:
        slow = other.submit(client.post, "/predict", params={"number": NEVER_ARRIVES})
        while client.get("/pending").json() < 1:
            pass
        assert client.post("/predict", params={"number": 3}).status_code == 429
        assert client.get("/tile").json() == "tile"
        answer = slow.result(30)
        assert (answer.status_code, answer.json()["detail"]) == (408, "the file must arrive within 1 s.")
        assert client.post("/predict", params={"number": 4}).json() == 4

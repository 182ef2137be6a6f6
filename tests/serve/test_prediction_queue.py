"""Predictions wait in a bounded queue of their own; everything else is answered meanwhile."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from subfuse.serve.prediction_queue import PredictionQueue


class SlowViewer:
    """A viewer whose predictions last until they are let go, and whose tiles are ready."""

    def __init__(self, most_waiting: int) -> None:
        self.queue, self.go = PredictionQueue(most_waiting), threading.Event()
        self.app, self.at_once, self.most_at_once = FastAPI(), 0, 0

        @self.app.post("/predict")
        async def predict(number: int) -> int:
            return await self.queue.run(partial(self._predicted, number))

        @self.app.get("/tile")
        def tile() -> str:
            return "tile"

        @self.app.get("/pending")
        async def pending() -> int:
            return self.queue._pending

    def _predicted(self, number: int) -> int:
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

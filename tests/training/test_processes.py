"""Processes of one training: how they start, or why they cannot, and what they tell each other."""

import numpy as np
import pytest
import torch

import process_pool
from subfuse.errors import ConfigurationError
from subfuse.training import processes
from subfuse.training.processes import (
    gather_rows,
    is_first_process,
    one_process,
    shares,
    start_processes,
    sum_gradients,
)
from subfuse.training.settings import TrainingSettings

SETTINGS = TrainingSettings(accelerator="cpu")


def test_processes_that_cannot_be_had_are_told_in_one_line(monkeypatch):
    def fail(**_) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr(processes, "Fabric", fail)
    with (
        pytest.raises(ConfigurationError, match="--devices 2 --nodes 1 cannot be had: no such device"),
        start_processes(SETTINGS, devices=2, nodes=1),
    ):
        pass


def test_a_device_that_is_not_there_is_named_with_what_there_is(monkeypatch):
    def fail(**_) -> None:
        raise ValueError("no such device")

    monkeypatch.setattr(processes, "Fabric", fail)
    with pytest.raises(ConfigurationError, match=r"--train\.accelerator cpu: a device .* Found .*cpu.*\. Use auto"):
        one_process(SETTINGS)


def test_one_process_is_this_one():
    with start_processes(SETTINGS, devices=1, nodes=1) as fabric:
        assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert one_process(SETTINGS).world_size == 1
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("numbers", "first"), [
    ({}, True), ({"RANK": "0", "LOCAL_RANK": "0"}, True), ({"RANK": "1"}, False), ({"SLURM_PROCID": "3"}, False),
    ({"RANK": "2", "LOCAL_RANK": "0"}, False),
])  # fmt: skip
def test_further_processes_know_that_they_are(monkeypatch, numbers, first):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, number in numbers.items():
        monkeypatch.setenv(name, number)
    assert is_first_process() is first


@pytest.mark.parametrize("total", [0, 1, 5, 12])
@pytest.mark.parametrize("n_processes", [1, 2, 5])
def test_shares_are_nearly_equal_and_add_up(total, n_processes):
    found = shares(total, n_processes)
    assert (len(found), sum(found)) == (n_processes, total)
    assert max(found) - min(found) <= 1
    assert list(found) == sorted(found, reverse=True)


def test_alone_rows_stay_without_gradient_and_gradients_as_they_are():
    fabric = one_process(SETTINGS)
    rows = torch.ones(2, 3, requires_grad=True)
    assert not gather_rows(fabric, rows, [2]).requires_grad
    parameter = torch.nn.Parameter(torch.zeros(2))
    sum_gradients(fabric, [parameter])
    assert parameter.grad is None


def tell_each_other(out: str) -> None:
    """A process of two: three rows and two of a numbered process, and gradients of which some are missing."""
    with start_processes(SETTINGS, devices=1, nodes=1) as fabric:
        rank = fabric.global_rank
        rows = torch.arange(2.0 * (3 - rank)).reshape(-1, 2) + 10 * rank
        parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
        parameters[0].grad = torch.full((2,), 1.0 + rank)
        if rank:
            parameters[1].grad = torch.tensor([5.0, 7.0])
        gathered = gather_rows(fabric, rows, (3, 2))
        sum_gradients(fabric, parameters)
        torch.save([gathered, *(parameter.grad for parameter in parameters)], f"{out}-{rank}.pt")


def test_processes_have_all_rows_in_order_and_the_sum_of_their_gradients(tmp_path):
    process_pool.join(process_pool.start_connected(tell_each_other, 2, str(tmp_path / "told")))
    for rank in range(2):
        gathered, both, second, nobody = torch.load(tmp_path / f"told-{rank}.pt", weights_only=True)
        np.testing.assert_array_equal(gathered, [[0, 1], [2, 3], [4, 5], [10, 11], [12, 13]])
        assert both.tolist() == [3.0, 3.0]
        assert second.tolist() == [5.0, 7.0]
        assert nobody is None

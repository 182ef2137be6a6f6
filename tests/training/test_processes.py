"""Processes of one training: how they start, or why they cannot, and what they tell each other."""

import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

import process_pool
from subfuse import devices
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
from subfuse.training.settings import TrainingPlan

PLAN = TrainingPlan(device="cpu")


REFUSALS = (MisconfigurationException, ValueError, RuntimeError)  # of Fabric and PyTorch, by what is missing


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize(("devices", "nodes"), [(2, 1), (1, 2), (2, 2)])
def test_processes_that_cannot_be_had_are_told_in_one_line(monkeypatch, kind, devices, nodes):
    def fail(**_) -> None:
        raise kind("no such device")

    monkeypatch.setattr(processes, "Fabric", fail)
    said = f"--devices {devices} --nodes {nodes} cannot be had: no such device"
    with pytest.raises(ConfigurationError, match=said), start_processes(PLAN, devices=devices, nodes=nodes):
        pass


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_precision_that_the_device_lacks_is_named(monkeypatch, kind):
    def fail(**_) -> None:
        raise kind("no such device")

    monkeypatch.setattr(processes, "Fabric", fail)
    with pytest.raises(ConfigurationError, match=r"--train\.precision 32-true: a device .* Found cpu\. Use"):
        one_process(PLAN)


def test_one_of_several_gpus_takes_one_process(monkeypatch):
    monkeypatch.setattr(devices, "devices_here", lambda: ["cpu", "cuda:0", "cuda:1"])
    with (
        pytest.raises(
            ConfigurationError, match=r"--devices 2 --nodes 1 .* --device cuda:1, which is one\. Use .* cuda\."
        ),
        start_processes(TrainingPlan(device="cuda:1"), devices=2, nodes=1),
    ):
        pass


@pytest.mark.walk  # what stands for Fabric here is none
def test_fabric_has_the_device_that_was_chosen(monkeypatch):
    monkeypatch.setattr(devices, "devices_here", lambda: ["cpu", "cuda:0", "cuda:1", "mps"])
    monkeypatch.setattr(processes, "Fabric", lambda **options: options)
    chosen = {
        name: [one_process(TrainingPlan(device=name))[key] for key in ("accelerator", "devices")]
        for name in ("auto", "cuda:1", "cpu", "mps")
    }
    assert chosen == {"auto": ["cuda", 1], "cuda:1": ["cuda", [1]], "cpu": ["cpu", 1], "mps": ["mps", 1]}


def test_one_process_is_this_one():
    with start_processes(PLAN, devices=1, nodes=1) as fabric:
        assert (fabric.world_size, fabric.global_rank) == (1, 0)
        assert not torch.distributed.is_initialized()
    assert one_process(PLAN).world_size == 1
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("numbers", "asked"), [
    ({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}, (2, 3)), ({"LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "4"}, (4, 1)),
])  # fmt: skip
def test_torchrun_decides_how_many_processes_there_are(monkeypatch, numbers, asked):
    def fail(*, devices: int, num_nodes: int, **_) -> None:
        raise ValueError(f"asked for {(devices, num_nodes)}")

    monkeypatch.setattr(processes, "Fabric", fail)
    for name, number in {**numbers, "TORCHELASTIC_RUN_ID": "test"}.items():
        monkeypatch.setenv(name, number)
    with (
        pytest.raises(ConfigurationError, match=re.escape(f"asked for {asked}")),
        start_processes(PLAN, devices=1, nodes=1),
    ):
        pass


@pytest.mark.parametrize(("numbers", "ends"), [
    ({}, []), ({"LOCAL_RANK": "1"}, [os.getppid()]), ({"RANK": "1", "TORCHELASTIC_RUN_ID": "test"}, []),
])  # fmt: skip
def test_a_further_process_ends_with_who_started_it_unless_torchrun_looks_after_it(monkeypatch, numbers, ends):
    ended = []
    monkeypatch.setattr(processes, "Fabric", lambda **_: SimpleNamespace(launch=lambda: None))
    monkeypatch.setattr(processes, "end_with_parent", ended.append)
    monkeypatch.setattr(processes.distributed, "destroy_process_group", lambda: None)
    for name, number in {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2", **numbers}.items():
        monkeypatch.setenv(name, number)
    with start_processes(PLAN, devices=2, nodes=1):
        assert ended == ends


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
    fabric = one_process(PLAN)
    rows = torch.ones(2, 3, requires_grad=True)
    assert not gather_rows(fabric, rows, [2]).requires_grad
    parameter = torch.nn.Parameter(torch.zeros(2))
    sum_gradients(fabric, [parameter])
    assert parameter.grad is None


def tell_each_other(out: str) -> None:
    """A process of two: three rows and two of a numbered process, and gradients of which some are missing."""
    with start_processes(PLAN, devices=1, nodes=1) as fabric:
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

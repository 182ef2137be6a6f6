"""Which device computes and how many processes work, on machines that are declared."""

import os
import time
from pathlib import Path

import pytest
import torch

from subfuse import devices
from subfuse.cli import main
from subfuse.devices import chosen_device, deterministic, gpus_of, processes_on, visible_gpus
from subfuse.errors import ConfigurationError
from subfuse.execution import available_cores, run_jobs
from subfuse.training.checkpoint import random_state, set_random_state
from subfuse.training.settings import TrainingPlan, TrainingSettings

TWO_GPUS = ("cpu", "cuda:0", "cuda:1")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """Declares the devices of this machine."""

    def declare(*names: str, visible: str | None = None) -> None:
        monkeypatch.setattr(devices, "devices_here", lambda: list(names))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return declare


def test_auto_is_a_gpu_where_there_is_one(machine):
    machine("cpu")
    assert chosen_device("auto") == "cpu"
    machine("cpu", "mps")
    assert [chosen_device(name) for name in ("auto", "mps")] == ["cpu", "mps"]
    machine(*TWO_GPUS)
    assert [chosen_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]


@pytest.mark.parametrize("name", ["cuda", "cuda:2", "mps", "warp-drive", "", "cuda:"])
def test_a_device_that_is_not_there_is_named_with_what_there_is(machine, name):
    machine(*(("cpu",) if name == "cuda" else TWO_GPUS))
    with pytest.raises(ConfigurationError, match=f"--device {name}: .* Found cpu.*Use auto"):
        chosen_device(name)


def test_a_process_for_each_gpu_else_for_each_core(machine):
    machine("cpu", "mps")
    assert [processes_on(name, 0) for name in ("auto", "mps")] == [available_cores(), 1]
    assert processes_on("cpu", 7) == 7
    machine(*TWO_GPUS)
    counts = [processes_on(*asked) for asked in (("auto", 0), ("cuda:1", 0), ("cpu", 0), ("cuda", 1), ("cuda", 2))]
    assert counts == [2, 1, available_cores(), 1, 2]
    with pytest.raises(ConfigurationError, match=r"--workers 3: at most one process .* Found 2\. Use --workers 2, or"):
        processes_on("auto", 3)
    with pytest.raises(ConfigurationError, match=r"--workers 2: .* --device cuda:0\. Found 1"):
        processes_on("cuda:0", 2)


def test_gpus_keep_the_names_that_a_machine_shares_them_out_by(machine):
    machine(*TWO_GPUS)
    assert visible_gpus() == gpus_of("auto", 2) == ["0", "1"]
    assert gpus_of("auto", 1) == gpus_of("cpu", 2) == []
    machine(*TWO_GPUS, visible="5, GPU-8932f937")
    assert visible_gpus() == ["5", "GPU-8932f937"]
    machine("cpu", visible="")
    assert visible_gpus() == []


def seen_gpu(_: int) -> str | None:
    time.sleep(0.5)  # so that every process has a job
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.walk
def test_each_process_sees_a_gpu_of_its_own(machine):
    machine(*TWO_GPUS, visible="3,6")
    jobs = [(index,) for index in range(4)]
    assert {found for _, found in run_jobs(seen_gpu, jobs, workers=2, gpus=gpus_of("cuda", 2))} == {"3", "6"}
    assert {found for _, found in run_jobs(seen_gpu, jobs[:2], workers=1, gpus=gpus_of("cuda", 1))} == {"3,6"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("command", ["crossval", "train", "prepare", "predict", "explain", "evaluate", "serve"])
def test_commands_name_a_device_that_is_not_there_in_one_line(command, tmp_path, capsys, prepared_run):
    cohort_file, prepared, run = prepared_run
    arguments = {
        "crossval": [prepared, "--out", tmp_path / "new"],
        "train": [prepared, "--task", "grade", "--model", "snn", "--out", tmp_path / "new"],
        "prepare": [cohort_file, "--out", tmp_path / "new"],
        "predict": [run, "--cohort", prepared, "--model", "logistic", "--out", tmp_path / "new.csv"],
        "explain": [run, "--model", "logistic", "--out", tmp_path / "new"],
        "evaluate": [run, "--cohort", prepared, "--out", tmp_path / "new"],
        "serve": [run, "--port", "0"],
    }[command]
    assert main([command, *map(str, arguments), "--device", "cuda"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "--device cuda: a device of this machine is required. Found cpu" in line
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_an_earlier_version_names_its_device_among_the_settings():
    for before, now in (("auto", "auto"), ("gpu", "cuda"), ("cpu", "cpu")):
        plan = TrainingPlan.model_validate({"training": {"epochs": 3, "accelerator": before}, "seed": 2})
        assert plan == TrainingPlan(training=TrainingSettings(epochs=3), seed=2, device=now)
    assert TrainingPlan(device="cpu").with_seed(4) == TrainingPlan(device="cpu", seed=4)


def test_a_training_that_began_on_the_processor_may_go_on_elsewhere():
    state = random_state(torch.device("cpu"))
    before = torch.rand(3)
    set_random_state(state, torch.device("cuda"))
    assert torch.equal(torch.rand(3), before)


@pytest.fixture(scope="module")
def prepared_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A cohort file of tables alone, its prepared folder and a run on it."""
    folder = tmp_path_factory.mktemp("devices")
    rows = [f"P{i:02d},{'G4' if i % 2 else 'G2'},{i % 7}" for i in range(24)]
    (folder / "patients.csv").write_text("\n".join(["patient_id,grade,age", *rows]) + "\n")
    values = [f"P{i:02d}," + ",".join(f"{(i * k) % 11 + 0.5 + i % 2}" for k in (3, 5, 7)) for i in range(24)]
    (folder / "expression.csv").write_text("\n".join(["patient_id,EGFR,CD68,COL1A1", *values]) + "\n")
    (folder / "cohort.yaml").write_text(
        "name: small\npatients: {table: patients.csv}\ntasks: {grade: {column: grade}}\n"
        "expression: {table: expression.csv, unit: tpm}\n"
        "splits: {folds: 2}\n"
    )
    cohort_file, prepared, run = folder / "cohort.yaml", folder / "prepared", folder / "run"
    assert main(["prepare", str(cohort_file), "--out", str(prepared), "--workers", "1"]) == 0
    command = ["crossval", str(prepared), "--models", "logistic", "--out", str(run), "--workers", "1"]
    assert main([*command, "--explain", "false"]) == 0
    return cohort_file, prepared, run


@pytest.mark.parametrize(("has_gpu", "told"), [(False, None), (True, ":4096:8")])
def test_deterministic_algorithms_end_with_what_asked_for_them_and_cublas_is_told_where_there_is_a_gpu(
    monkeypatch, has_gpu, told
):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that what is set is undone
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
    states = []

    def interrupted():
        for _ in range(2):  # within another that asks for the same
            with deterministic(True):
                states.append(torch.are_deterministic_algorithms_enabled())
            states.append(torch.are_deterministic_algorithms_enabled())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), deterministic(True):
        interrupted()
    assert states == [True] * 4
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == told

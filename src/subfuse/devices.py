"""Which device computes, and how many processes share the devices of a machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from subfuse.errors import ConfigurationError, preview
from subfuse.execution import available_cores

AUTO = "auto"
DEVICE_HELP = "auto (a CUDA GPU where there is one, else cpu), cpu, cuda, cuda:1, mps."


def devices_here() -> list[str]:
    """Returns the names of the devices of this machine that can compute: cpu, cuda:0, ..., mps."""
    import torch

    found = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found


def chosen_device(name: str) -> str:
    """Returns the device that a name stands for here: of `auto` a CUDA GPU where there is one, else the CPU.

    Raises:
        ConfigurationError: There is none of this name here.
    """
    here = devices_here()
    has_gpu = "cuda:0" in here
    if name == AUTO:
        return "cuda" if has_gpu else "cpu"
    if name not in here and not (name == "cuda" and has_gpu):
        raise ConfigurationError(
            f"--device {name}: a device of this machine is required. Found {preview(here)}. Use auto, or one of these; "
            "`subfuse doctor` says more."
        )
    return name


@contextmanager
def deterministic(is_wanted: bool) -> Iterator[None]:
    """Lets torch compute the same numbers in every run, on the same kind of device; as before where it is not wanted.

    cuBLAS is told so by `CUBLAS_WORKSPACE_CONFIG`, which it reads once and keeps to: the variable stays.
    """
    if not is_wanted:
        yield
        return
    import torch

    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def processes_on(device: str, asked: int) -> int:
    """Returns how many local processes work: those asked for; of 0 one for each GPU, or core where the CPU computes.

    Args:
        device: As chosen by the user, see `chosen_device`.
        asked: By the user, or 0.

    Raises:
        ConfigurationError: There is no such device, or more processes are asked for than it can take.
    """
    device = chosen_device(device)
    if device == "cpu":
        return asked or available_cores()
    n_devices = len(visible_gpus()) if device == "cuda" else 1
    if asked > n_devices:
        raise ConfigurationError(
            f"--workers {asked}: at most one process for each GPU is required with --device {device}. Found "
            f"{n_devices}. Use --workers {n_devices}, or --device cpu."
        )
    return asked or n_devices


def gpus_of(device: str, processes: int) -> list[str]:
    """Returns the GPUs of several processes, one for each, see `run_jobs`; none where one process or the CPU works."""
    return visible_gpus() if processes > 1 and chosen_device(device) == "cuda" else []


def visible_gpus() -> list[str]:
    """Returns the names by which `CUDA_VISIBLE_DEVICES` tells one process of this machine's GPUs from another's."""
    count = sum(name.startswith("cuda") for name in devices_here())
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(index) for index in range(count)]

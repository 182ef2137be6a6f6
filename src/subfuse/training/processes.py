"""One training on several processes: how they start, and what they tell each other."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Shaped
from lightning.fabric import Fabric
from torch import Tensor, distributed, nn

from subfuse.devices import chosen_device, devices_here
from subfuse.errors import ConfigurationError, preview
from subfuse.execution import end_with_parent
from subfuse.training.settings import TrainingPlan


def one_process(plan: TrainingPlan) -> Fabric:
    """Returns Fabric for this process alone.

    Raises:
        ConfigurationError: This machine has no such device, or it does not compute with the plan's precision.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    device, precision = chosen_device(plan.device), plan.training.precision
    kind, _, index = device.partition(":")
    try:
        return Fabric(accelerator=kind, devices=[int(index)] if index else 1, precision=precision)
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ConfigurationError(
            f"--train.precision {precision}: a device that computes with it is required. Found {device}. Use another "
            "--device or --train.precision; `subfuse doctor` says more."
        ) from error


@contextmanager
def start_processes(plan: TrainingPlan, *, devices: int, nodes: int) -> Iterator[Fabric]:
    """Yields Fabric with all processes of a training connected; they part afterwards.

    Processes that `torchrun` or Slurm (`srun`, one task per device) started are used as they are; `torchrun` also
    decides how many there are. Otherwise this process runs its own command again, once for each further one.

    Args:
        plan: Device and precision.
        devices: Processes per machine, one per device.
        nodes: Machines.

    Raises:
        ConfigurationError: There are fewer devices.
    """
    if distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    if devices * nodes == 1:
        yield one_process(plan)
        return
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    device = chosen_device(plan.device)
    if ":" in device:
        raise ConfigurationError(
            f"--devices {devices} --nodes {nodes} cannot be had with --device {device}, which is one. Use --device "
            f"{device.partition(':')[0]}."
        )
    try:
        fabric = Fabric(
            accelerator=device,
            devices=devices,
            num_nodes=nodes,
            precision=plan.training.precision,
            strategy="ddp",  # for its processes only: gradients are summed by `sum_gradients`
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        problem = " ".join(str(error).split()).rstrip(".")
        raise ConfigurationError(
            f"--devices {devices} --nodes {nodes} cannot be had: {problem}. This machine has {preview(devices_here())}."
        ) from error
    parent = os.getppid()
    fabric.launch()
    if not is_first_process() and not distributed.is_torchelastic_launched():
        end_with_parent(parent)  # the first process, or Slurm's step
    try:
        yield fabric
    finally:
        distributed.destroy_process_group()


def is_first_process() -> bool:
    """True unless `torchrun`, Slurm or `start_processes` started this process as a further one."""
    return not any(int(os.environ.get(name, "0")) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def shares(total: int, processes: int) -> tuple[int, ...]:
    """Returns how many of `total` patients each process gets: equal, the first ones one more where they must.

    Example:
        >>> shares(5, 3)
        (2, 2, 1)
    """
    return tuple(len(part) for part in np.array_split(np.arange(total), processes))


def gather_rows(
    fabric: Fabric, rows: Shaped[Tensor, " row *axes"], counts: Sequence[int]
) -> Shaped[Tensor, " all_rows *axes"]:
    """Returns the rows of all processes below one another, without gradient."""
    if fabric.world_size == 1:
        return rows.detach()
    padded = rows.new_zeros(max(counts), *rows.shape[1:])  # collectives need equal shapes
    padded[: len(rows)] = rows.detach()
    gathered = [torch.empty_like(padded) for _ in counts]
    distributed.all_gather(gathered, padded)
    return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])


def sum_gradients(fabric: Fabric, parameters: Iterable[nn.Parameter]) -> None:
    """Replaces the gradients of every process by their sum over all processes.

    A parameter that had a gradient on no process has none afterwards, as in one process with the joint batch.
    """
    if fabric.world_size == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    known = torch.stack([parameter.new_tensor(parameter.grad is not None) for parameter in trained])
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
    total = torch.cat([known, *(gradient.flatten() for gradient in gradients)])  # one message instead of many
    distributed.all_reduce(total)
    parts = total[len(trained) :].split([parameter.numel() for parameter in trained])
    for parameter, part, count in zip(trained, parts, total[: len(trained)].tolist(), strict=True):
        parameter.grad = part.view_as(parameter) if count else None

"""The state of PyTorch's random generators: saved, restored and replayed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import UInt8
from torch import Tensor

RandomState = dict[str, UInt8[Tensor, " byte"]]


def random_state(device: torch.device) -> RandomState:
    """Returns the state of the generators that a model on this device draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Puts the generators back to a state of `random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def replayed(state: RandomState, device: torch.device) -> Iterator[None]:
    """Draws the same random numbers as from `state` on, then continues where the generators were."""
    present = random_state(device)
    set_random_state(state, device)
    try:
        yield
    finally:
        set_random_state(present, device)

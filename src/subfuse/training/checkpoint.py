"""`last.ckpt`: all that an interrupted training needs to end as if it had not been interrupted."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from subfuse.errors import ConfigurationError, DataError
from subfuse.files import atomic_path, require_whole_tensors

RandomState = dict[str, UInt8[Tensor, " byte"]]
EPOCH_DECAY = 0.8  # of the moving average of weights: about the last five epochs


def random_state(device: torch.device) -> RandomState:
    """Returns the state of the generators that a model on this device draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Puts the generators back to a state of `random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:  # none where a training that began on the CPU goes on
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


@dataclass
class TrainingState:
    """How far a training is. Epochs count from 0."""

    best_weights: dict[str, Tensor]
    best_epoch: int = 0
    best_score: tuple[float, float] = (math.inf, math.inf)  # lower is better
    log: list[dict[str, int | float]] = field(default_factory=list)  # one row per finished epoch
    mean_weights: dict[str, Tensor] = field(default_factory=dict)  # over epochs, see `average`

    def record(self, row: Mapping[str, int | float], score: tuple[float, float], model: nn.Module) -> None:
        """Ends an epoch; its weights are kept if its score is the lowest so far."""
        if score < self.best_score:
            self.best_score, self.best_epoch, self.best_weights = score, len(self.log), copy_weights(model)
        self.log.append(dict(row))

    def average(self, model: nn.Module) -> None:
        """Takes the weights of the epoch just recorded into the exponential moving average over epochs.

        The first epochs count as much as their weight says (no start at zero).

        Source: Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992; the correction of the
        start as in Adam (Kingma and Ba 2015).
        """
        share = (1 - EPOCH_DECAY) / (1 - EPOCH_DECAY ** len(self.log))
        for name, value in copy_weights(model).items():
            is_averaged = value.is_floating_point() and name in self.mean_weights
            self.mean_weights[name] = torch.lerp(self.mean_weights[name], value, share) if is_averaged else value

    def is_over(self, *, epochs: int, patience: int) -> bool:
        """True after the last epoch, or when the score has not improved for `patience` epochs."""
        return len(self.log) >= epochs or len(self.log) - 1 - self.best_epoch >= patience


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights on the processor, to be kept."""
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds a training after its last finished epoch.

    It is replaced as a whole after every epoch, so that a process killed at any moment leaves a complete one. The
    order of patients is drawn from seed and epoch; every other random number comes from generators whose states are
    in the file. Tensors and plain values only: it is read without unpickling objects.

    Args:
        path: The file, in a folder that all processes see.
        description: What decides the result of the training: settings, data, seed, number of processes.
    """

    path: Path
    description: Mapping[str, Any]

    def save(
        self,
        state: TrainingState,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        random_states: Sequence[RandomState],
    ) -> None:
        """Writes the file. `random_states` are those of all processes."""
        content = {
            "description": _plain(self.description),
            "state": vars(state),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random_states": list(random_states),
        }
        with atomic_path(self.path) as temporary, open(temporary, "wb") as file:  # torch's own gives no reason
            torch.save(content, file)

    def load(self, model: nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> tuple[TrainingState, RandomState]:
        """Loads weights and optimiser; returns the state and the random state of process `rank`.

        Raises:
            DataError: The file is damaged, or holds something else.
            ConfigurationError: It belongs to another training.
        """
        with self._complete():
            require_whole_tensors(self.path)
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            found = dict(content["description"])
        expected = _plain(self.description)
        differing = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        if differing:
            raise ConfigurationError(
                f"{self.path} belongs to another training (differs in: {', '.join(differing)}). "
                "Repeat the settings it was started with, choose another --out, or remove the file."
            )
        with self._complete():
            model.load_state_dict(content["model"])
            optimizer.load_state_dict(content["optimizer"])
            return TrainingState(**content["state"]), content["random_states"][rank]

    @contextmanager
    def _complete(self) -> Iterator[None]:
        """Turns whatever reading something else leads to into a DataError of one line."""
        try:
            yield
        except Exception as error:  # a damaged stream of pickle instructions fails in any way
            reason = next(iter(str(error).splitlines()), "an empty file").rstrip(".:")
            raise DataError(f"{self.path} must be a complete checkpoint. Found: {reason}. Remove it.") from None


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the value as it comes back from JSON, where tuples are lists."""
    return json.loads(json.dumps(value))

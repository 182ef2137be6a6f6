"""One loop for every neural model."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.loggers import Logger
from torch import nn

from subfuse.cohort.batches import make_target
from subfuse.cohort.cohort import Patient
from subfuse.errors import ConfigurationError
from subfuse.execution import Progress, one_ahead
from subfuse.model.subspace_fusion import SubspaceFusion
from subfuse.objective.objective import Objective
from subfuse.training.checkpoint import (
    Checkpoint,
    RandomState,
    TrainingState,
    copy_weights,
    random_state,
    set_random_state,
)
from subfuse.training.coordination import ConfidenceGuidedProjection, GradientCoordinator, NoCoordination
from subfuse.training.loggers import tracker, write_log
from subfuse.training.processes import gather_rows
from subfuse.training.selection import score, selection_metric, validation_metrics
from subfuse.training.settings import TrainingSettings
from subfuse.training.step import JointUpdate, Share, TaskData

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


@dataclass(frozen=True)
class Trainer:
    """Trains one neural model on one process or several. Knows no task and no model by name.

    Args:
        settings: How to train.
        seed: Decides the order of patients; the caller seeds the initial weights with it.
        fabric: Device, precision and the other processes.
        checkpoint: Written after every epoch and, where it exists, gone on from.
        log_path: CSV with a row per epoch; a tracker writes beside it.
        progress: Called after every epoch.
    """

    settings: TrainingSettings
    seed: int
    fabric: Fabric
    checkpoint: Checkpoint | None = None
    log_path: Path | None = None
    progress: Progress | None = None

    def member(self, index: int, count: int) -> "Trainer":
        """Returns the trainer of one of several networks that are trained one after the other.

        The first has this trainer's seed and files, so that it is the network trained alone. Others have a seed of
        their own, and their files in the folder `member_<index>`.

        Args:
            index: Of the network, from 0.
            count: Number of networks.
        """
        seed, log_path, checkpoint, progress = self.seed, self.log_path, self.checkpoint, self.progress
        if index:
            seed = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
            log_path = None if log_path is None else _of_member(log_path, index)
        if index and checkpoint is not None:
            description = {**checkpoint.description, "seed": seed}
            checkpoint = Checkpoint(_of_member(checkpoint.path, index), description)
        if progress is not None and count > 1:
            progress = _of_several(progress, index, count)
        return replace(self, seed=seed, log_path=log_path, checkpoint=checkpoint, progress=progress)

    def fit(
        self,
        model: nn.Module,
        objective: Objective,
        train: Sequence[Patient],
        validation: Sequence[Patient],
        data: TaskData,
    ) -> TrainingState:
        """Trains `model` in place and leaves it at the epoch with the best validation metric.

        A network that learns what a linear path leaves (`TaskData.offsets`) is left at the mean of its weights over
        epochs instead, up to the one where training stops: the little that it adds is too noisy to choose an epoch by,
        and the validation patients are still needed to choose its share.

        Raises:
            ConfigurationError: Training diverged, or the checkpoint is another training's.
        """
        settings, fabric = self.settings, self.fabric
        metric = selection_metric(settings.selection, objective, make_target(validation, data.task, data.classes))
        fabric.to_device(model)
        objective = objective.to(fabric.device)
        optimizer = OPTIMIZERS[settings.optimizer](
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        update = JointUpdate(
            fabric, model, optimizer, objective, self._coordinator(model), settings.clip, settings.gene_penalty
        )
        state = self._start(model, optimizer)
        if state.log and self.log_path is not None and self.fabric.is_global_zero:
            write_log(self.log_path, state.log)  # an interruption after the checkpoint left it without the last row
        with self._tracker(state) as logger:
            while not state.is_over(epochs=settings.epochs, patience=settings.patience):
                row = {"epoch": len(state.log), **self._epoch(update, train, data, len(state.log))}
                metrics = self._validate(update, validation, data, metric)
                state.record(row | metrics, score(metric, metrics), model)
                if data.offsets:
                    state.average(model)
                self._keep(state, model, optimizer, logger)
            if not math.isfinite(state.best_score[0]):
                raise ConfigurationError("training must give a finite validation metric. Found NaN. Lower --train.lr.")
        model.load_state_dict(state.mean_weights if data.offsets else state.best_weights)
        model.cpu()
        objective.cpu()
        return state

    @property
    def _joint_batch(self) -> int:
        return self.settings.batch_size * self.settings.accumulate * self.fabric.world_size

    def _start(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
        rank = self.fabric.global_rank
        if rank:  # the same weights everywhere, but dropout of its own
            torch.manual_seed(int(np.random.SeedSequence([self.seed, rank]).generate_state(1)[0]))
        if self.checkpoint is None or not self.checkpoint.path.exists():
            return TrainingState(copy_weights(model))
        state, generators = self.checkpoint.load(model, optimizer, rank)
        set_random_state(generators, self.fabric.device)
        return state

    @contextmanager
    def _tracker(self, state: TrainingState) -> Iterator[Logger | None]:
        if self.log_path is None or self.fabric.global_rank:
            yield None
            return
        with tracker(self.settings.logger, self.log_path.parent) as logger:
            if logger is not None:
                logger.log_hyperparams(self.settings.model_dump(mode="json"))
                for row in state.log:  # of epochs before an interruption
                    logger.log_metrics(_measured(row), step=int(row["epoch"]))
            yield logger

    def _epoch(self, update: JointUpdate, train: Sequence[Patient], data: TaskData, epoch: int) -> dict[str, float]:
        generator = np.random.default_rng([self.seed, epoch])  # the order depends on the epoch only: resumable
        order = [train[i] for i in generator.permutation(len(train))]
        n_updates = math.ceil(len(order) / self._joint_batch)
        update.model.train()

        def shares() -> Iterator[Share]:
            for start in range(0, len(order), self._joint_batch):
                patients = order[start : start + self._joint_batch]
                share = data.share(
                    patients,
                    batch_size=self.settings.batch_size,
                    rank=self.fabric.global_rank,
                    processes=self.fabric.world_size,
                    dropout=generator.random(len(patients)),
                    probability=self.settings.modality_dropout,
                )
                yield share.pinned() if self.fabric.device.type == "cuda" else share

        rows = []
        with one_ahead(shares()) as read:
            for index, share in enumerate(read):
                rate = self.settings.lr * self._rate(epoch * n_updates + index, self.settings.epochs * n_updates)
                for group in update.optimizer.param_groups:
                    group["lr"] = rate
                rows.append(update(share) | {"lr": rate})
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _validate(
        self, update: JointUpdate, validation: Sequence[Patient], data: TaskData, metric: str
    ) -> dict[str, float]:
        share = data.share(
            validation,
            batch_size=self.settings.batch_size,
            rank=self.fabric.global_rank,
            processes=self.fabric.world_size,
        )
        update.model.eval()
        output = update.outputs(share)
        metrics = validation_metrics(metric, update.objective, output, share.target.to(self.fabric.device))
        return self.fabric.broadcast(metrics)  # all processes must stop at the same epoch, to the last bit

    def _keep(
        self, state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer, logger: Logger | None
    ) -> None:
        """Writes checkpoint and log, says how far training is."""
        row = state.log[-1]
        if self.checkpoint is not None:
            generators = self._all_random_states()
            if self.fabric.is_global_zero:
                self.checkpoint.save(state, model, optimizer, generators)
        if not self.fabric.is_global_zero:
            return
        if self.log_path is not None:
            write_log(self.log_path, state.log)
        if logger is not None:
            logger.log_metrics(_measured(row), step=len(state.log) - 1)
        if self.progress is not None:
            best = "" if state.best_epoch < len(state.log) - 1 else ", best so far"
            self.progress(len(state.log), self.settings.epochs, f"validation loss {row['validation_loss']:.4f}{best}")

    def _all_random_states(self) -> list[RandomState]:
        fabric = self.fabric
        one_each = (1,) * fabric.world_size
        gathered = {
            name: gather_rows(fabric, value[None].to(fabric.device), one_each).cpu()
            for name, value in random_state(fabric.device).items()
        }
        return [{name: value[rank].clone() for name, value in gathered.items()} for rank in range(fabric.world_size)]

    def _coordinator(self, model: nn.Module) -> GradientCoordinator:
        """Baselines with several parts, such as late fusion, are trained plainly: coordination is not theirs."""
        rule = self.settings.coordination if isinstance(model, SubspaceFusion) else "none"
        return NoCoordination() if rule == "none" else ConfidenceGuidedProjection(rule)

    def _rate(self, step: int, n_steps: int) -> float:
        warmup = max(1, round(self.settings.warmup * n_steps))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


def _of_member(path: Path, index: int) -> Path:
    return path.parent / f"member_{index}" / path.name


def _of_several(progress: Progress, index: int, count: int) -> Progress:
    """Returns a progress that counts the epochs of all networks."""
    return lambda done, total, message: progress(
        index * total + done, count * total, f"network {index + 1} of {count}, {message}"
    )


def _measured(row: Mapping[str, int | float]) -> dict[str, float]:
    """Returns what a tracker can draw: no epoch number and nothing undefined (a single subspace has no conflict)."""
    return {name: value for name, value in row.items() if name != "epoch" and math.isfinite(value)}

"""One update from a joint batch: the patients of one batch, of several batches, of several processes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from lightning.fabric import Fabric
from torch import Tensor, nn

from subfuse.cohort.bags import BagReader
from subfuse.cohort.batches import BagBatch, BinnedReader, Target, draw_batches, make_target, moved
from subfuse.cohort.cohort import Patient
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError
from subfuse.model.gene_encoders import GeneEncoder, GeneSetTokens
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.objective import Objective
from subfuse.training.checkpoint import RandomState, random_state, replayed
from subfuse.training.coordination import GradientCoordinator, gradient_conflict
from subfuse.training.distillation.lessons import Lesson, Lessons
from subfuse.training.processes import gather_rows, shares, sum_gradients


@dataclass(frozen=True)
class Share:
    """What one process computes of a joint batch."""

    batches: tuple[BagBatch, ...]  # with `counts[rank]` patients, or one patient to be ignored if that is 0
    target: Target  # of all patients of the joint batch
    counts: tuple[int, ...]  # patients of each process; together the joint batch, in order
    offset: Float[Tensor, "batch output"] | None = None  # of the joint batch's logits, from a linear path
    lesson: Lesson | None = None  # of the joint batch, from a teacher

    def pinned(self) -> "Share":
        """Returns the same with its batches in memory that a GPU copies from while the processor goes on."""
        return replace(self, batches=tuple(batch.pinned() for batch in self.batches))

    def completed(self, output: SubspaceFusionOutput) -> SubspaceFusionOutput:
        """Returns the network's output for the joint batch with the logits of the linear path added."""
        if self.offset is None:
            return output
        return replace(output, logits=output.logits + moved(self.offset, output.logits.device).to(output.logits))


@dataclass(frozen=True)
class TaskData:
    """How patients become batches of one task."""

    reader: BagReader | BinnedReader
    task: TaskSpec
    classes: tuple[str, ...]
    n_inputs: int  # genes and covariates that the model reads
    offsets: Mapping[str, Float[Tensor, " output"]] = field(default_factory=dict)  # of patients, from a linear path
    lessons: Lessons | None = None  # of training patients, from a teacher

    def batches(self, patients: Sequence[Patient], batch_size: int) -> Iterator[BagBatch]:
        """Yields batches with targets, in the given order."""
        return draw_batches(
            patients, self.reader, batch_size=batch_size, n_inputs=self.n_inputs, task=self.task, classes=self.classes
        )

    def share(
        self,
        patients: Sequence[Patient],
        *,
        batch_size: int,
        rank: int = 0,
        processes: int = 1,
        dropout: Float[np.ndarray, " patient"] | None = None,
        probability: float = 0.0,
    ) -> Share:
        """Returns one process's part of a joint batch.

        A process without a patient (there are more processes than patients) computes one all the same and ignores it,
        so that its gradients are zeros of the right shapes.

        Args:
            patients: Of the joint batch.
            batch_size: Most patients of one forward pass.
            rank: Number of the process.
            processes: Number of processes.
            dropout: Uniform numbers that decide whose modalities are hidden; see `drop_modalities`.
            probability: Of hiding a modality.
        """
        counts = shares(len(patients), processes)
        start = sum(counts[:rank])
        own = slice(start, start + counts[rank]) if counts[rank] else slice(0, 1)
        batches = tuple(self.batches(patients[own], batch_size))
        if dropout is not None:
            draws = np.split(dropout[own], np.cumsum([len(batch.patient_id) for batch in batches])[:-1])
            batches = tuple(drop_modalities(b, probability, draw) for b, draw in zip(batches, draws, strict=True))
        offset = torch.stack([self.offsets[patient.patient_id] for patient in patients]) if self.offsets else None
        lesson = None if self.lessons is None else self.lessons.of([patient.patient_id for patient in patients])
        return Share(batches, make_target(patients, self.task, self.classes), counts, offset, lesson)


def paired(batch: BagBatch) -> Bool[Tensor, " batch"]:
    """Returns True where a patient has both slides and expression."""
    return batch.patch_mask.any(dim=1) & batch.expression_mask


def drop_modalities(batch: BagBatch, probability: float, draw: Float[np.ndarray, " batch"]) -> BagBatch:
    """Returns the batch with one modality hidden from some of the patients that have both.

    Args:
        batch: Patients.
        probability: Of hiding one; slides and expression equally often.
        draw: A uniform number in [0, 1) per patient.
    """
    below = torch.from_numpy(draw)
    both = paired(batch)
    hide_slides = both & (below < probability / 2)
    hide_expression = both & (below >= probability / 2) & (below < probability)
    return replace(
        batch,
        patch_mask=batch.patch_mask & ~hide_slides[:, None],
        expression_mask=batch.expression_mask & ~hide_expression,
    )


@dataclass(frozen=True)
class JointUpdate:
    """One optimiser step on the loss of a joint batch, however it is divided.

    Losses that compare patients (consistency, Cox) and confidences are not means over patients: they need the whole
    joint batch. So its outputs are gathered first, the loss and its gradient with respect to the outputs are computed
    from them, identically by every process, and each process takes its part of that gradient through its own forward
    passes. The sum over batches and processes is the gradient of the joint loss: the update is that of one process
    with one large batch. A single forward pass keeps its graph; of several, each is repeated, with the same random
    numbers, when its turn comes, so that memory holds one batch.
    """

    fabric: Fabric
    model: nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    coordinator: GradientCoordinator
    clip: float  # largest gradient norm
    gene_penalty: float = 0.0  # of the group lasso on the genes of every gene encoder

    def __call__(self, share: Share) -> dict[str, float]:
        """Updates the weights and returns what is logged of the update.

        Raises:
            ConfigurationError: The gradient is not finite.
        """
        device = self.fabric.device
        target = share.target.to(device)
        states, outputs = self._forward_all(share)
        joint = _as_leaves(_gather_output(self.fabric, outputs, share.counts))
        own = torch.cat([paired(batch) for batch in share.batches])[: self._own(share)]
        both = gather_rows(self.fabric, moved(own, device), share.counts)
        completed = share.completed(joint)
        loss = self.objective(completed, target, paired=both)
        if share.lesson is not None:
            loss = share.lesson.to(device).added_to(loss, self.objective, completed)
        loss.total.backward()
        self.optimizer.zero_grad()
        self._backward_all(share, states, outputs, joint)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        sum_gradients(self.fabric, parameters)
        weight = self.model.get_parameter("head.weight")
        assert weight.grad is not None
        conflict = gradient_conflict(weight.grad)
        weight.grad = self.coordinator.coordinate(weight.grad, self.objective.confidence(joint, target))
        measured = {
            "gradient_norm": nn.utils.clip_grad_norm_(parameters, self.clip),
            "train_loss": loss.total.detach(),
            **{f"train_{name}": value for name, value in loss.terms.items()},
            "gradient_cosine": conflict.cosine,
            "gradient_conflict": conflict.rate,
        }
        told = torch.stack(
            [value.to(loss.total.dtype) for value in measured.values()]
        ).tolist()  # waits for the device once
        row = dict(zip(measured, told, strict=True))
        if not math.isfinite(row.pop("gradient_norm")):
            raise ConfigurationError("training must keep finite gradients. Found NaN or infinity. Lower --train.lr.")
        self.optimizer.step()
        if self.gene_penalty:
            amount = self.gene_penalty * self.optimizer.param_groups[0]["lr"]
            for encoder in self.model.modules():
                if isinstance(encoder, GeneEncoder | GeneSetTokens):
                    encoder.shrink_genes(amount)
        return row

    def outputs(self, share: Share) -> SubspaceFusionOutput:
        """Returns the output for the joint batch, without gradient."""
        with torch.no_grad():
            own = [self._forward(batch, self._own(share)) for batch in share.batches]
        return share.completed(_gather_output(self.fabric, own, share.counts))

    def _own(self, share: Share) -> int:
        return share.counts[self.fabric.global_rank]

    def _forward(self, batch: BagBatch, n_patients: int) -> SubspaceFusionOutput:
        """Returns the output of one batch, which is on the device for that long: memory there holds one."""
        with self.fabric.autocast():
            output = self.model(**batch.to(self.fabric.device).inputs())
        return output if n_patients else _rows(output, slice(0, 0))

    def _forward_all(self, share: Share) -> tuple[list[RandomState], list[SubspaceFusionOutput]]:
        states, outputs = [], []
        with torch.set_grad_enabled(len(share.batches) == 1):
            for batch in share.batches:
                states.append(random_state(self.fabric.device))
                outputs.append(self._forward(batch, self._own(share)))
        return states, outputs

    def _backward_all(
        self,
        share: Share,
        states: Sequence[RandomState],
        outputs: Sequence[SubspaceFusionOutput],
        joint: SubspaceFusionOutput,
    ) -> None:
        """Adds this process's part of the gradient of the joint loss to the parameters."""
        start = sum(share.counts[: self.fabric.global_rank])
        for batch, state, output in zip(share.batches, states, outputs, strict=True):
            if len(share.batches) > 1:
                with replayed(state, self.fabric.device):
                    output = self._forward(batch, self._own(share))
            own = slice(start, start + len(output.logits))
            parts = [
                (value, gradient[own].to(value.dtype))
                for name, value in _tensors(output).items()
                if value.requires_grad and (gradient := getattr(joint, name).grad) is not None
            ]
            values, gradients = zip(*parts, strict=True)
            torch.autograd.backward(values, gradients)
            start = own.stop


def _gather_output(
    fabric: Fabric, outputs: Sequence[SubspaceFusionOutput], counts: Sequence[int]
) -> SubspaceFusionOutput:
    """Returns the outputs of all batches of all processes as one, without gradient, in single precision or better."""
    parts = [_tensors(output) for output in outputs]
    joint = {
        name: gather_rows(fabric, torch.cat([part[name] for part in parts]), counts).to(
            torch.promote_types(value.dtype, torch.float32)
        )
        for name, value in parts[0].items()
    }
    return replace(outputs[0], **joint)


def _as_leaves(output: SubspaceFusionOutput) -> SubspaceFusionOutput:
    """Returns the output as the place where the gradient of the loss ends."""
    return replace(output, **{name: value.requires_grad_() for name, value in _tensors(output).items()})


def _rows(output: SubspaceFusionOutput, rows: slice) -> SubspaceFusionOutput:
    return replace(output, **{name: value[rows] for name, value in _tensors(output).items()})


def _tensors(output: SubspaceFusionOutput) -> dict[str, Tensor]:
    values = {field.name: getattr(output, field.name) for field in fields(output)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}

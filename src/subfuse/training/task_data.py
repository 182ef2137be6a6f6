"""How patients become batches of one task, alone or as one process's share of a joint batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from subfuse.data.bags import BagBatch, BagReader, Target, draw_batches, make_target
from subfuse.data.cohort import Patient
from subfuse.data.cohort_file import TaskSpec
from subfuse.training.processes import shares


@dataclass(frozen=True)
class Share:
    """What one process computes of a joint batch."""

    batches: tuple[BagBatch, ...]  # with `counts[rank]` patients, or one patient to be ignored if that is 0
    target: Target  # of all patients of the joint batch
    counts: tuple[int, ...]  # patients of each process; together the joint batch, in order


@dataclass(frozen=True)
class TaskData:
    """How patients become batches of one task."""

    reader: BagReader
    task: TaskSpec
    classes: tuple[str, ...]
    n_genes: int

    def batches(self, patients: Sequence[Patient], batch_size: int) -> Iterator[BagBatch]:
        """Yields batches with targets, in the given order."""
        return draw_batches(
            patients, self.reader, batch_size=batch_size, n_genes=self.n_genes, task=self.task, classes=self.classes
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
        return Share(batches, make_target(patients, self.task, self.classes), counts)


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

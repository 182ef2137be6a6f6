"""However a joint batch is divided, the update is that of one process with one batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import process_pool
from subfuse.cohort.bags import BagReader, FeatureCache, InputStandardiser
from subfuse.errors import ConfigurationError
from subfuse.expression.gene_sets import gene_indices
from subfuse.model.subspace_fusion import SubspaceFusion, SubspaceFusionConfig
from subfuse.objective.classification import ClassificationObjective
from subfuse.objective.losses import Consistency
from subfuse.objective.survival import CoxObjective, DiscreteHazardObjective
from subfuse.training.coordination import ConfidenceGuidedProjection
from subfuse.training.processes import one_process, start_processes
from subfuse.training.settings import TrainingSettings
from subfuse.training.step import JointUpdate, TaskData, paired

SETTINGS = TrainingSettings(accelerator="cpu")
OBJECTIVES = {
    "hazard": lambda: DiscreteHazardObjective([200.0, 400.0, 800.0], consistency=Consistency(2.0)),
    "cox": lambda: CoxObjective(consistency=Consistency(2.0)),
    "grade": lambda: ClassificationObjective(("G2", "G4"), [0.6, 1.9], consistency=Consistency(2.0)),
}


def make_update(cohort, objective, fabric, *, dropout=0.0):
    objective = OBJECTIVES[objective]().double()
    config = SubspaceFusionConfig(
        objective.n_outputs, patch_dim=6, embed_dim=16, grid=(8, 8), table_size=16, dropout=dropout
    )
    torch.manual_seed(0)
    model = SubspaceFusion(config, gene_indices(cohort.gene_sets, cohort.genes)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # linear in the gradient: differences stay visible
    return JointUpdate(fabric, model, optimizer, objective, ConfidenceGuidedProjection(), 1e9)


def data_of(cohort, objective):
    reader = BagReader(InputStandardiser.fit(cohort.patients, cohort.genes, FeatureCache()))
    if objective == "grade":
        return TaskData(reader, cohort.tasks["grade"], ("G2", "G4"), len(cohort.genes))
    return TaskData(reader, cohort.tasks["survival"], (), len(cohort.genes))


def in_double(share):
    names = ("patches", "coords", "expression")
    batches = [replace(b, **{name: getattr(b, name).double() for name in names}) for b in share.batches]
    return replace(share, batches=tuple(batches))


def updated(cohort, objective, fabric, *, batch_size, n_patients=8, dropout=0.0):
    """Weights after two updates, the second with the patients in reverse, and what was logged."""
    update, data = make_update(cohort, objective, fabric, dropout=dropout), data_of(cohort, objective)
    for patients in (cohort.patients[:n_patients], cohort.patients[n_patients - 1 :: -1]):
        hidden = np.random.default_rng(7).random(len(patients))
        share = data.share(
            patients,
            batch_size=batch_size,
            rank=fabric.global_rank,
            processes=fabric.world_size,
            dropout=hidden,
            probability=0.4,
        )
        row = update(in_double(share))
    weights = torch.cat([value.detach().flatten() for value in update.model.parameters()])
    return weights, torch.tensor(list(row.values()))


def write_updated(path, cohort, objective, batch_size, n_patients):
    with start_processes(SETTINGS, devices=2, nodes=1) as fabric:
        result = updated(cohort, objective, fabric, batch_size=batch_size, n_patients=n_patients)
        torch.save(result, f"{path}-{fabric.global_rank}.pt")


def assert_same(first, second):
    for ours, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize(("batch_size", "n_patients"), [(4, 8), (3, 8), (1, 3)])
def test_accumulated_batches_are_one_batch(make_cohort, objective, batch_size, n_patients):
    cohort, fabric = make_cohort(8), one_process(SETTINGS)
    whole = updated(cohort, objective, fabric, batch_size=n_patients, n_patients=n_patients)
    assert_same(updated(cohort, objective, fabric, batch_size=batch_size, n_patients=n_patients), whole)


@pytest.mark.parametrize(
    ("objective", "batch_size", "n_patients"), [("hazard", 2, 8), ("grade", 8, 7), ("cox", 4, 1), ("cox", 4, 8)]
)
def test_two_processes_are_one_with_the_joint_batch(make_cohort, tmp_path, objective, batch_size, n_patients):
    cohort = make_cohort(8)
    whole = updated(cohort, objective, one_process(SETTINGS), batch_size=n_patients, n_patients=n_patients)
    arguments = (str(tmp_path / "weights"), cohort, objective, batch_size, n_patients)
    process_pool.join(process_pool.start_connected(write_updated, 2, *arguments))
    for rank in range(2):
        assert_same(torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True), whole)


def test_one_batch_is_a_plain_training_step_to_the_last_bit(make_cohort):
    """Forward, loss, backward, coordination at the head, clipping, optimiser: nothing else, nothing reordered."""
    cohort, fabric = make_cohort(8), one_process(SETTINGS)
    update, plain = (make_update(cohort, "hazard", fabric, dropout=0.2) for _ in range(2))
    share = in_double(data_of(cohort, "hazard").share(cohort.patients, batch_size=8))
    torch.manual_seed(3)
    replace(update, clip=0.1)(share)
    torch.manual_seed(3)
    (batch,) = share.batches
    output = plain.model(**batch.inputs())
    plain.objective(output, share.target, paired=paired(batch)).total.backward()
    weight = plain.model.head.weight
    weight.grad = plain.coordinator.coordinate(weight.grad, plain.objective.confidence(output, share.target))
    torch.nn.utils.clip_grad_norm_(plain.model.parameters(), 0.1)
    plain.optimizer.step()
    for ours, theirs in zip(update.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_repeated_forward_pass_draws_the_same_dropout(make_cohort):
    """The gradient of accumulated batches is that of their own loss, here found by differences of the loss."""
    cohort, fabric = make_cohort(8), one_process(SETTINGS)
    share = in_double(data_of(cohort, "hazard").share(cohort.patients, batch_size=3))

    def loss_at(shift):
        update = replace(make_update(cohort, "hazard", fabric, dropout=0.3), clip=1e9)
        with torch.no_grad():
            update.model.subspaces["tumour"].fusion.bias[2] += shift
        torch.manual_seed(11)
        row = update(share)
        return row["train_loss"], update.model.subspaces["tumour"].fusion.bias.grad[2]

    step = 1e-5
    slope = (loss_at(step)[0] - loss_at(-step)[0]) / (2 * step)
    assert float(loss_at(0.0)[1]) == pytest.approx(slope, rel=1e-5)


def test_divergence_is_an_error(make_cohort):
    cohort, fabric = make_cohort(8), one_process(SETTINGS)
    update = make_update(cohort, "hazard", fabric)
    with torch.no_grad():
        update.model.head.bias.fill_(float("nan"))
    share = in_double(data_of(cohort, "hazard").share(cohort.patients, batch_size=8))
    with pytest.raises(ConfigurationError, match="finite gradients"):
        update(share)

"""However a joint batch is divided, the update is that of one process with one batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import process_pool
from subfuse.cohort.bags import BagReader, FeatureCache, InputStandardiser
from subfuse.cohort.batches import collate
from subfuse.errors import ConfigurationError
from subfuse.expression.gene_sets import gene_indices
from subfuse.model.gene_encoders import GeneEncoder
from subfuse.model.subspace_fusion import SubspaceFusion, SubspaceFusionConfig
from subfuse.objective.classification import ClassificationObjective
from subfuse.objective.losses import Consistency
from subfuse.objective.survival import CoxObjective, DiscreteHazardObjective
from subfuse.training.coordination import ConfidenceGuidedProjection
from subfuse.training.processes import one_process, start_processes
from subfuse.training.settings import TrainingPlan
from subfuse.training.step import JointUpdate, TaskData, drop_modalities, paired

PLAN = TrainingPlan(device="cpu")
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
    with start_processes(PLAN, devices=2, nodes=1) as fabric:
        result = updated(cohort, objective, fabric, batch_size=batch_size, n_patients=n_patients)
        torch.save(result, f"{path}-{fabric.global_rank}.pt")


def assert_same(first, second):
    for ours, theirs in zip(first, second, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize(("batch_size", "n_patients"), [(4, 8), (3, 8), (1, 3)])
def test_accumulated_batches_are_one_batch(make_cohort, objective, batch_size, n_patients):
    cohort, fabric = make_cohort(8), one_process(PLAN)
    whole = updated(cohort, objective, fabric, batch_size=n_patients, n_patients=n_patients)
    assert_same(updated(cohort, objective, fabric, batch_size=batch_size, n_patients=n_patients), whole)


@pytest.mark.parametrize(
    ("objective", "batch_size", "n_patients"), [("hazard", 2, 8), ("grade", 8, 7), ("cox", 4, 1), ("cox", 4, 8)]
)
def test_two_processes_are_one_with_the_joint_batch(make_cohort, tmp_path, objective, batch_size, n_patients):
    cohort = make_cohort(8)
    whole = updated(cohort, objective, one_process(PLAN), batch_size=n_patients, n_patients=n_patients)
    arguments = (str(tmp_path / "weights"), cohort, objective, batch_size, n_patients)
    process_pool.join(process_pool.start_connected(write_updated, 2, *arguments))
    for rank in range(2):
        assert_same(torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True), whole)


def test_one_batch_is_a_plain_training_step_to_the_last_bit(make_cohort):
    """Forward, loss, backward, coordination at the head, clipping, optimiser: nothing else, nothing reordered."""
    cohort, fabric = make_cohort(8), one_process(PLAN)
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
    cohort, fabric = make_cohort(8), one_process(PLAN)
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
    cohort, fabric = make_cohort(8), one_process(PLAN)
    update = make_update(cohort, "hazard", fabric)
    with torch.no_grad():
        update.model.head.bias.fill_(float("nan"))
    share = in_double(data_of(cohort, "hazard").share(cohort.patients, batch_size=8))
    with pytest.raises(ConfigurationError, match="finite gradients"):
        update(share)


def test_dropped_modalities_hit_only_patients_with_both_and_never_both(make_cohort):
    """Of a chance of 0.6 one half hides slides, the other expression."""
    cohort = make_cohort(9)
    reader = BagReader(InputStandardiser.fit(cohort.patients, cohort.genes, FeatureCache()))
    batch = collate([reader.read(p) for p in cohort], n_inputs=len(cohort.genes))
    draw = np.array([0.0, 0.5, 0.0, 0.29, 0.3, 0.5, 0.59, 0.6, 0.99])  # of the first two one is missing
    dropped = drop_modalities(batch, 0.6, draw)
    assert dropped.patch_mask.any(dim=1).tolist() == [False, True, False, False, True, True, True, True, True]
    assert dropped.expression_mask.tolist() == [True, False, True, True, False, False, False, True, True]
    assert paired(dropped).tolist() == [False] * 7 + [True] * 2
    whole = [1, 4, 5, 6, 7, 8]
    assert torch.equal(dropped.patch_mask[whole], batch.patch_mask[whole])
    data = data_of(cohort, "hazard")
    share = data.share(cohort.patients, batch_size=4, dropout=np.zeros(9))  # no chance: nothing is hidden
    assert torch.equal(torch.cat([paired(part) for part in share.batches]), paired(batch))


def test_what_a_linear_path_says_is_added_to_the_logits_of_its_patients(make_cohort):
    cohort, fabric = make_cohort(8), one_process(PLAN)
    update, data = make_update(cohort, "hazard", fabric), data_of(cohort, "hazard")
    n_outputs = update.objective.n_outputs
    offsets = {p.patient_id: torch.full((n_outputs,), float(i)) for i, p in enumerate(cohort)}
    patients = cohort.patients[5:2:-1]
    alone, beside = (in_double(of.share(patients, batch_size=2)) for of in (data, replace(data, offsets=offsets)))
    added = update.outputs(beside).logits - update.outputs(alone).logits
    torch.testing.assert_close(added, torch.tensor([5.0, 4.0, 3.0]).double()[:, None].expand(-1, n_outputs))
    loss = update.objective(update.outputs(beside), beside.target).terms["task"]
    assert update(beside)["train_task"] == pytest.approx(float(loss))


def test_genes_are_shortened_by_the_penalty_times_the_learning_rate(make_cohort):
    cohort, fabric = make_cohort(8), one_process(PLAN)
    share = in_double(data_of(cohort, "hazard").share(cohort.patients, batch_size=8))
    penalised, plain = (make_update(cohort, "hazard", fabric) for _ in range(2))
    replace(penalised, gene_penalty=0.7)(share)
    plain(share)
    encoders = [module for module in plain.model.modules() if isinstance(module, GeneEncoder)]
    assert len(encoders) == 2
    for encoder in encoders:
        encoder.shrink_genes(0.7 * 0.1)
    for ours, theirs in zip(penalised.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)

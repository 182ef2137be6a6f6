"""Bags side by side, padded, with masks and outcomes."""

import numpy as np
import pytest
import torch

from subfuse.cohort.bags import Bag, BagReader, FeatureCache, InputStandardiser, class_names
from subfuse.cohort.batches import BinnedReader, KeptBags, collate, draw_batches, make_target
from subfuse.cohort.task import TaskSpec
from subfuse.features.scratch import Scratch


@pytest.fixture
def cohort(make_cohort):
    return make_cohort(8)


def reader_of(cohort, patients=None):
    return BagReader(InputStandardiser.fit(patients or cohort.patients, cohort.genes, FeatureCache()))


def test_a_batch_holds_each_bag_and_marks_what_is_missing(cohort):
    reader = reader_of(cohort)
    batch = next(draw_batches(cohort.patients, reader, batch_size=8, n_inputs=len(cohort.genes)))
    assert batch.patch_mask.any(dim=1).tolist() == [False] + [True] * 7
    assert batch.expression_mask.tolist() == [True, False] + [True] * 6
    for i, patient in enumerate(cohort):
        bag = reader.read(patient)
        np.testing.assert_array_equal(batch.patches[i][batch.patch_mask[i]].numpy(), bag.patches)
        assert not batch.patches[i][~batch.patch_mask[i]].any()


def test_batches_cover_the_patients_in_order_with_a_short_last_one(cohort):
    task = cohort.tasks["grade"]
    batches = list(
        draw_batches(cohort.patients, reader_of(cohort), batch_size=3, n_inputs=10, task=task, classes=("G2", "G4"))
    )
    assert [len(b.patient_id) for b in batches] == [3, 3, 2]
    assert [i for b in batches for i in b.patient_id] == [p.patient_id for p in cohort]
    label = torch.cat([b.target.label for b in batches]).tolist()
    assert label == [int(p.labels["grade"] == "G4") for p in cohort]


def test_outcomes_known_and_unknown(cohort):
    patient = cohort.patients[0]
    assert patient.has_outcome(TaskSpec(column="grade"))
    assert not patient.has_outcome(TaskSpec(column="diagnosis"))
    assert class_names(cohort.patients, TaskSpec(column="grade")) == ("G2", "G4")
    assert class_names(cohort.patients, TaskSpec(column="grade", classes=("G4", "G2"))) == ("G4", "G2")
    with pytest.raises(ValueError, match="labels of 'grade' must be among"):
        make_target(cohort.patients, TaskSpec(column="grade"), ["G2"])


def test_padding_round_trips_for_very_different_lengths():
    bags = [
        Bag("a", np.ones((1, 3), np.float32), np.full((1, 2), 5, np.float32), None),
        Bag("b", np.ones((7, 3), np.float32), np.zeros((7, 2), np.float32), np.arange(4, dtype=np.float32)),
    ]
    batch = collate(bags, n_inputs=4)
    assert batch.patches.shape == (2, 7, 3)
    assert batch.patch_mask.sum(dim=1).tolist() == [1, 7]
    assert batch.expression.tolist() == [[0, 0, 0, 0], [0, 1, 2, 3]]
    assert batch.to(torch.device("cpu")).patient_id == ("a", "b")


def test_patients_without_slides_have_an_empty_axis_of_patches():
    bags = [
        Bag(name, np.zeros((0, 3), np.float32), np.zeros((0, 2), np.float32), np.ones(4, np.float32)) for name in "ab"
    ]
    batch = collate(bags, n_inputs=4)
    assert (batch.patches.shape, batch.coords.shape, batch.patch_mask.shape) == ((2, 0, 3), (2, 0, 2), (2, 0))


@pytest.mark.parametrize("is_binned", [False, True])
def test_all_inputs_of_a_batch_are_pinned_and_nothing_else_changes(cohort, monkeypatch, is_binned):
    reader, pinned = reader_of(cohort), []
    drawn = draw_batches(
        cohort.patients[:3], BinnedReader(reader, (4, 4)) if is_binned else reader, batch_size=3, n_inputs=10
    )
    batch = next(drawn)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor.clone())
    found = batch.pinned()
    inputs = {name: value for name, value in batch.inputs().items() if name != "binned"}
    assert len(pinned) == len(inputs) + 2 * is_binned
    for name, value in inputs.items():
        assert torch.equal(found.inputs()[name], value)
        assert any(value is each for each in pinned)
    assert (found.patient_id, found.target) == (batch.patient_id, batch.target)
    assert (found.binned is not None) == is_binned


def test_binned_bags_are_read_once_and_no_longer_than_the_grid(cohort, monkeypatch):
    reader, grid, kept = reader_of(cohort), (2, 3), KeptBags(Scratch(limit_bytes=100))
    binned, read = BinnedReader(reader, grid, kept), []
    monkeypatch.setattr(BagReader, "read", lambda self, p, read_bag=BagReader.read: read.append(p) or read_bag(self, p))
    first = [binned.read(patient) for patient in cohort]
    again = [binned.read(patient) for patient in reversed(cohort.patients)][::-1]
    assert read == list(cohort)
    anew = [BinnedReader(reader, grid).read(patient) for patient in cohort]
    for patient, *bags in zip(cohort, first, again, anew, strict=True):
        whole = reader.read(patient)
        for bag in bags:
            assert (bag.patient_id, bag.expression is None) == (patient.patient_id, whole.expression is None)
            assert len(bag.patches) == len(bag.coords) == len(bag.cells.cell) <= min(6, len(whole.patches))
            assert set(bag.cells.cell) <= set(range(6))
            np.testing.assert_array_equal(bag.patches, bags[0].patches)
            if len(whole.patches):
                summary = [whole.patches.mean(axis=0), whole.patches.std(axis=0)]
                np.testing.assert_allclose(bag.cells.summary, np.concatenate(summary), rtol=1e-5, atol=1e-6)
    batch = next(draw_batches(cohort.patients, binned, batch_size=8, n_inputs=len(cohort.genes)))
    assert batch.inputs()["binned"].cell.shape == batch.patch_mask.shape
    assert batch.binned.summary.shape == (8, 2 * batch.patches.shape[2])
    assert "binned" not in next(draw_batches(cohort.patients, reader, batch_size=8, n_inputs=10)).inputs()

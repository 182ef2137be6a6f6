"""Inner folds, and where a loss is lowest."""

import numpy as np
import pytest
import torch
from linear_bags import N, followed

from subfuse.cohort.batches import ClassTarget, NumberTarget
from subfuse.training.linear.path import INNER_FOLDS, inner_folds, lowest


def test_inner_folds_share_out_events_classes_and_numbers_evenly():
    _, target = followed()
    counts = [int(target.event[inner_folds(target) == k].sum()) for k in range(INNER_FOLDS)]
    assert max(counts) - min(counts) <= 1
    label = ClassTarget(torch.arange(N) % 3)
    assert max(np.bincount(inner_folds(label))) - min(np.bincount(inner_folds(label))) <= 1
    value = torch.arange(N).float().flip(0)
    means = [float(value[inner_folds(NumberTarget(value)) == k].mean()) for k in range(INNER_FOLDS)]
    assert max(means) - min(means) <= INNER_FOLDS


@pytest.mark.parametrize(("bounds", "expected"), [((-5.0, 5.0), [1.0, -2.0]), ((0.0, 0.5), [0.5, 0.0])])
def test_a_loss_is_lowest_where_its_gradient_vanishes_or_at_a_bound(bounds, expected):
    target = torch.tensor([1.0, -2.0]).double()
    found = lowest(lambda value: (value - target).square().sum(), torch.zeros(2), bounds=bounds)
    torch.testing.assert_close(found, torch.tensor(expected).double(), atol=1e-6, rtol=0)

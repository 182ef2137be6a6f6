"""Objectives as JSON and back."""

import json

import pytest
import torch
from objective_cases import EVERY_OBJECTIVE, model_output

from subfuse.cohort.batches import Target
from subfuse.objective import Objective, objective_from_dict


@EVERY_OBJECTIVE
def test_the_description_is_json_and_complete(objective: Objective, target: Target):
    restored = objective_from_dict(json.loads(json.dumps(objective.to_dict())))
    output = model_output(objective.n_outputs)
    assert type(restored) is type(objective)
    assert restored.to_dict() == objective.to_dict()
    assert restored.n_outputs == objective.n_outputs
    assert restored.survival_days == objective.survival_days
    torch.testing.assert_close(restored(output, target).total, objective(output, target).total)


def test_an_unknown_objective_lists_the_known_ones():
    with pytest.raises(ValueError, match="classification, cumulative_logits, discrete_hazard, cox"):
        objective_from_dict({"name": "ranking"})

"""Settings of training: their bounds, and what a plan keeps of them."""

import pytest
from pydantic import ValidationError

from subfuse.training.settings import (
    LARGEST_ENSEMBLE,
    LARGEST_GRID,
    ArchitectureSettings,
    TrainingPlan,
    TrainingSettings,
)


@pytest.mark.parametrize("kind", [TrainingSettings, ArchitectureSettings, TrainingPlan])
def test_defaults_are_within_their_own_bounds_and_read_back_from_what_is_written(kind):
    defaults = kind()
    assert kind.model_validate(defaults.model_dump(mode="json")) == defaults
    assert kind.model_validate_json(defaults.model_dump_json()) == defaults


@pytest.mark.parametrize("kind", [TrainingSettings, ArchitectureSettings])
def test_every_setting_is_explained_for_the_command_line(kind):
    assert all(field.description and field.description.endswith(".") for field in kind.model_fields.values())


@pytest.mark.parametrize(("kind", "name", "allowed", "refused"), [
    (TrainingSettings, "epochs", [1], [0, 1.5]), (TrainingSettings, "members", [LARGEST_ENSEMBLE], [0, 101]),
    (TrainingSettings, "lr", [1e-9], [0, -1, float("nan"), float("inf")]),
    (TrainingSettings, "warmup", [0, 0.99], [1, -0.1]), (TrainingSettings, "modality_dropout", [0], [1]),
    (TrainingSettings, "time_bins", [2, 100], [1, 101]), (TrainingSettings, "optimizer", ["adam"], ["sgd"]),
    (ArchitectureSettings, "embed_dim", [8, 16], [0, 12]),
    (ArchitectureSettings, "max_grid", [4, LARGEST_GRID], [3, 1001]),
    (ArchitectureSettings, "dropout", [0, 0.9], [1]), (TrainingPlan, "seed", [0, 2**63 - 1], [-1, 2**63]),
    (TrainingPlan, "search", [0, 9], [-1]),
])  # fmt: skip
def test_values_beyond_the_bounds_are_refused(kind, name, allowed, refused):
    for value in allowed:
        assert getattr(kind(**{name: value}), name) == value
    for value in refused:
        with pytest.raises(ValidationError, match=name):
            kind(**{name: value})


def test_a_mistyped_setting_is_refused():
    with pytest.raises(ValidationError, match="epoch"):
        TrainingSettings(epoch=3)


def test_another_seed_changes_nothing_else():
    plan = TrainingPlan(training=TrainingSettings(epochs=3), architecture=ArchitectureSettings(max_grid=9), search=2)
    other = plan.with_seed(7)
    assert other.seed == 7
    assert other.with_seed(plan.seed) == plan

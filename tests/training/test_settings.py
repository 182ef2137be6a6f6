"""Settings of training: their bounds, and what a plan keeps of them."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings


@pytest.mark.parametrize("kind", [TrainingSettings, ArchitectureSettings, TrainingPlan])
def test_defaults_are_within_their_own_bounds_and_read_back_from_what_is_written(kind):
    defaults = kind()
    assert kind.model_validate(defaults.model_dump(mode="json")) == defaults
    assert kind.model_validate_json(defaults.model_dump_json()) == defaults


@pytest.mark.parametrize("kind", [TrainingSettings, ArchitectureSettings])
def test_every_setting_is_explained_for_the_command_line(kind):
    assert all(field.description and field.description.endswith(".") for field in kind.model_fields.values())


PAGE = Path(__file__).parents[2] / "docs" / "training.md"
DOCUMENTED = {
    name: (default, allowed)
    for name, default, allowed in re.findall(
        r"^\| `--(?:train\.|architecture\.)?(\w+)` \| (\S+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), flags=re.M
    )
}
KINDS = {name: kind for kind in (TrainingSettings, ArchitectureSettings, TrainingPlan) for name in kind.model_fields}
SETTINGS = sorted(KINDS.keys() - {"training", "architecture"})


def inside_and_outside(allowed, step):
    """Values that must be accepted and others that must be refused, of what the page says is allowed."""
    if match := re.fullmatch(r"(\d+) to (\d+)(?:, a multiple of (\d+))?", allowed):
        low, high, multiple = int(match[1]), int(match[2]), int(match[3] or 1)
        further = [low + 1] if multiple > 1 else []
        return [low, low + multiple, high], [low - multiple, high + multiple, *further]
    if allowed in ("0 or more", "1 or more"):
        least = int(allowed[0])
        return [least, least + step, 10**6], [least - step]
    if allowed == "above 0":
        return [1e-9, 0.5, 1, 10**6], [0, -1e-9]
    if allowed == "0 to below 1":
        return [0, 0.5, 0.99], [1, -1e-9]
    words = allowed.split(", ")
    return ([True, False], ["perhaps"]) if words == ["true", "false"] else (words, ["other"])


def test_every_setting_is_documented_with_its_default():
    assert sorted(DOCUMENTED) == SETTINGS
    defaults = {name: getattr(KINDS[name](), name) for name in SETTINGS}
    assert {
        name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in defaults.items()
    } == {name: default for name, (default, _) in DOCUMENTED.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_documented_as_allowed_is_taken_and_nothing_beyond(name):
    kind, is_whole = KINDS[name], KINDS[name].model_fields[name].annotation is int
    allowed, refused = inside_and_outside(DOCUMENTED[name][1], step=1 if is_whole else 1e-9)
    for value in allowed:
        assert getattr(kind(**{name: value}), name) == value
    for value in [*refused, *([0.5] if is_whole else []), float("nan"), float("inf")]:
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

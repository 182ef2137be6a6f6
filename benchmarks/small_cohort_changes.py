"""Changes of training, each alone, that `small_cohorts.py` measures: settings, inputs, and what no setting offers."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import numpy as np

from normal_scores import NormalScores
from subfuse.cohort import bags
from subfuse.cohort.bags import PatchStandardiser
from subfuse.cohort.fold import Fold
from subfuse.expression.table import ExpressionStandardiser
from subfuse.objective.losses import Consistency
from subfuse.objective.survival import CoxObjective
from subfuse.training import problem
from subfuse.training.checkpoint import TrainingState, copy_weights

CLIP = 2.5  # training standard deviations
DEFAULT, ALONE, LINE = "default", "network alone", "its line alone"
SCORES = "normal scores of expression"
LINEAR = ("cox", "cox-slides", "cox-both")


@dataclass(frozen=True, eq=False)
class Change:
    """How training differs from the default, or from that of a network without a linear path.

    Args:
        settings: Of training.
        architecture: Sizes.
        patches: What is replaced while a model is trained and predicts.
        fold: What is made of the fold.
        epochs_of_alone: Whether it trains for as many epochs as the network alone chose.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    architecture: dict[str, Any] = field(default_factory=dict)
    patches: tuple[Callable[[], Any], ...] = ()
    fold: Callable[[Fold], Fold] = lambda fold: fold
    epochs_of_alone: bool = False

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts what is patched in place."""
        with ExitStack() as stack:
            for make in self.patches:
                stack.enter_context(make())
            yield


def _clipping(standardiser: type[ExpressionStandardiser | PatchStandardiser]) -> Callable[[], Any]:
    plain = standardiser.transform
    return lambda: patch.object(standardiser, "transform", lambda self, x: np.clip(plain(self, x), -CLIP, CLIP))


def _normal_scores() -> Any:
    return patch.object(bags, "ExpressionStandardiser", NormalScores)


def _validation_trains() -> Any:
    """Validation patients train as well, and still judge the epochs: of what they learned from, the last is best."""
    plain = problem.assign

    def assign(*arguments: Any) -> problem.Assignment:
        parts = plain(*arguments)
        return replace(parts, train=(*parts.train, *parts.validation))

    return patch.object(problem, "assign", assign)


def _last_epoch() -> Any:
    """The weights of the last epoch are kept; when training stops is decided as before."""
    plain = TrainingState.record

    def record(self: TrainingState, row: Any, score: Any, model: Any) -> None:
        plain(self, row, score, model)
        self.best_weights = copy_weights(model)

    return patch.object(TrainingState, "record", record)


def _cox_loss() -> Any:
    def fitted(patients: Any, task: Any, _: Any, *, model_name: str, settings: Any) -> CoxObjective:
        time, event = zip(*(patient.outcome(task) for patient in patients), strict=True)
        return CoxObjective.fit(time, event, consistency=Consistency(settings.consistency))

    return patch.object(problem, "_fit_objective", fitted)


ALONE_CHANGES = {  # of a network without a linear path
    "validation patients train too": Change(patches=(_validation_trains,), epochs_of_alone=True),
    "epoch by the loss": Change({"selection": "loss"}),
    "last epoch": Change(patches=(_last_epoch,)),
    "learning rate 1e-4": Change({"lr": 1e-4}),
    "learning rate 1e-3": Change({"lr": 1e-3}),
    "weight decay 0.01": Change({"weight_decay": 0.01}),
    "weight decay 0.1": Change({"weight_decay": 0.1}),
    "Cox loss, batches of 8": Change(patches=(_cox_loss,)),
    "Cox loss, batches of 64": Change({"accumulate": 8, "lr": 1e-3}, patches=(_cox_loss,)),
    "inputs clipped at 2.5 sd": Change(patches=(_clipping(ExpressionStandardiser), _clipping(PatchStandardiser))),
    SCORES: Change(patches=(_normal_scores,)),
    "width 32": Change(architecture={"embed_dim": 32}),
    "width 512": Change(architecture={"embed_dim": 512}),
    "five networks": Change({"members": 5}),
}
SUBSPACE_CHANGES = {
    "no consistency loss": Change({"consistency": 0.0}),
    "no gradient coordination": Change({"coordination": "none"}),
    "no modality dropout": Change({"modality_dropout": 0.0}),
    "no penalty on genes": Change({"gene_penalty": 0.0}),
}
INPUT_CHANGES = {  # of lines, and of a network with its line
    SCORES: Change(patches=(_normal_scores,)),
    "inputs clipped at 2.5 sd": Change(patches=(_clipping(ExpressionStandardiser), _clipping(PatchStandardiser))),
    f"{SCORES}, patches clipped": Change(patches=(_normal_scores, _clipping(PatchStandardiser))),
}
LINE_CHANGES = {
    "without the validation patients": Change(fold=lambda fold: Fold(fold.train, (), fold.test)),
    **INPUT_CHANGES,
}
WITH_LINE = "with its line: "  # how changes of a network that keeps its linear path are called


def changes_of(model: str, *, has_slides: bool) -> dict[str, Change]:
    """Returns the changes that are measured of a model, by name; the default is the first."""
    reads_expression = model not in ("cox-slides", "abmil")
    if model in LINEAR:
        chosen = {DEFAULT: Change(), **LINE_CHANGES}
    else:
        alone = ALONE_CHANGES | (SUBSPACE_CHANGES if model == "subspace" and has_slides else {})
        without = {
            name: replace(change, settings={**change.settings, "linear_path": False}) for name, change in alone.items()
        }
        beside = {f"{WITH_LINE}{name}": change for name, change in INPUT_CHANGES.items()}
        chosen = {DEFAULT: Change(), ALONE: Change({"linear_path": False}), **without, **beside}
    reads_slides = has_slides and model not in ("cox", "snn")
    return {
        name: change
        for name, change in chosen.items()
        if (reads_expression or SCORES not in name) and (reads_slides or "patches clipped" not in name)
    }

"""Survival: hazards in bins of time, or proportional hazards."""

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from subfuse.cohort.batches import SurvivalTarget, Target
from subfuse.errors import ConfigurationError
from subfuse.model.fixed_order import running_sum
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.losses import DEFAULT_CONSISTENCY, Consistency, cox_nll, discrete_hazard_nll, hazard_divergence
from subfuse.objective.objective import Objective, Prediction, UnfittableObjectiveError, Values, mean_weights
from subfuse.objective.ranking import concordance

RISK = "risk"  # what is explained of a survival prediction


class _SurvivalObjective(Objective):
    """What survival objectives share, whatever their logits mean."""

    predicts = "survival"
    ranking_metric = "c_index"

    @abstractmethod
    def risk(self, logits: Float[Tensor, "*axes output"]) -> Float[Tensor, "*axes"]:
        """Returns the risk, higher is worse."""

    @property
    def columns(self) -> list[str]:
        """The risk, and survival to each of `survival_days`."""
        return ["risk", *(f"survival_{days:g}" for days in self.survival_days)]

    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns the concordance of each subspace's risk; see `Objective.confidence`."""
        assert isinstance(target, SurvivalTarget)
        return concordance(self.risk(output.subspace_logits.detach()), target)

    def ranking(self, logits: Float[Tensor, "batch output"], target: Target) -> float:
        """Returns the concordance (Harrell) of the risk."""
        assert isinstance(target, SurvivalTarget)
        return float(concordance(self.risk(logits)[:, None], target))

    def score_weights(self, logits: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
        """Returns the weights of the mean over outputs: the mean hazard logit, or the log hazard (higher is worse)."""
        return mean_weights(logits)

    def explained(self, logits: Float[Tensor, " output"]) -> str:
        """Returns `risk`."""
        return RISK


class DiscreteHazardObjective(_SurvivalObjective):
    r"""Survival in time bins: logit :math:`k` gives the hazard :math:`h_k = \sigma(\text{logit}_k)` of bin :math:`k`.

    Survival beyond bin :math:`k` is :math:`S_k = \prod_{j \le k} (1 - h_j)`, the risk is :math:`-\sum_k S_k`. A
    subspace's confidence is the concordance (Harrell) of the risks from its own logits within the batch.

    Relative to the paper: bins are quantiles of the training patients' event times, not of everybody's follow-up.

    Args:
        bin_edges: Days at which a new bin begins, strictly increasing: bin k holds times in [edge k-1, edge k), the
            last bin everything later. n edges make n + 1 bins, i.e. logits.
        consistency: The gene-guided consistency loss.
    """

    name = "discrete_hazard"
    bin_edges: Float[Tensor, " edge"]  # fitted

    def __init__(self, bin_edges: Values, *, consistency: Consistency = DEFAULT_CONSISTENCY) -> None:
        super().__init__(consistency)
        edges = np.asarray(bin_edges, dtype=np.float32)
        if edges.ndim != 1 or not np.isfinite(edges).all() or not (np.diff(edges, prepend=0.0) > 0).all():
            raise ValueError(f"bin_edges must be positive and strictly increasing days. Found {edges.tolist()}.")
        self.register_buffer("bin_edges", torch.from_numpy(edges))

    @classmethod
    def fit(
        cls,
        time_days: Values,
        event: Values,
        *,
        bins: int = 4,
        consistency: Consistency = DEFAULT_CONSISTENCY,
    ) -> "DiscreteHazardObjective":
        """Returns the objective with bins that hold about equally many of the training patients' events.

        Edges that would leave a bin without a training event, because of ties or few events, are dropped.

        Args:
            time_days: Days to event or last contact of every training patient.
            event: True where the event was observed.
            bins: Number of bins aimed at.
            consistency: The gene-guided consistency loss.

        Raises:
            UnfittableObjectiveError: No training patient had an event.
        """
        event_days = _event_days(time_days, event)
        edges = np.quantile(event_days, np.arange(1, bins) / bins).astype(np.float32)
        occupied = np.isin(np.arange(bins - 1), np.searchsorted(edges, event_days, side="right"))
        return cls(edges[occupied], consistency=consistency)

    @property
    def n_outputs(self) -> int:
        """One logit per bin."""
        return len(self.bin_edges) + 1

    @property
    def survival_days(self) -> tuple[float, ...]:
        """The bin edges: survival beyond bin k is survival to edge k. The last bin is open and has no day."""
        return tuple(self.bin_edges.tolist())

    def task_loss(self, logits: Float[Tensor, "batch output"], target: Target) -> Float[Tensor, ""]:
        """Returns the mean negative log-likelihood."""
        assert isinstance(target, SurvivalTarget)
        bin_index = torch.bucketize(target.time_days.to(self.bin_edges), self.bin_edges, right=True)
        return discrete_hazard_nll(logits, bin_index, target.event).mean()

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns risk and the survival probability at `survival_days`."""
        survival = _survival(logits)
        return Prediction(risk=self.risk(logits), survival=survival[:, :-1])

    def distance(
        self,
        logits: Float[Tensor, "batch output"],
        taught: Float[Tensor, "batch output"],
        *,
        temperature: float = 1.0,
    ) -> Float[Tensor, " batch"]:
        """Returns the divergence of the time bin of the event, see `hazard_divergence`; there is no temperature."""
        return hazard_divergence(logits, taught)

    def risk(self, logits: Float[Tensor, "*axes output"]) -> Float[Tensor, "*axes"]:
        """Returns the negative sum of the survival probabilities."""
        return -_survival(logits).sum(dim=-1)

    def _fitted(self) -> dict[str, Any]:
        return {"bin_edges": self.bin_edges.tolist()}


class CoxObjective(_SurvivalObjective):
    """Survival with proportional hazards: the single logit is the log hazard ratio and the risk.

    The loss compares the patients of a batch, so batches should hold several events; one without events has loss 0. A
    subspace's confidence is the concordance (Harrell) of its own log hazards within the batch.

    Relative to the paper: an alternative to its discrete hazards.

    Args:
        consistency: The gene-guided consistency loss.
    """

    name = "cox"

    def __init__(self, *, consistency: Consistency = DEFAULT_CONSISTENCY) -> None:
        super().__init__(consistency)

    @classmethod
    def fit(
        cls,
        time_days: Values,
        event: Values,
        *,
        consistency: Consistency = DEFAULT_CONSISTENCY,
    ) -> "CoxObjective":
        """Returns the objective after checking that somebody had an event; nothing else is fitted.

        Raises:
            UnfittableObjectiveError: No training patient had an event.
        """
        _event_days(time_days, event)
        return cls(consistency=consistency)

    @property
    def n_outputs(self) -> int:
        """One: the log hazard."""
        return 1

    def task_loss(self, logits: Float[Tensor, "batch output"], target: Target) -> Float[Tensor, ""]:
        """Returns the negative partial log-likelihood per event."""
        assert isinstance(target, SurvivalTarget)
        return cox_nll(logits[:, 0], target.time_days, target.event)

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns the log hazard as risk."""
        return Prediction(risk=logits[:, 0])

    def distance(
        self,
        logits: Float[Tensor, "batch output"],
        taught: Float[Tensor, "batch output"],
        *,
        temperature: float = 1.0,
    ) -> Float[Tensor, " batch"]:
        """Refuses: a log hazard means something beside those of other patients only."""
        raise ConfigurationError(
            "a student of survival needs hazards in time bins (DiscreteHazardObjective). Found CoxObjective, whose "
            "log hazards have no meaning for a single patient. Teach it by the other one."
        )

    def risk(self, logits: Float[Tensor, "*axes output"]) -> Float[Tensor, "*axes"]:
        """Returns the log hazard."""
        return logits[..., 0]

    def _fitted(self) -> dict[str, Any]:
        return {}


def _survival(logits: Float[Tensor, "*axes bin"]) -> Float[Tensor, "*axes bin"]:
    """Returns the probability of surviving each bin."""
    return running_sum(functional.logsigmoid(-logits)).exp()


def _event_days(time_days: Values, event: Values) -> Float[np.ndarray, " event"]:
    """Returns the event times, of which there must be one."""
    event_days = np.asarray(time_days, dtype=np.float32)[np.asarray(event, dtype=bool)]
    if len(event_days) == 0:
        raise UnfittableObjectiveError(
            f"training patients must include at least one with an observed event. Found none among {len(time_days)}. "
            "Check that event is True where the event was observed, or use fewer folds."
        )
    return event_days

"""What there is of survival alone: risk groups, hazard ratios, survival at a horizon, and whether curves are true."""

from subfuse.evaluation.survival.competing_events import cumulative_incidence
from subfuse.evaluation.survival.hazard_ratios import hazard_ratios
from subfuse.evaluation.survival.horizons import with_horizons
from subfuse.evaluation.survival.risk_groups import kaplan_meier, log_rank, risk_groups

__all__ = ["cumulative_incidence", "hazard_ratios", "kaplan_meier", "log_rank", "risk_groups", "with_horizons"]

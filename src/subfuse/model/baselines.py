"""Former place of the baselines."""

from subfuse.model.expression_models import SNN, LinearModel
from subfuse.model.multimodal_models import ConcatFusion
from subfuse.model.slide_models import ABMIL

__all__ = ["ABMIL", "SNN", "ConcatFusion", "LinearModel"]

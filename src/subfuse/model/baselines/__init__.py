"""Models to compare with: slides only, expression only, both."""

from subfuse.lazy import on_first_use

_NAMES = {
    "ABMIL": "mil",
    "CLAMSB": "mil",
    "CMTA": "cmta",
    "ConcatFusion": "fusion",
    "DSMIL": "mil",
    "LateFusion": "fusion",
    "LinearModel": "linear",
    "MCAT": "mcat",
    "MeanMIL": "mil",
    "PORPOISE": "kronecker_fusion",
    "PathomicFusion": "kronecker_fusion",
    "SNN": "expression",
    "SurvPath": "survpath",
    "TransMIL": "transmil",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)

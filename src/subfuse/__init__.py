"""Knowledge-driven subspace fusion of histology and gene expression.

Research use only. Not a medical device.

Example:
    ```python
    import subfuse

    cohort = subfuse.read_cohort("prepared/")
    result = subfuse.cross_validate(cohort, task="survival", models=["subspace", "snn"], folds=5, seed=0)
    run = subfuse.load_run("run/")
    run.predict(cohort)
    ```
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {  # imported on first use, so that `import subfuse` is quick
    "read_cohort": "subfuse.cohort.cohort",
    "prepare": "subfuse.preparation.prepare",
    "simulate": "subfuse.simulation.cohort",
    "cross_validate": "subfuse.runs.cross_validation",
    "load_run": "subfuse.runs.run",
    "write_report": "subfuse.report.document",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'subfuse' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

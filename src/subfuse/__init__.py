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

from subfuse.lazy import on_first_use

__version__ = "0.1.0"

_NAMES = {
    "read_cohort": "cohort.cohort",
    "prepare": "preparation.prepare",
    "simulate": "simulation.cohort",
    "cross_validate": "runs.cross_validation",
    "load_run": "runs.run",
    "write_report": "report.document",
}
__all__ = ["__version__", *_NAMES]
__getattr__ = on_first_use(__name__, _NAMES)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Whom models call unlike their training patients, and whether chance alone would call as many so."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from subfuse.errors import counted, preview
from subfuse.evaluation.predictions import UNLIKE
from subfuse.training.models import model_title
from subfuse.training.seen.inputs import FALSE_ALARMS

_BETWEEN = "; "  # the inputs in one cell
_SIGNIFICANCE = 0.05


def unlike_cells(found: Sequence[Sequence[str]]) -> pd.Series:
    """Returns inputs by which patients are unlike those of training, as cells of a table; empty without any."""
    return pd.Series([_BETWEEN.join(names) or None for names in found], dtype=object)


def joint_unlike(predicted: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    """Returns by which inputs most models of a patient find it unlike their training patients, by these keys."""

    def of_most(cells: pd.Series) -> str | None:
        said = Counter(name for cell in cells.dropna() for name in str(cell).split(_BETWEEN))
        return _BETWEEN.join(name for name, n in said.items() if 2 * n > len(cells)) or None

    return predicted.groupby(list(keys), sort=False)[UNLIKE].agg(of_most)


def unlike_notes(predicted: pd.DataFrame) -> list[str]:
    """Returns who is unlike the training patients, where they are more than chance alone would call so.

    Of patients like those of training a twentieth is called unlike (`FALSE_ALARMS`). So nothing is said where as many
    or more would be in more than a twentieth of cohorts; the table has them all the same.
    """
    from scipy.stats import binom

    found = joint_unlike(predicted, ["task", "model", "patient_id"])
    texts: dict[str, list[str]] = {}
    jobs = found.groupby(["task", "model"], sort=False)
    for (task, model), of_job in jobs:
        cells = of_job.droplevel(["task", "model"])
        said = cells.dropna()
        if said.empty or binom.sf(len(said) - 1, len(cells), FALSE_ALARMS) > _SIGNIFICANCE + 1e-9:
            continue
        inputs = dict.fromkeys(name for cell in said for name in str(cell).split(_BETWEEN))
        text = (
            f"{len(said)} of {counted(len(cells), 'patient')} ({preview(said.index)}) "
            f"unlike those of training, by {preview(inputs)}: another scanner, stain, unit, laboratory or disease? "
            f"Predictions of them may be worse than tested. Of patients like those of training {FALSE_ALARMS:.0%} are "
            "called so too"
        )
        texts.setdefault(text, []).append(f"{task} · {model_title(str(model))}")
    return [text if len(of) == len(jobs) else f"{preview(of)}: {text}" for text, of in texts.items()]

"""Which models of a task are compared: one family, computed once, quoted wherever a comparison is told."""

from collections.abc import Collection, Mapping
from itertools import chain

import pandas as pd

from subfuse.audit.fusion import Comparisons, Contest, fusion_contest
from subfuse.audit.recommendation import headline_values
from subfuse.audit.simple_baselines import simple_pairs
from subfuse.errors import ConfigurationError, preview
from subfuse.evaluation.comparisons import COMPARISON_COLUMNS, compare_pairs
from subfuse.evaluation.predictions import TaskPredictions, read_tasks, stacked
from subfuse.training.models import COLUMNS, EXPRESSION, SLIDES, main_model, modalities_of


def check_modalities(given: Mapping[str, Collection[str]], models: Collection[str]) -> None:
    """Refuses modalities of a model that is not there, and words that are none.

    Raises:
        ConfigurationError: Names the model, and what there is.
    """
    known = SLIDES | EXPRESSION | COLUMNS
    for model, read in given.items():
        if model not in models:
            raise ConfigurationError(
                f"modalities: a model of the predictions is required. Found {model}; they have {preview(models, 12)}."
            )
        if not read or not known.issuperset(read):
            raise ConfigurationError(
                f"modalities of {model}: some of {preview(sorted(known))} are required. Found "
                f"{preview(name for name in read if name not in known) or 'none'}."
            )


def known_modalities(models: Collection[str], given: Mapping[str, Collection[str]]) -> dict[str, frozenset[str]]:
    """Returns the modalities of every model: as given, else those of this package's model of that name, else none."""
    return {model: frozenset(given[model]) if model in given else modalities_of(model) for model in models}


def compare_task(
    task: TaskPredictions,
    modalities: Mapping[str, Collection[str]],
    values: Mapping[str, float],
    *,
    reference: str,
    n_bootstrap: int,
    seed: int,
) -> tuple[Contest, Comparisons]:
    """Returns who is compared in a task, and all its comparisons with p-values adjusted together (Holm 1979).

    The family: every model against the reference, every fused model against the best single modality and late fusion,
    every other model against the best linear one, and the main model against the best trivial one; each pair once.

    Args:
        task: Rows of all models and splits.
        modalities: Model to the modalities it reads.
        values: Of every model, see `headline_values`.
        reference: See `main_model`.
        n_bootstrap: Replicates of the paired bootstrap.
        seed: Of the replicates.
    """
    contest = fusion_contest(task, modalities, values)
    pairs = [(model, reference) for model in task.models if model != reference and reference in task.models]
    known: dict[frozenset[str], tuple[str, str]] = {}
    simple = chain.from_iterable(simple_pairs(task, modalities, values).values())
    for pair in (*pairs, *contest.pairs, *simple):
        known.setdefault(frozenset(pair), pair)
    table = compare_pairs(contest.task, list(known.values()), n_bootstrap=n_bootstrap, seed=seed)
    return contest, Comparisons(table)


def compared_with_reference(
    predictions: pd.DataFrame, modalities: Mapping[str, Collection[str]], *, n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Returns the content of comparisons.csv: every model against the reference, adjusted over the task's family."""
    tables, reference = [pd.DataFrame(columns=list(COMPARISON_COLUMNS))], main_model(list(predictions["model"]))
    for task in read_tasks(predictions):
        if reference not in task.models:
            lacking = [(model, reference) for model in task.models]
            tables.append(compare_pairs(task, lacking, n_bootstrap=n_bootstrap, seed=seed))
            continue
        values = headline_values(task)
        _, comparisons = compare_task(task, modalities, values, reference=reference, n_bootstrap=n_bootstrap, seed=seed)
        tables.append(comparisons.against(reference, task.models))
    return stacked(tables)

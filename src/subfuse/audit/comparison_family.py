"""Which models of a task are compared: one family, computed once, quoted wherever a comparison is told."""

from itertools import chain

import pandas as pd

from subfuse.audit.audited_task import AuditedTask, audited_tasks
from subfuse.audit.fusion import Comparisons, Contest, fusion_contest
from subfuse.audit.simple_baselines import clinical_pairs, simple_pairs
from subfuse.evaluation.comparisons import COMPARISON_COLUMNS, compare_pairs
from subfuse.evaluation.predictions import stacked
from subfuse.training.models import main_model


def compare_task(task: AuditedTask, *, reference: str) -> tuple[Contest, Comparisons]:
    """Returns who is compared in a task, and all its comparisons with p-values adjusted together (Holm 1979).

    The family: every model against the reference (see `main_model`), every fused model against the best single
    modality and late fusion, every other model against the best linear one, and the main model against the best
    trivial one and the clinical one; each pair once.
    """
    contest = fusion_contest(task)
    pairs = [(model, reference) for model in task.models if model != reference and reference in task.models]
    known: dict[frozenset[str], tuple[str, str]] = {}
    for pair in (*pairs, *contest.pairs, *chain.from_iterable(simple_pairs(task).values()), *clinical_pairs(task)):
        known.setdefault(frozenset(pair), pair)
    table = compare_pairs(contest.task, list(known.values()), n_bootstrap=task.n_bootstrap, seed=task.seed)
    return contest, Comparisons(table)


def compared_with_reference(predictions: pd.DataFrame, *, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Returns the content of comparisons.csv: every model against the reference, adjusted over the task's family."""
    tables, reference = [pd.DataFrame(columns=list(COMPARISON_COLUMNS))], main_model(list(predictions["model"]))
    for task in audited_tasks(predictions, n_bootstrap=n_bootstrap, seed=seed):
        if reference not in task.models:
            lacking = [(model, reference) for model in task.models]
            tables.append(compare_pairs(task, lacking, n_bootstrap=n_bootstrap, seed=seed))
            continue
        _, comparisons = compare_task(task, reference=reference)
        tables.append(comparisons.against(reference, task.models))
    return stacked(tables)

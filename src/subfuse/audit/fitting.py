"""What a run folder proves about its models: on whom they were fitted, and by what they were chosen."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subfuse.audit.findings import Finding
from subfuse.cohort.bags import fit_profile
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.fold import Fold
from subfuse.cohort.fold_files import SPLITS, read_repeats
from subfuse.errors import DataError, counted, preview
from subfuse.evaluation.floors import LEAST_CHOOSING
from subfuse.run_folder.job import Job, chosen_by, jobs_of
from subfuse.training.models import is_linear, model_title, trained_on

_FITTED = "fitted outside training"
_SELECTION = "selection"
_TOLERANCE = 1e-3  # of a gene's standard deviation
_SIX_DIGITS = 1e-5  # of a number, as model.json keeps it: the mean of a year of birth is rounded by much of its scale
_WHY_FITTED = "Anything estimated from test patients makes results on them too good."


@dataclass(frozen=True)
class TrainedJob:
    """One finished job: the run it is in, the content of model.json and its rows of predictions.csv."""

    job: Job
    run: Path
    description: Mapping[str, Any]
    rows: pd.DataFrame

    @property
    def name(self) -> str:
        """For readers: task/model/fold."""
        return self.folder.relative_to(self.run).as_posix()

    @property
    def folder(self) -> Path:
        """Where the model lies."""
        return self.job.folder(self.run)

    @property
    def details(self) -> Mapping[str, Any]:
        """What was recorded when it was trained."""
        return self.description.get("details", {})

    def ids(self, split: str) -> list[str]:
        """Returns the patients of one split."""
        return self.rows.loc[self.rows["split"] == split, "patient_id"].tolist()


def read_jobs(run: Path, predictions: pd.DataFrame) -> list[TrainedJob]:
    """Returns the jobs of a run whose folder holds a model, in the order of the predictions."""
    described = ((job, rows, job.description(run)) for job, rows in jobs_of(predictions))
    return [TrainedJob(job, run, found, rows) for job, rows, found in described if found is not None]


def check_fitting(jobs: Sequence[TrainedJob], config: Mapping[str, Any], cohort: Cohort | None) -> list[Finding]:
    """Returns whether every model was fitted on the training patients of its fold and nobody else.

    Compared are the hash of the split that is recorded with the weights, the number of training patients, the lists
    of the prepared cohort's fold files, and mean and scale of every gene and covariate, fitted again on the training
    patients as training fits them. Models whose patients or genes the cohort has no more are not fitted again.

    Args:
        jobs: Finished jobs.
        config: Content of config.yaml.
        cohort: The prepared cohort; None if it is not there any more.
    """
    if not jobs:
        return [Finding("note", _FITTED, "cannot be checked: the run has no model.json", _WHY_FITTED)]
    recorded = list(config.get("folds", []))
    folds = _prepared_folds(cohort)
    problems: dict[str, list[str]] = {}
    n_scaled = 0
    for job in jobs:
        for problem in _split_problems(job, recorded, folds):
            problems.setdefault(problem, []).append(job.name)
        is_scaled = None if cohort is None else _is_scaled_by_training(job, cohort)
        n_scaled += is_scaled is not None
        if is_scaled is False:
            problem = "expression or covariates are scaled by other patients than the training patients"
            problems.setdefault(problem, []).append(job.name)
    remedy = "Train these models again on the prepared folds; do not use these results."
    findings = [
        Finding("failure", _FITTED, f"{problem} ({preview(names, 3)})", _WHY_FITTED, remedy)
        for problem, names in problems.items()
    ]
    if not findings:
        n_listed = sum(job.details.get("split_sha256") in folds for job in jobs)
        found = (
            f"all {len(jobs)} models record the split of this run; patients agree with the fold files for {n_listed}, "
            f"and scaling was recomputed from the training patients for {n_scaled}"
        )
        nothing = "of these, nothing could be checked: the prepared cohort cannot be read, or is another one"
        is_checked = n_listed + n_scaled > 0
        findings.append(
            Finding("ok", _FITTED, found)
            if is_checked
            else Finding("note", _FITTED, f"{found}; {nothing}", _WHY_FITTED)
        )
    if recorded and folds and not set(recorded) & set(folds):
        found = "the prepared folder's folds are not those of the run"
        why = "Folds were drawn for the run, or the folder was prepared again."
        findings.append(Finding("note", _FITTED, found, why))
    return findings


def check_selection(jobs: Sequence[TrainedJob], predictions: pd.DataFrame) -> list[Finding]:
    """Returns on which patients and by which metric models were chosen, against those that are reported."""
    why = "A model chosen on the patients it is reported on looks better than it is."
    neural = [job for job in jobs if not is_linear(job.job.model)]
    if not (predictions["split"] == "validation").any() and (neural or not jobs):
        found = "cannot be checked: there are no rows of validation patients"
        return [Finding("note", _SELECTION, found, why, "Add rows of split validation.")]
    seen = [job.name for job in jobs if any(str(column).startswith("test") for column in job.job.log(job.run))]
    if seen:
        found = f"training logs hold metrics of test patients ({preview(seen, 3)})"
        return [Finding("failure", _SELECTION, found, why, "Keep test patients out of training.")]
    if not jobs:
        found = "validation patients differ from test patients; by which metric models were chosen is not recorded"
        return [Finding("note", _SELECTION, found, why)]
    parts = [_chosen_by_validation(neural)] if neural else []
    if len(neural) < len(jobs):
        n_linear = len(jobs) - len(neural)
        parts.append(f"penalties of linear models ({n_linear}) were chosen by cross-validation within training")
    found = f"{'; '.join(parts)}; reported are test patients, whom training never sees"
    return [Finding("ok", _SELECTION, found), *_fallbacks(jobs), *_chosen_by_few(neural)]


def _chosen_by_validation(jobs: Sequence[TrainedJob]) -> str:
    """Returns what validation patients chose of networks, and how many they were, by task."""
    counts = Counter(_chosen_by(job) for job in jobs)
    by = " and ".join(f"{name} ({n})" for name, n in sorted(counts.items()))
    mixed = sum("network_share" in job.details for job in jobs)
    share = f", and the network's share beside a linear path ({mixed})" if mixed else ""
    told = "; ".join(f"{task}: {_validated(of_task)}" for task, of_task in _by_task(jobs).items())
    return f"validation patients chose the epoch by which training of networks stopped, by {by}{share} ({told})"


def _by_task(jobs: Sequence[TrainedJob]) -> dict[str, list[TrainedJob]]:
    return {task: [job for job in jobs if job.job.task == task] for task in dict.fromkeys(job.job.task for job in jobs)}


def _chosen_by(job: TrainedJob) -> str:
    """Returns by what the epoch was chosen in fact, as the log tells: `ranking` or `loss`."""
    log = job.job.log(job.run)
    if log.empty:
        return str(job.details.get("training", {}).get("selection", "loss"))
    return "loss" if chosen_by(log) == "validation_loss" else "ranking"


def _fallbacks(jobs: Sequence[TrainedJob]) -> Iterator[Finding]:
    """Yields for each task whose models were to be chosen by ranking and were chosen by the loss, in how many folds."""
    wanted = [
        job
        for job in jobs
        if not is_linear(job.job.model) and job.details.get("training", {}).get("selection") == "ranking"
    ]
    for task, of_task in _by_task(wanted).items():
        fallen = [job for job in of_task if _chosen_by(job) == "loss"]
        if not fallen:
            continue
        totals = Counter(job.job.model for job in of_task)
        counts = Counter(job.job.model for job in fallen)
        models = preview([f"{model_title(model)} in {n} of {totals[model]} folds" for model, n in counts.items()], 12)
        found = f"judged by the validation loss, not by ranking: {models}; they cannot be ranked ({_validated(fallen)})"
        why = "The loss of few patients is a noisy judge of epochs."
        yield Finding("note", _SELECTION, found, why, "Use fewer folds, or raise `splits.validation`.", task)


def _chosen_by_few(jobs: Sequence[TrainedJob]) -> Iterator[Finding]:
    """Yields for each task in how many jobs too few validation patients chose."""
    for task, of_task in _by_task(jobs).items():
        few = [job for job in of_task if _informative(job)[0] < LEAST_CHOOSING]
        if not few:
            continue
        share = (
            " and a network's share beside its linear path" if any("network_share" in j.details for j in few) else ""
        )
        found = (
            f"in {len(few)} of {counted(len(of_task), 'job')} when training stops{share} rest on fewer than "
            f"{LEAST_CHOOSING} {_informative(few[0])[1]} ({_validated(few)})"
        )
        why = "So few patients choose by chance: another fold, or another seed, may have another share."
        yield Finding("note", _SELECTION, found, why, "Use fewer folds, or raise `splits.validation`.", task)


def _informative(job: TrainedJob) -> tuple[int, str]:
    """Returns how many validation patients of a job have an event, or are outside the largest class; and in words."""
    rows = job.rows[job.rows["split"] == "validation"]
    if rows["label"].notna().any():
        sizes = rows["label"].value_counts()
        return int(sizes.sum() - sizes.max()), "validation patients outside the largest class"
    return int(rows["event"].sum()), "validation patients with an event"


def _validated(jobs: Sequence[TrainedJob]) -> str:
    """Returns how many validation patients folds have, and how few of them an event or another class, at least."""
    numbers = [int(job.details.get("n_validation", 0)) for job in jobs]
    low, high = min(numbers), max(numbers)
    fewest, which = min(map(_informative, jobs))
    patients = f"{low if low == high else f'{low} to {high}'} validation patient{'s' if high != 1 else ''}"
    return f"{patients} of each fold, at least {fewest} {which.removeprefix('validation patients ')}"


def _split_problems(job: TrainedJob, recorded: Sequence[str], folds: Mapping[str, Fold]) -> Iterator[str]:
    hashed = str(job.details.get("split_sha256"))
    is_first = bool((job.rows["repeat"] == 0).all())  # config.yaml has the hashes of the first repeat
    if recorded and is_first and hashed not in recorded[job.job.fold_index : job.job.fold_index + 1]:
        yield "the split hash recorded with the weights is not that of the run's fold"
    if job.details.get("n_train") not in (None, len(job.ids("train"))):
        yield "the recorded number of training patients is not that of predictions.csv"
    if hashed in folds:
        fold = folds[hashed]
        # validation patients of a linear model are of earlier versions, which kept them from its training
        listed = {"train": trained_on(job.job.model, fold), "validation": fold.validation, "test": fold.test}
        if any(not set(job.ids(split)) <= set(ids) for split, ids in listed.items()):
            yield "patients of predictions.csv are not on the side of the fold file"


def _is_scaled_by_training(job: TrainedJob, cohort: Cohort) -> bool | None:
    """Returns whether the recorded scales are those of the training patients, None where nothing can be fitted."""
    recorded = _recorded_scales(job.description)
    genes, ids = tuple(job.description["genes"]), set(job.ids("train"))
    patients = [patient for patient in cohort if patient.patient_id in ids]
    if not recorded or len(patients) < len(ids) or not set(genes) <= set(cohort.genes):
        return None
    position = {gene: place for place, gene in enumerate(cohort.genes)}
    order = [position[gene] for gene in genes]
    patients = [p if p.expression is None else replace(p, expression=p.expression[order]) for p in patients]
    names = tuple(known["name"] for known in job.description.get("covariates", ()))
    expression, coding = fit_profile(patients, genes, names)
    again = [scaler for scaler in (expression, coding.scaler if coding is not None else None) if scaler is not None]
    return len(again) == len(recorded) and all(
        (np.abs(told - computed) <= _TOLERANCE * fitted.scale + _SIX_DIGITS * np.abs(computed)).all()
        for (mean, scale), fitted in zip(recorded, again, strict=True)
        for told, computed in ((mean, fitted.mean), (scale, fitted.scale))
    )


def _recorded_scales(description: Mapping[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns mean and scale of the genes and of the covariates, each where the model was given any."""
    covariates = description.get("covariates", ())
    pairs = [(description.get("gene_mean"), description.get("gene_scale"))]
    if covariates:
        pairs.append(([known["mean"] for known in covariates], [known["scale"] for known in covariates]))
    return [(np.array(mean), np.array(scale)) for mean, scale in pairs if mean is not None]


def _prepared_folds(cohort: Cohort | None) -> dict[str, Fold]:
    if cohort is None or cohort.root is None:
        return {}
    try:
        folds = [fold for repeat in read_repeats(cohort.root / SPLITS) for fold in repeat]
    except DataError:  # an external cohort has none
        return {}
    return {fold.sha256: fold for fold in folds}

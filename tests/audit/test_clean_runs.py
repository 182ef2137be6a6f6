"""No false alarm: the audit of a run in which nothing is wrong finds no failure."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from small_cohort import deal_folds, with_covariates
from subfuse.audit import audit as audit_module
from subfuse.audit.audit import audit_predictions, audit_run
from subfuse.audit.findings import Audit
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.fold import Fold
from subfuse.cohort.fold_files import write_repeats
from subfuse.files import write_table
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import claim_folder
from subfuse.run_folder.tables import read_predictions, stack_predictions
from subfuse.runs.cross_validation import run_description, run_job
from subfuse.runs.external_validation import external_predictions
from subfuse.training.models import MAIN_MODEL, MODELS, SLIDES, modalities_of
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

pytestmark = pytest.mark.walk

ARCHITECTURE = ArchitectureSettings(embed_dim=16, max_grid=8, table_size=16)


def audited(
    cohort: Cohort,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    models: Sequence[str],
    tasks: Sequence[str] = ("grade",),
    repeats: Sequence[Sequence[Fold]] = (),
    pairs: Sequence[tuple[str, str]] = (),
    search: int = 0,
    exchanges: int = 0,
    **settings: object,
) -> tuple[Audit, pd.DataFrame]:
    """The audit of a run, and its predictions: trained as `crossval` does, without the tables that it writes beside.

    `pairs` are the tasks and models that are trained, where it is not every model that suits for every task.
    """
    repeats = repeats or [deal_folds(cohort)]
    cohort = replace(cohort, root=out / "prepared")
    write_repeats(cohort.root / "splits" / "default", [tuple(folds) for folds in repeats])
    training = TrainingSettings(epochs=1, batch_size=16, **settings)
    plan = TrainingPlan(training=training, architecture=ARCHITECTURE, search=search)
    run = out / "run"
    claim_folder(run, run_description(cohort, list(tasks), list(models), repeats[0], plan))
    jobs = [
        (fold, Job(task, model, index, repeat))
        for task, model in pairs or suited(cohort, tasks, models)
        for repeat, folds in enumerate(repeats)
        for index, fold in enumerate(folds)
    ]
    for fold, job in jobs:
        run_job(cohort, fold, job, run, plan)
    predictions = stack_predictions([read_predictions(job.folder(run) / "predictions.csv") for _, job in jobs])
    write_table(run / "predictions.csv", predictions)
    monkeypatch.setattr(audit_module, "_cohort", lambda folder, config: (cohort, ""))
    return audit_run(run, n_bootstrap=5, exchanges=exchanges), predictions


def suited(cohort: Cohort, tasks: Sequence[str], models: Sequence[str]) -> list[tuple[str, str]]:
    """Every task with every model that suits it."""
    return [(task, name) for task in tasks for name in models if MODELS[name].suits(cohort.tasks[task].predicts)]


def fitting(audit: Audit) -> str:
    return next(finding.found for finding in audit.findings if finding.check == "fitted outside training")


def test_every_model_beside_covariates_sites_and_batches(make_cohort, tmp_path, monkeypatch):
    cohort = with_covariates(make_cohort(24, n_genes=24))
    places = [
        replace(patient, site="AB"[i // 2 % 2], labels={**patient.labels, "project": "xy"[i // 3 % 2]})
        for i, patient in enumerate(cohort)
    ]
    cohort = replace(cohort, patients=tuple(places), batch="project", strata=("project",))
    one_fold = [deal_folds(cohort)[:1]]
    tasks = ("grade", "survival")
    every, nth = suited(cohort, tasks, list(MODELS)), list(MODELS).index
    pairs = [
        (task, name)
        for task, name in every
        if name == MAIN_MODEL or len(suited(cohort, tasks, [name])) == 1 or task == tasks[nth(name) % 2]
    ]  # every model once, and the main one for both tasks
    audit, _ = audited(
        cohort, tmp_path, monkeypatch, models=list(MODELS), tasks=tasks, pairs=pairs, repeats=one_fold, exchanges=3
    )

    assert audit.of_level("failure") == ()
    assert {name for _, name in pairs} == {name for _, name in every}
    assert f"agree with the fold files for {len(pairs)}, and scaling was recomputed" in fitting(audit)
    n_scaled = sum(modalities_of(name) != SLIDES for _, name in pairs)  # models of slides alone scale no expression
    assert fitting(audit).endswith(f"for {n_scaled}")
    asked = {finding.found.partition(",")[0] for finding in audit.findings if finding.check == "confounding"}
    assert asked == {"site: cannot be checked", "project: cannot be checked"}  # of half the patients
    told = [(finding.task, finding.model) for finding in audit.findings if finding.check == "interaction"]
    assert set(told) == {pair for pair in pairs if MODELS[pair[1]].modalities >= {"slides", "expression"}}


@pytest.mark.parametrize("has_expression", [True, False])
def test_both_tasks_and_repeated_folds(make_cohort, tmp_path, monkeypatch, has_expression):
    cohort = with_covariates(make_cohort(24, n_genes=24))
    if not has_expression:
        bare = tuple(replace(patient, expression=None) for patient in cohort)
        sets = dict.fromkeys(cohort.gene_sets, ())
        cohort = replace(cohort, patients=bare, genes=(), gene_sets=sets, pathways={}, expression_unit=None)
    repeats = [deal_folds(cohort), deal_folds(cohort)[::-1]]
    audit, predictions = audited(
        cohort, tmp_path, monkeypatch, models=["snn", "cox", "clinical"], tasks=("grade", "survival"), repeats=repeats
    )

    assert audit.of_level("failure") == ()
    assert "scaling was recomputed from the training patients for" in fitting(audit)
    days_of_folds = [name for name in predictions if name.startswith("survival_")]  # new patients have shared horizons
    tested = predictions.drop(columns=days_of_folds).query("split == 'test'")
    unknown = tested.assign(split="new", patient_id="E" + tested["patient_id"], risk_percentile=50.0)
    external = external_predictions(unknown, predictions)
    assert audit_predictions(external, n_bootstrap=5).of_level("failure") == ()


@pytest.mark.parametrize("options", [
    {"search": 1}, {"members": 2, "modality_dropout": 0.5, "selection": "loss"},
    {"linear_path": True, "gene_penalty": 0.0, "weight_decay": 0.01, "precision": "bf16-mixed"},
    {"consistency": 0.0, "coordination": "none", "accumulate": 2, "optimizer": "adam", "time_bins": 2},
], ids=str)  # fmt: skip
def test_options_of_training_and_folds_by_site(make_cohort, tmp_path, monkeypatch, options):
    cohort = with_covariates(make_cohort(24, n_genes=24))
    sites = tuple(replace(p, site="AB"[index % 2]) for index, p in enumerate(cohort))
    cohort = replace(cohort, patients=sites)
    by_site = [tuple(p.patient_id for p in cohort if p.site == site) for site in "AB"]
    folds = [Fold(others[4:], others[:4], tested) for others, tested in (by_site, by_site[::-1])]
    models = ["subspace" if "coordination" in options else "concat", "clinical"]
    tasks = ("grade", "survival") if "time_bins" in options else ("grade",)
    audit, _ = audited(cohort, tmp_path, monkeypatch, models=models, tasks=tasks, repeats=[folds], **options)

    assert audit.of_level("failure") == ()


def test_a_cohort_that_was_prepared_again_is_noted_and_no_leak(make_cohort, tmp_path, monkeypatch):
    cohort = with_covariates(make_cohort(24, n_genes=24))
    audited(cohort, tmp_path, monkeypatch, models=["snn"])
    fewer = replace(cohort, patients=cohort.patients[:-6], root=tmp_path / "prepared")
    monkeypatch.setattr(audit_module, "_cohort", lambda folder, config: (fewer, ""))

    audit = audit_run(tmp_path / "run", n_bootstrap=5)

    assert audit.of_level("failure") == ()
    assert fitting(audit).endswith("for 0")

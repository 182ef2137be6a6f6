"""What a run was fitted on and chosen by, read from its folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from small_cohort import deal_folds
from subfuse.audit.fitting import check_fitting, check_selection, read_jobs
from subfuse.cohort.cohort import Cohort
from subfuse.files import sha256_of_json, write_table
from subfuse.run_folder.tables import read_predictions


def config_of(cohort: Cohort) -> dict:
    return {"folds": [sha256_of_json([f.train, f.validation, f.test]) for f in deal_folds(cohort)]}


def test_models_fitted_elsewhere_are_failures(run: Path, cohort: Cohort) -> None:
    predictions = read_predictions(run / "predictions.csv")
    jobs = read_jobs(run, predictions)
    foreign = replace(jobs[0], description={**jobs[0].description, "details": {"split_sha256": "0" * 64}})
    fewer = replace(jobs[1], rows=jobs[1].rows.iloc[1:])
    everybody = [p.expression for p in cohort if p.expression is not None]
    leaky = replace(jobs[2], description={**jobs[2].description, "gene_mean": np.mean(everybody, axis=0).tolist()})

    findings = {f.found for f in check_fitting([foreign, fewer, leaky], config_of(cohort), cohort)}

    assert len(jobs) == 4
    assert check_fitting(jobs, config_of(cohort), cohort)[0].level == "ok"
    for words in ("split hash recorded", "number of training patients", "scaled by other patients"):
        assert any(words in found for found in findings)


def test_six_digits_of_a_large_mean_are_no_other_patients(run: Path, cohort: Cohort) -> None:
    """As of a year of diagnosis: a mean of 2012.3451 is recorded as 2012.35, which is much of a spread of 1."""
    job = read_jobs(run, read_predictions(run / "predictions.csv"))[0]
    train = set(job.ids("train"))
    first = np.array([p.expression[0] for p in cohort if p.patient_id in train and p.expression is not None])
    years = replace(
        cohort,
        patients=tuple(
            p
            if p.expression is None
            else replace(
                p, expression=np.array([(p.expression[0] - first.mean()) / first.std() + 2012.3451, *p.expression[1:]])
            )
            for p in cohort
        ),
    )

    def levels(mean: float) -> set[str]:
        means, scales = (
            [value, *job.description[name][1:]] for value, name in ((mean, "gene_mean"), (1, "gene_scale"))
        )
        told = replace(job, description={**job.description, "gene_mean": means, "gene_scale": scales})
        return {finding.level for finding in check_fitting([told], config_of(cohort), years)}

    assert levels(2012.35) == {"ok"}
    assert "failure" in levels(2012.45)


def test_selection_is_told_and_test_metrics_in_a_log_are_a_failure(run: Path, tmp_path: Path) -> None:
    predictions = read_predictions(run / "predictions.csv")
    jobs = read_jobs(run, predictions)
    write_table(jobs[0].job.folder(tmp_path) / "log.csv", pd.DataFrame({"epoch": [0], "test_auc": [0.9]}))

    ranked = check_selection(jobs, predictions)[0]
    assert (ranked.level, "ranking (3)" in ranked.found) == ("ok", True)
    assert check_selection([replace(jobs[0], run=tmp_path)], predictions)[0].level == "failure"
    tested = predictions[predictions["split"] == "test"]
    assert "no rows of validation" in check_selection(jobs, tested)[0].found


def test_a_metric_that_fell_back_is_told_by_task_model_and_folds(run: Path, tmp_path: Path) -> None:
    predictions = read_predictions(run / "predictions.csv")
    jobs = [replace(job, run=tmp_path) for job in read_jobs(run, predictions)]
    for index, job in enumerate(jobs):
        metrics = {"validation_loss": [0.7], **({"validation_auc": [0.6]} if index == 0 else {})}
        write_table(job.folder / "log.csv", pd.DataFrame(metrics))

    chosen, fallen, _ = check_selection(jobs, predictions)
    assert "training of networks stopped, by loss (3) and ranking (1)" in chosen.found
    assert (fallen.level, fallen.task) == ("note", "grade")
    assert "Concatenation in 1 of 2 folds, SNN in 2 of 2 folds" in fallen.found


def test_what_few_validation_patients_chose_is_told_with_how_few_they_are(run: Path) -> None:
    predictions = read_predictions(run / "predictions.csv")
    details = {"n_validation": 5, "network_share": 0.25}
    jobs = [replace(job, description={"details": details}) for job in read_jobs(run, predictions)]
    chosen, *_, few = check_selection(jobs, predictions)
    validated = predictions[predictions["split"] == "validation"].groupby(["model", "fold"])["label"]
    fewest = int((validated.size() - validated.agg(lambda labels: labels.value_counts().max())).min())
    assert fewest < 10
    assert "the network's share beside a linear path (4)" in chosen.found
    assert f"at least {fewest} outside the largest class" in chosen.found
    assert (few.level, few.task) == ("note", "grade")
    assert "in 4 of 4 jobs when training stops and a network's share" in few.found

    tables = [pd.concat([job.rows] * 10) for job in jobs]
    many = [
        replace(job, rows=table.assign(label=np.resize(["G2", "G4"], len(table))))
        for job, table in zip(jobs, tables, strict=True)
    ]
    assert not any("fewer than" in finding.found for finding in check_selection(many, predictions))

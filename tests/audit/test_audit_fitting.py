from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from small_cohort import deal_folds
from subfuse.audit import audit as audit_module
from subfuse.audit.audit import audit_run
from subfuse.audit.exchanged import shuffled_predictions
from subfuse.audit.fitting import check_fitting, check_selection, read_jobs
from subfuse.audit.leakage import chance_limit, check_expression, check_slides, near_duplicates
from subfuse.cohort.cohort import Cohort
from subfuse.errors import ConfigurationError
from subfuse.features.store import read_features, write_features
from subfuse.files import sha256_of_json, write_table
from subfuse.run_folder.tables import read_predictions
from subfuse.runs.cross_validation import cross_validate
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings
from subfuse.training.stored_model import load_fitted


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder to be filled once."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def cohort(make_cohort) -> Cohort:
    return make_cohort(30, n_genes=24)


@pytest.fixture
def run(cohort: Cohort, trained: Path) -> Path:
    if not trained.exists():
        plan = TrainingPlan(
            training=TrainingSettings(epochs=2, batch_size=8),
            architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=32),
        )
        cross_validate(cohort, task="grade", models=["concat", "snn"], folds=deal_folds(cohort), out=trained, plan=plan)
    return trained


def config_of(cohort: Cohort) -> dict:
    return {"folds": [sha256_of_json([f.train, f.validation, f.test]) for f in deal_folds(cohort)]}


def assignment(cohort: Cohort) -> pd.DataFrame:
    rows = [
        (0, k, split, patient)
        for k, fold in enumerate(deal_folds(cohort))
        for split in ("train", "validation", "test")
        for patient in getattr(fold, split)
    ]
    return pd.DataFrame(rows, columns=["repeat", "fold", "split", "patient_id"])


def test_a_run_is_audited_as_a_whole(run: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "_cohort", lambda folder, config: (cohort, ""))

    audit = audit_run(run, n_bootstrap=50)

    checks = {finding.check for finding in audit.findings}
    assert {"fitted outside training", "selection", "slide leakage", "expression leakage", "outcome in disguise",
            "modality shuffle", "fusion benefit", "calibration", "labels", "patient leakage"} <= checks  # fmt: skip
    assert not audit.of_level("failure")
    assert {"concat, slides shuffled", "concat, expression shuffled"} <= set(audit.tables["fusion"]["model"])


def test_an_evaluation_of_other_patients_sends_to_the_run_itself(tmp_path: Path) -> None:
    assert audit_module._cohort(tmp_path, {"prepared": None, "trained": "run"}) == (
        None, "these patients are not those of development. Audit the run that they evaluate.",
    )  # fmt: skip


def test_without_the_prepared_cohort_what_needs_it_is_named(run: Path) -> None:
    audit = audit_run(run, n_bootstrap=50)

    notes = {
        finding.check for finding in audit.of_level("note") if "does not name its prepared cohort" in finding.found
    }
    assert notes == {
        "slide leakage", "expression leakage", "outcome in disguise", "modality shuffle", "confounding",
        "declared strata",
    }  # fmt: skip
    (fitted,) = [finding for finding in audit.findings if finding.check == "fitted outside training"]
    assert (fitted.level, "nothing could be checked" in fitted.found) == ("note", True)


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

    chosen, fallen = check_selection(jobs, predictions)
    assert "epochs by validation loss (3) and ranking (1), on" in chosen.found
    assert (fallen.level, fallen.task) == ("note", "grade")
    assert "Concatenation in 1 of 2 folds, SNN in 2 of 2 folds" in fallen.found


def test_a_slide_of_two_patients_is_found_whatever_its_name(cohort: Cohort, tmp_path: Path) -> None:
    first, second = cohort.patients[3], cohort.patients[4]
    copy = tmp_path / "another name.h5"
    write_features(copy, read_features(first.slides[0]), tile_px=256)
    patients = tuple(replace(p, slides=(copy,)) if p is second else p for p in cohort)

    crossing = check_slides(replace(cohort, patients=patients), assignment(cohort))
    together = check_slides(
        replace(cohort, patients=patients), assignment(cohort)[lambda rows: rows["split"] == "train"]
    )

    assert check_slides(cohort, assignment(cohort))[0].level == "ok"
    assert (crossing[0].level, together[0].level) == ("failure", "warning")
    assert f"{first.patient_id} = {second.patient_id}" in crossing[0].found


def test_nearly_the_same_expression_is_found(cohort: Cohort) -> None:
    source, generator = cohort.patients[5], np.random.default_rng(0)
    copied = (source.expression + 0.02 * generator.normal(size=24)).astype(np.float32)
    patients = tuple(replace(p, expression=copied) if p is cohort.patients[8] else p for p in cohort)

    findings = check_expression(replace(cohort, patients=patients), assignment(cohort))

    assert findings[0].level == "failure"
    assert "P005 = P008" in findings[0].found
    assert check_expression(cohort, assignment(cohort))[0].level == "ok"


def test_near_duplicates_are_those_of_corrcoef() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=(40, 30)) + 10 * generator.random(30)
    values[17] = values[3] + 0.05 * generator.normal(size=30)
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    rows, columns = np.nonzero(np.triu(np.corrcoef(standard) > 0.99, k=1))

    assert near_duplicates(values, above=0.99) == list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(3, 17)]


@pytest.mark.parametrize(("n_genes", "n_factors"), [(20, 2), (30, 3), (50, 2)])
def test_genes_that_rise_and_fall_together_raise_no_alarm_and_hide_no_copy(n_genes: int, n_factors: int) -> None:
    alike_by_chance = 0
    for seed in range(8):
        generator = np.random.default_rng(seed)
        factors, loadings = generator.normal(size=(80, n_factors)), generator.normal(size=(n_factors, n_genes))
        values = factors @ loadings + 0.2 * generator.normal(size=(80, n_genes))
        alike_by_chance += len(near_duplicates(values, above=0.99))
        assert not near_duplicates(values, above=max(0.99, chance_limit(values)))
        values[17] = values[3]
        assert near_duplicates(values, above=max(0.99, chance_limit(values))) == [(3, 17)]
    assert alike_by_chance > 0 or n_genes > 20


def test_the_limit_of_independent_genes_is_that_of_random_directions_and_of_two_genes_none() -> None:
    generator = np.random.default_rng(0)
    drawn = np.corrcoef(generator.normal(size=(2000, 49)))  # as many directions as centred profiles of 50 genes have
    np.fill_diagonal(drawn, -1)
    assert chance_limit(generator.normal(size=(600, 50))) == pytest.approx(drawn.max(), abs=0.06)
    assert chance_limit(generator.normal(size=(80, 2))) > 0.9999


def test_shuffling_exchanges_one_modality(run: Path, cohort: Cohort) -> None:
    fitted = load_fitted(run / "grade" / "snn" / "fold_0")
    ids = [i for i in deal_folds(cohort)[0].test if i != "P001"]

    original = fitted.predict(cohort.select(ids).patients).set_index("patient_id")["p_G4"]
    slides = shuffled_predictions(fitted, cohort, ids, "slides", np.random.default_rng(0))
    expression = shuffled_predictions(fitted, cohort, ids, "expression", np.random.default_rng(0))

    np.testing.assert_allclose(slides.set_index("patient_id")["p_G4"], original, atol=1e-6)
    assert (np.abs(expression.set_index("patient_id")["p_G4"] - original) > 1e-6).any()


def test_what_is_not_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="must be a finished run"):
        audit_run(tmp_path)

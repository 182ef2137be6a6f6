import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from small_cohort import deal_folds, slide_features, with_covariates
from subfuse.audit.audit import audit_run
from subfuse.errors import DataError
from subfuse.expression.units import ShareBasis
from subfuse.features.store import write_features
from subfuse.report.run_files import read_run
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import remove_results
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.job_inputs import job_inputs
from subfuse.runs.run import load_run
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

PLAN = TrainingPlan(
    training=TrainingSettings(epochs=1, batch_size=8),
    architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=32),
)
MODELS = {"cox": Job("survival", "cox", 0), "abmil": Job("survival", "abmil", 0), "grade": Job("grade", "concat", 0)}


def run(cohort, out, **changes):
    options = {"task": ["survival", "grade"], "models": ["snn"], "allow_inputs": ["GENE0"], "plan": PLAN, **changes}
    return cross_validate(cohort, folds=deal_folds(cohort), out=out, **options)


def changed(cohort, index, **values):
    patients = list(cohort.patients)
    patients[index] = replace(patients[index], **values)
    return replace(cohort, patients=tuple(patients))


def inputs_of(cohort, job, **changes):
    return job_inputs(cohort, deal_folds(cohort)[0], job, PLAN.model_copy(update=changes))


CORRECTIONS = {
    "a time": (lambda c: changed(c, 4, time_days=1.0), {"cox": {"outcomes"}, "abmil": {"outcomes"}}),
    "a grade": (lambda c: changed(c, 4, labels={"grade": "G3"}), {"grade": {"outcomes", "task"}}),
    "expression": (
        lambda c: changed(c, 4, expression=c.patients[4].expression + 1),
        {"cox": {"expression"}, "grade": {"expression"}},
    ),
    "age": (lambda c: changed(c, 4, covariates={"age": "31"}), {"cox": {"covariates"}, "grade": {"covariates"}}),
    "a slide left out": (lambda c: changed(c, 2, slides=()), {"abmil": {"slides"}, "grade": {"slides"}}),
    "a site": (lambda c: changed(c, 2, site="B"), {}),
    "a pathway": (lambda c: replace(c, pathways={}), {name: {"genes"} for name in MODELS}),
    "the unit": (lambda c: replace(c, expression_unit="tpm"), {name: {"genes"} for name in MODELS}),
    "the sums of shares": (
        lambda c: replace(c, expression_basis=ShareBasis.of(["A", "B"])),
        {name: {"genes"} for name in MODELS},
    ),
    "the encoder": (lambda c: replace(c, encoder_sha256="1" * 64), {name: {"encoder"} for name in MODELS}),
}


@pytest.mark.parametrize("column", ["project", "outcomes", "patients"])
def test_a_batch_decides_whether_its_model_is_done_again_and_hides_nothing_else(column, make_cohort):
    """Whatever the column is called."""
    drawn = make_cohort()
    patients = (replace(p, labels={**p.labels, column: "ab"[i % 2]}) for i, p in enumerate(drawn))
    cohort = replace(drawn, patients=tuple(patients), batch=column)
    job = Job("survival", "batch", 0)
    before = inputs_of(cohort, job)
    other = changed(cohort, 4, labels={**cohort.patients[4].labels, column: "b"})
    for corrected, kind in ((other, "covariates"), (changed(cohort, 4, time_days=1.0), "outcomes")):
        after = inputs_of(corrected, job)
        assert {name for name in before if before[name] != after[name]} == {kind}


@pytest.mark.parametrize("what", CORRECTIONS)
def test_what_a_model_reads_and_nothing_else_decides_whether_it_is_done_again(what, make_cohort):
    correct, expected = CORRECTIONS[what]
    cohort = with_covariates(make_cohort())
    for name, job in MODELS.items():
        before, after = inputs_of(cohort, job), inputs_of(correct(cohort), job)
        differing = {kind for kind in before if before[kind] != after[kind]}
        assert differing == expected.get(name, set()), name


def test_features_that_were_extracted_again_count_although_the_slide_is_the_same(make_cohort):
    cohort = make_cohort()
    before = inputs_of(cohort, MODELS["abmil"])
    path = cohort.patients[4].slides[0]
    write_features(path, slide_features(np.random.default_rng(9), 1.0, 6), tile_px=256)
    assert {kind for kind, value in inputs_of(cohort, MODELS["abmil"]).items() if value != before[kind]} == {"slides"}


def test_settings_seed_and_version_count(make_cohort, monkeypatch):
    cohort, job = make_cohort(), MODELS["abmil"]
    before = inputs_of(cohort, job)
    for other in ({"seed": 1}, {"search": 2}, {"training": TrainingSettings(epochs=2)}):
        assert inputs_of(cohort, job, **other)["settings"] != before["settings"]
    monkeypatch.setattr("subfuse.runs.job_inputs.__version__", "other")
    assert inputs_of(cohort, job)["version"] == "other"


@pytest.mark.walk
def test_after_a_correction_the_run_is_that_of_the_corrected_cohort(make_cohort, tmp_path, caplog):
    cohort, out = make_cohort(), tmp_path / "run"
    run(cohort, out)
    kept = {path: path.stat().st_mtime_ns for path in (out / "grade").rglob("model.safetensors")}
    corrected = changed(cohort, 4, time_days=1.0, event=True)
    again = run(corrected, out)
    assert "2 of 4 jobs are done again. Changed since: outcomes (2)" in caplog.text
    afresh = run(corrected, tmp_path / "afresh")
    pd.testing.assert_frame_equal(again.predictions, afresh.predictions)
    pd.testing.assert_frame_equal(again.metrics, afresh.metrics)
    models = list((out / "survival").rglob("model.safetensors"))
    assert models
    for path in models:
        expected, found = load_file(tmp_path / "afresh" / path.relative_to(out)), load_file(path)
        assert found.keys() == expected.keys()
        assert all(found[name].equal(expected[name]) for name in expected)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    caplog.clear()
    pd.testing.assert_frame_equal(run(corrected, out).predictions, afresh.predictions)
    assert not [record for record in caplog.records if record.name == "subfuse.runs.job_inputs"]


@pytest.mark.walk
def test_an_interrupted_training_on_other_data_is_not_gone_on_with(make_cohort, tmp_path, monkeypatch):
    cohort, out = make_cohort(), tmp_path / "run"
    options = {"task": ["grade"], "models": ["snn"]}
    with monkeypatch.context() as stop:
        stop.setattr(
            "subfuse.training.fitted_model.FittedModel.save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            run(cohort, out, **options)
    assert list(out.rglob("last.ckpt"))
    corrected = changed(cohort, 5, labels={"grade": "G4" if cohort.patients[5].labels["grade"] == "G2" else "G2"})
    again, afresh = run(corrected, out, **options), run(corrected, tmp_path / "afresh", **options)
    assert again.failures.empty
    pd.testing.assert_frame_equal(again.predictions, afresh.predictions)


@pytest.mark.walk
def test_results_without_a_record_of_their_inputs_are_done_again(make_cohort, tmp_path, caplog):
    cohort, options = make_cohort(), {"task": ["grade"], "models": ["logistic"]}
    run(cohort, tmp_path / "run", **options)
    for path in (tmp_path / "run").rglob("inputs.json"):
        path.unlink()
    run(cohort, tmp_path / "run", **options)
    assert "no record of its inputs (2)" in caplog.text
    assert len(list((tmp_path / "run").rglob("inputs.json"))) == 2


@pytest.mark.walk
def test_changed_predictions_are_predicted_again_and_nothing_is_trained(make_cohort, tmp_path, caplog, monkeypatch):
    cohort, options, out = make_cohort(), {"task": ["grade"], "models": ["logistic"]}, tmp_path / "run"
    expected = run(cohort, out, **options)
    folders = [Job("grade", "logistic", index).folder(out) for index in range(2)]
    cut, exchanged = (folder / "predictions.csv" for folder in folders)
    cut.write_text("".join(cut.read_text().splitlines(keepends=True)[:-2]))
    exchanged.write_text(exchanged.read_text().replace("p_G2", "p_?").replace("p_G4", "p_G2").replace("p_?", "p_G4"))
    provenance = [(folder / "provenance.json").read_text() for folder in folders]

    with monkeypatch.context() as untrained:
        untrained.setattr("subfuse.training.fitting.train_fold", None)
        again = run(cohort, out, **options)

    assert "2 of 2 jobs are predicted again: their predictions.csv is not what was written" in caplog.text
    assert again.failures.empty
    pd.testing.assert_frame_equal(again.predictions, expected.predictions)
    assert [(folder / "provenance.json").read_text() for folder in folders] == provenance

    caplog.clear()
    cut.unlink()
    (folders[0] / "model.safetensors").write_bytes(b"")
    pd.testing.assert_frame_equal(run(cohort, out, **options).predictions, expected.predictions)
    assert "grade · logistic · fold 0 is trained again" in caplog.text

    (out / "predictions.csv").write_text((out / "predictions.csv").read_text().replace(",test,", ",train,"))
    for read in (load_run, audit_run, read_run):
        with pytest.raises(DataError, match=r"run/predictions\.csv: what was written is required"):
            read(out)


@pytest.mark.walk
def test_a_checkpoint_beside_a_finished_model_goes(make_cohort, tmp_path):
    cohort, options = make_cohort(), {"task": ["grade"], "models": ["logistic"]}
    run(cohort, tmp_path / "run", **options)
    left = tmp_path / "run" / "grade" / "logistic" / "fold_0" / "last.ckpt"
    left.touch()
    run(cohort, tmp_path / "run", **options)
    assert not left.exists()


def test_explanations_and_tables_of_changed_tasks_go_before_their_models(tmp_path):
    kept, gone = ["P1/grade/genes.csv", "cohort/survival/models/0/done.txt", "config.yaml"], [
        "predictions.csv", "report.html", "P1/survival/explanation.json", "cohort/survival/summary.json"]  # fmt: skip
    for name in (*kept, *gone):
        path = tmp_path / ("explanations" if name.count("/") else "") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({}))
    remove_results(tmp_path, ["survival"])
    left = {path.relative_to(tmp_path).as_posix().removeprefix("explanations/") for path in tmp_path.rglob("*.*")}
    assert left == set(kept)

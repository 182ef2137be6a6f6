from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from subfuse.errors import DataError
from subfuse.files import read_table, write_table
from subfuse.report.provenance_section import training_section
from subfuse.report.run_files import read_run
from subfuse.run_folder.job import jobs_of
from subfuse.run_folder.tables import read_predictions
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.run import load_run

WORDS = ["None", "NA", "nan", "null", "N/A", "", "007", "1e5", "True"]


def test_names_are_read_as_they_were_written_and_numbers_to_the_last_digit(tmp_path):
    numbers = np.random.default_rng(0).normal(size=len(WORDS)) * 1e-7
    written = pd.DataFrame({"patient_id": WORDS, "label": WORDS, "risk": numbers, "p_None": numbers})
    write_table(tmp_path / "table.csv", written)
    found = read_table(tmp_path / "table.csv", exact=True)
    pd.testing.assert_frame_equal(found, written.replace({"": np.nan}))


def test_a_missing_or_damaged_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.csv: a CSV table"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "table.csv").write_bytes(b"patient_id,risk\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"table\.csv: a CSV table in UTF-8"):
        read_table(tmp_path / "table.csv")


def test_events_are_true_false_or_unknown(tmp_path):
    path = tmp_path / "predictions.csv"
    header = "patient_id,event,task,model,repeat,fold,split,cohort,time_days,label,risk,has_slides,has_expression\n"
    job = "grade,snn,0,0,test,a,,,,True,True\n"
    path.write_text(f"{header}NA,True,{job}null,,{job}None,False,{job}", encoding="utf-8")
    table = read_predictions(path)
    assert table["event"].tolist() == [True, pd.NA, False]
    assert table["patient_id"].tolist() == ["NA", "null", "None"]
    path.write_text(f"{header}A,True,{job}B,1,{job}", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 3: event must be True, False or empty\. Found '1'"):
        read_predictions(path)


@pytest.fixture(scope="module")
def kept() -> list:
    """Holds one run for all tests that only look at it."""
    return []


@pytest.fixture
def named_run(kept, make_cohort, tmp_path_factory):
    """A run, repeated once, on a cohort whose patients and classes have names that mean "missing" elsewhere."""
    if not kept:
        cohort, out = make_cohort(30), tmp_path_factory.mktemp("named") / "run"
        renamed = dict(zip((p.patient_id for p in cohort.patients[3:6]), ("None", "NA", "nan"), strict=True))
        labels = {"G2": "None", "G4": "NA"}
        patients = [
            replace(
                p,
                patient_id=renamed.get(p.patient_id, p.patient_id),
                labels={name: labels.get(value, value) for name, value in p.labels.items()},
            )
            for p in cohort
        ]
        task = cohort.tasks["grade"]
        spec = task.model_copy(update={"classes": [labels.get(name, name) for name in task.classes or ()] or None})
        named = replace(cohort, patients=tuple(patients), tasks={"grade": spec})
        options = {"task": "grade", "models": ["logistic"], "allow_inputs": ["GENE0"], "out": out}
        kept.append((named, cross_validate(named, folds=2, repeats=2, **options)))
    return kept[0]


def test_a_class_called_none_is_a_class_like_any_other(named_run):
    _, result = named_run
    assert {"p_None", "p_NA"} <= set(result.predictions)
    assert {"None", "NA"} == set(read_run(result.folder).predictions["label"].dropna())
    assert result.metrics.set_index("metric").loc["auc", "value"] > 0.5


def test_a_patient_called_none_is_predicted_by_the_models_that_did_not_train_on_it(named_run):
    cohort, result = named_run
    predicted = load_run(result.folder).predict(cohort.select(["None", "NA", "nan"]))
    seen = result.predictions.query("split != 'test'")
    keys = ["patient_id", "repeat", "fold"]
    assert set(predicted["split"]) == {"test"}
    assert predicted.merge(seen, on=keys).empty
    assert set(predicted["patient_id"]) == {"None", "NA", "nan"}


def test_the_report_tells_of_the_training_of_every_repeat(named_run):
    _, result = named_run
    for job, _ in jobs_of(result.predictions):
        ranked = {"validation_auc": [0.7, 0.6]} if job.fold_index else {"validation_auc": [0.7, 0.7]}
        log = pd.DataFrame({"epoch": [0, 1], "validation_loss": [0.9, 0.8], **ranked})
        write_table(job.folder(result.folder) / "log.csv", log)
    table = training_section(read_run(result.folder)).content["table"]
    (row,) = table.rows
    told = dict(zip(table.columns, row, strict=True))
    assert told["Folds"] == "4"
    assert (told["Best epoch"], told["Judged by"]) == ("1 to 2", "AUC")  # the loss decides only where it ties
    assert told["Validation loss there"] == "0.800 to 0.900"


@pytest.mark.real_data
@pytest.mark.parametrize(("case", "tasks"), [("class_named_none", ["grade"]), ("patient_named_none", ["survival"])])
def test_a_prepared_cohort_with_such_names_is_trained_and_predicted(cases, tmp_path, case, tasks):
    from subfuse.cohort.cohort import read_cohort
    from subfuse.preparation.prepare import prepare
    from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

    prepare(cases / case / "cohort.yaml", tmp_path / "prepared")
    cohort = read_cohort(tmp_path / "prepared")
    result = cross_validate(
        cohort,
        task=tasks,
        models=["mean"],
        out=tmp_path / "run",
        plan=TrainingPlan(training=TrainingSettings(epochs=1), architecture=ArchitectureSettings(embed_dim=8)),
    )
    predicted = load_run(tmp_path / "run").predict(cohort)
    assert set(predicted["split"]) == {"test"}
    assert set(predicted["patient_id"]) == set(result.predictions["patient_id"])
    if case == "class_named_none":
        assert set(result.predictions["label"]) == {"None", "Total"}

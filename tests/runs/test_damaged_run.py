"""A run whose files were exchanged, cut or changed ends in one line of ours."""

import random
import shutil

import numpy as np
import pytest
import torch
import yaml

from damage import READ, REFUSED, ends, files_of, put_pipe, rounds
from small_cohort import deal_folds
from subfuse.cohort.bags import InputStandardiser
from subfuse.errors import ConfigurationError, DataError, SubfuseError
from subfuse.expression.table import ExpressionStandardiser
from subfuse.files import read_json, sha256_of_json, write_json, write_table
from subfuse.objective.classification import ClassificationObjective
from subfuse.report.cohort_section import cohort_section
from subfuse.report.patient_section import PictureBudget
from subfuse.report.run_files import read_run
from subfuse.report.statements import outcomes
from subfuse.run_folder.cohort_copy import read_run_patients
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import claim_folder
from subfuse.run_folder.tables import stack_predictions
from subfuse.runs.cross_validation import predict_fold
from subfuse.runs.run import load_run
from subfuse.training.fitted_model import FittedModel
from subfuse.training.models import ModelRecipe
from subfuse.training.settings import ArchitectureSettings

pytestmark = pytest.mark.walk

ROUNDS = rounds(25)  # of each file
JUNK = (b"", b"\xff\xfe", b"\x00", b"\n", b",,,", b"nan", b"-1", b"1e999", b'"', b"{", b"[]", b": &a [*a]", b"../x")


def untrained(cohort, fold, job):
    genes = cohort.genes
    recipe = ModelRecipe(
        name="snn",
        n_outputs=2,
        patch_dim=cohort.patch_dim,
        n_genes=len(genes),
        gene_sets={"tumour": (0, 1)},
        grid=(8, 8),
        architecture=ArchitectureSettings(embed_dim=8),
    )
    scaler = ExpressionStandardiser(genes, np.zeros(len(genes), np.float32), np.ones(len(genes), np.float32))
    return FittedModel(
        task="grade",
        task_spec=cohort.tasks["grade"],
        recipe=recipe,
        model=recipe.build().eval(),
        objective=ClassificationObjective(("G2", "G4")),
        standardiser=InputStandardiser(scaler, None),
        baseline_logits=torch.zeros(1, 2),
        genes=genes,
        expression_unit=cohort.expression_unit,
        encoder=cohort.encoder,
        encoder_sha256=cohort.encoder_sha256,
        details={"seed": job.seed(0), "split_sha256": sha256_of_json([fold.train, fold.validation, fold.test])},
    )


@pytest.fixture
def made(make_cohort, tmp_path):
    """A cohort, and a run of untrained models on it."""
    cohort, out = make_cohort(12), tmp_path / "run"
    folds, tables = deal_folds(cohort), []
    hashes = [sha256_of_json([fold.train, fold.validation, fold.test]) for fold in folds]
    tasks = {"grade": cohort.tasks["grade"].model_dump(mode="json", exclude_none=True)}
    claim_folder(out, {"cohort": "small", "prepared": None, "tasks": tasks, "seed": 0, "folds": hashes})
    for index, fold in enumerate(folds):
        job = Job("grade", "snn", index)
        fitted = untrained(cohort, fold, job)
        fitted.save(job.folder(out))
        tables.append(predict_fold(fitted, cohort, fold, job))
    write_table(out / "predictions.csv", stack_predictions(tables))
    (out / "metrics.csv").write_text(
        "task,model,metric,value,sd,lower,upper,n_patients,n_events,reason\ngrade,snn,auc,0.5,0.1,0.4,0.6,12,,\n"
    )
    (out / "failures.csv").write_text("task,model,repeat,fold,reason\ngrade,snn,0,1,too few\n")
    (out / "cohort").mkdir()
    (out / "cohort" / "patients.csv").write_text(
        "patient_id,cohort,site,time_days,event,grade,n_slides,has_expression\n"
        "P000,small,a,12.5,True,G4,0,True\nP001,small,b,,,G2,1,False\nP002,small,,3.0,False,,2,True\n"
    )
    (out / "cohort" / "exclusions.csv").write_text("level,id,reason\npatient,P9,no follow-up\ngene,X,constant\n")
    (out / "cohort" / "slides.csv").write_text("slide_id,patient_id,n_patches\na,P001,12\nb,P002,7\n")
    write_json(out / "provenance.json", {"date": "2024-01-01", "versions": {"subfuse": "0.1.0"}})
    return cohort, out


def test_exchanged_folds_are_noticed(made):
    cohort, out = made
    assert len(load_run(out).predict(cohort)) == 12 - 1  # one has no expression
    first, second = (Job("grade", "snn", index).folder(out) for index in range(2))
    first.rename(out / "aside")
    second.rename(first)
    (out / "aside").rename(second)
    with pytest.raises(
        DataError, match=r"fold_0/model\.json: the model of grade · snn · fold 0 is required.*exchanged"
    ):
        load_run(out).predict(cohort)


def test_where_nothing_can_be_written_nothing_is_explained(made, monkeypatch):
    cohort, out = made
    monkeypatch.setattr("subfuse.runs.run.Run.fitted", None)
    (out / "file").write_text("mine")
    patient = cohort.patients[0].patient_id
    for place in (out / "file", out / "file" / "below" / "further", out / ("x" * 300)):
        for explain in (
            lambda place: load_run(out).explain_cohort(cohort, place),
            lambda place: load_run(out).explain(cohort, patient, place),
            lambda place: load_run(out).explain(cohort, patient, out / "new", stores=place),
        ):
            with pytest.raises(ConfigurationError, match="a place where files can be written is required"):
                explain(place)
    assert (out / "file").read_text() == "mine"
    assert not (out / "new").exists()


def test_a_fold_of_another_repeat_is_noticed(made):
    cohort, out = made
    table = (out / "predictions.csv").read_text()
    (out / "predictions.csv").write_text(table.replace("grade,snn,0,", "grade,snn,1,"))
    shutil.copytree(out / "grade" / "snn", out / "aside")
    shutil.copytree(out / "aside", out / "grade" / "snn" / "repeat_1")
    with pytest.raises(DataError, match="differs in seed"):
        load_run(out).predict(cohort)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("grade,snn,0,", "../../x,snn,0,", "names .* are required in task"),
        ("grade,snn,0,", "grade,snn,-1,", "whole numbers from 0 are required in repeat"),
        ("grade,snn,0,", "grade,snn,x,", "whole numbers from 0 are required in repeat"),
        ("p_G2", "q_G2", ""),
        ("patient_id", "patient", "Missing: patient_id"),
        ("label", "class", "Missing: label"),
    ],
)
def test_predictions_that_no_run_writes_are_refused(made, old, new, named):
    cohort, out = made
    path = out / "predictions.csv"
    path.write_text(path.read_text().replace(old, new))
    if not named:
        assert len(load_run(out).predict(cohort))
        return
    with pytest.raises(DataError, match=rf"predictions\.csv: .*{named}"):
        load_run(out)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("12.5", "abc", r"line 2: time_days must be a number of days or empty\. Found 'abc'"),
        ("12.5", "inf", r"line 2: time_days must be a number"),
        ("G2,1,False", "G2,,False", r"line 3: n_slides must be a whole number from 0\. Found ''"),
        ("G2,1,False", "G2,1.5,False", r"line 3: n_slides must be a whole number from 0\. Found '1\.5'"),
        ("3.0,False", "3.0,maybe", r"line 4: event must be True, False or empty\. Found 'maybe'"),
        ("1,False", "1,maybe", r"line 3: has_expression must be True or False\. Found 'maybe'"),
        ("P002", "P001", r"line 4: patient_id must be unique\. Found 'P001'"),
        ("P002", "", r"line 4: patient_id must be unique\. Found None"),
    ],
)
def test_patients_that_are_none_are_refused(made, old, new, named):
    _, out = made
    path = out / "cohort" / "patients.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=rf"cohort/patients\.csv, {named}"):
        read_run_patients(out)


@pytest.mark.parametrize(
    ("name", "old", "new", "named"),
    [
        ("patients", "patient_id", "patient", "the column patient_id is required"),
        ("patients", ",2,True", ",2.5,True", "whole numbers from 0 are required in n_slides"),
        ("exclusions", "reason", "why", "the column reason is required"),
        ("slides", ",12", ",many", "whole numbers from 0 are required in n_patches"),
    ],
)
def test_a_report_names_what_is_wrong_with_its_cohort(made, name, old, new, named):
    _, out = made
    path = out / "cohort" / f"{name}.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=rf"cohort/{name}\.csv: {named}"):
        read_run(out)


@pytest.mark.parametrize(
    ("name", "value"),
    [("tasks", ["grade"]), ("folds", "x"), ("seed", "first"), ("prepared", 3), ("tasks", {"grade": {"column": 3}})],
)
def test_a_configuration_of_the_wrong_kind_is_named(made, name, value):
    _, out = made
    config = yaml.safe_load((out / "config.yaml").read_text()) | {name: value}
    (out / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(DataError, match=rf"config\.yaml: {name}"):
        load_run(out)


@pytest.mark.parametrize("content", ["", "\n", "{}\n", "# nothing\n", "seed: 0\ntasks: {grade: {colu"])
def test_a_configuration_without_content_or_cut_is_named(made, content):
    _, out = made
    (out / "config.yaml").write_text(content)
    with pytest.raises(DataError, match=r"config\.yaml.*Copy the run again from where it was made"):
        load_run(out)


@pytest.mark.faults
@pytest.mark.parametrize(
    "name",
    ["config.yaml", "predictions.csv", "metrics.csv", "failures.csv", "provenance.json", "cohort/patients.csv",
     "cohort/exclusions.csv", "cohort/slides.csv"],
)  # fmt: skip
def test_damaged_files_end_in_our_error_or_are_read(made, name):
    _, out = made
    whole, generator, n_refused = (out / name).read_bytes(), random.Random(name), 0
    for _ in range(ROUNDS):
        place, end = sorted(generator.randrange(len(whole) + 1) for _ in range(2))
        end = min(end, place + 30) if generator.random() < 0.7 else end
        (out / name).write_bytes(whole[:place] + generator.choice(JUNK) + whole[end:])
        try:
            assert list(load_run(out).jobs(task="grade"))
            read_run_patients(out)
            files = read_run(out)
            cohort_section(files, PictureBudget())
            outcomes(files.predictions)
        except SubfuseError as error:
            n_refused += 1
            assert "\n" not in str(error), error  # noqa: PT017
    assert n_refused


@pytest.mark.faults
def test_a_pipe_in_the_place_of_any_file_is_named_at_once(made):
    cohort, out = made
    files = files_of(out)

    def read(index: int) -> None:
        put_pipe(files[index])
        run = load_run(out)
        run.predict(cohort)
        read_run_patients(out)
        cohort_section(read_run(out), PictureBudget())

    found = {}
    for index, file in enumerate(files):
        whole = file.read_bytes()
        ((_, found[file.relative_to(out).as_posix()]),) = ends([index], read)
        file.unlink()
        file.write_bytes(whole)
    assert {name: end for name, end in found.items() if end not in (READ, REFUSED)} == {}
    never_missing = {"predictions.csv", "metrics.csv", "provenance.json", "grade/snn/fold_0/model.safetensors"}
    assert never_missing <= {name for name, end in found.items() if end == REFUSED}


def test_a_number_that_is_written_as_text_is_read_as_one(made):
    cohort, out = made
    config = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(config.replace("seed: 0", "seed: '0'\nrepeats: '1'"))
    run = load_run(out)
    assert {name: run.config[name] for name in ("seed", "repeats")} == {"seed": 0, "repeats": 1}
    assert len(run.predict(cohort))


def test_what_was_sealed_says_where_it_was_changed(made):
    cohort, out = made
    path = Job("grade", "snn", 1).folder(out) / "model.json"
    write_json(path, {**read_json(path), "expression_unit": "counts"})
    with pytest.raises(DataError, match=r"fold_1/model\.json: .* was changed since"):
        load_run(out).predict(cohort)

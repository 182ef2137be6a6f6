from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from viewer_run import GENES, HOSTILE, N_PATIENTS, made_run

from subfuse.errors import ConfigurationError
from subfuse.runs.external_validation import with_percentiles
from subfuse.serve.run_reader import RunReader, open_run


@pytest.fixture(scope="module")
def viewer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory)


@pytest.fixture
def reader(viewer_run: Path) -> RunReader:
    return open_run(viewer_run)


@pytest.fixture
def predictions(viewer_run: Path) -> pd.DataFrame:
    return pd.read_csv(viewer_run / "predictions.csv", dtype={"patient_id": str})


def test_summaries_are_the_rows_of_the_file(reader, predictions):
    for task in ("survival", "grade"):
        for model in ("subspace", "snn"):
            rows = predictions.query("task == @task and model == @model and split == 'test'").set_index("patient_id")
            summaries = reader.summaries(task, model, "test", set())
            assert sorted(s.patient_id for s in summaries) == sorted(rows.index)
            for summary in summaries:
                row = rows.loc[summary.patient_id]
                if task == "survival":
                    assert summary.risk == row["risk"]
                    assert summary.outcome.time_days == row["time_days"]
                    assert summary.predicted_class is None
                else:
                    assert summary.risk is None
                    assert summary.probabilities == {"G2": row["p_G2"], "G4": row["p_G4"]}
                    assert summary.predicted_class == ("G2" if row["p_G2"] >= row["p_G4"] else "G4")


def test_summaries_go_from_the_highest_percentile_down(reader):
    percentiles = [s.risk_percentile for s in reader.summaries("survival", "subspace", "test", set())]
    assert percentiles == sorted(percentiles, reverse=True)


def test_every_row_of_a_patient_is_shown(reader, predictions):
    rows = predictions[predictions["patient_id"] == HOSTILE]
    shown = reader.of_patient(HOSTILE)
    assert len(shown) == len(rows) > 4
    for prediction, row in zip(shown, rows.to_dict("records"), strict=True):
        assert (prediction.task, prediction.model, prediction.fold) == (row["task"], row["model"], row["fold"])
        for point in prediction.survival:
            assert point.probability == row[f"survival_{point.days:g}"]
        for name, value in prediction.contributions.items():
            assert value == row[f"contribution_{name}"]


def test_recalibrated_probabilities_stand_beside_those_of_the_model(reader):
    days = [name for name in reader.predictions if name.startswith("survival_")]
    before = [*days, "p_G2", "p_G4"]
    after = {f"recalibrated_{name}": reader.predictions[name] ** 2 for name in before}
    shown = replace(reader, predictions=reader.predictions.assign(**after)).of_patient("P01")
    assert {p.task for p in shown} == {"survival", "grade"}
    for now, then in zip(shown, reader.of_patient("P01"), strict=True):
        assert now.recalibrated == {name: value**2 for name, value in then.probabilities.items()}
        assert [(p.days, p.recalibrated) for p in now.survival] == [(p.days, p.probability**2) for p in then.survival]
        assert then.recalibrated == {}  # too few validation patients
        assert {point.recalibrated for point in then.survival} <= {None}


def test_a_percentile_is_the_share_of_training_patients_below_and_half_of_equal_ones():
    table = pd.DataFrame({"risk": [1.0, 2.0, 3.0, 4.0, 2.5, np.nan], "split": ["train"] * 4 + ["test"] * 2})
    table = table.assign(task="t", model="m", repeat=0, fold=0)
    assert with_percentiles(table)["risk_percentile"].tolist()[:5] == [12.5, 37.5, 62.5, 87.5, 50]
    assert np.isnan(with_percentiles(table)["risk_percentile"].iloc[5])
    assert with_percentiles(table.assign(split="test"))["risk_percentile"].isna().all()


def test_predicting_with_the_own_expression_changes_nothing(reader, viewer_run):
    own = pd.read_csv(viewer_run.parent / "cohort" / "expression.csv", index_col=0).loc[HOSTILE]
    content = "gene,value\n" + "\n".join(f"{gene},{value}" for gene, value in own.items())
    uploaded, after = reader.predict_with(reader.patient(HOSTILE), content.encode(), model="subspace")
    assert len(uploaded.values) == len(GENES)
    before = [p for p in reader.of_patient(HOSTILE) if p.model == "subspace" and p.split == "test"]
    assert [p.task for p in after] == [p.task for p in before] == ["survival", "grade"]
    for now, then in zip(after, before, strict=True):
        assert now.fold == then.fold
        assert now.risk == (None if then.risk is None else pytest.approx(then.risk, abs=1e-5))
        assert now.probabilities == pytest.approx(then.probabilities, abs=1e-5)
        assert now.contributions == pytest.approx(then.contributions, abs=1e-5)


def test_a_patient_without_expression_keeps_its_known_covariates(reader):
    patient = reader.patient("P03")
    assert patient.expression is None
    content = "\n".join(f"{gene},{10**9 + i}" for i, gene in enumerate(GENES)).encode()
    uploaded, after = reader.predict_with(patient, content, model="subspace")
    assert all(prediction.has_expression and prediction.has_slides for prediction in after)
    assert any("most genes of 1 of 1 patients (P03)" in warning for warning in uploaded.warnings)


def test_new_patients_are_predicted_by_every_fold(viewer_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for path in viewer_run.iterdir():
        if path.name not in ("predictions.csv", "provenance.json", "explanations"):
            (run / path.name).symlink_to(path)
    known = pd.read_csv(viewer_run / "predictions.csv", dtype={"patient_id": str})
    known[known["patient_id"] != "P05"].to_csv(run / "predictions.csv", index=False)
    reader = open_run(run, viewer_run.parent / "prepared")
    assert next(task.splits for task in reader.tasks) == ["test", "new", "validation", "train"]
    (summary,) = reader.summaries("survival", "subspace", "new", {"P05"})
    several = [p for p in reader.of_patient("P05") if (p.task, p.model) == ("survival", "subspace")]
    assert (summary.patient_id, summary.n_predictions, summary.explained) == ("P05", 2, True)
    assert [p.split for p in several] == ["new", "new"]
    assert summary.risk_percentile == pytest.approx(np.mean([p.risk_percentile for p in several]))
    assert len(reader.summaries("survival", "subspace", "test", set())) == N_PATIENTS - 1


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="finished run"):
        open_run(tmp_path)

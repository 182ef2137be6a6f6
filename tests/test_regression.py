"""Regression by commands: from tables to a report, other patients, an audit, an export and one new patient."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from command_run import BRIEF, evaluate_roughly, explain_roughly
from subfuse.cli import main
from subfuse.cohort.cohort import Patient, read_cohort
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError
from subfuse.run_folder.tables import read_predictions
from subfuse.runs.run import load_run

pytestmark = pytest.mark.walk

N = 44
GENES = ["EGFR", "CD44", "TP53", "CD163", "GFAP"]
MODELS = ("subspace", "linear", "clinical", "site")


def tables(folder: Path, *, seed: int = 0, **changes: object) -> pd.DataFrame:
    """Purity follows one gene and age, in per cent; it is unknown of two patients."""
    random = np.random.default_rng(seed)
    patients = [f"{'ab'[seed]}{i:02}" for i in range(N)]
    values = random.gamma(4, 20, size=(N, len(GENES)))
    age = random.integers(30, 80, N)
    purity = 40 + 12 * np.log2(values[:, 0] / 80) + 0.3 * (age - 55) + random.normal(size=N)
    clinical = pd.DataFrame(
        {"patient_id": patients, "purity": purity.round(1), "age": age, "hospital": random.choice(["x", "y"], N)}
    )
    clinical.loc[[0, 1], "purity"] = None
    clinical = clinical.assign(**changes)
    clinical.to_csv(folder / "patients.csv", index=False)
    pd.DataFrame(values, index=patients, columns=GENES).to_csv(folder / "rna.csv", index_label="patient_id")
    return clinical


def cohort_file(folder: Path, **changes: object) -> Path:
    content = {
        "name": "purity",
        "patients": {
            "table": "patients.csv",
            "columns": {"patient_id": "patient_id", "purity": "purity", "age": "age", "site": "hospital"},
        },
        "expression": {"table": "rna.csv", "unit": "tpm"},
        "gene_sets": {"tumour": "sets.gmt", "microenvironment": {"gmt": "sets.gmt", "sets": ["microenvironment"]}},
        "covariates": ["age"],
        "tasks": {"purity": {"column": "purity", "kind": "regression", "loss": "huber"}},
        "splits": {"folds": 2, "validation": 0.3},
    }
    (folder / "sets.gmt").write_text("A\td\tEGFR\tCD44\tTP53\nmicroenvironment\td\tTP53\tCD163\tGFAP\n")
    path = folder / "cohort.yaml"
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `cohort`, what is prepared from it, a run, and other patients."""
    root = tmp_path_factory.mktemp("regression")
    for seed, name in enumerate(("cohort", "other")):
        (root / name).mkdir()
        tables(root / name, seed=seed).to_pickle(root / f"{name}.pkl")
        cohort_file(root / name, name=name, **({"role": "external"} if seed else {}))
    with pytest.MonkeyPatch.context() as patch:
        evaluate_roughly(patch)
        explain_roughly(patch)
        assert main(["check", str(root / "cohort" / "cohort.yaml")]) == 0
        for name in ("cohort", "other"):
            out = str(root / f"prepared-{name}")
            assert main(["prepare", str(root / name / "cohort.yaml"), "--out", out]) == 0
        run = ["crossval", str(root / "prepared-cohort"), "--out", str(root / "run"), "--explain", "false"]
        assert main([*run, "--workers", "1", "--models", *MODELS, "cox", *BRIEF]) == 0
    return root


def test_numbers_are_predicted_in_their_own_unit(folder) -> None:
    given = pd.read_pickle(folder / "cohort.pkl").set_index("patient_id")["purity"].dropna()
    table = read_predictions(folder / "run" / "predictions.csv")
    assert set(table["model"]) == set(MODELS)
    assert table[["time_days", "event", "label", "risk"]].isna().all(axis=None)
    tested = table[(table["split"] == "test") & (table["model"] == "linear")].set_index("patient_id")
    assert set(tested.index) == set(given.index)
    np.testing.assert_allclose(tested["value"], given[tested.index])
    assert np.corrcoef(tested["value"], tested["predicted_value"])[0, 1] > 0.9
    assert abs((tested["predicted_value"] - tested["value"]).mean()) < 2
    own = table[table["model"] == "subspace"]
    shares = own.filter(like="contribution_").sum(axis=1)
    description = json.loads((folder / "run" / "purity" / "subspace" / "fold_0" / "model.json").read_text())
    of_fold = own["fold"] == 0
    mean = description["objective"]["mean"]
    assert description["objective"]["error"] == "huber"
    trained = own[of_fold & (own["split"] == "train")]["value"]
    assert mean == pytest.approx(trained.mean(), rel=1e-5)
    np.testing.assert_allclose(mean + shares[of_fold], own[of_fold]["predicted_value"], rtol=1e-4)


def test_metrics_comparisons_audit_and_report_speak_of_numbers(folder) -> None:
    metrics = pd.read_csv(folder / "run" / "metrics.csv").set_index(["model", "metric"])
    linear = metrics.loc["linear"]
    assert set(linear.index) == {"concordance", "spearman", "r2", "mae"}
    assert (linear["lower"] < linear["value"]).all()
    assert (linear["value"] < linear["upper"]).all()
    assert linear.loc["r2", "value"] > 0.6
    compared = pd.read_csv(folder / "run" / "comparisons.csv")
    assert set(compared["metric"]) == {"concordance"}
    assert compared["difference"].notna().all()
    report = (folder / "run" / "report.html").read_text()
    assert "Predicted against measured" in report
    assert "Mean abs. error" in report
    assert main(["audit", str(folder / "run")]) in (0, 1)
    audit = json.loads((folder / "run" / "audit.json").read_text())
    assert "no probabilities" in next(f["found"] for f in audit["findings"] if f["check"] == "calibration")
    assert not {"decision_curves", "conformal"} & {*audit["tables"]}
    checks = {finding["check"] for finding in audit["findings"]}
    assert {"label permutation", "trivial baseline", "linear baseline", "added value", "within strata"} & checks
    files = ["audit", str(folder / "run" / "predictions.csv"), "--patients", str(folder / "cohort" / "patients.csv")]
    assert main([*files, "--out", str(folder / "of_files.json")]) in (0, 1)
    of_files = json.loads((folder / "of_files.json").read_text())
    permuted = {row["model"]: row["p_value"] for row in of_files["tables"]["label_permutation"]}
    assert permuted["linear"] < 0.01


def test_other_patients_are_predicted_evaluated_and_explained(folder, tmp_path, capsys) -> None:
    other, run = str(folder / "prepared-other"), str(folder / "run")
    assert main(["predict", run, "--cohort", other, "--model", "linear", "--out", str(tmp_path / "p.csv")]) == 0
    predicted = read_predictions(tmp_path / "p.csv").groupby("patient_id")[["value", "predicted_value"]].mean()
    assert len(predicted) == N
    assert predicted["predicted_value"].notna().all()
    assert predicted["value"].isna().sum() == 2
    assert predicted.dropna().corr().iloc[0, 1] > 0.9
    assert main(["evaluate", run, "--cohort", other, "--out", str(tmp_path / "external")]) == 0
    metrics = pd.read_csv(tmp_path / "external" / "metrics.csv").set_index(["model", "metric"])
    assert metrics.loc[("linear", "r2"), "value"] > 0.6
    assert main(["explain", run, "--patient", "a05", "--out", str(tmp_path / "explained")]) == 0
    explained = json.loads((tmp_path / "explained" / "purity" / "explanation.json").read_text())
    assert explained["score_name"] == "the predicted value"
    shares = sum(row["contribution"] for row in explained["ledger"])
    assert shares == pytest.approx(explained["score"], abs=1e-3)
    mean = explained["prediction"]["predicted_value"] - explained["score"]
    assert 20 < mean < 60  # that of the training patients
    assert main(["report", run]) == 0


def test_numbers_of_other_patients_in_another_unit_are_said(folder) -> None:
    run, other = load_run(folder / "run"), read_cohort(folder / "prepared-other", "external")
    shares = [
        replace(p, labels={**p.labels, "purity": str(float(p.labels["purity"]) / 100)} if "purity" in p.labels else {})
        for p in other
    ]
    for cohort, is_said in ((other, False), (replace(other, patients=tuple(shares)), True)):
        _, notes = run.predict_with_notes(cohort, model="linear")
        assert any("purity: " in note and "Another unit?" in note for note in notes) == is_said


def test_exported_models_predict_one_patient_from_a_file(folder, tmp_path) -> None:
    shared = str(tmp_path / "shared")
    assert main(["export", str(folder / "run"), shared, "--model", "linear"]) == 0
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "regression" in card.split("---")[1]
    values = pd.read_csv(folder / "other" / "rna.csv", index_col="patient_id").loc["b07"]
    values.rename("tpm").to_csv(tmp_path / "one.csv", index_label="gene")
    out = tmp_path / "one_prediction.csv"
    assert main(["predict", shared, "--expression", str(tmp_path / "one.csv"), "--out", str(out)]) == 0
    assert pd.read_csv(out)["predicted_value"].notna().all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"purity": 30.0}, "tasks.purity: 5 different numbers of purity are required"),
        ({"purity": np.arange(N) % 3}, "Found 3 among 44 patients (0, 1, 2)"),
        ({"purity": ["high", *np.arange(N - 1)]}, "Found 'high' of a00 (1 such cells)"),
        ({"purity": ["1,5", *np.arange(N - 1)]}, "Write it with a decimal point, as 1.5"),
        ({"purity": [math.inf, *np.arange(N - 1)]}, "Found 'inf' of a00"),
    ],
)
def test_a_target_that_no_line_can_follow_is_one_line(tmp_path, capsys, changes, message) -> None:
    tables(tmp_path, **changes)
    assert main(["check", str(cohort_file(tmp_path))]) == 3
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]


def test_numbers_that_are_no_declared_classes_are_told_of_regression(tmp_path, capsys) -> None:
    tables(tmp_path)
    assert main(["check", str(cohort_file(tmp_path, tasks={"purity": {"column": "purity"}}))]) == 3
    assert "`kind: regression` learns numbers themselves" in capsys.readouterr().err


def test_a_prepared_table_that_was_changed_is_refused_where_it_is_read() -> None:
    task = TaskSpec(column="purity", kind="regression")
    assert Patient("a", "c", labels={"purity": "30.5"}).outcome(task) == (30.5,)
    assert Patient("a", "c").outcome(task) == (None,)
    with pytest.raises(DataError, match=r"purity: a number is required.*Found 'high'"):
        Patient("a", "c", labels={"purity": "high"}).outcome(task)

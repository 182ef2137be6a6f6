import json
import pickle
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from bright_slides import fit

from small_cohort import deal_folds
from subfuse.errors import DataError
from subfuse.explanation.cohort import cohort_explanation, enrichment, fold_explanation
from subfuse.explanation.cohort.cohort_explanation import explain_cohort, modality_shares, reliance_summary
from subfuse.explanation.cohort.fold_explanation import TABLES, FoldModel, is_explained
from subfuse.training.fitted_model import FittedModel

GENE_SETS = {"planted": [f"GENE{i}" for i in (0, 1, 2, 3, 4)], "others": [f"GENE{i}" for i in (4, 5, 6, 7, 8)]}


@pytest.fixture
def models(make_cohort):
    cohort = make_cohort(n_patients=12)
    folds = deal_folds(cohort)
    return [
        FoldModel(str(k), fit(cohort, fold=k), cohort.select(fold.test).patients[:3]) for k, fold in enumerate(folds)
    ]


def test_a_cohort_is_explained_by_the_models_that_did_not_train_on_it(models, tmp_path, monkeypatch):
    monkeypatch.setattr(enrichment, "MIN_GENES", 2)
    out, done = tmp_path / "survival", []
    explain_cohort(models, tmp_path, gene_sets=GENE_SETS, tolerance=1.0, progress=lambda *step: done.append(step))
    tested = {patient.patient_id: model for model in models for patient in model.patients}
    contributions = pd.read_csv(out / "contributions.csv")
    assert set(contributions["patient_id"]) == set(tested)
    for patient_id, rows in contributions.groupby("patient_id"):
        model = tested[patient_id]
        assert set(rows["fold"].astype(str)) == {model.fold}
        patient = next(p for p in model.patients if p.patient_id == patient_id)
        prediction = model.fitted.predict([patient]).filter(like="contribution_").to_numpy().sum()
        assert rows["contribution"].sum() == pytest.approx(prediction, abs=1e-5)
    genes, values = pd.read_csv(out / "genes.csv"), pd.read_csv(out / "gene_values.csv")
    assert genes.groupby("subspace").size().to_dict() == {"tumour": 4, "microenvironment": 6}
    first = genes[genes["rank"] == 1]["gene"].tolist()
    assert values.groupby("subspace", sort=False)["gene"].first().tolist() == first
    of_gene = values[(values["subspace"] == "tumour") & (values["gene"] == first[0])]
    assert of_gene["attribution"].abs().mean() == pytest.approx(genes["mean_absolute"].iloc[0], rel=1e-5)
    assert len(of_gene) == 5  # the second patient has no expression
    enriched = pd.read_csv(out / "enrichment.csv")
    assert set(enriched["ranking"]) == {"strength", "direction"}
    assert set(enriched["subspace"]) == {"microenvironment"}  # of the other no gene would be left to compare with
    assert enriched["p_value"].between(0, 1, inclusive="right").all()
    stability = pd.read_csv(out / "gene_stability.csv").set_index("subspace")["mean_rank_correlation"]
    np.testing.assert_allclose(enriched["stability"], stability["microenvironment"])
    assert (enriched["fdr"].notna() == (enriched["stability"] >= 0.5)).all()
    faithfulness = json.loads((out / "faithfulness.json").read_text())
    assert set(faithfulness) == {"patches", "genes"}
    assert faithfulness["genes"]["deletion"]["n_patients"] == 5
    curves = pd.read_csv(out / "faithfulness_curves.csv")
    assert curves.groupby(["input", "order"]).size().to_dict() == {
        (name, order): 11 for name in ("patches", "genes") for order in ("deletion", "insertion", "random")
    }
    assert set(curves[curves["input"] == "genes"]["n_patients"]) == {5}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n_patients"] == 6
    assert sum(row["share"] for row in summary["shares"]) == pytest.approx(1)
    assert [step[:2] for step in done] == [(1, 2), (2, 2)]
    assert done[0][2].startswith("survival · model 0, ")
    assert done[0][2].endswith(" left")
    assert done[1][2] == "survival · model 1"

    before = (out / "genes.csv").read_bytes()
    monkeypatch.setattr(fold_explanation, "_explained_patient", None)  # not called again
    explain_cohort(models, tmp_path, gene_sets=GENE_SETS, tolerance=1.0)
    assert (out / "genes.csv").read_bytes() == before

    jobs = [(model, out / "models" / model.fold, 1.0) for model in models]
    for name in ("done.txt", *(f"{table}.csv" for table in TABLES)):
        path = out / "models" / "0" / name
        written = path.read_bytes()
        for damaged in (None, b"", b"\xff", written[:-2], written.replace(b"0", b"1", 1)):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            assert [is_explained(*job) for job in jobs] == [False, True], (name, damaged)
        path.write_bytes(written)
        assert is_explained(*jobs[0])


@pytest.mark.walk
def test_the_models_are_jobs_of_the_runs_workers(models, tmp_path, monkeypatch):
    seen = {}

    def run_jobs(function, jobs, **where):
        seen.update(where, n_jobs=len(jobs))
        for index, job in enumerate(pickle.loads(pickle.dumps(jobs))):  # as they reach another process
            yield index, DataError("damaged") if index == 0 else function(*job)

    monkeypatch.setattr(cohort_explanation, "run_jobs", run_jobs)
    with pytest.raises(DataError, match="damaged"):
        explain_cohort(models, tmp_path, gene_sets={}, tolerance=1.0, workers=3, scheduler="tcp://host:1")
    assert seen == {"workers": 3, "scheduler": "tcp://host:1", "gpus": [], "n_jobs": 2}
    assert (tmp_path / "survival" / "models" / "1" / "done.txt").exists()  # the others are kept


def fail_for(monkeypatch, *patients):
    explain = fold_explanation._explained_patient

    def explain_one(explained, patient, *rest, **options):
        for index, part in enumerate(explain(explained, patient, *rest, **options)):
            if index == 1 and patient.patient_id in patients:  # after the ledger of the patient
                raise RuntimeError("no memory left")
            yield part

    monkeypatch.setattr(fold_explanation, "_explained_patient", explain_one)


@pytest.mark.walk
def test_a_patient_who_fails_is_named_and_left_out_of_all_tables(models, tmp_path, monkeypatch, caplog):
    failing, *others = (patient.patient_id for patient in models[0].patients)
    with monkeypatch.context() as patch:
        fail_for(patch, failing)
        explain_cohort(models, tmp_path, gene_sets={}, tolerance=1.0)
    out = tmp_path / "survival"
    kept = {*others, *(patient.patient_id for patient in models[1].patients)}
    assert set(pd.read_csv(out / "contributions.csv")["patient_id"]) == kept
    assert failing not in set(pd.read_csv(out / "gene_values.csv")["patient_id"])
    named = [record.message for record in caplog.records if "not explained" in record.message]
    assert len(named) == 1
    assert "survival, model 0" in named[0]
    assert failing in named[0]
    assert "no memory left" in named[0]

    explain_cohort(models, tmp_path, gene_sets={}, tolerance=1.0)  # the model with the failure is tried again
    assert set(pd.read_csv(out / "contributions.csv")["patient_id"]) == {failing, *kept}


def test_a_model_of_which_nobody_can_be_explained_is_an_error(models, tmp_path, monkeypatch):
    fail_for(monkeypatch, *(patient.patient_id for model in models for patient in model.patients))
    with pytest.raises((DataError, RuntimeError), match="no memory left"):
        explain_cohort(models, tmp_path, gene_sets={}, tolerance=1.0)
    assert not (tmp_path / "survival" / "summary.json").exists()


def test_a_task_that_fails_leaves_the_others_and_what_is_done_counts(tmp_path, monkeypatch):
    models = [
        FoldModel(fold, Mock(spec=FittedModel, task=task), ()) for task, fold in (("a", "0"), ("b", "0"), ("b", "1"))
    ]
    written, jobs, done = [], [], []

    def run_jobs(function, open_jobs, *, workers, scheduler, gpus):
        jobs.extend((tested.fitted.task, tested.fold, tolerance, workers) for tested, _, tolerance, _ in open_jobs)
        yield 0, DataError("damaged")
        yield 1, None

    monkeypatch.setattr(cohort_explanation, "run_jobs", run_jobs)
    monkeypatch.setattr(cohort_explanation, "is_explained", lambda tested, *rest: tested.fold == "1")
    monkeypatch.setattr(cohort_explanation, "_write_task", lambda of_task, folder, *rest, **how: written.append(folder))
    with pytest.raises(DataError, match="damaged"):
        explain_cohort(models, tmp_path, gene_sets={}, progress=lambda *step: done.append(step[:2]))
    assert jobs == [("a", "0", 0.05, 1), ("b", "0", 0.05, 1)]
    assert written == [tmp_path / "b"]
    assert done == [(2, 3), (3, 3)]


def test_a_gene_without_a_direction_is_in_the_middle_of_that_ranking(tmp_path, monkeypatch):
    rows = [(str(n), gene, x, x * weight) for n, x in enumerate((1.0, 2.0)) for gene, weight in (("A", -3.0), ("B", 2))]
    rows += [(str(n), "constant", 5.0, float(n)) for n in range(2)]
    values = pd.DataFrame(rows, columns=["patient_id", "gene", "expression", "attribution"])
    values = values.assign(fold="0", subspace="t", share=1.0)
    seen = {}

    def enrich_subspaces(rankings, *rest, **options):
        seen.update({name: ranking.droplevel("subspace").to_dict() for name, ranking in rankings.items()})
        return pd.DataFrame()

    monkeypatch.setattr(cohort_explanation, "enrich_subspaces", enrich_subspaces)
    cohort_explanation._write_genes(tmp_path, values, {}, has_direction=True)
    assert seen["strength"] == {"A": 4.5, "B": 3.0, "constant": 0.5}
    assert seen["direction"] == {"A": -4.5, "B": 3.0, "constant": 0.0}


def test_nobody_to_explain_is_an_error(tmp_path):
    with pytest.raises(DataError, match="Found none"):
        explain_cohort([], tmp_path, gene_sets={})


def test_shares_of_modalities_leave_the_baseline_out():
    rows = [("a", "t", "slides", 0.3), ("a", "t", "expression", -0.1), ("a", "all", "baseline", 9.0)]
    table = modality_shares(pd.DataFrame(rows, columns=["patient_id", "subspace", "modality", "contribution"]))
    np.testing.assert_allclose(table["share"], [0.75, 0.25])
    np.testing.assert_allclose(table["mean"], [0.3, -0.1])


def test_a_patient_of_several_models_weighs_as_much_as_one_of_a_single_model():
    rows = [("a", "0", 4.0, "G4"), ("b", "0", 1.0, "G4"), ("b", "1", 3.0, "G2"), ("b", "2", 2.0, "G2")]
    table = pd.DataFrame(rows, columns=["patient_id", "fold", "contribution", "explained"])
    table = table.assign(subspace="t", modality="slides")
    assert modality_shares(table)["mean"].tolist() == [3.0]
    found = reliance_summary(table, pd.DataFrame({"relative_gap": [0.1, np.inf, 0.4, 0.2, np.nan]}))
    assert found["relative_gap"] == {"median": 0.2, "largest": 0.4}
    assert reliance_summary(table, pd.DataFrame({"relative_gap": [np.nan]}))["relative_gap"] is None
    assert found["n_patients"] == 2
    assert found["explained"] == {"G4": 1, "G2": 1}

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from brief_run import BRIEF, run
from safetensors.torch import load_file

from small_cohort import deal_folds
from subfuse.audit.disguised_outcomes import suspicious_inputs
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.fold import Fold
from subfuse.cohort.fold_files import SPLITS, write_repeats
from subfuse.errors import ConfigurationError, DataError
from subfuse.run_folder.names import HELD_OUT_SITES
from subfuse.run_folder.tables import read_predictions
from subfuse.runs.cross_validation import refuse_disguised_outcomes
from subfuse.runs.run import load_run
from subfuse.runs.single_training import train_model
from subfuse.training.checkpoint import Checkpoint
from subfuse.training.settings import TrainingPlan, TrainingSettings

pytestmark = pytest.mark.walk


@pytest.fixture
def cohort(make_cohort):
    return make_cohort(30)


@pytest.fixture(scope="module")
def kept() -> list:
    """Holds one result for all tests that only look at it."""
    return []


@pytest.fixture
def result(kept, cohort, tmp_path_factory):
    """Two tasks, two models, two folds."""
    if not kept:
        kept.append(run(cohort, tmp_path_factory.mktemp("kept") / "run"))
    return kept[0]


def test_every_patient_is_tested_once_per_model_and_never_by_a_model_that_saw_it(cohort, result):
    table = result.predictions
    test = table[table["split"] == "test"]
    assert not test.duplicated(["task", "model", "patient_id"]).any()
    assert set(test["patient_id"]) == {p.patient_id for p in cohort}
    seen = table[table["split"] != "test"][["task", "model", "fold", "patient_id"]]
    assert test.merge(seen, on=["task", "model", "fold", "patient_id"]).empty


def test_files_hold_what_is_returned(result):
    pd.testing.assert_frame_equal(read_predictions(result.folder / "predictions.csv"), result.predictions)
    for name in ("metrics", "comparisons", "failures"):
        stored = pd.read_csv(result.folder / f"{name}.csv")
        returned = getattr(result, name)
        pd.testing.assert_frame_equal(stored, returned.where(returned.notna(), np.nan), check_dtype=False)
    assert (result.folder / "grade" / "snn" / "fold_1" / "model.safetensors").exists()
    assert set(yaml.safe_load((result.folder / "config.yaml").read_text())["tasks"]) == {"survival", "grade"}


def test_the_same_seed_gives_the_same_tables_however_many_workers(cohort, tmp_path):
    first = run(cohort, tmp_path / "a", task="grade", models=["concat"])
    second = run(cohort, tmp_path / "b", task="grade", models=["concat"], workers=2)
    pd.testing.assert_frame_equal(first.metrics, second.metrics)
    pd.testing.assert_frame_equal(first.predictions, second.predictions)


def with_slides_of_one(cohort: Cohort) -> Cohort:
    """Of slides, no fold can train and validate."""
    one = next(patient.patient_id for patient in cohort if patient.slides)
    return replace(cohort, patients=tuple(p if p.patient_id == one else replace(p, slides=()) for p in cohort))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")
def test_a_dask_cluster_gives_the_same_tables_and_goes_on_after_a_failed_job(cohort, tmp_path):
    distributed = pytest.importorskip("distributed")
    without = with_slides_of_one(cohort)
    options = {"task": "grade", "models": ["abmil", "logistic"]}
    here = run(without, tmp_path / "a", **options)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as there:
        remote = run(without, tmp_path / "b", scheduler=there.scheduler_address, **options)
    pd.testing.assert_frame_equal(remote.predictions, here.predictions)
    pd.testing.assert_frame_equal(remote.failures.reset_index(drop=True), here.failures.reset_index(drop=True))
    assert remote.failures["model"].tolist() == ["abmil", "abmil"]


def test_every_model_has_the_same_folds_budget_and_selection(cohort, tmp_path):
    result = run(cohort, tmp_path / "run", task="grade", models=["snn", "concat", "logistic"])
    for fold in range(2):
        described = {
            model: json.loads((tmp_path / "run" / "grade" / model / f"fold_{fold}" / "model.json").read_text())[
                "details"
            ]
            for model in ("snn", "concat", "logistic")
        }
        for same in ("split_sha256", "training"):  # training: epochs, patience, selection, ...
            assert described["snn"][same] == described["concat"][same] == described["logistic"][same]
        rows = result.predictions[result.predictions["fold"] == fold]
        sides = {
            model: {split: set(part["patient_id"]) for split, part in of_model.groupby("split")}
            for model, of_model in rows.groupby("model")
        }
        develop = sides["snn"]["train"] | sides["snn"]["validation"]
        assert sides["logistic"] == {"train": develop, "test": sides["snn"]["test"]}  # chooses within training
        more = {split: patients - sides["snn"][split] for split, patients in sides["concat"].items()}
        assert set().union(*more.values()) == {"P001"}  # it reads slides


def test_a_rerun_does_only_what_is_missing(cohort, tmp_path):
    first = run(cohort, tmp_path / "run", task="grade", models=["concat", "snn"])
    finished = tmp_path / "run" / "grade" / "snn" / "fold_0" / "predictions.csv"
    removed = tmp_path / "run" / "grade" / "snn" / "fold_1" / "predictions.csv"
    stamp = finished.stat().st_mtime_ns
    removed.unlink()
    weights = tmp_path / "run" / "grade" / "concat" / "fold_0" / "model.safetensors"
    weights.unlink()
    steps: list[tuple[int, int]] = []

    def progress(done: int, total: int, what: str) -> None:
        steps.append((done, total))

    again = run(cohort, tmp_path / "run", task="grade", models=["concat", "snn"], progress=progress)
    assert steps == [(3, 4), (4, 4), (4, 4)]  # two jobs were finished before; results come last
    assert weights.exists()
    assert finished.stat().st_mtime_ns == stamp
    pd.testing.assert_frame_equal(first.predictions, again.predictions)


def test_a_killed_job_goes_on_after_its_last_epoch_and_ends_with_the_same_weights(cohort, tmp_path, monkeypatch):
    options = {
        "task": "grade",
        "models": ["concat"],
        "plan": TrainingPlan(
            training=TrainingSettings(epochs=3, batch_size=8), architecture=BRIEF["plan"].architecture
        ),
    }
    whole = run(cohort, tmp_path / "whole", **options)
    save, saved = Checkpoint.save, []

    def save_and_stop(checkpoint, *arguments):
        save(checkpoint, *arguments)
        saved.append(checkpoint.path)
        if len(saved) == 5:  # the second epoch of the second fold
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(cohort, tmp_path / "run", **options)
    folder = tmp_path / "run" / "grade" / "concat" / "fold_1"
    assert (folder / "last.ckpt").exists()
    assert not (folder / "predictions.csv").exists()
    resumed = run(cohort, tmp_path / "run", **options)
    assert saved[5:] == [folder / "last.ckpt"]  # one epoch was left
    assert not list((tmp_path / "run").rglob("last.ckpt"))
    for fold in ("fold_0", "fold_1"):
        expected, found = (load_file(tmp_path / out / "grade" / "concat" / fold / "model.safetensors")
                           for out in ("whole", "run"))  # fmt: skip
        assert all(found[name].equal(expected[name]) for name in expected)
    pd.testing.assert_frame_equal(resumed.predictions, whole.predictions)


def test_another_configuration_is_not_overwritten(cohort, tmp_path):
    run(cohort, tmp_path / "run", task="grade", models=["snn"])
    with pytest.raises(ConfigurationError, match="differs in: seed"):
        run(cohort, tmp_path / "run", task="grade", models=["snn"], seed=7)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ConfigurationError, match="must be empty or a run folder"):
        run(cohort, tmp_path / "other")


def test_a_failed_model_is_reported_and_the_others_go_on(cohort, tmp_path):
    without = with_slides_of_one(cohort)
    result = run(without, tmp_path / "run", task="grade", models=["abmil", "snn"])
    assert set(result.failures["model"]) == {"abmil"}
    assert result.failures["reason"].str.contains("needs training and validation patients with slides").all()
    assert set(result.predictions["model"]) == {"snn"}
    with pytest.raises(DataError, match="no model could be trained"):
        run(without, tmp_path / "none", task="grade", models=["abmil"])


def test_linear_models_run_on_their_own_kind_of_task(cohort, tmp_path):
    result = run(cohort, tmp_path / "run", models=["cox", "logistic"])
    done = set(map(tuple, result.predictions[["task", "model"]].drop_duplicates().to_numpy()))
    assert done == {("survival", "cox"), ("grade", "logistic")}
    again = load_run(tmp_path / "run").predict(cohort, model="cox", task="survival").query("split == 'test'")
    for (fold,), tested in again.groupby(["fold"]):  # measured are the curves that new patients are given
        own = result.predictions.query("split == 'test' and model == 'cox'")
        own = own[own["fold"] == fold].set_index("patient_id")["survival_365"]
        np.testing.assert_allclose(tested.set_index("patient_id")["survival_365"], own[tested["patient_id"]], rtol=1e-5)
        assert own.between(0, 1, inclusive="neither").all()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_told_before_work(cohort, tmp_path):
    plan = TrainingPlan(device="cuda")
    with pytest.raises(ConfigurationError, match=r"--device cuda: .* Found cpu\. Use auto, or one"):
        run(cohort, tmp_path / "run", plan=plan)
    assert not (tmp_path / "run").exists()


def test_unknown_names_list_the_valid_ones(cohort, tmp_path):
    with pytest.raises(ConfigurationError, match="models must be among subspace, subspace-slides"):
        run(cohort, tmp_path / "a", models=["subspaces"])
    with pytest.raises(ConfigurationError, match=r"declared in the cohort file \(survival, grade\)"):
        run(cohort, tmp_path / "b", task="diagnosis")
    with pytest.raises(ConfigurationError, match=r"must suit a task\. Found cox, cox-both, .* than grade\."):
        run(cohort, tmp_path / "c", task="grade", models=["cox", "cox-both"])
    assert not (tmp_path / "c").exists()


def test_a_cohort_in_memory_needs_folds(cohort, tmp_path):
    with pytest.raises(ConfigurationError, match="give a number of folds"):
        run(cohort, tmp_path / "a", folds=None)
    drawn = run(cohort, tmp_path / "b", folds=3, task="grade", models=["snn"])
    assert drawn.predictions["fold"].nunique() == 3


def test_repeats_are_drawn_anew_and_kept_apart(cohort, tmp_path):
    result = run(cohort, tmp_path / "run", folds=3, repeats=2, task="grade", models=["logistic"])
    test = result.predictions[result.predictions["split"] == "test"]
    assert (test.groupby("patient_id")["repeat"].nunique() == 2).all()
    sides = [set(map(frozenset, rows.groupby("fold")["patient_id"].agg(list))) for _, rows in test.groupby("repeat")]
    assert sides[0] != sides[1]
    assert (tmp_path / "run" / "grade" / "logistic" / "repeat_1" / "fold_2" / "model.json").exists()
    predicted = load_run(tmp_path / "run").predict(cohort, model="logistic")
    merged = predicted.merge(test, on=["patient_id", "repeat", "fold"], suffixes=("", "_before"))
    assert len(merged) == len(predicted) == len(test)
    np.testing.assert_allclose(merged["p_G2"], merged["p_G2_before"], atol=1e-6)


def test_a_search_takes_the_best_settings_of_the_inner_validation(cohort, tmp_path):
    result = run(
        cohort, tmp_path / "run", task="grade", models=["snn"], plan=BRIEF["plan"].model_copy(update={"search": 3})
    )
    for fold in range(2):
        folder = tmp_path / "run" / "grade" / "snn" / f"fold_{fold}"
        tried = pd.read_csv(folder / "search.csv")
        assert tried["lr"].tolist()[0] == BRIEF["plan"].training.lr
        best = tried.loc[tried["validation_score"].idxmin()]
        described = json.loads((folder / "model.json").read_text())
        assert described["details"]["training"]["lr"] == pytest.approx(best["lr"])
        assert described["details"]["validation_score"] == pytest.approx(best["validation_score"])
    assert len(result.failures) == 0


def test_an_input_that_is_the_outcome_stops_the_run_unless_allowed(cohort, tmp_path):
    leaking = replace(
        cohort,
        patients=tuple(
            p if p.expression is None else replace(p, expression=np.append(p.expression, np.float32(p.time_days)))
            for p in cohort
        ),
        genes=(*cohort.genes, "days_to_death"),
    )
    with pytest.raises(DataError, match="days_to_death"):
        run(leaking, tmp_path / "a", task="survival", models=["cox"])
    write_repeats(tmp_path / "prepared" / SPLITS, [deal_folds(leaking)])
    prepared = replace(leaking, root=tmp_path / "prepared")
    with pytest.raises(DataError, match="days_to_death"):
        train_model(prepared, task="survival", model="cox", out=tmp_path / "a")
    with pytest.raises(ConfigurationError, match=r"must name genes or covariates .* Not found: GENE\."):
        run(leaking, tmp_path / "a", task="survival", models=["cox"], allow_inputs=["GENE", "days_to_death"])
    assert not (tmp_path / "a").exists()
    result = run(leaking, tmp_path / "a", task="survival", models=["cox"], allow_inputs=["GENE0", "days_to_death"])
    assert set(result.predictions["model"]) == {"cox"}


def test_an_input_is_judged_by_all_patients_whom_a_model_of_the_run_trains_on(make_cohort):
    """Eight patients are too few to tell a column that is the grade from chance; with their validation patients not."""
    drawn = make_cohort(24)
    grades = ["G2", "G4"] * 12
    told = [np.array([i % 2, *np.zeros(9)], dtype=np.float32) for i in range(24)]
    patients = (replace(p, expression=told[i], labels={"grade": grades[i]}) for i, p in enumerate(drawn))
    cohort = replace(drawn, patients=tuple(patients))
    ids = [patient.patient_id for patient in cohort]
    folds = [Fold(tuple(ids[:8]), tuple(ids[8:20]), tuple(ids[20:]))]
    refuse_disguised_outcomes(cohort, folds, ["grade"], ["snn", "cox"], [])  # cox is of survival
    with pytest.raises(DataError, match=r"input GENE0: it alone orders \d+ training patients"):
        refuse_disguised_outcomes(cohort, folds, ["grade"], ["snn", "logistic"], [])


def test_a_strong_gene_that_orders_one_small_fold_is_no_outcome_and_a_copy_is_refused(make_cohort):
    """Forty patients, a gene with an AUC of 0.9, five folds."""
    drawn, n_of_a_fold = make_cohort(40), 0
    ids = [patient.patient_id for patient in drawn]
    for seed in range(20):
        random = np.random.default_rng(seed)
        is_high, fold_of = random.permutation(np.arange(40) % 2 == 0), random.permutation(40) % 5
        values = random.normal(size=(40, 10)).astype(np.float32)
        values[:, 0] += 1.8 * is_high
        copies = np.column_stack([values[:, 1:], is_high + 0.5 * random.random(40)]).astype(np.float32)

        def cohort(measured, high=is_high):
            grades = ["G4" if h else "G2" for h in high]
            told = zip(drawn, measured, grades, strict=True)
            return replace(drawn, patients=tuple(replace(p, expression=v, labels={"grade": g}) for p, v, g in told))

        tested = [set(np.array(ids)[fold_of == k].tolist()) for k in range(5)]
        others = [[i for i in random.permutation(ids).tolist() if i not in test] for test in tested]
        folds = [Fold(tuple(o[:22]), tuple(o[22:]), tuple(test)) for o, test in zip(others, tested, strict=True)]
        refuse_disguised_outcomes(cohort(values), folds, ["grade"], ["snn"], [])
        tables = [suspicious_inputs(cohort(values), fold.train, "grade") for fold in folds]
        n_of_a_fold += any(table["is_sure"].any() for table in tables)
        with pytest.raises(DataError, match=r"input GENE9: it alone orders \d+ training patients"):
            refuse_disguised_outcomes(cohort(copies), folds, ["grade"], ["snn"], [])
    assert n_of_a_fold > 0  # so that there is something to see


def test_folds_cannot_share_patients():
    with pytest.raises(DataError, match="Found in both: P001"):
        Fold(("P001", "P002"), ("P003",), ("P001",))


def test_hospitals_of_which_a_model_knows_none_cost_no_other_result(make_cohort, tmp_path, caplog):
    cohort = make_cohort(30)
    cohort = replace(cohort, patients=tuple(replace(p, site="ABC"[i % 3]) for i, p in enumerate(cohort)))
    rest = [p.patient_id for p in cohort if p.site != "A"]
    of_hospital = Fold(tuple(rest), (), tuple(p.patient_id for p in cohort if p.site == "A"))
    mixed = Fold(tuple(rest[:10]), (), (*rest[10:], of_hospital.test[0]))
    result = run(cohort, tmp_path / "r", models=["logistic", "site"], task="grade", folds=[of_hospital, mixed])
    assert result.failures[["model", "fold"]].values.tolist() == [["site", 0]]
    assert "patients whose site occurs in training. Found none of 10" in result.failures["reason"].iloc[0]
    assert "site · fold 1: 1 of 11 test patients have a site that never occurs in training" in caplog.text
    predicted = result.predictions[["risk", "p_G2"]].isna().all(axis=1)
    assert not predicted.any()
    assert set(pd.read_csv(tmp_path / "r" / "metrics.csv")["model"]) == {"logistic", "site"}


def test_hospitals_are_held_out_beside_random_folds_and_the_audit_tells_the_gap(make_cohort, tmp_path):
    cohort = make_cohort(36)
    cohort = replace(cohort, patients=tuple(replace(p, site="ABCD"[i % 4]) for i, p in enumerate(cohort)))
    options = {"models": ["cox", "logistic"], "folds": deal_folds(cohort)}
    plain = run(cohort, tmp_path / "plain", **options)
    both = run(cohort, tmp_path / "both", held_out_sites=True, **options)

    pd.testing.assert_frame_equal(plain.predictions, both.predictions)
    of_sites = read_predictions(tmp_path / "both" / HELD_OUT_SITES / "predictions.csv")
    tested = of_sites[of_sites["split"] == "test"]
    site = {p.patient_id: p.site for p in cohort}
    assert tested.groupby("patient_id")["fold"].nunique().eq(1).all()
    assert tested.groupby(tested["patient_id"].map(site))["fold"].nunique().eq(1).all()
    audit = json.loads((tmp_path / "both" / "audit.json").read_text())
    gaps = pd.DataFrame(audit["tables"]["held_out_sites"]).set_index("task")
    random_folds = both.metrics.set_index(["task", "metric"])["value"]
    assert gaps.loc["survival", "random_folds"] == pytest.approx(random_folds["survival", "c_index"])
    assert {f["task"] for f in audit["findings"] if f["check"] == "hospitals held out"} == {"survival", "grade"}
    assert "held_out_sites" not in json.loads((tmp_path / "plain" / "audit.json").read_text())["tables"]

    bad = tuple(
        p if p.expression is None else replace(p, expression=np.append(
            p.expression[:-1], float(p.labels["grade"] == "G4")
        ).astype(np.float32)) for p in cohort
    )  # fmt: skip
    of_grade = {"task": "grade", "models": ["logistic"], "folds": deal_folds(cohort, 3)}
    with pytest.raises(DataError, match=f"outcome in disguise: grade: input {cohort.genes[-1]}"):
        run(replace(cohort, patients=bad), tmp_path / "refused", held_out_sites=True, **of_grade)
    assert not (tmp_path / "refused").exists()

    moved = replace(cohort, patients=tuple(replace(p, site="ABCD"[i // 9]) for i, p in enumerate(cohort)))
    again = run(moved, tmp_path / "both", held_out_sites=True, **options)  # no model of random folds is trained again
    run(moved, tmp_path / "fresh", held_out_sites=True, **options)
    pd.testing.assert_frame_equal(again.predictions, both.predictions)
    audits = [json.loads((tmp_path / name / "audit.json").read_text())["tables"] for name in ("both", "fresh")]
    assert audits[0]["held_out_sites"] == audits[1]["held_out_sites"] != gaps.reset_index().to_dict("records")
    run(cohort, tmp_path / "both", **options)  # moved back, and hospitals are not held out again
    assert "held_out_sites" not in json.loads((tmp_path / "both" / "audit.json").read_text())["tables"]
    run(cohort, tmp_path / "both", held_out_sites=True, **options)

    older = replace(cohort, patients=tuple(replace(p, time_days=p.time_days + 1) for p in cohort))
    run(older, tmp_path / "both", **options)  # outcomes changed, and hospitals are not held out again
    audit = json.loads((tmp_path / "both" / "audit.json").read_text())
    assert "held_out_sites" not in audit["tables"]

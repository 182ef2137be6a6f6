"""Do hospital or batch stand behind a result: drawn cohorts, and the glioma table whose projects were scaled apart."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from audit_calibration import N, draw_cohort, held_out_predictions
from subfuse.audit.audited_task import audited_tasks
from subfuse.audit.confounding.confounders import CONFOUNDER_COLUMNS, TOLD, MeanFeatures, confounder_findings
from subfuse.audit.confounding.signal import Told, held_out_scores, stratified_auc
from subfuse.audit.findings import Finding
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError
from subfuse.features.store import read_features

EXAMPLE = Path(__file__).parents[3] / "examples" / "tcga_gbmlgg" / "cohort.yaml"
FOLD = np.random.default_rng(0).permutation(N) % 5


def found(cohort: Cohort, predictions: pd.DataFrame, **values: float) -> tuple[Finding, pd.DataFrame]:
    (task,) = audited_tasks(predictions)
    (finding,), table = confounder_findings(cohort, replace(task, values=values), MeanFeatures(), dict)
    return finding, table


def test_batches_scaled_apart_are_a_warning_with_the_three_numbers() -> None:
    cohort = draw_cohort("scaled", 0)

    finding, table = found(cohort, held_out_predictions(cohort, FOLD), batch=0.61)

    (row,) = table.to_dict("records")
    assert list(table) == list(CONFOUNDER_COLUMNS)
    assert finding.level == "warning"
    told = f"expression tells it (AUC {row['auc']:.3f}; {row['auc_within']:.3f} among patients alike in outcome, idh, "
    assert f"{told}p = 0.005)" in finding.found
    assert f"it explains {row['outcome_share']:.0%} (p = 0.005) of the outcome, C-index 0.610" in finding.found
    assert f"it explains {row['prediction_share']:.0%} (p = 0.005) of what ridge predicts" in finding.found
    assert row["strongest"] in finding.found
    assert row["auc_within"] > TOLD > row["auc"]


@pytest.mark.parametrize("kind", ["random", "case-mix"])
def test_clean_cohorts_are_fine(kind: str) -> None:
    cohort = draw_cohort(kind, 1)
    finding, table = found(cohort, held_out_predictions(cohort, FOLD))
    assert finding.level == "ok"
    assert table["auc_within"].iloc[0] < 0.6
    assert (table["auc"].iloc[0] > 0.7) == (kind == "case-mix")  # biology tells it, among patients alike nothing does


def test_hospitals_that_folds_hold_out_whole_are_said_to_be() -> None:
    cohort = draw_cohort("scaled", 0)
    patients = tuple(replace(patient, site=f"H{fold}") for patient, fold in zip(cohort, FOLD, strict=True))
    (task,) = audited_tasks(held_out_predictions(cohort, FOLD))
    held_out = replace(cohort, patients=patients, batch=None)
    # no model is asked for embeddings that nothing is compared with
    (finding,), _ = confounder_findings(held_out, replace(task, values={}), MeanFeatures(), pytest.fail)
    assert (finding.level, finding.remedy) == ("note", "Nothing is to be done.")
    assert "site: cannot be checked, as every fold tests whole values of it that were not trained on" in finding.found


def test_a_batch_without_patients_alike_is_a_warning() -> None:
    """As where every grade 4 is of one project."""
    cohort = draw_cohort("scaled", 0)
    patients = [replace(p, labels={**p.labels, "grade": "G4" if p.labels["project"] == "x" else "G2"}) for p in cohort]
    cohort = replace(cohort, patients=tuple(patients), tasks={"grade": TaskSpec(column="grade")})
    genes = np.stack([p.expression for p in patients])
    patients = [replace(p, expression=p.expression + 3 * (p.labels["grade"] == "G4")) for p in patients]
    cohort = replace(cohort, patients=tuple(patients))
    rows = held_out_predictions(draw_cohort("scaled", 0), FOLD).drop(columns=["time_days", "event", "risk"])
    odds = 1 / (1 + np.exp(-genes[:, 0]))
    rows = rows.assign(task="grade", label=[p.labels["grade"] for p in patients], p_G2=1 - odds, p_G4=odds)

    finding, _ = found(cohort, rows)

    assert finding.level == "warning"
    assert "no patients of two values are alike in outcome, idh" in finding.found


@pytest.mark.parametrize("kind", ["random", "scaled"])
def test_without_inputs_what_the_batch_explains_is_told_alone(kind: str) -> None:
    cohort = draw_cohort(kind, 0)
    rows = held_out_predictions(cohort, FOLD)
    with_inputs, table = found(cohort, rows)
    blind, alone = found(replace(cohort, genes=(), patients=tuple(replace(p, expression=None) for p in cohort)), rows)

    shares = ["outcome_share", "p_outcome", "prediction_share", "p_prediction", "n_values", "n_patients"]
    pd.testing.assert_frame_equal(alone[shares], table[shares])
    assert alone["input"].tolist() == ["none"]
    assert alone[["auc", "auc_within", "p_within"]].isna().all(axis=None)
    assert (blind.level, with_inputs.level) == (("ok", "ok") if kind == "random" else ("note", "warning"))
    share = f"{table['prediction_share'].iloc[0]:.0%} (p = {table['p_prediction'].iloc[0]:.3f}) of what ridge predicts"
    assert f"among patients alike in outcome, idh it explains {share}" in blind.found
    assert "whether inputs tell it cannot be seen without them" in blind.found


def test_without_inputs_and_without_patients_alike_nothing_is_said_of_predictions() -> None:
    cohort = draw_cohort("scaled", 0)
    patients = [replace(p, expression=None, labels={**p.labels, "idh": p.labels["project"]}) for p in cohort]
    blind, _ = found(replace(cohort, genes=(), patients=tuple(patients)), held_out_predictions(cohort, FOLD))
    assert blind.level == "note"
    assert "of what ridge predicts" not in blind.found


def test_what_cannot_be_checked_is_said() -> None:
    cohort = draw_cohort("random", 0)
    rows = held_out_predictions(cohort, FOLD)
    one = [replace(p, labels={"project": "x" if i > 5 else "y"}) for i, p in enumerate(cohort)]

    few, _ = found(replace(cohort, patients=tuple(one)), rows)
    none, _ = found(replace(cohort, batch=None), rows)

    assert (few.level, none.level) == ("note", "note")
    assert few.found.startswith("project: cannot be checked, fewer than two of its values are shared by 10 test")
    assert none.found == "cannot be checked: neither hospital nor batch of the patients is known"


def test_values_of_too_few_patients_are_said_to_be_left_out() -> None:
    """Of them nothing is known: a batch in a small hospital is not found."""
    cohort = draw_cohort("random", 0)
    rows = held_out_predictions(cohort, FOLD)
    rare = {0: "rare", 1: "rare", 2: "single"}
    some = [replace(p, labels={**p.labels, "project": rare.get(i, p.labels["project"])}) for i, p in enumerate(cohort)]

    finding, table = found(replace(cohort, patients=tuple(some)), rows)

    assert finding.found.endswith("left out are rare, single, of fewer than 10 test patients each")
    assert table["n_patients"].tolist() == [N - 3]
    assert "left out" not in found(cohort, rows)[0].found


def test_what_is_told_worse_than_by_a_guess_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Areas of held-out patients are below one half by chance, and those of permutations further still."""
    told = Told(auc=0.433, auc_within=0.370, p_within=0.030)
    monkeypatch.setattr("subfuse.audit.confounding.confounders.told_by", lambda *_, **__: told)
    cohort = draw_cohort("random", 0)
    finding, _ = found(cohort, held_out_predictions(cohort, FOLD))
    assert "expression is not shown to tell it (AUC 0.433; 0.370 among patients alike" in finding.found


def test_features_of_slides_tell_a_batch(make_cohort) -> None:
    cohort = make_cohort(40)
    patients = [replace(p, labels={"project": "xy"[i % 2]}, expression=None) for i, p in enumerate(cohort)]
    cohort = replace(cohort, patients=tuple(patients), genes=(), batch="project")
    rows = pd.DataFrame({
        "task": "survival", "model": "m", "repeat": 0, "fold": np.arange(40) // 2 % 4, "split": "test",
        "cohort": cohort.name, "patient_id": [p.patient_id for p in patients], "risk": np.arange(40.0),
        "time_days": [p.time_days for p in patients], "event": [p.event for p in patients],
    })  # fmt: skip
    _, table = found(cohort, rows)
    assert table["input"].tolist() == ["slides"]
    assert table["n_patients"].iloc[0] == 39  # one has no slide
    assert table["strongest"].iloc[0].startswith("feature ")


def test_slides_are_read_once_for_all_tasks_and_a_damaged_one_is_named(make_cohort) -> None:
    patient = make_cohort(3).patients[2]
    means = MeanFeatures()
    first = means.of(patient)
    expected = np.concatenate([read_features(path).features.astype(np.float64) for path in patient.slides]).mean(axis=0)
    np.testing.assert_allclose(first, expected)
    for path in patient.slides:
        path.write_bytes(b"damaged")
    np.testing.assert_array_equal(means.of(patient), first)
    with pytest.raises(DataError, match=patient.slides[0].name):
        MeanFeatures().of(patient)


@pytest.mark.real_data
def test_gliomas_scaled_apart_by_project_are_found_without_the_genes_that_tell_it_plainly(real_data: Path) -> None:
    folder = real_data / "tcga_gbmlgg"
    labels = pd.read_csv(folder / "labels.csv", dtype=str).set_index("case_id").sort_index()
    genes = pd.read_csv(folder / "expression_zscores.csv.gz", index_col=0).loc[labels.index]
    every_gene = genes.to_numpy()
    genes = genes.drop(columns=yaml.safe_load(EXAMPLE.read_text())["expression"]["exclude"], errors="ignore")
    fold = pd.Series(-1, index=labels.index)
    for index in range(5):
        fold[pd.read_csv(folder / "splits" / f"splits_{index}.csv")["val"].dropna()] = index
    patients = tuple(
        Patient(name, "tcga", expression=genes.loc[name].to_numpy(np.float32), time_days=float(row["os_days"]),
                event=float(row["os_event"]) == 1, labels={"project": row["project"], "idh": row["idh"]})
        for name, row in labels.iterrows()
    )  # fmt: skip
    tasks = {"survival": TaskSpec(time="time_days", event="event")}
    cohort = Cohort("tcga", patients, tuple(genes), "zscore", gene_sets={}, tasks=tasks, batch="project")
    is_gbm, wildtype = (labels["project"] == "GBM").to_numpy(), (labels["idh"] == "WT").to_numpy()
    kinds = np.eye(2)[is_gbm[wildtype].astype(int)][None]

    finding, table = found(cohort, held_out_predictions(cohort, fold.to_numpy()))

    kinds_of_all, everybody = np.eye(2)[is_gbm.astype(int)][None], np.zeros(len(is_gbm), int)
    scores = held_out_scores(every_gene, kinds_of_all, fold.to_numpy())
    among = held_out_scores(genes.to_numpy()[wildtype], kinds, fold.to_numpy()[wildtype])
    assert stratified_auc(scores, kinds_of_all, everybody)[0] == pytest.approx(0.956, abs=0.01)
    assert table["auc"].iloc[0] == pytest.approx(0.991, abs=0.01)
    assert stratified_auc(among, kinds, np.zeros(wildtype.sum(), int))[0] == pytest.approx(0.998, abs=0.01)
    assert finding.level == "warning"

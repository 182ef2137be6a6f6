"""A cohort with several endpoints, from its tables to a report, other patients and an audit; each has its outcome."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from command_run import BRIEF, evaluate_roughly
from subfuse.cli import main
from subfuse.cohort.cohort import Patient, read_cohort
from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError
from subfuse.preparation.plan import plan_cohort
from subfuse.run_folder.tables import read_predictions

pytestmark = pytest.mark.walk

N = 40
GENES = ["EGFR", "CD44", "TP53", "CD163", "GFAP"]
ENDPOINTS = {
    "pfs": {"time": "pfs_months", "event": "pfs_status"},
    "dss": {"time": "dss_years", "event": "dss", "event_values": {"tumour": "tumour", "fall": "other", "no": False}},
}
TASKS = {
    "survival": {"time": "time_days", "event": "event"},
    "pfs": {"time": "pfs_days", "event": "pfs_event"},
    "dss": {"time": "dss_days", "event": "dss_event", "cause": "tumour"},
}


def tables(folder: Path, *, seed: int = 0) -> pd.DataFrame:
    """Progression follows one gene, death of the disease another; each is unknown for others."""
    random = np.random.default_rng(seed)
    patients = [f"{'ab'[seed]}{i:02}" for i in range(N)]
    values = random.gamma(2, 20, size=(N, len(GENES)))
    times = {
        name: np.exp(2.5 - 0.02 * values[:, k] + random.normal(size=N)) for k, name in enumerate(("pfs", "dss", "os"))
    }
    clinical = pd.DataFrame(
        {
            "patient_id": patients,
            "days": (times["os"] * 200).round(),
            "dead": random.random(N) < 0.6,
            "pfs_months": times["pfs"].round(2),
            "pfs_status": np.where(random.random(N) < 0.7, "1:PROGRESSION", "0:CENSORED"),
            "dss_years": (times["dss"] / 3).round(3),
            "dss": random.choice(["tumour", "fall", "no"], N, p=[0.6, 0.2, 0.2]),
            "age": random.integers(30, 80, N),
        }
    )
    clinical.loc[[0, 1], ["pfs_months", "pfs_status"]] = None
    clinical.loc[[2, 3, 4], ["dss_years", "dss"]] = None
    clinical.to_csv(folder / "patients.csv", index=False)
    pd.DataFrame(values, index=patients, columns=GENES).to_csv(folder / "rna.csv", index_label="patient_id")
    return clinical


def cohort_file(folder: Path, **changes: object) -> Path:
    columns = {"patient_id": "patient_id", "time_days": "days", "event": "dead", "age": "age"}
    columns |= {name: name for endpoint in ENDPOINTS.values() for name in (endpoint["time"], endpoint["event"])}
    units = {"pfs": {"time_unit": "months"}, "dss": {"time_unit": "years"}}
    content = {
        "name": "several",
        "patients": {
            "table": "patients.csv",
            "columns": columns,
            "endpoints": {name: endpoint | units[name] for name, endpoint in ENDPOINTS.items()},
        },
        "expression": {"table": "rna.csv", "unit": "tpm"},
        "gene_sets": {"tumour": "sets.gmt", "microenvironment": {"gmt": "sets.gmt", "sets": ["microenvironment"]}},
        "covariates": ["age"],
        "splits": {"folds": 2, "validation": 0.3},
    }
    (folder / "sets.gmt").write_text("A\td\tEGFR\tCD44\tTP53\nmicroenvironment\td\tTP53\tCD163\tGFAP\n")
    path = folder / "cohort.yaml"
    path.write_text(yaml.safe_dump(content | changes, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `cohort`, what is prepared from it, a run, and another cohort that lacks one endpoint."""
    root = tmp_path_factory.mktemp("endpoints")
    for name in ("cohort", "other"):
        (root / name).mkdir()
    clinical = tables(root / "cohort")
    file = cohort_file(root / "cohort", tasks=TASKS)
    clinical.to_pickle(root / "clinical.pkl")
    tables(root / "other", seed=1)
    content = yaml.safe_load(cohort_file(root / "other", role="external", name="other").read_text())
    del content["patients"]["endpoints"]["dss"]
    (root / "other" / "cohort.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        evaluate_roughly(patch)
        assert main(["check", str(file)]) == 0
        for name in ("cohort", "other"):
            out = str(root / f"prepared-{name}")
            assert main(["prepare", str(root / name / "cohort.yaml"), "--out", out]) == 0
        run = ["crossval", str(root / "prepared-cohort"), "--out", str(root / "run"), "--workers", "1"]
        assert main([*run, "--models", "snn", "cox", *BRIEF]) == 0
    return root


def test_every_endpoint_is_a_task_with_its_own_outcome(folder) -> None:
    cohort = read_cohort(folder / "prepared-cohort")
    assert list(cohort.tasks) == ["survival", "pfs", "dss"]
    given = pd.read_pickle(folder / "clinical.pkl").set_index("patient_id")
    table = read_predictions(folder / "run" / "predictions.csv")
    tested = table[(table["split"] == "test") & (table["model"] == "cox")]
    expected = {
        "survival": (given["days"], given["dead"]),
        "pfs": (given["pfs_months"] * 30.4375, given["pfs_status"] == "1:PROGRESSION"),
        "dss": (given["dss_years"] * 365.25, given["dss"] == "tumour"),
    }
    for task, (days, event) in expected.items():
        rows = tested[tested["task"] == task].set_index("patient_id")
        assert set(rows.index) == set(days.dropna().index)
        np.testing.assert_allclose(rows["time_days"], days[rows.index])
        assert rows["event"].astype(bool).tolist() == event[rows.index].tolist()
    is_dss = table["task"] == "dss"
    assert table.loc[~is_dss, "competing"].isna().all()
    fell = table[is_dss].set_index("patient_id")["competing"].astype(bool)
    assert fell.tolist() == (given.loc[fell.index, "dss"] == "fall").tolist()


def test_metrics_and_report_speak_of_every_endpoint(folder) -> None:
    metrics = pd.read_csv(folder / "run" / "metrics.csv")
    assert set(metrics["task"]) == {"survival", "pfs", "dss"}
    report = (folder / "run" / "report.html").read_text()
    assert all(task in report for task in ("survival", "pfs", "dss"))
    assert report.count("Cause-specific: who had an event of another cause counts as censored") == 1
    assert report.count('aria-label="Cumulative incidence (Aalen-Johansen) of predicted risk groups') == 1
    assert main(["audit", str(folder / "run")]) in (0, 1)


def test_other_patients_are_predicted_for_endpoints_that_nobody_followed(folder, tmp_path) -> None:
    other = str(folder / "prepared-other")
    assert list(read_cohort(folder / "prepared-other").tasks) == ["survival", "pfs"]
    command = ["--cohort", other, "--model", "cox", "--out", str(tmp_path / "p.csv")]
    assert main(["predict", str(folder / "run"), *command]) == 0
    predicted = read_predictions(tmp_path / "p.csv")
    known = predicted.groupby("task")["event"].count()
    assert known["dss"] == 0
    assert known["pfs"] > known["dss"]
    assert predicted[predicted["task"] == "dss"]["risk"].notna().all()
    assert main(["evaluate", str(folder / "run"), "--cohort", other, "--out", str(tmp_path / "external")]) == 0
    metrics = pd.read_csv(tmp_path / "external" / "metrics.csv")
    assert {"survival", "pfs"} <= set(metrics.dropna(subset="value")["task"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"x": {"time": "pfi_days", "event": "pfi_event"}}}, "tasks.x: a follow-up .* `time: dss_days`"),
        ({"covariates": ["pfs_event"]}, "covariates: pfs_event is an outcome"),
        ({"batch": "dss_days"}, "batch: dss_days is an outcome"),
        ({"strata": ["dss_event_cause"]}, "strata: dss_event_cause is an outcome"),
        (
            {"tasks": {"x": TASKS["dss"] | {"cause": "fall"}}},
            "tasks.x.cause: a cause of dss_event .* Found 'fall', and there tumour, other",
        ),
        ({"tasks": {"x": TASKS["pfs"] | {"cause": "fall"}}}, "Found 'fall', and there no causes"),
    ],
)
def test_an_endpoint_is_an_outcome_and_must_be_declared(tmp_path, changes, message) -> None:
    tables(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        read_cohort_file(cohort_file(tmp_path, **changes))


def test_an_endpoint_without_events_is_left_out_or_refused_where_it_is_declared(tmp_path) -> None:
    clinical = tables(tmp_path)
    clinical.assign(dss="no").to_csv(tmp_path / "patients.csv", index=False)
    plan = plan_cohort(read_cohort_file(cohort_file(tmp_path)))
    assert list(plan.tasks) == ["survival", "pfs"]
    assert "dss_event_cause" in plan.patients
    (said,) = [text for text in plan.warnings if text.startswith("tasks.dss")]
    assert "patients with an event are required" in said
    assert "Found 37 with a follow-up and no event" in said
    declared = cohort_file(tmp_path, tasks={"dss": {"time": "dss_days", "event": "dss_event"}})
    with pytest.raises(DataError, match=r"tasks\.dss: patients with an event are required"):
        plan_cohort(read_cohort_file(declared))


def test_a_cause_that_nobody_had_names_those_that_there_are(tmp_path) -> None:
    clinical = tables(tmp_path)
    clinical.replace({"dss": {"fall": "tumour"}}).to_csv(tmp_path / "patients.csv", index=False)
    path = cohort_file(tmp_path, tasks={"falls": {"time": "dss_days", "event": "dss_event", "cause": "other"}})
    said = r"tasks.falls: patients whose event is other are required. Found tumour: \d+ among 37 with a follow-up"
    with pytest.raises(DataError, match=said):
        plan_cohort(read_cohort_file(path))


def test_a_unit_that_is_wrong_is_told_of_the_endpoint(tmp_path) -> None:
    tables(tmp_path)
    content = yaml.safe_load(cohort_file(tmp_path).read_text())
    content["patients"]["endpoints"]["pfs"]["time_unit"] = "days"
    said = plan_cohort(read_cohort_file(cohort_file(tmp_path, patients=content["patients"]))).warnings
    assert any(text.startswith("pfs: time_days looks like years") or "endpoints.pfs.time_unit" in text for text in said)


def test_columns_that_are_no_endpoint_are_no_outcome() -> None:
    task = TaskSpec(time="pfs_days", event="pfs_event")
    assert Patient("a", "c", labels={"pfs_days": "30.5", "pfs_event": "True"}).outcome(task) == (30.5, True)
    assert Patient("a", "c").outcome(task) == (None, None)
    with pytest.raises(DataError, match=r"Found 30 and 1\. Declare it under `endpoints`"):
        Patient("a", "c", labels={"pfs_days": "30", "pfs_event": "1"}).outcome(task)


def test_who_had_an_event_of_another_cause_is_censored_and_without_causes_unknown() -> None:
    task = TaskSpec(time="dss_days", event="dss_event", cause="tumour")
    follow_up = {"dss_days": "30.5", "dss_event": "True"}
    of = {cause: Patient("a", "c", labels=follow_up | {"dss_event_cause": cause}) for cause in ("tumour", "other")}
    assert [of[cause].outcome(task) for cause in of] == [(30.5, True), (30.5, False)]
    assert [task.of_other_cause(of[cause].labels) for cause in of] == [False, True]
    assert Patient("a", "c", labels=follow_up).outcome(task) == (30.5, None)
    assert not Patient("a", "c", labels=follow_up).has_outcome(task)
    own = TaskSpec(time="time_days", event="event", cause="tumour")
    assert Patient("a", "c", time_days=3.0, event=True, labels={"event_cause": "censored"}).outcome(own) == (3.0, False)
    assert TaskSpec(time="time_days", event="event").of_other_cause({"event_cause": "other"}) is None

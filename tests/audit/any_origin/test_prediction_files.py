"""Predictions of others from several files: the same patients, folds and outcomes for all models."""

import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import cohort, predictions

from subfuse.audit.any_origin.any_table import auditable
from subfuse.audit.any_origin.prediction_files import audit_files, read_prediction_files
from subfuse.audit.audit import audit_predictions
from subfuse.cli import main
from subfuse.errors import ConfigurationError, DataError

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
COLUMNS = {"slide_id": "patient_id", "survival": "time_months", "censorship": "censored"}
N = 90


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    patients = cohort(n=N).assign(idh=np.resize(["wildtype", "mutant"], N))
    return patients.assign(patient_id=[f"TCGA-{i % 3:02d}-{i:04d}" for i in range(N)])


@pytest.fixture
def folder(tmp_path: Path, people: pd.DataFrame) -> Path:
    """Our predictions, a clinical model's, those of a project like MCAT, and the patients."""
    ours = predictions(people, noise=0.5)
    ours.drop(columns="label").to_csv(tmp_path / "ours.csv", index=False)
    tested = ours[ours["split"] == "test"]
    clinical = predictions(people, noise=3.0, seed=2)
    clinical = clinical[clinical["split"] == "test"][["patient_id", "risk", "fold"]]
    clinical.assign(fold="f" + clinical["fold"].astype(str)).to_csv(tmp_path / "clinical.csv", index=False)
    dumped = pd.DataFrame(
        {
            "slide_id": [f"{p.lower()}-01z-00-dx1.0f3a" for p in tested["patient_id"]],
            "risk": -np.log(tested["time_days"]) + np.sin(np.arange(N)),
            "disc_label": 0,
            "survival": (tested["time_days"] / 30.4375).round(2),
            "censorship": 1 - tested["event"].astype(int),
        }
    )
    dumped.to_csv(tmp_path / "mcat.csv", index=False)
    people[["patient_id", "time_days", "event", "idh"]].to_csv(tmp_path / "patients.csv", index=False)
    return tmp_path


def read(folder: Path, *names: str, **options):
    return read_prediction_files([folder / f"{name}.csv" for name in names], **options)


def change(path: Path, **columns) -> None:
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)


def test_every_file_has_the_same_patients_folds_and_outcomes(folder: Path, people: pd.DataFrame) -> None:
    found = read(folder, "ours", "clinical", "mcat", patients=folder / "patients.csv", columns=COLUMNS)

    tested = found.predictions[found.predictions["split"] == "test"]
    expected = people.set_index("patient_id")
    assert set(tested["model"]) == {"subspace", "clinical", "mcat"}
    assert set(tested["task"]) == {"survival"}
    for _, rows in tested.groupby("model"):
        rows = rows.set_index("patient_id").loc[expected.index]
        assert rows["fold"].tolist() == expected["fold_tested"].tolist()
        assert rows["time_days"].astype(float).tolist() == expected["time_days"].tolist()
        assert rows["event"].tolist() == expected["event"].tolist()
    (finding,) = found.findings
    assert finding.found == "mcat.csv has no folds: its patients are ranked within those of ours.csv"
    assert set(tested.loc[tested["model"] == "mcat", "split"]) == {"test"}


def test_months_and_censoring_are_those_of_the_patients(folder: Path, people: pd.DataFrame) -> None:
    found = read(folder, "mcat", columns=COLUMNS).predictions.set_index("patient_id").loc[people["patient_id"]]

    assert found["event"].tolist() == people["event"].tolist()
    assert found["time_days"].to_numpy() == pytest.approx(people["time_days"].to_numpy(), abs=0.2)


def test_models_are_ranked_by_what_they_add_and_strata_are_shown(folder: Path, capsys: pytest.CaptureFixture) -> None:
    files = [str(folder / f"{name}.csv") for name in ("mcat", "ours", "clinical")]
    code = main(["audit", *files, "--patients", str(folder / "patients.csv"), "--strata", "idh",
                 "--columns", json.dumps(COLUMNS), "--modalities", '{"clinical": ["covariates"]}'])  # fmt: skip

    shown = capsys.readouterr().out
    content = json.loads((folder / "audit.json").read_text())
    added = content["tables"]["added_value"]
    assert code == 0
    assert {row["model"] for row in added} == {"mcat", "subspace"}
    assert [row["difference"] for row in added] == sorted((row["difference"] for row in added), reverse=True)
    assert {row["n_patients"] for row in added} == {N}
    assert {row["stratum"] for row in content["tables"]["strata"] if row["column"] == "idh"} == {"mutant", "wildtype"}
    assert "survival: Subspace fusion adds to Clinical model (C-index +" in shown
    assert "What the models add" in shown


def test_one_file_is_audited_as_its_table(folder: Path) -> None:
    table = pd.read_csv(folder / "ours.csv")
    known, found = audit_predictions(table, n_bootstrap=20), audit_files([folder / "ours.csv"], n_bootstrap=20)
    assert found.findings == known.findings


def test_patients_whom_a_file_lacks_are_said(folder: Path) -> None:
    clinical = pd.read_csv(folder / "clinical.csv")
    clinical.iloc[7:].to_csv(folder / "clinical.csv", index=False)

    (finding,) = read(folder, "ours", "clinical").findings
    assert finding.found.startswith(f"clinical.csv lacks 7 of {N} patients (TCGA-")
    clinical.assign(patient_id="other-" + clinical["patient_id"]).to_csv(folder / "clinical.csv", index=False)
    with pytest.raises(
        DataError, match=r"clinical.csv: outcomes of task survival are required .time_days, event.*other-TCGA"
    ):
        read(folder, "ours", "clinical")
    change(folder / "clinical.csv", time_days=5, event=True)
    with pytest.raises(DataError, match="patients that both predict are required"):
        read(folder, "ours", "clinical")


def test_contradicting_outcomes_are_refused_by_name(folder: Path, people: pd.DataFrame) -> None:
    mcat = pd.read_csv(folder / "mcat.csv")
    change(folder / "mcat.csv", survival=mcat["survival"] * 1.01)
    read(folder, "ours", "mcat", columns=COLUMNS)  # a month of another length
    flipped = mcat["censorship"].where(mcat.index != 3, 1 - mcat["censorship"])
    change(folder / "mcat.csv", censorship=flipped)
    patient = mcat["slide_id"][3][:12].upper()

    with pytest.raises(DataError, match=f"mcat.csv and .*ours.csv: the same outcome is required.*for {patient}"):
        read(folder, "ours", "mcat", columns=COLUMNS)


def test_other_folds_are_a_warning(folder: Path) -> None:
    clinical = pd.read_csv(folder / "clinical.csv")
    change(folder / "clinical.csv", fold=np.arange(N) % 3)

    (finding,) = read(folder, "ours", "clinical").findings
    assert (finding.level, len(clinical)) == ("warning", N)
    assert finding.found.startswith("clinical.csv has other folds than ours.csv: ")


@pytest.mark.parametrize(("options", "message"), [
    ({"columns": {"hazard": "risk"}}, "column hazard is in none of the files"),
    ({"columns": {"fold": "risk"}}, "risk must be one column of"),
    ({"strata": ["grade"]}, "strata: a table of the patients is required. Found none with grade"),
])  # fmt: skip
def test_wrong_usage_is_said(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        audit_files([folder / "ours.csv", folder / "clinical.csv"], **options)


@pytest.mark.parametrize(("text", "message"), [
    ("patient_id;risk\nA;0,5\n", r"columns separated by commas .* 'patient_id;risk'\. Semicolons seem to"),
    ("patient_id\trisk\nA\t1\n", r"columns separated by commas .* Save the table as CSV with commas"),
    ("", "patients.csv: "),
    ("patient_id,risk\n", r"patients.csv: a row for each patient is required. Found the header alone"),
    (None, r"a readable table is required\. Found: No such file"),
    ("patient_id,p_x,label\nA,1,x\n", r"p_<class> of each class is required\. Found patient_id, p_x, label\. "),
    ("patient_id,risk\nA,1\nB,2\n", r"patients.csv: outcomes of task survival .* none .*: A, B; outcomes: none"),
    ("patient_id,risk\nA,1\n,2\n,3\n", r"patients.csv, row 3: a patient identifier .*none, and 1 more such row\."),
])  # fmt: skip
def test_files_that_cannot_be_read_say_what_they_lack(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "patients.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        read_prediction_files([path])
    assert "model" not in str(raised.value)
    assert "0 more" not in str(raised.value)


def test_a_file_given_twice_is_refused_however_it_is_named(folder: Path) -> None:
    (folder / "copy.csv").write_bytes((folder / "ours.csv").read_bytes())
    for again in (f"../{folder.name}/ours", "copy"):
        with pytest.raises(
            ConfigurationError, match=r"every file must be given once\. Found .*\.csv with the same .*ours"
        ):
            read(folder, "ours", "clinical", again)


def test_a_task_without_outcomes_is_left_out_and_the_others_are_audited(folder: Path, people: pd.DataFrame) -> None:
    """As `predict` writes them: both tasks in one file, means of new patients."""
    ids = people["patient_id"]
    survival = pd.DataFrame({"patient_id": ids, "task": "survival", "risk": np.arange(N), "fold": "mean"})
    diagnosis = pd.DataFrame({"patient_id": ids, "task": "diagnosis", "p_x": 0.5, "p_y": 0.5, "fold": "mean"})
    pd.concat([survival, diagnosis]).assign(split="new", label=None).to_csv(folder / "new.csv", index=False)

    found = read(folder, "new", patients=folder / "patients.csv")
    assert set(found.predictions["task"]) == {"survival"}
    assert [f.found for f in found.findings] == [
        "task diagnosis is left out: neither the files nor --patients have its label"
    ]
    assert auditable(found.predictions)[0]["split"].eq("test").sum() == N
    people[["patient_id", "idh"]].to_csv(folder / "patients.csv", index=False)
    with pytest.raises(DataError, match="outcomes of task diagnosis are required"):
        read(folder, "new", patients=folder / "patients.csv")


def test_outcomes_of_other_identifiers_name_the_nearest(folder: Path, people: pd.DataFrame) -> None:
    predicted = pd.DataFrame({"patient_id": [f"P{i:02d}" for i in range(9)], "risk": np.arange(9.0)})
    predicted.to_csv(folder / "ours.csv", index=False)
    people[:9].assign(patient_id=[f"p-{i}" for i in range(9)]).to_csv(folder / "patients.csv", index=False)
    with pytest.raises(DataError, match=r"nearest: P00 and p-0, which differ only in case, zeros or separators"):
        read(folder, "ours", patients=folder / "patients.csv")


def test_labels_agree_however_they_are_written_and_words_for_unknown_are_no_answer(folder: Path) -> None:
    predicted = pd.DataFrame({"patient_id": ["A", "B", "C"], "label": ["1", "0", "1"], "p_1": 0.5, "p_0": 0.5})
    predicted.to_csv(folder / "ours.csv", index=False)
    predicted.assign(label=["1.0", "0.0", "unknown"]).to_csv(folder / "patients.csv", index=False)
    found = read(folder, "ours", patients=folder / "patients.csv").predictions
    assert found["label"].tolist() == ["1", "0", "1"]


def test_a_patient_of_two_outcomes_in_one_file_is_not_settled_in_silence(folder: Path) -> None:
    ours = pd.read_csv(folder / "ours.csv")
    ours.loc[0, "time_days"] += 500
    ours.to_csv(folder / "ours.csv", index=False)
    with pytest.raises(DataError, match=r"ours.csv: rows of one patient must agree. Found time_days 518.0, 18.0 for"):
        read(folder, "ours", "clinical")


def test_a_model_in_two_files_and_a_file_without_predictions_are_named(folder: Path) -> None:
    pd.read_csv(folder / "clinical.csv").assign(model="subspace").to_csv(folder / "clinical.csv", index=False)
    with pytest.raises(ConfigurationError, match=r"Found subspace in .*ours.csv and .*clinical.csv"):
        read(folder, "ours", "clinical")
    with pytest.raises(DataError, match=r"patients.csv: a column risk \(higher is worse\) or p_<class>"):
        read(folder, "ours", "patients")
    with pytest.raises(DataError, match=r"mcat.csv: the column patient_id is required"):
        read(folder, "ours", "mcat")


def test_rows_of_one_patient_agree_in_what_is_read_or_are_refused(folder: Path) -> None:
    people = pd.read_csv(folder / "patients.csv").assign(age=50.0, sample="01A", stage="I")
    path = folder / "patients.csv"
    pd.concat([people.assign(age=np.nan, idh=np.nan), people.assign(sample="02A")]).to_csv(path, index=False)
    joined = read(folder, "ours", patients=path).patients
    assert joined is not None
    assert joined["patient_id"].is_unique
    assert (joined["age"] == 50).all()
    assert joined["idh"].tolist() == people["idh"].tolist()
    for column, value in {"time_days": 1.0, "age": 51.0, "stage": "II"}.items():
        pd.concat([people, people.iloc[:2].assign(**{column: value})]).to_csv(path, index=False)
        found = rf"rows of one patient must agree. Found {column} .*, {value} for patient TCGA-.*, and 1 more such pat"
        with pytest.raises(DataError, match=found):
            read(folder, "ours", patients=path, strata=["stage"])
    people.assign(Age="x").to_csv(path, index=False)
    with pytest.raises(ConfigurationError, match=r"must differ in more than case\. Found age, Age"):
        read(folder, "ours", patients=path)


def test_the_commands_of_the_page_run(tmp_path: Path, people: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up file that the page shows, continued, is audited by the command that the page shows."""
    section = PAGE.split("### Predictions of other projects")[1].split("\n##")[0]
    shown = dict(re.findall(r"`(\w+\.csv)`:\n\n```text\n(.*?)```", section, re.DOTALL))
    (command,) = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    draw = np.random.default_rng(0)
    for name, text in shown.items():
        rows = pd.read_csv(io.StringIO(text))
        first, more = rows.iloc[0], pd.DataFrame([rows.iloc[0]] * N).astype(rows.dtypes)
        identifier = rows.columns[0]
        more[identifier] = [p + str(first[identifier])[12:] for p in people["patient_id"]]
        known = {"survival": (people["time_days"] / 30.4375).round(2), "censorship": 1 - people["event"],
                 "OS.time": people["time_days"], "OS": people["event"].astype(int), "idh": people["idh"],
                 "fold": people["fold_tested"]}  # fmt: skip
        for column in {*rows} & {*known}:
            more[column] = known[column].to_numpy()
        for column in [column for column in rows if column.startswith("risk")]:
            more[column] = draw.normal(size=N)
        pd.concat([rows, more]).to_csv(tmp_path / name, index=False)
    monkeypatch.chdir(tmp_path)

    assert set(shown) == {"mcat.csv", "clinical.csv", "patients.csv"}
    assert main(shlex.split(command.replace("\\\n", " "))[1:]) == 0
    tables = json.loads((tmp_path / "audit.json").read_text())["tables"]
    assert [row["model"] for row in tables["added_value"]] == ["mcat"]
    assert {row["column"] for row in tables["strata"]} >= {"idh"}


def test_samples_of_normal_tissue_are_refused(folder: Path) -> None:
    table = pd.read_csv(folder / "mcat.csv")
    table.loc[3, "slide_id"] = "TCGA-00-0003-11A-01R"
    table.to_csv(folder / "mcat.csv", index=False)
    with pytest.raises(DataError, match=r"row 5: a sample of the tumour .* TCGA-00-0003-11A-01R, which is normal"):
        read(folder, "mcat", columns=COLUMNS)

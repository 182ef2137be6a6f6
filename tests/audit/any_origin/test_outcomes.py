"""Outcomes of several files: the same for a patient wherever they stand, or refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from foreign_files import COLUMNS, N, change, read

from subfuse.audit.any_origin.any_table import auditable
from subfuse.errors import ConfigurationError, DataError


def test_months_and_censoring_are_those_of_the_patients(folder: Path, people: pd.DataFrame) -> None:
    found = read(folder, "mcat", columns=COLUMNS).predictions.set_index("patient_id").loc[people["patient_id"]]

    assert found["event"].tolist() == people["event"].tolist()
    assert found["time_days"].to_numpy() == pytest.approx(people["time_days"].to_numpy(), abs=0.2)


def test_contradicting_outcomes_are_refused_by_name(folder: Path, people: pd.DataFrame) -> None:
    mcat = pd.read_csv(folder / "mcat.csv")
    change(folder / "mcat.csv", survival=mcat["survival"] * 1.01)
    read(folder, "ours", "mcat", columns=COLUMNS)  # a month of another length
    flipped = mcat["censorship"].where(mcat.index != 3, 1 - mcat["censorship"])
    change(folder / "mcat.csv", censorship=flipped)
    patient = mcat["slide_id"][3][:12].upper()

    with pytest.raises(
        DataError, match=f"mcat.csv and .*ours.csv: the same outcome is required.*for {patient}.*column task"
    ):
        read(folder, "ours", "mcat", columns=COLUMNS)


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

"""Predictions of others from several files: the same patients, folds and outcomes for all models."""

import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from foreign_files import COLUMNS, N, change, read

from subfuse.audit.any_origin.prediction_files import audit_files, read_prediction_files
from subfuse.audit.audit import audit_predictions
from subfuse.cli import main
from subfuse.errors import ConfigurationError, DataError

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")


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


def test_every_model_is_looked_at_whichever_file_comes_first(folder: Path, people: pd.DataFrame) -> None:
    """Of two risks of others one is the hospital, and a little noise."""
    site = people["patient_id"].str[5:7]
    stage = np.where(np.arange(N) % 2 > 0, "late", "early")
    told = people[["patient_id", "time_days", "event"]].assign(stage=stage)
    told.to_csv(folder / "patients.csv", index=False)
    noise = np.random.default_rng(3).normal(size=N)
    hospital = people.assign(risk=site.map({"00": 0.0, "01": 2.0, "02": 5.0}) + 0.1 * noise, fold=people["fold_tested"])
    columns = ["patient_id", "risk", "fold", "time_days", "event"]
    hospital[columns].to_csv(folder / "hospital.csv", index=False)
    honest = hospital.assign(risk=-np.log(people["time_days"]) + noise)
    honest[columns].to_csv(folder / "honest.csv", index=False)

    found = {}
    for order in (("honest", "hospital"), ("hospital", "honest")):
        paths = [folder / f"{name}.csv" for name in order]
        audit = audit_files(paths, patients=folder / "patients.csv", strata=["stage"], n_bootstrap=20)
        found[order] = {f.model for f in audit.findings if f.check == "confounding" and f.level == "warning"}
        for table in ("strata", "pairs", "confounders", "decision_curves"):
            assert {"honest", "hospital"} <= {*audit.tables[table]["model"]}, table
        assert len(set(audit.findings)) == len(audit.findings)
    assert list(found.values()) == [{"hospital"}, {"hospital"}]


def test_one_file_is_audited_as_its_table(folder: Path) -> None:
    table = pd.read_csv(folder / "ours.csv")
    known, found = audit_predictions(table, n_bootstrap=20), audit_files([folder / "ours.csv"], n_bootstrap=20)
    assert found.findings == known.findings


def test_wholly_empty_rows_are_left_out(folder: Path) -> None:
    before = read(folder, "ours", "clinical", patients=folder / "patients.csv")
    for name in ("clinical.csv", "patients.csv"):
        header, *rows = (folder / name).read_text().splitlines()
        empty = "," * header.count(",")
        (folder / name).write_text("\n".join([header, empty, *rows, empty]) + "\n")

    after = read(folder, "ours", "clinical", patients=folder / "patients.csv")
    assert after.findings == before.findings
    pd.testing.assert_frame_equal(after.predictions, before.predictions)


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
    with pytest.raises(
        DataError, match=r"patients that both predict are required.* must be one file with a column fold"
    ):
        read(folder, "ours", "clinical")


@pytest.mark.parametrize(("options", "message"), [
    ({"columns": {"hazard": "risk"}}, "column hazard is in none of the files"),
    ({"columns": {"fold": "risk"}}, "risk must be one column of"),
    ({"columns": {"Censorship": "event"}}, "a column whose 1 means .* Found Censorship, .* Name it censored; or"),
    ({"strata": ["grade"]}, "strata: a table of the patients is required. Found none with grade"),
])  # fmt: skip
def test_wrong_usage_is_said(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        audit_files([folder / "ours.csv", folder / "clinical.csv"], **options)


@pytest.mark.parametrize(("text", "message"), [
    ("patient_id|risk\nA|0.5\n", r"columns separated by commas .* 'patient_id\|risk'\. Vertical bars seem to"),
    ("patient_id\trisk\nA\t1\n", r"columns separated by commas .* Save the table as CSV with commas"),
    ("gene" + "\tTCGA-02-0001" * 900 + "\nEGFR\n", r"columns separated by commas .{200,300}\.\.\.'\. Save the table"),
    ("", "patients.csv: "),
    ("patient_id,risk\n", r"patients.csv: a row for each patient is required. Found the header alone"),
    ("patient_id,risk,time_days,time_months,event\nA,1,9,3,1\n", "tells the time .*Found time_days, time_months"),
    ("patient_id,risk,time_days,event,censored\nA,1,9,1,1\n", "tells the event .*Found event, censored. Keep one"),
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


def test_a_model_in_two_files_and_a_file_without_predictions_are_named(folder: Path) -> None:
    pd.read_csv(folder / "clinical.csv").assign(model="subspace").to_csv(folder / "clinical.csv", index=False)
    with pytest.raises(ConfigurationError, match=r"Found subspace in .*ours.csv and .*clinical.csv"):
        read(folder, "ours", "clinical")
    with pytest.raises(DataError, match=r"patients.csv: a column risk \(higher is worse\), predicted_value or p_"):
        read(folder, "ours", "patients")
    with pytest.raises(DataError, match=r"mcat.csv: the column patient_id is required"):
        read(folder, "ours", "mcat")


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


def test_words_of_what_happened_are_events_whatever_their_column_is_called_and_signs_are_not(folder: Path) -> None:
    ours = pd.read_csv(folder / "ours.csv")
    columns = {"alive": "event"}
    words = ours.drop(columns="event").assign(alive=ours["event"].map({True: "Dead", False: "Alive"}))
    words.to_csv(folder / "words.csv", index=False)
    assert read(folder, "words", columns=columns).predictions["event"].tolist() == ours["event"].tolist()
    words.assign(alive=1 - ours["event"].astype(int)).to_csv(folder / "signs.csv", index=False)
    with pytest.raises(ConfigurationError, match="Found alive, by its name the opposite"):
        read(folder, "signs", columns=columns)


def test_paths_may_be_text(folder: Path) -> None:
    found = audit_files([str(folder / "ours.csv")], patients=str(folder / "patients.csv"), n_bootstrap=5)
    assert found.findings

"""One prepared folder of patients to develop on and of external ones: every command takes and says the same roles."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from subfuse.audit.audit import audit_run
from subfuse.cli import main
from subfuse.cohort.cohort import read_cohort
from subfuse.errors import ConfigurationError
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.run import load_run
from subfuse.serve import server
from subfuse.serve.run_reader import open_run

pytestmark = pytest.mark.walk

SIZES = {"here": 24, "there": 10}
NOT_TAKEN = {"develop": "there (external)", "external": "here (develop)"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort `here` to develop on and the external `there` in one prepared folder, and a Cox model of the first."""
    folder, random = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    for cohort, n in SIZES.items():
        names = [f"{cohort}{i:02d}" for i in range(n)]
        latent = random.normal(size=n)
        time = np.round(500 * np.exp(-latent / 2 + random.normal(size=n))) + 1
        pd.DataFrame({"patient_id": names, "time_days": time, "event": [i % 4 > 0 for i in range(n)]}).to_csv(
            folder / f"{cohort}.csv", index=False
        )
        values = np.exp(random.normal(size=(n, 6)) + latent[:, None])
        table = pd.DataFrame(values.round(3), index=names, columns=[f"G{i}" for i in range(6)])
        table.to_csv(folder / f"{cohort}_rna.csv", index_label="case")
    (folder / "sets.gmt").write_text("A\td\tG0\tG1\tG2\tG3\n")
    members = [
        {
            "name": cohort,
            "role": role,
            "patients": {"table": f"{cohort}.csv"},
            "expression": {"table": f"{cohort}_rna.csv", "unit": "tpm"},
        }
        for cohort, role in zip(SIZES, ("develop", "external"), strict=True)
    ]
    content = {
        "name": "mixed",
        "cohorts": members,
        "gene_sets": {"tumour": "sets.gmt"},
        "tasks": {"survival": {"time": "time_days", "event": "event"}},
        "splits": {"folds": 2},
    }
    (folder / "cohort.yaml").write_text(yaml.safe_dump(content))
    assert main(["prepare", str(folder / "cohort.yaml"), "--out", str(folder / "prepared")]) == 0
    cross_validate(read_cohort(folder / "prepared"), task="survival", models=["cox"], out=folder / "run")
    return folder


def said_by(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """Runs a command that succeeds and returns what it says of its cohort."""
    capsys.readouterr()
    assert main([str(part) for part in command]) == 0
    shown = capsys.readouterr()
    print(shown.out)
    lines = [line for line in shown.err.splitlines() if line.startswith("Cohort: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("role", "cohort"),
    [(None, "there"), ("external", "there"), ("there", "there"), ("develop", "here"), ("here", "here")],
)
def test_predict_takes_the_external_cohort_or_that_of_the_role(folder, tmp_path, capsys, role, cohort):
    options = () if role is None else ("--role", role)
    command = ("predict", folder / "run", "--model", "cox", "--cohort", folder / "prepared", *options)
    out = tmp_path / "new.csv"
    said = said_by(capsys, *command, "--out", out)
    kind = "develop" if cohort == "here" else "external"
    assert said == (
        f"Cohort: {cohort} ({kind}), {SIZES[cohort]} patients. Not taken: {NOT_TAKEN[kind]}; choose with --role"
    )
    predicted = pd.read_csv(out)
    assert set(predicted["cohort"]) == {cohort}
    assert predicted["patient_id"].nunique() == SIZES[cohort]


def test_evaluate_measures_external_patients_and_refuses_those_of_the_run(folder, tmp_path, capsys):
    command = ("evaluate", folder / "run", "--cohort", folder / "prepared")
    said = said_by(capsys, *command, "--out", tmp_path / "external")
    assert said.startswith("Cohort: there (external), 10 patients. Not taken: here (develop)")
    assert "The audit found" in capsys.readouterr().out
    tested = pd.read_csv(tmp_path / "external" / "predictions.csv").query("split == 'test'")
    assert set(tested["cohort"]) == {"there"}
    assert main([*map(str, command), "--role", "develop", "--out", str(tmp_path / "own")]) == 3
    assert "took part in the run. Choose another --cohort or --role" in capsys.readouterr().err
    assert main([*map(str, command), "--role", "nowhere", "--out", str(tmp_path / "none")]) == 2
    assert "cohorts: here (develop), there (external)" in capsys.readouterr().err


def test_explain_finds_external_patients_of_the_runs_own_folder(folder, tmp_path, capsys):
    command = ("explain", folder / "run", "--model", "cox", "--patient")
    said = said_by(capsys, *command, "here03", "--out", tmp_path / "a")
    assert said.startswith("Cohort: here (develop), 24 patients. Not taken: there (external); choose with --role")
    said_by(capsys, *command, "there03", "--role", "external", "--out", tmp_path / "b")
    said_by(capsys, *command, "there03", "--cohort", folder / "prepared", "--out", tmp_path / "c")
    same = [pd.read_csv(tmp_path / name / "survival" / "genes.csv") for name in "bc"]
    pd.testing.assert_frame_equal(*same)
    assert main([*map(str, command), "there03", "--out", str(tmp_path / "d")]) == 3
    assert (
        "is not in cohort 'here', but in there of the same folder. Choose it with --role there."
        in capsys.readouterr().err
    )
    assert main(["explain", str(folder / "run"), "--patient", "here03"]) == 2  # there is no main model
    assert (
        "has no model subspace. Name one that it has with --model (model= in Python): cox." in capsys.readouterr().err
    )
    with pytest.raises(ConfigurationError, match=r"has no model cox for task grade\. Its tasks: survival\."):
        list(load_run(folder / "run").jobs(model="cox", task="grade"))


def test_serve_shows_and_explains_external_patients(folder, tmp_path, capsys, monkeypatch):
    reader = open_run(folder / "run", role="external")
    assert {patient.cohort for patient in reader.cohort} == {"there"}
    assert next(iter(reader.tasks)).splits == ["new"]
    reader.explain("there03", tmp_path / "explained")
    assert (tmp_path / "explained" / "survival" / "explanation.json").exists()
    asked = []
    monkeypatch.setattr(
        server, "serve", lambda *_, announce, **given: (asked.append((given["cohort"], given["role"])), announce("x"))
    )
    prepared = folder / "prepared"
    for options, role, kind in (
        ((), None, "develop"),
        (("--role", "external"), "external", "external"),
        (("--cohort", prepared), "external", "external"),
        (("--cohort", prepared, "--role", "here"), "here", "develop"),
    ):
        said = said_by(capsys, "serve", folder / "run", *options)
        assert asked[-1] == (prepared if "--cohort" in options else None, role)
        assert said.endswith(f"({kind}). Not taken: {NOT_TAKEN[kind]}; choose with --role")


def test_a_cohort_that_was_prepared_again_is_said_until_the_run_is_made_again(folder, tmp_path, caplog):
    for name in ("prepared", "run"):
        shutil.copytree(folder / name, tmp_path / name)
    run = load_run(tmp_path / "run")
    run.predict(run.cohort())
    assert caplog.messages == []
    for name in ("here.csv", "there.csv", "here_rna.csv", "there_rna.csv", "sets.gmt"):
        shutil.copyfile(folder / name, tmp_path / name)
    table = pd.read_csv(tmp_path / "here.csv")
    table.loc[5, "time_days"] += 100
    table.to_csv(tmp_path / "here.csv", index=False)
    shutil.copyfile(folder / "cohort.yaml", tmp_path / "cohort.yaml")
    assert main(["prepare", str(tmp_path / "cohort.yaml"), "--out", str(tmp_path / "prepared")]) == 0

    run.predict(run.cohort())
    assert "has changed since" in caplog.messages[0]
    assert "other time_days: here05" in caplog.messages[0]
    found = [f.found for f in audit_run(tmp_path / "run", n_bootstrap=5).findings if f.check == "prepared again"]
    assert len(found) == 1
    assert "other time_days: here05" in found[0]

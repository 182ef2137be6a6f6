"""The page for users of other tools is true: its commands run on folders in the layout of each tool."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
import yaml

import tool_folders
from command_run import BRIEF, evaluate_roughly
from subfuse.cli import main
from subfuse.cohort.cohort import read_cohort
from subfuse.runs.required_inputs import require_inputs

pytestmark = [pytest.mark.walk, pytest.mark.filterwarnings("ignore")]  # of zarr, anndata, dask

PAGE = Path(__file__).parents[1] / "docs" / "coming-from.md"
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
TOOLS = {
    "CLAM": tool_folders.clam,
    "TRIDENT": tool_folders.trident,
    "STAMP": tool_folders.stamp,
    "LazySlide": tool_folders.lazyslide,
    "SurvPath": tool_folders.survpath,
    "MCAT, PORPOISE": tool_folders.mcat,
}
QUICKLY = {  # added to what the page has, where time is short
    "crossval": ["--folds", "2", "--explain", "false", "--workers", "1", *BRIEF, "--train.epochs", "1"],
    "prepare": ["--workers", "1"],
}
MODELS = {"CLAM": "mean", "TRIDENT": "snn", "STAMP": "mean", "LazySlide": "mean", "SurvPath": "snn"}
MODELS |= {"MCAT, PORPOISE": "snn"}
TASKS = {tool: ["survival"] for tool in TOOLS}
TASKS |= {"CLAM": ["label"], "STAMP": ["survival", "isMSIH"], "SurvPath": ["survival", "dss"]}


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def answered(draft: str, answers: str) -> str:
    """A draft with what the page fills in, whether the key is blank, a proposal or a comment."""
    for key, value in (yaml.safe_load(answers) or {}).items():
        written = yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
        draft, n_found = re.subn(rf"^( *)(?:# )?{key}:.*$", rf"\g<1>{key}: {written}", draft, count=1, flags=re.M)
        assert n_found == 1, key
    return draft


def test_every_section_is_run():
    assert list(SECTIONS) == list(TOOLS)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_commands_lead_from_the_folder_to_a_report(tool, tmp_path, monkeypatch, capsys):
    if tool == "LazySlide":
        pytest.importorskip("spatialdata")
    section = SECTIONS[tool]
    commands = [shlex.split(line) for block in blocks(section, "bash") for line in block.splitlines()]
    names = [command[1] for command in commands]
    assert names == ["init", "check", "prepare", "crossval", *names[4:]]
    monkeypatch.chdir(tmp_path)
    evaluate_roughly(monkeypatch)
    folder = TOOLS[tool](tmp_path / commands[0][-1])
    before = sorted(folder.rglob("*"))
    for _, command, *arguments in commands:
        models = ["--models", MODELS[tool]] if command == "crossval" else []
        assert main([command, *arguments, *QUICKLY.get(command, []), *models]) == 0, capsys.readouterr().err
        if command == "init":
            path = tmp_path / arguments[0] / "cohort.yaml"
            path.write_text(answered(path.read_text(), "".join(blocks(section, "yaml"))))
            assert "FILL-IN" not in path.read_text()
    assert sorted(folder.rglob("*")) == before
    prepared, run = (tmp_path / commands[3][at] for at in (2, 4))
    patients = pd.read_csv(prepared / "patients.csv")
    assert len(patients) == tool_folders.N_PATIENTS
    assert (patients["n_slides"] == 1).all()
    assert patients["has_expression"].all() == (tool in ("TRIDENT", "SurvPath", "MCAT, PORPOISE"))
    assert list(read_cohort(prepared).tasks) == TASKS[tool]
    assert (run / "report.html").exists()
    named = commands[3][commands[3].index("--models") + 1 :] if "--models" in commands[3] else []
    require_inputs(named, read_cohort(prepared))
    assert main(["export-mudata", str(prepared), str(tmp_path / "out.h5mu")]) == 0


def test_embeddings_of_stamp_are_read_as_features_of_its_tiles_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tool_folders.stamp(tmp_path / "stamp")
    (named,) = re.findall(r"With `(features: [^`]*)`", SECTIONS["STAMP"])
    assert main(["init", "new", "--from", "stamp"]) == 0
    path = tmp_path / "new" / "cohort.yaml"
    path.write_text(answered(path.read_text(), named))
    capsys.readouterr()
    assert main(["check", str(path)]) == 0
    assert f"{tool_folders.N_PATIENTS} slides" in capsys.readouterr().out.replace("slides: ", "").replace(
        ",", " slides"
    )

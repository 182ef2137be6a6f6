"""`subfuse train`: killed and resumed, on several processes, and what can be done with its run folder."""

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

import process_pool
from subfuse.cli import build_parser, main
from subfuse.cli.options import Parser
from subfuse.cli.training import COMMANDS

pytestmark = pytest.mark.walk

GENES = ("EGFR", "CD44", "GFAP", "CD3D", "CD163", "VWF")
SMALL = ("--architecture.embed_dim", "16", "--architecture.max_grid", "8", "--architecture.table_size", "16")
BRIEF = (*SMALL, "--train.epochs", "2", "--device", "cpu")
N_EPOCHS = 40  # three kills, each after one new epoch and less than a twentieth of a second, leave some to do
LONG = (*SMALL, "--train.epochs", f"{N_EPOCHS}", "--train.patience", f"{N_EPOCHS}", "--train.batch_size", "2",
        "--train.lr", "0.01", "--device", "cpu")  # fmt: skip
FOLD = Path("survival") / "subspace" / "fold_0"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A prepared cohort of 26 patients with expression and one vector per slide."""
    root, draw = tmp_path_factory.mktemp("cohort"), np.random.default_rng(0)
    ids = [f"P{i:02d}" for i in range(26)]
    latent = draw.normal(size=len(ids))
    columns = {"patient_id": ids, "time_days": np.exp(6 - latent).round(), "event": draw.random(len(ids)) < 0.8}
    columns["grade"] = np.where(latent > 0, "G4", "G2")
    pd.DataFrame(columns).to_csv(root / "patients.csv", index=False)
    expression = np.exp(draw.normal(3, 1, (len(ids), len(GENES))) + latent[:, None])
    pd.DataFrame(expression, columns=list(GENES), index=ids).to_csv(root / "expression.csv", index_label="patient_id")
    features = pd.DataFrame(draw.normal(size=(len(ids), 5)) + latent[:, None]).add_prefix("feature_")
    features.insert(0, "slide_id", [f"{name}-1" for name in ids])
    features.to_csv(root / "features.csv", index=False)
    pd.DataFrame({"slide_id": features["slide_id"], "patient_id": ids}).to_csv(root / "slides.csv", index=False)
    content = {
        "name": "small",
        "patients": {"table": "patients.csv"},
        "slides": {"table": "slides.csv", "feature_table": "features.csv"},
        "expression": {"table": "expression.csv", "unit": "tpm"},
        "tasks": {"survival": {"time": "time_days", "event": "event"}, "grade": {"column": "grade"}},
        "splits": {"folds": 2, "validation": 0.3},
    }
    (root / "cohort.yaml").write_text(yaml.safe_dump(content))
    run_elsewhere(["prepare", str(root / "cohort.yaml"), "--out", str(root / "prepared"), "--workers", "1"])
    return root / "prepared"


def train(prepared, out, *options, task="survival", model="subspace"):
    return [str(part) for part in ("train", prepared, "--task", task, "--model", model, "--out", out, *options)]


def weights(run, fold=FOLD):
    return load_file(run / fold / "model.safetensors")


def run_command(arguments):
    sys.exit(main(arguments))


def run_elsewhere(arguments):
    """Runs a command that must succeed in a process of its own, where shapes are not checked and all is faster."""
    process_pool.join([process_pool.start(run_command, [str(part) for part in arguments])])


def run_and_kill(arguments, checkpoint, *, after):
    """Runs a command, and SIGKILLs it some seconds after it has written a new checkpoint, or any time before."""
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
    process = process_pool.start(run_command, arguments)
    while process.is_alive() and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before):
        time.sleep(0.002)
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return process.exitcode


def test_killed_at_any_moment_and_resumed_the_model_is_the_same_to_the_last_bit(prepared, tmp_path):
    fold = Path("survival") / "concat" / "fold_0"
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_elsewhere(train(prepared, whole, *LONG, model="concat"))
    moments = random.Random(time.time_ns())
    command = train(prepared, broken, *LONG, "--resume", model="concat")
    for _ in range(3):
        code = run_and_kill(command, broken / fold / "last.ckpt", after=moments.uniform(0, 0.05))
        assert code == -signal.SIGKILL
        assert not (broken / fold / "model.safetensors").exists()
    run_elsewhere(command)
    expected, found = weights(whole, fold), weights(broken, fold)
    assert all(found[name].equal(expected[name]) for name in expected)
    for name in ("log.csv", "predictions.csv"):
        assert (broken / fold / name).read_bytes() == (whole / fold / name).read_bytes()
    assert len(pd.read_csv(whole / fold / "log.csv")) == N_EPOCHS
    assert not (broken / fold / "last.ckpt").exists()


def run_and_keep_stderr(folder, arguments):
    with (folder / f"stderr_{os.environ['RANK']}").open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    run_command(arguments)


def test_two_processes_give_the_weights_of_one_with_the_joint_batch(prepared, tmp_path):
    """26 patients: both modalities, dropout off, a last joint batch that does not divide evenly."""
    options = (*BRIEF, "--architecture.dropout", "0", "--train.weight_decay", "0.01", "--train.lr", "1e-4")
    two = train(prepared, tmp_path / "two", *options, "--train.batch_size", "2")
    process_pool.join(process_pool.start_connected(run_and_keep_stderr, 2, tmp_path, two))
    run_elsewhere(train(prepared, tmp_path / "one", *options, "--train.batch_size", "4"))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=2e-5, msg=lambda text, at=name: f"{at}: {text}")
    logs = [pd.read_csv(tmp_path / run / FOLD / "log.csv") for run in ("one", "two")]
    pd.testing.assert_frame_equal(*logs, rtol=1e-3)
    said = [(tmp_path / f"stderr_{rank}").read_text() for rank in range(2)]
    assert [len(re.findall(r"^train: \d/2 ", text, re.MULTILINE)) for text in said] == [2, 0]  # only one speaks
    assert yaml.safe_load((tmp_path / "two" / "config.yaml").read_text())["processes"] == 2


WRITES_ENVIRONMENT = """
import json, os, pathlib, sys
pathlib.Path(sys.argv[1], os.environ["RANK"]).write_text(json.dumps(dict(os.environ)))
"""


def test_processes_of_torchrun_know_what_processes_of_tests_know(tmp_path):
    """What holds for two processes of a test then holds for those of `torchrun`, without seconds of importing."""
    (tmp_path / "script.py").write_text(WRITES_ENVIRONMENT)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([sys.executable, *torchrun, tmp_path / "script.py", tmp_path], capture_output=True, check=True)
    for rank in range(2):
        known = json.loads((tmp_path / f"{rank}").read_text())
        expected = process_pool.numbers(rank, 2, int(known["MASTER_PORT"]))
        assert {name: known[name] for name in expected} == expected
        assert {"MASTER_ADDR", "TORCHELASTIC_RUN_ID"} <= known.keys()


@pytest.fixture(scope="module")
def run(prepared, tmp_path_factory) -> Path:
    """Both folds of one model, trained one after the other into one folder."""
    out = tmp_path_factory.mktemp("run") / "run"
    for fold in range(2):
        run_elsewhere(train(prepared, out, *BRIEF, "--fold", fold))
    return out


def test_the_run_folder_is_that_of_a_cross_validation(prepared, run, tmp_path):
    table = pd.read_csv(run / "predictions.csv")
    assert sorted(table.loc[table["split"] == "test", "patient_id"]) == [f"P{i:02d}" for i in range(26)]
    assert set(pd.read_csv(run / "metrics.csv")["metric"]) >= {"c_index"}
    assert main(["report", str(run)]) == 0
    assert main(["predict", str(run), "--cohort", str(prepared), "--out", str(tmp_path / "predictions.csv")]) == 0
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 26
    crossval = ["crossval", prepared, "--out", tmp_path / "crossval", "--tasks", "survival", "--models", "subspace"]
    options = [part.replace("--architecture", "--model") for part in BRIEF]
    run_elsewhere([*crossval, "--workers", "1", "--explain", "false", *options])
    for fold in range(2):
        ours, theirs = (weights(out, FOLD.parent / f"fold_{fold}") for out in (run, tmp_path / "crossval"))
        assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_a_finished_fold_is_left_alone_unless_resuming_is_asked_for(prepared, run, capsys):
    before = (run / FOLD / "model.safetensors").stat().st_mtime_ns
    assert main(train(prepared, run, *BRIEF)) == 2
    assert "holds a finished training. Add --resume to keep it, which trains nothing" in capsys.readouterr().err
    run_elsewhere(train(prepared, run, *BRIEF, "--resume"))
    assert (run / FOLD / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "changes", "named"),
    [
        (("--fold", "2"), {}, "--fold must be between 0 and 1"),
        ((), {"task": "grades"}, "tasks must be declared"),
        ((), {"model": "subspaces"}, "models must be among"),
        ((), {"model": "cox", "task": "grade"}, "other kind of task"),
        (("--train.lr", "1"), {}, "another configuration"),
    ],
)
def test_wrong_usage_is_one_line(prepared, run, capsys, options, changes, named):
    assert main(train(prepared, run, *BRIEF, *options, "--resume", **changes)) == 2
    assert named in capsys.readouterr().err


def commands_of(page: Path) -> list[list[str]]:
    """The `subfuse` commands in the shell blocks of a page, without what starts them."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if not line.startswith("#")]
    found = [re.sub(r"^(srun |torchrun .*-m )", "", line).split("subfuse ", 1) for line in lines]
    return [shlex.split(rest.replace("$SLURM_ARRAY_TASK_ID", "3")) for start, rest in found if not start]


def test_every_command_of_the_page_is_understood():
    commands = commands_of(Path(__file__).parents[2] / "docs" / "training.md")
    assert len(commands) >= 9
    for command in commands:
        build_parser(command[0]).parse_args(command)


def test_train_and_crossval_spell_the_same_options_alike():
    options = []
    for name in ("train", "crossval"):
        parser = Parser()
        COMMANDS[name].add_arguments(parser)
        options.append({option: action.default for action in parser._actions for option in action.option_strings})
    of_one, of_many = (
        {"--task", "--model", "--fold"},
        {"--tasks", "--models", "--folds", "--repeats", "--search", "--held-out-sites"},
    )
    across_machines, across_jobs = {"--devices", "--nodes", "--resume"}, {"--workers", "--scheduler", "--explain"}
    assert options[0].keys() - options[1].keys() == of_one | across_machines
    assert options[1].keys() - options[0].keys() == of_many | across_jobs
    shared = options[0].keys() & options[1].keys()
    assert {name: options[0][name] for name in shared} == {name: options[1][name] for name in shared}


@pytest.mark.parametrize("command", [["crossval"], ["train", "--task", "grade", "--model", "snn"]])
@pytest.mark.parametrize("holds", ["a file", "other files"])
def test_a_folder_that_cannot_become_a_run_is_refused_before_the_cohort_is_read(tmp_path, capsys, command, holds):
    out = tmp_path / "out"
    file = out if holds == "a file" else out / "notes.txt"
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    assert main([command[0], str(tmp_path / "no cohort"), *command[1:], "--out", str(out)]) == 2
    assert f"must be empty or a run folder. Found {holds}." in capsys.readouterr().err
    assert file.read_text() == "mine"

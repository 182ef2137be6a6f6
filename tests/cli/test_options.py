"""Options of every command: checked before any work, with one line and exit code 2; help in plain words."""

import inspect

import pytest

import subfuse
from subfuse.cli import COMMANDS, main
from subfuse.cli.options import SWITCH, Parser


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["crossval"], "required, but not given: prepared. See `subfuse crossval --help`"),
        (["evaluate"], "required, but not given: run, --cohort. See `subfuse evaluate --help`"),
        (
            ["crossval", "p", "--held-out-sites", "3"],
            "--held-out-sites must be true or false. Found 3. See `subfuse cr",
        ),
        (["audit", "p", "--columns", "5"], '--columns must be names and values, such as \'{"a": "b"}\'. Found 5'),
        (["crossval", "p", "--config", "nowhere"], "error: --config: File does not exist"),
        (["crossval", "p", "--exchanges", "3"], "unrecognized arguments: --exchanges 3. See `subfuse crossval --help`"),
        (["crossval", "p", "--train.lr", "inf"], "--train.lr must be a finite number. Found inf"),
        (["crossval", "p", "--train.lr", "nan"], "--train.lr must be a finite number. Found nan"),
        (["crossval", "p", "--train.lr", "-1"], "--train.lr must be greater than 0. Found -1"),
        (["train", "p", "--task", "t", "--train.epochs", "0"], "--train.epochs must be greater than or equal to 1"),
        (
            ["train", "p", "--task", "t", "--train.optimizer", "AdamW"],
            "Found AdamW; adamw is, which differs only in case",
        ),
        (
            ["train", "p", "--task", "t", "--train.linear_path", "Ja"],
            "--train.linear_path must be true or false. Found Ja",
        ),
        (["train", "p", "--task", "t", "--train.optimizer", "sgd"], "--train.optimizer must be 'adamw' or 'adam'"),
        (["crossval", "p", "--architecture.dropout", "1"], "--architecture.dropout must be less than 1. Found 1"),
        (["crossval", "p", "--model.embed_dim", "1"], "--architecture.embed_dim must be a multiple of 8"),
        (["crossval", "p", "--model.embed_dim", "100"], "--architecture.embed_dim must be a multiple of 8. Found 100"),
        (["crossval", "p", "--seed", "100000000000000000000"], "--seed must be less than or equal to 4294967295"),
        (["audit", "table.csv", "--exchanges", "5"], "--exchanges is for a run. Found the file table.csv"),
        (["crossval", "p", "--search", "-1"], "--search must be greater than or equal to 0"),
        (["crossval", "p", "--workers", "-3"], "--workers must be greater than or equal to 0"),
        (["crossval", "p", "--folds", "1"], "--folds must be greater than or equal to 2"),
        (["crossval", "p", "--repeats", "0"], "--repeats must be greater than or equal to 1"),
        (["crossval", "p", "--models", "snn", "snn"], "--models must name each once. Found twice: snn"),
        (["crossval", "p", "--tasks", "a", "b", "a"], "--tasks must name each once. Found twice: a"),
        (
            ["crossval", "p", "--models", "subspace,snn"],
            "separated by spaces. Found subspace,snn. Write --models subspace",
        ),
        (["crossval", "p", "--tasks", "a,", "b"], "--tasks: names are separated by spaces. Found a,. Write --tasks a"),
        (["crossval", "p", "--allow-inputs", "A,B"], "--allow-inputs: names are separated by spaces"),
        (["predict", "run", "--slide", "a.svs,b.svs"], "Found a.svs,b.svs. Write --slide a.svs b.svs"),
        (["crossval", "p", "--models", "subspac"], "Did you mean subspace?"),
        (["train", "p", "--task", "t", "--model", "abmill"], "Did you mean abmil?"),
        (["train", "p", "--task", "t", "--devices", "0"], "--devices must be greater than or equal to 1"),
        (["train", "p", "--task", "t", "--fold", "-1"], "--fold must be greater than or equal to 0"),
        (["simulate", "out", "--visibility", "2"], "--visibility must be less than or equal to 1"),
        (["simulate", "out", "--patients", "no"], "--patients must be a valid integer"),
        (["serve", "run", "--port", "70000"], "--port must be less than or equal to 65535"),
        (["predict", "run", "--slide", "a.svs", "--mpp", "inf"], "--mpp must be a finite number"),
        (["predict", "run", "--cohort", "p", "--out", "run/predictions.csv"], "--out must be another file than those"),
        (["predict", "run", "--cohort", "p", "--out", "."], "--out must be a file. Found the folder"),
        (["predict", "run", "--cohort", "p", "--out", "/dev/null"], "--out must be a file. Found the pipe or device"),
        (["predict", "run", "--expression", "a.csv", "--out", "a.csv"], "--out must be another file"),
        (["predict", "run", "--expression", "a_patients.csv", "--out", "a.csv"], "--out must be another file"),
        (["audit", "table.csv", "--out", "table.csv"], "--out must be another file"),
        (["explain", "run", "--wsidata", "stores"], "Name it with --patient"),
        (["serve", "run", "--host", "203.0.113.7"], "an address of this machine"),
        (["simulate", "out", "--patients", "0"], "--patients must be greater than or equal to 1"),
        (["distil"], "required, but not given: run. See `subfuse distil --help`"),
        (["distil", "run", "--workers", "-3"], "--workers must be greater than or equal to 0"),
        (["evaluate", "run", "--cohort", "p", "--seed", "-1"], "--seed must be greater than or equal to 0"),
        (["crossval", "p", "--train.members", "1000000"], "--train.members must be less than or equal to 100"),
        (["crossval", "p", "--architecture.embed_dim", "1000000000"], "must be less than or equal to 8192"),
        (["crossval", "p", "--train.epocs", "3"], "unrecognized arguments: --train.epocs"),
    ],
)
def test_a_wrong_option_is_one_line_before_any_work(tmp_path, monkeypatch, capsys, arguments, named):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    lines = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len(lines) == 1
    assert named in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_wrong_value_in_a_configuration_file_is_one_line(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("train: {lr: .inf}\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        main(["crossval", "prepared", "--config", str(tmp_path / "run.yaml")])
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "--train.lr must be a finite number" in lines[0]


@pytest.mark.parametrize("command", list(COMMANDS))
def test_help_shows_no_types_of_python(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert not [
        word
        for word in ("Annotated", "<class", "Ge(", "type:", "dict[", "Literal", "null", "True", "False")
        if word in shown
    ]


def test_public_names_are_shown_by_completion():
    assert set(dir(subfuse)) == set(subfuse.__all__)
    assert all(inspect.getdoc(getattr(subfuse, name)) for name in subfuse.__all__ if name != "__version__")


def test_the_help_that_a_message_names_is_a_command_to_type(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["crossval", "prepared", "--exchanges", "3"])
    assert capsys.readouterr().err.endswith("See `subfuse crossval --help`.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["crosval", "prepared"], "crosval is no command. Did you mean crossval? See `subfuse --help`."),
        (["train", "p", "--tasks", "a"], "unrecognized arguments: --tasks a. Did you mean --task? See `subfuse train"),
        (["crossval", "p", "x", "--modles=a"], "unrecognized arguments: x --modles=a. Did you mean --models? See"),
        (
            ["crossval", "p", "--train", "5"],
            "--train is the beginning of --train.epochs, --train.members, --train.patience and 17 more: write one in "
            "full. See `subfuse crossval --help`.",
        ),
        (["crossval", "p", "--train.linear_path", "maybe"], "--train.linear_path must be true or false. Found maybe."),
        (["crossval", "p", "--explain", "maybe"], "--explain must be true or false. Found maybe."),
        (["crossval", "p", "--seed"], "--seed needs a value. See `subfuse crossval --help`."),
        (["zzz"], "zzz is no command. Commands: demo, simulate, init, check, prepare, export-mudata, train, crossval"),
    ],
)
def test_what_was_meant_is_said(arguments, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    shown = capsys.readouterr().err
    assert shown.startswith(f"subfuse: error: {said}")
    assert shown.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "value"), [([], False), (["--on"], True), (["--on", "true"], True), (["--on", "false"], False)]
)
def test_a_switch_is_true_without_a_value(given, value):
    parser = Parser()
    parser.add_argument("--on", **SWITCH, default=False)
    assert parser.parse_args(given).on is value

"""Commands for what is there already: a published checkpoint, and this machine."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from subfuse.cli import COMMANDS, doctor, environment, main
from subfuse.runs import released_checkpoint

pytestmark = pytest.mark.walk


def test_doctor_names_the_offline_encoder(capsys):
    assert main(["doctor"]) == 0
    assert "efficientnet-lite0" in capsys.readouterr().out


def test_doctor_prints_a_row_for_everything_that_is_tried(capsys, monkeypatch):
    rows = [("torch", "9.9", ""), ("openslide-python", "missing", "pip install 'subfuse[wsi]'")]
    asked = []
    monkeypatch.setattr(doctor, "diagnose", lambda encoder: asked.append(encoder) or rows)
    assert main(["doctor", "--encoder", "resnet18"]) == 0
    shown = capsys.readouterr().out
    assert asked == ["resnet18"]
    assert all(cell in shown for row in rows for cell in row)


def test_convert_says_where_and_how_many_weights_are_left_out(tmp_path, capsys, monkeypatch):
    asked = []
    unused = [f"layer{i}.weight" for i in range(12)]
    monkeypatch.setattr(released_checkpoint, "convert_file", lambda *paths: asked.append(paths) or unused)
    assert main(["convert", str(tmp_path / "a.pth"), "--out", str(tmp_path / "ours")]) == 0
    shown = capsys.readouterr().out
    assert asked == [(tmp_path / "a.pth", tmp_path / "ours")]
    assert f"Converted to {tmp_path / 'ours'}." in shown
    assert "left out (12): layer0.weight" in shown
    assert "and 2 more" in shown


COMPLETES = """
source "$1"
COMP_WORDS=(subfuse "${@:2}"); COMP_CWORD=$(($# - 1))
_shtab_subfuse subfuse "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_and_options_of_the_script(tmp_path, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    subprocess.run(["bash", "-n", tmp_path / "script"], check=True)

    def completed(*words):
        command = ["bash", "-c", COMPLETES, "bash", str(tmp_path / "script"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert completed("cross") == ["crossval"]
    assert completed("prepare", "--dev") == ["--device"]
    assert "--train.lr" in completed("crossval", "--train.l")
    (tmp_path / "data").mkdir()
    assert completed("init", "--from", f"{tmp_path}/da") == [f"{tmp_path}/data"]
    assert set(completed("")) >= set(COMMANDS)


def test_the_script_of_zsh_knows_every_command(capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "zsh"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#compdef subfuse")
    assert all(f"{name}:" in script for name in COMMANDS)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
def test_zsh_finds_and_loads_the_script_as_the_readme_installs_it(tmp_path, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "zsh"]) == 0
    (tmp_path / ".zfunc").mkdir()
    (tmp_path / ".zfunc" / "_subfuse").write_text(capsys.readouterr().out)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^echo '(fpath=.*)' >> ~/\.zshrc$", readme, re.MULTILINE)
    loads = f"{line} -u -D; print ${{_comps[subfuse]}}; autoload +X _subfuse && print loaded"
    command, environ = ["zsh", "-f", "-c", loads], {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    assert (done.stdout.split(), done.stderr) == (["_subfuse", "loaded"], "")
    subprocess.run(["zsh", "-n", tmp_path / ".zfunc" / "_subfuse"], check=True)


def test_completion_without_its_package_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'subfuse[completion]'" in capsys.readouterr().err


def test_encoders_are_listed_with_licence_access_and_needs(capsys):
    pytest.importorskip("lazyslide_models")
    assert main(["encoders"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert all(name in told for name in ("uni2", "virchow2", "titan", "chief-slide-encoder", "slides, from", "gated"))
    assert "efficientnet-lite0, which works offline" in told
    assert main(["encoders", "--slides"]) == 0
    told = capsys.readouterr().out
    assert "prism" in told
    assert "uni2" not in told


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_commands_ask_torch_for_large_memory_pages_unless_told_otherwise(monkeypatch, capsys, before, after):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "")  # so that what the command sets is undone
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")
    if before is not None:
        monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", before)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == after

"""Commands for what is there already: convert a published checkpoint, doctor of this machine."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from subfuse.cli.command import Command
from subfuse.cli.console import print_table
from subfuse.errors import preview


def _add_convert(parser: ArgumentParser) -> None:
    parser.add_argument("released", type=Path, help="Checkpoint of the published code (.pth), a plain state dict.")
    parser.add_argument("--out", type=Path, default=Path("converted"), help="Folder for the converted weights.")


def _convert(arguments: Namespace) -> None:
    from subfuse.runs.released_checkpoint import convert_file

    unused = convert_file(arguments.released, arguments.out)
    print(
        f"Converted to {arguments.out}. Unused in the released model, left out ({len(unused)}): {preview(unused, 10)}"
    )


def _add_doctor(parser: ArgumentParser) -> None:
    parser.add_argument("--encoder", type=str, default=None, help="Also try to load this patch encoder.")


def _doctor(arguments: Namespace) -> None:
    from subfuse.doctor import diagnose

    rows = diagnose(arguments.encoder)
    print_table("subfuse doctor", ("what", "state", "remedy"), rows)


COMMANDS = {
    "convert": Command(
        "Convert a checkpoint of the published code.",
        "subfuse convert released.pth --out converted",
        _add_convert,
        _convert,
    ),
    "doctor": Command("Say what works on this machine.", "subfuse doctor", _add_doctor, _doctor),
}

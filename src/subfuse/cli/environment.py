"""Commands for what is there already: convert a published checkpoint, doctor of this machine, its shells."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from subfuse.cli.command import Command
from subfuse.cli.console import print_table
from subfuse.cli.options import Parser
from subfuse.errors import ConfigurationError, preview

_SHELLS = ("bash", "zsh")


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
    from subfuse.cli.doctor import diagnose

    rows = diagnose(arguments.encoder)
    print_table("subfuse doctor", ("what", "state", "remedy"), rows)


def _add_completion(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=_SHELLS, help="Shell that is to complete commands, options and paths.")


def completion_command(parser: Callable[[], Parser]) -> Command:
    """Returns the command that prints completion scripts, given what builds the parser of all commands."""

    def completion(arguments: Namespace) -> None:
        if find_spec("shtab") is None:
            raise ConfigurationError("completion needs shtab. Found none. Run: pip install 'subfuse[completion]'.")
        print(parser().get_completion_script(f"shtab-{arguments.shell}"))

    return Command(
        "Print what lets a shell complete commands, options and paths.",
        "subfuse completion bash > ~/.subfuse-completion && echo 'source ~/.subfuse-completion' >> ~/.bashrc",
        _add_completion,
        completion,
    )


def _add_encoders(parser: ArgumentParser) -> None:
    parser.add_argument("--slides", action="store_true", help="Those of slides alone: one vector per slide.")


def _encoders(arguments: Namespace) -> None:
    from subfuse.features.encoder import OFFLINE_ENCODER
    from subfuse.features.registered.cards import encoder_cards

    cards = encoder_cards()
    rows = [
        (
            card.name,
            f"slides, from {card.patch_encoder}" if card.patch_encoder else "patches",
            card.licence if card.for_commerce else f"{card.licence}, not for commercial use",
            "cached" if card.is_cached else "gated" if card.is_gated else "free to download",
            "; ".join(card.missing) or "nothing more",
        )
        for card in cards.values()
        if card.encodes == "slides" or not arguments.slides
    ]
    print_table(f"Encoders of lazyslide-models ({len(rows)})", ("name", "encodes", "licence", "weights", "needs"), rows)
    if not cards:
        print("Found none: pip install 'subfuse[wsi]'.")
    print(
        f"Beside them: {OFFLINE_ENCODER}, which works offline; names of timm; hf_hub:OWNER/MODEL; NAME@FILE; "
        "TorchScript files (.pt, .ts). Gated: agree to the terms on the page of the model, and set HF_TOKEN."
    )


COMMANDS = {
    "encoders": Command(
        "List encoders of patches and slides: licence, access, and what they need.",
        "subfuse encoders",
        _add_encoders,
        _encoders,
    ),
    "convert": Command(
        "Convert a checkpoint of the published code.",
        "subfuse convert released.pth --out converted",
        _add_convert,
        _convert,
    ),
    "doctor": Command("Say what works on this machine.", "subfuse doctor", _add_doctor, _doctor),
}

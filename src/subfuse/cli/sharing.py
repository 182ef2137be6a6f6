"""The command that gives models to others."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from subfuse.cli.command import Command
from subfuse.cli.console import DISCLAIMER
from subfuse.cli.options import require_distinct


def _add_export(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="Run folder.")
    parser.add_argument("folder", type=Path, help="New folder for the models.")
    parser.add_argument("--task", type=str, nargs="+", default=[], help="Tasks; default: all.")
    parser.add_argument("--model", type=str, nargs="+", default=[], help="Models; default: the main one of every task.")
    parser.add_argument(
        "--license",
        type=str,
        default="other",
        help="Licence of the models in their card, as the Hugging Face hub calls it: apache-2.0, cc-by-nc-4.0.",
    )


def _export(arguments: Namespace) -> None:
    from subfuse.run_folder.names import CARD
    from subfuse.sharing.export import export_run

    require_distinct("--task", arguments.task)
    require_distinct("--model", arguments.model)
    folder = export_run(
        arguments.run, arguments.folder, tasks=arguments.task, models=arguments.model, license=arguments.license
    )
    print(
        f"Models, without anything of the run's patients: {folder}\nRead its {CARD} before you share it.\n"
        f"Predict with it: subfuse predict {folder}\n{DISCLAIMER}"
    )


COMMANDS = {
    "export": Command(
        "Write the models of a run to share: weights and a card, nothing of the patients.",
        "subfuse export run shared --license cc-by-nc-4.0",
        _add_export,
        _export,
        when_stopped="Nothing was written.",
    ),
}

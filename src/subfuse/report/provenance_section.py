"""Provenance in the report: the command that repeats the run, and what exactly it was made of."""

import shlex
from typing import Any

from subfuse.files import sha256_of_file
from subfuse.report.elements import flattened
from subfuse.report.run_files import RunFiles

DESCRIBED = (
    "cohort",
    "n_patients",
    "seed",
    "tasks",
    "models",
    "repeats",
    "search",
    "allow_inputs",
    "trained",
    "evaluated",
)
HASHED = ("config.yaml", "predictions.csv", "metrics.csv", "comparisons.csv", "audit.json")


def provenance_section(run: RunFiles) -> dict[str, Any]:
    """Returns the command and the groups of facts: run, splits, versions, prepared data, hashes of the run's files."""
    known = {key: value for key, value in run.provenance.items() if key != "command"}
    groups = {
        "Run": flattened({key: run.config[key] for key in DESCRIBED if key in run.config} | known),
        "Splits": [(f"fold {k}, sha256", str(fold)) for k, fold in enumerate(run.config.get("folds") or ())],
        "Prepared data": flattened(run.prepared),
        "Files of this run, sha256": [
            (name, sha256_of_file(run.folder / name)) for name in HASHED if (run.folder / name).exists()
        ],
    }
    return {
        "command": command(run),
        "groups": [{"name": name, "pairs": pairs} for name, pairs in groups.items() if pairs],
    }


def command(run: RunFiles) -> str:
    """Returns what to type to repeat the run, from its folder's parent; a call from Python if it was made by one."""
    recorded = run.provenance.get("command", "")
    text = recorded if isinstance(recorded, str) else shlex.join(str(part) for part in recorded)
    if text.startswith("subfuse ") or "prepared" not in run.config or run.config["prepared"] is None:
        return "" if text == "Python" else text
    name = run.folder.resolve().name
    options = {"task": list(run.config.get("tasks", ())), "models": list(run.config.get("models", ()))}
    options |= {key: run.config[key] for key in ("seed", "repeats", "search", "allow_inputs") if run.config.get(key)}
    arguments = "".join(f",\n    {key}={value!r}" for key, value in options.items())
    return (
        "import yaml, subfuse\n"
        "from subfuse.training.settings import ArchitectureSettings, TrainingSettings\n\n"
        f'config = yaml.safe_load(open("{name}/config.yaml", encoding="utf-8"))\n'
        "subfuse.cross_validate(\n"
        f'    subfuse.read_cohort("{name}/" + config["prepared"]){arguments},\n'
        '    training=TrainingSettings(**config["training"]),\n'
        '    architecture=ArchitectureSettings(**config["architecture"]),\n'
        f'    out="{name}-again",\n)'
    )

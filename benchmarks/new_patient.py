"""How long does one new patient take, from features and from a raw slide, and what is it made of?

python benchmarks/new_patient.py [--repeats 3]

A simulated cohort is prepared with the offline encoder, subspace fusion is trained on it in two folds, one epoch:
the weights do not matter here. Then `subfuse predict` reads expression, expression and features, or expression and a
raw slide, each time in a new process. Seconds are processor time of that process, user and system, on one thread, so
that other work on the machine matters little; the least of the repeats counts.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "new_patient.md"
STAGES = ("start of Python", "imports", "models read", "expression read", "encoder loaded",
          "tiles read and tissue found", "encoder", "models predict", "rest")  # fmt: skip
BRIEF = ["--train.epochs", "1", "--workers", "1", "--explain", "false"]


def predict_in_stages(arguments: list[str]) -> dict[str, float]:
    """Returns processor seconds of the stages of one prediction, in this process."""
    spent: dict[str, float] = {"start of Python": time.process_time()}
    from subfuse.cli import main
    from subfuse.features import patch_encoders
    from subfuse.runs import new_patient
    from subfuse.runs.prediction import patient_slides, predictor
    from subfuse.sharing import places

    def timed(place: Any, name: str, stage: str, *, within: str = "") -> None:
        function: Callable[..., Any] = getattr(place, name)

        def measured(*given: Any, **options: Any) -> Any:
            start = time.process_time()
            found = function(*given, **options)
            seconds = time.process_time() - start
            spent[stage] = spent.get(stage, 0.0) + seconds
            if within:
                spent[within] = spent.get(within, 0.0) - seconds
            return found

        setattr(place, name, measured)

    timed(places, "load_models", "models read")
    timed(predictor.Predictor, "predict_with_notes", "models predict")
    timed(new_patient, "_read_expression", "expression read")
    timed(patient_slides, "load_encoder", "encoder loaded")
    timed(patient_slides, "prepare_slide", "tiles read and tissue found")
    timed(patch_encoders.TimmEncoder, "encode", "encoder", within="tiles read and tissue found")
    spent["imports"] = time.process_time() - spent["start of Python"]
    assert main(arguments) == 0
    spent["rest"] = time.process_time() - sum(spent.values())
    return spent


def in_new_process(arguments: list[str], repeats: int) -> dict[str, float]:
    """Returns the stages of the run that took least."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    runs = []
    for _ in range(repeats):
        command = [sys.executable, __file__, "--predict", *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return min(runs, key=lambda stages: sum(stages.values()))


def cohort_of(folder: Path) -> tuple[Path, dict[str, list[str]]]:
    """Returns exported models, and the files of a new patient by what is given."""
    from subfuse.cli import main

    for command in (
        ["simulate", folder / "cohort", "--patients", "12", "--seed", "0", "--workers", "1"],
        ["prepare", folder / "cohort" / "cohort.yaml", "--out", folder / "prepared", "--workers", "1"],
        ["crossval", folder / "prepared", "--tasks", "grade", "--models", "subspace", "--folds", "2", "--out",
         folder / "run", *BRIEF],
        ["export", folder / "run", folder / "shared"],
    ):  # fmt: skip
        assert main([str(part) for part in command]) == 0
    slide = sorted((folder / "cohort").rglob("*.tif*"))[0]
    expression = ["--expression", str(sorted((folder / "cohort").rglob("*gene_counts.tsv"))[0])]
    (features,) = (folder / "prepared").rglob(f"{slide.name.split('.')[0]}.h5")
    given = {
        "expression": expression,
        "expression and features": [*expression, "--slide", str(features)],
        "expression and raw slide": [*expression, "--slide", str(slide)],
    }
    return folder / "shared", given


def main() -> None:
    """Measures and writes the table."""
    if sys.argv[1:2] == ["--predict"]:
        print(json.dumps(predict_in_stages(sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        shared, given = cohort_of(Path(name))
        found = {
            what: in_new_process(["predict", str(shared), *files, "--out", f"{name}/new.csv"], repeats)
            for what, files in given.items()
        }
        from subfuse.features.store import read_places

        (features,) = [path for path in given["expression and features"] if path.endswith(".h5")]
        n_patches = len(read_places(Path(features)).coords)
    empty = found["expression"]["start of Python"]
    lines = [
        "# One new patient\n",
        f"    python benchmarks/new_patient.py --repeats {repeats}\n",
        f"{platform.machine()}, one thread; a slide of {n_patches} patches, models of two folds, the offline encoder",
        "on the processor. Processor seconds; in brackets the share of the whole command.\n",
        f"| | {' | '.join(found)} |",
        "| --- |" + " --- |" * len(found),
    ]
    for stage in STAGES:
        cells = [
            f"{stages[stage]:.2f} ({stages[stage] / sum(stages.values()):.0%})" if stage in stages else ""
            for stages in found.values()
        ]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    totals = [sum(stages.values()) for stages in found.values()]
    lines.append(f"| **whole** | {' | '.join(f'{total:.2f}' for total in totals)} |")
    lines.append(f"| times the start of Python | {' | '.join(f'{total / empty:.0f}' for total in totals)} |")
    raw = found["expression and raw slide"]
    per_patch, beside = raw["encoder"] / n_patches, raw["tiles read and tissue found"] / raw["encoder"]
    lines.append(
        f"\nOf a raw slide the encoder takes {per_patch * 1000:.0f} ms per patch, and what is beside it, tiles and "
        f"tissue, {beside:.2f} times as much. 2,000 patches would take {2000 * per_patch:.0f} s of encoder on this "
        "processor; larger encoders need a GPU (`--device cuda`)."
    )
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

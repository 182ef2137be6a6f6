"""What a cross-validation of subspace fusion costs beside the model's own steps, against an earlier commit.

    python benchmarks/cohort.py --against COMMIT [--patients 40] [--patches 10000] [--epochs 10] [--work FOLDER]

Features are generated: no pathology. Each version trains and tests the same folds in a process of its own, one after
the other, with one thread and the memory pages of its commands. Processor seconds, bytes that the process asked files
for, and peak memory are the system's; updates of the model are timed around `JointUpdate`.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "cohort.md"
WIDTH, N_GENES, N_FOLDS = 1024, 400, 2
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def write_slides(folder: Path, patients: int, patches: int) -> None:
    """Writes one feature file per patient, square tissue without holes."""
    from subfuse.features.store import SlideFeatures, write_features

    side = int(patches**0.5)
    index = np.arange(side * side)
    coords = (512 * np.stack([index % side, index // side], axis=1)).astype(np.int32)
    for number in range(patients):
        path = folder / f"slide-{number:04d}.h5"
        if not path.exists():
            features = np.random.default_rng(number).normal(size=(len(index), WIDTH)).astype(np.float16)
            slide = SlideFeatures(features, coords, 512, 0.25, 0.5, "generated", "", side * 512, side * 512)
            write_features(path, slide, tile_px=256)


def measure(folder: Path, patients: int, epochs: int) -> dict[str, float]:
    """Trains and tests subspace fusion on all folds; returns what it cost."""
    import torch

    from subfuse.cohort.cohort import Cohort, Patient
    from subfuse.cohort.fold import Fold
    from subfuse.cohort.task import TaskSpec
    from subfuse.runs.cross_validation import cross_validate
    from subfuse.training import step
    from subfuse.training.settings import TrainingPlan, TrainingSettings

    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    genes = tuple(f"GENE{number}" for number in range(N_GENES))
    people = [
        Patient(
            f"P{number:04d}", "generated", (folder / f"slide-{number:04d}.h5",),
            random.normal(size=N_GENES).astype(np.float32),
            time_days=float(random.exponential(500)) + 1, event=bool(random.random() < 0.6), labels={},
        )
        for number in range(patients)
    ]  # fmt: skip
    sets = {"tumour": genes[: N_GENES // 4], "microenvironment": genes[N_GENES // 4 :]}
    task = {"survival": TaskSpec(time="time_days", event="event")}
    cohort = Cohort("generated", tuple(people), genes, "tpm", gene_sets=sets, tasks=task, encoder="generated",
                    encoder_sha256="")  # fmt: skip
    names = [patient.patient_id for patient in people]
    folds = []
    for number in range(N_FOLDS):
        test = names[number::N_FOLDS]
        others = [name for name in names if name not in test]
        folds.append(Fold(tuple(others[patients // 10 :]), tuple(others[: patients // 10]), tuple(test)))
    inside, forward = [0.0], step.JointUpdate.__call__

    def timed(self: step.JointUpdate, share: step.Share) -> dict[str, float]:
        start = time.thread_time()  # another thread reads meanwhile
        row = forward(self, share)
        inside[0] += time.thread_time() - start
        return row

    step.JointUpdate.__call__ = timed
    plan = TrainingPlan(training=TrainingSettings(epochs=epochs, patience=epochs))
    start = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        cross_validate(cohort, task="survival", models=["subspace"], folds=folds, plan=plan, out=out)
    lines = Path("/proc/self/io").read_text().splitlines()
    return {
        "seconds": time.process_time() - start,
        "seconds_of_updates": inside[0],
        "read_gb": int(lines[0].split()[1]) / 1e9,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def measured(source: Path, arguments: list[str]) -> dict[str, float]:
    """Returns `measure` of one version, in a process of its own."""
    command = [sys.executable, __file__, "--measure", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1"}
    if LARGE_PAGES in (source / "src" / "subfuse" / "cli" / "__init__.py").read_text(encoding="utf-8"):
        variables[LARGE_PAGES] = "1"  # as the commands of this version ask torch
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=variables).stdout
    return json.loads(printed.splitlines()[-1])


def page(against: str, now: dict[str, float], before: dict[str, float], options: argparse.Namespace) -> str:
    """Returns the result as Markdown."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    size = options.patients * int(options.patches**0.5) ** 2 * WIDTH * 2 / 1e9
    beside = [cost["seconds"] - cost["seconds_of_updates"] for cost in (before, now)]
    titles = {
        "seconds": "processor seconds",
        "seconds_of_updates": "of which updates of the model",
        "read_gb": "GB that were read",
        "peak_gb": "peak memory, GB",
    }
    lines = [
        "# A cross-validation beside the steps of its model",
        "",
        f"    python benchmarks/cohort.py --against {against} --patients {options.patients} --patches "
        f"{options.patches} --epochs {options.epochs}",
        "",
        f"Commit {commit.strip()}; {platform.machine()}, one thread. Subspace fusion, survival, {N_FOLDS} folds, "
        f"{options.epochs} epochs, {options.patients} patients of {options.patches} patches × {WIDTH} features "
        f"({size:.2f} GB), {N_GENES} genes. Features are generated.",
        "",
        f"| | commit {against} | now | ratio |",
        "|---|---|---|---|",
        *(
            f"| {title} | {before[name]:.2f} | {now[name]:.2f} | {before[name] / now[name]:.2f} × |"
            for name, title in titles.items()
        ),
        "",
        f"Beside the updates: {beside[0]:.1f} s before, {beside[1]:.1f} s now (reading, binning, linear path, "
        "validation, prediction).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", help="An earlier commit.")
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--patches", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.work / f"generated_{options.patches}"
    if options.measure:
        sys.stdout.write(json.dumps(measure(folder, options.patients, options.epochs)) + "\n")
        return
    write_slides(folder, options.patients, options.patches)
    sizes = [f"--{name}={getattr(options, name)}" for name in ("patients", "patches", "epochs", "work")]
    with tempfile.TemporaryDirectory() as parent:
        earlier = Path(parent) / "earlier"
        subprocess.run(["git", "worktree", "add", "--detach", str(earlier), options.against], cwd=ROOT, check=True)
        try:
            before, now = (measured(source, sizes) for source in (earlier, ROOT))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(earlier)], cwd=ROOT, check=True)
    text = page(options.against, now, before, options)
    RESULT.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()

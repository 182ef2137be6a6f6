"""How long do commands take that only print or look at tables, next to an empty Python and to another version?

python benchmarks/startup.py [--before FOLDER] [--repeats 5]

FOLDER is the `src` of a version to compare with, such as that of `git worktree add /tmp/before COMMIT`. The cohort has
200 patients with 500 genes and no slides. What is measured is the processor time of the whole process, user and system;
commands take turns, and the least of the repeats counts, so that other work on the machine matters little.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import subfuse

RESULT = Path(__file__).parent / "results" / "startup.md"
PATIENTS, GENES = 200, 500


def write_cohort(folder: Path) -> Path:
    """Writes a cohort of tables alone and returns its file."""
    generator, names = np.random.default_rng(0), [f"P{index:03}" for index in range(PATIENTS)]
    outcomes = {"time_days": generator.integers(30, 3000, PATIENTS), "event": generator.random(PATIENTS) < 0.5}
    pd.DataFrame({"patient_id": names, **outcomes}).to_csv(folder / "patients.csv", index=False)
    values = generator.gamma(1.0, 100.0, (PATIENTS, GENES))
    genes = pd.DataFrame(values, index=names, columns=["EGFR", "CD163", *(f"G{i}" for i in range(GENES - 2))])
    genes.to_csv(folder / "genes.csv", index_label="patient_id")
    path = folder / "cohort.yaml"
    path.write_text(
        "name: tables\npatients: {table: patients.csv}\nexpression: {table: genes.csv, unit: tpm}\n"
        "tasks: {survival: {time: time_days, event: event}}\n"
    )
    return path


def processor_seconds(arguments: Sequence[str], source: Path) -> float:
    """Runs Python with these arguments and returns its user and system time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(source)}
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commit_of(folder: Path) -> str:
    """Returns the commit that a folder of sources was checked out from."""
    command = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    here = Path(subfuse.__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        cohort = write_cohort(Path(folder))
        commands = {"--help": ["--help"], "check, tables alone": ["check", str(cohort)]}
        jobs = {("python -c pass", "this version"): (["-c", "pass"], here)}
        for name, command in commands.items():
            jobs[name, "this version"] = (["-m", "subfuse", *command], here)
            if arguments.before is not None:
                jobs[name, "before"] = (["-m", "subfuse", *command], arguments.before)
        for job in jobs.values():
            processor_seconds(*job)  # compiles, and fills the system's cache
        seconds: dict[tuple[str, str], list[float]] = {key: [] for key in jobs}
        for _ in range(arguments.repeats):
            for key, job in jobs.items():
                seconds[key].append(processor_seconds(*job))
    least = {key: min(values) for key, values in seconds.items()}
    empty = least["python -c pass", "this version"]
    lines = [
        "# Starting\n",
        f"    python benchmarks/startup.py --before FOLDER --repeats {arguments.repeats}\n",
        f"- machine: {platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}",
        f"- this version: commit {commit_of(here)}",
        *([] if arguments.before is None else [f"- before: commit {commit_of(arguments.before)}"]),
        f"- {PATIENTS} patients, {GENES} genes, no slides\n",
        f"Least processor time of {arguments.repeats} runs, user and system, in seconds.\n",
        "| command | this version | times an empty Python | before | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in ["python -c pass", *commands]:
        now, before = least[name, "this version"], least.get((name, "before"))
        old = ("", "") if before is None else (f"{before:.2f}", f"{now / before:.2f}")
        lines.append(f"| {name} | {now:.2f} | {now / empty:.1f} | {old[0]} | {old[1]} |")
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()

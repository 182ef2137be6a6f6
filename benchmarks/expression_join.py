"""Time and memory of joining a large expression table with its patients, against plain reads of the same file.

    python benchmarks/expression_join.py [--patients 10000] [--genes 20000]

Writes benchmarks/results/expression_join.md. The table (CSV, patients × genes, four decimals) is generated in a
temporary folder. Everything measured runs in a process of its own: `plan_cohort`, which is what `subfuse check` does
(reading, checking, converting to log2(TPM + 1), naming genes, joining patients, folds), and pandas and NumPy reading
the file and nothing else. NumPy reads a tenth of the rows.
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
import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
LIMIT_S, LIMIT_GB = 60, 8
DISTINCT_ROWS = 50  # repeated under other identifiers, so that generating is fast


def generate(folder: Path, n_patients: int, n_genes: int) -> None:
    """Writes cohort.yaml, patients.csv, expression.csv, and head.csv with a tenth of the rows of numbers."""
    random = np.random.default_rng(0)
    ids = [f"P{i:05d}" for i in range(n_patients)]
    rows = [",".join(map("{:.4f}".format, random.gamma(0.7, 60, n_genes))) + "\n" for _ in range(DISTINCT_ROWS)]
    with (folder / "expression.csv").open("w") as table, (folder / "head.csv").open("w") as head:
        table.write("patient_id," + ",".join(f"GENE{i}" for i in range(n_genes)) + "\n")
        for i, patient in enumerate(ids):
            table.write(f"{patient},{rows[i % DISTINCT_ROWS]}")
            if i < n_patients // 10:
                head.write(rows[i % DISTINCT_ROWS])
    patients = {
        "patient_id": ids,
        "time_days": random.integers(30, 4000, n_patients),
        "event": [0, 1] * (n_patients // 2),
    }
    pd.DataFrame(patients).to_csv(folder / "patients.csv", index=False)
    (folder / "genes.gmt").write_text("SET\tnone\t" + "\t".join(f"GENE{i}" for i in range(0, n_genes, 40)) + "\n")
    content = {
        "name": "large",
        "patients": {"table": "patients.csv"},
        "expression": {"table": "expression.csv", "unit": "tpm"},
        "gene_sets": {"tumour": "genes.gmt"},
    }
    (folder / "cohort.yaml").write_text(yaml.safe_dump(content))


def join(folder: Path) -> tuple[int, int]:
    """The package's join; returns the shape of the expression."""
    from subfuse.cohort.cohort_file import read_cohort_file
    from subfuse.preparation.plan import plan_cohort

    expression = plan_cohort(read_cohort_file(folder / "cohort.yaml")).expression
    assert expression is not None
    return expression.values.shape


def read_pandas(folder: Path) -> tuple[int, int]:
    """pandas, told the types."""
    names = pd.read_csv(folder / "expression.csv", nrows=0).columns
    types = dict.fromkeys(names[1:], "float32")
    return pd.read_csv(folder / "expression.csv", index_col=0, dtype=types).shape


def read_numpy(folder: Path) -> tuple[int, int]:
    """NumPy, numbers only, a tenth of the rows."""
    return np.loadtxt(folder / "head.csv", delimiter=",", dtype=np.float32).shape


MEASURED = {"join": join, "pandas": read_pandas, "numpy": read_numpy}


def measure(name: str, folder: Path) -> dict[str, float]:
    """Returns wall and processor seconds and the peak resident size of one of `MEASURED` in a process of its own."""
    command = [sys.executable, __file__, "--measure", name, str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def report_measurement(name: str, folder: Path) -> None:
    """The process of its own: measures and writes one line of JSON."""
    start, cpu = time.perf_counter(), time.process_time()
    shape = MEASURED[name](folder)
    result = {
        "wall": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "rows": shape[0],
    }
    sys.stdout.write(json.dumps(result) + "\n")


def machine() -> list[str]:
    """Returns what the numbers depend on."""
    from importlib.metadata import version

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()  # fmt: skip
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    libraries = ", ".join(f"{name} {version(name)}" for name in ("pandas", "numpy", "pyarrow"))
    return [
        f"- machine: {platform.machine()}, {os.cpu_count()} cores; load average {load} at the start",
        f"- {libraries}, Python {platform.python_version()}, commit {commit}",
    ]


def main() -> None:
    """Generates, measures, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        report_measurement(arguments.measure[0], Path(arguments.measure[1]))
        return
    about = machine()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        generate(folder, arguments.patients, arguments.genes)
        size_gb = (folder / "expression.csv").stat().st_size / 1e9
        found = {name: measure(name, folder) for name in MEASURED}
    ours, cells = found["join"], arguments.genes * 1e-6
    lines = [
        "# Joining a large expression table", "", "    python benchmarks/expression_join.py", "", *about, "",
        f"{arguments.patients} patients × {arguments.genes} genes, a CSV of {size_gb:.2f} GB. Each in a process of its "
        "own; NumPy reads a tenth of the rows. Ratios are of processor time per cell, which other work on the machine "
        "disturbs least, against the join.", "",
        "| what | wall s | processor s | peak GB | processor ns per cell | ratio |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    labels = {"join": "subfuse: read, check, convert, join", "pandas": "pandas: read", "numpy": "NumPy: read"}
    for name, one in found.items():
        per_cell, reference = (r["cpu"] / (r["rows"] * cells) for r in (one, ours))
        lines.append(
            f"| {labels[name]} | {one['wall']:.1f} | {one['cpu']:.1f} | {one['gb']:.2f} | {1000 * per_cell:.0f} "
            f"| {per_cell / reference:.2f} |"
        )
    verdict = "met" if ours["wall"] < LIMIT_S and ours["gb"] < LIMIT_GB else "missed"
    lines += [
        "",
        f"Wanted: under {LIMIT_S} s and {LIMIT_GB} GB: {verdict}, at the load above. The join needs "
        f"{ours['cpu']:.0f} s of processor time, most of it in threads.",
    ]
    (ROOT / "benchmarks" / "results" / "expression_join.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

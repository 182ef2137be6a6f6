"""How long explaining takes beside training: both on the same cohort, in the same run, on one process.

python benchmarks/explaining.py [--patients 40] [--patches 1000] [--tasks 3] [--folds 5] [--models subspace abmil ...]

Ready features of a simple cohort: one latent per patient shows in genes and in every patch, and drives all outcomes.
Training is every model of the comparison on the chosen folds; explaining is that of the cohort. Seconds are those of
the processor, so that the share can be measured beside other work. `PYTHONPATH=<src of an earlier version>` measures
that version in the same way.
"""

import argparse
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.task import TaskSpec
from subfuse.features.store import SlideFeatures, write_features
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.folds import choose_repeats
from subfuse.runs.run import load_run
from subfuse.training.models import compared_models

TASKS = {
    "survival": TaskSpec(time="time_days", event="event"),
    "grade": TaskSpec(column="grade"),
    "diagnosis": TaskSpec(column="diagnosis"),
}
PATCH_DIM, TUMOUR_GENES, GENES = 1024, 59, 420


def ready_cohort(folder: Path, n_patients: int, n_patches: int, n_tasks: int) -> Cohort:
    """A cohort whose patients have expression and one slide of ready features each."""
    random = np.random.default_rng(0)
    patients = []
    for index in range(n_patients):
        latent = random.normal()
        path = folder / f"slide-{index:03d}.h5"
        write_features(path, slide(random, latent, n_patches), tile_px=256)
        expression = random.normal(size=GENES).astype(np.float32)
        expression[::10] += latent
        shown = latent + 0.7 * random.normal()  # no gene tells an outcome for sure
        patients.append(
            Patient(
                patient_id=f"P{index:03d}",
                cohort="ready",
                slides=(path,),
                expression=expression,
                time_days=float(np.exp(6 - latent + 0.3 * random.normal())),
                event=bool(random.random() < 0.7),
                labels={
                    "grade": "G4" if shown > 0 else "G2",
                    "diagnosis": "AOG"[int(np.digitize(shown, [-0.4, 0.4]))],
                },
            )
        )
    genes = tuple(f"GENE{index}" for index in range(GENES))
    return Cohort(
        name="ready",
        patients=tuple(patients),
        genes=genes,
        expression_unit="log2_tpm",
        gene_sets={"tumour": genes[:TUMOUR_GENES], "microenvironment": genes[TUMOUR_GENES:]},
        pathways={f"set {start}": genes[start : start + 30] for start in range(0, GENES, 30)},
        tasks=dict(list(TASKS.items())[:n_tasks]),
        encoder="ready",
        encoder_sha256="0" * 64,
        patch_dim=PATCH_DIM,
    )


def slide(random: np.random.Generator, latent: float, n_patches: int) -> SlideFeatures:
    """A square of patches that all show the latent."""
    side = int(np.ceil(n_patches**0.5))
    place = np.arange(n_patches)
    features = random.normal(size=(n_patches, PATCH_DIM)) + latent * (np.arange(PATCH_DIM) % 8 == 0) / 2
    return SlideFeatures(
        features=features.astype(np.float16),
        coords=np.stack([place % side, place // side], axis=1).astype(np.int32) * 256,
        patch_size_level0=256,
        level0_mpp=0.5,
        target_mpp=0.5,
        encoder="ready",
        encoder_sha256="0" * 64,
        slide_width_px=side * 256,
        slide_height_px=side * 256,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser()
    for name, value in (("patients", 40), ("patches", 1000), ("tasks", 3), ("folds", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--models", nargs="+", default=compared_models())
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cohort = ready_cohort(folder, options.patients, options.patches, options.tasks)
        folds = choose_repeats(cohort, 5, seed=0)[0][: options.folds]
        start = time.process_time()
        cross_validate(cohort, task=list(cohort.tasks), models=options.models, folds=folds, out=folder / "run")
        trained = time.process_time()
        run = load_run(folder / "run")
        run.explain_cohort(cohort)
        explained = time.process_time()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    training, explaining = trained - start, explained - trained
    print(
        f"commit {commit.strip()}, torch {torch.__version__}, {platform.machine()}, {os.cpu_count()} cores, one thread"
    )
    print(
        f"{options.patients} patients x {options.patches} patches x {options.tasks} tasks, {options.folds} of 5 folds"
    )
    print(f"training {training:.0f} s, explaining {explaining:.0f} s, {explaining / training:.0%} of the training")


if __name__ == "__main__":
    main()

"""Starts a process as `train --devices 2` or the viewer does, which writes its number into a folder and sleeps."""

import os
import sys
import time
from functools import partial
from pathlib import Path

from subfuse.serve.explanations import ExplanationShelf, ExplanationWorker
from subfuse.training.processes import start_processes
from subfuse.training.settings import TrainingPlan


def sleep(folder: Path, name: str) -> None:
    (folder / name).write_text(str(os.getpid()))
    time.sleep(100)


def explain(folder: Path, patient_id: str, out: Path) -> None:
    sleep(folder, patient_id)


def second_rank(folder: Path) -> None:
    with start_processes(TrainingPlan(device="cpu"), devices=2, nodes=1) as fabric:
        if fabric.global_rank:
            sleep(folder, "rank")
        time.sleep(100)


def explaining(folder: Path) -> None:
    shelf = ExplanationShelf(folder.parent / "explanations")
    ExplanationWorker(shelf, explain=partial(explain, folder), n_tasks=1).start("patient")
    time.sleep(100)


if __name__ == "__main__":
    {"second_rank": second_rank, "explaining": explaining}[sys.argv[1]](Path(sys.argv[2]))

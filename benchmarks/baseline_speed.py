"""Speed of SurvPath against a plain transcription with one network per pathway, in one run.

    python benchmarks/baseline_speed.py

Writes benchmarks/results/baseline_speed.md. Both models alternate in one process of one thread, with and without the
large memory pages that every `subfuse` command asks torch for. Times are those of the process (CPU seconds), the best
of the repetitions.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model_speed import ROOT, machine, seconds
from subfuse.model.baselines.survpath import SurvPath

sys.path.insert(0, str(ROOT / "tests" / "model" / "baselines"))

from survpath_transcription import transcribed

PATHWAYS, GENES, SMALLEST, LARGEST = 331, 4999, 15, 100  # genes of a pathway
PATCHES = (1000, 4000, 10_000)
REPEATS = 8
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"


def steps(n_patches: int) -> dict[str, Callable[[], None]]:
    """Forward and backward of one patient, by model."""
    torch.manual_seed(0)
    sizes = torch.randint(SMALLEST, LARGEST, (PATHWAYS,)).tolist()
    pathways = {str(index): torch.randint(GENES, (size,)).tolist() for index, size in enumerate(sizes)}
    model = SurvPath(4, pathways=pathways).train()
    plain = transcribed(model, dropout=0.25).train()
    patches, expression = torch.randn(1, n_patches, 1024), torch.randn(1, GENES)
    coords, label = torch.zeros(1, n_patches, 2), torch.tensor([1])
    patch_mask, measured = torch.ones(1, n_patches, dtype=torch.bool), torch.ones(1, dtype=torch.bool)
    genes = [expression[:, columns] for columns in pathways.values()]

    def step(network: nn.Module, *arguments: object) -> None:
        network.zero_grad()
        output = network(*arguments)
        logits = output if isinstance(output, torch.Tensor) else output.logits
        nn.functional.cross_entropy(logits, label).backward()

    return {
        "transcription": lambda: step(plain, patches, genes),
        "subfuse": lambda: step(model, patches, coords, patch_mask, expression, measured),
    }


def measure() -> dict[str, list[float]]:
    """Seconds of the transcription and of the model, and of the transcription's matrix products at full speed."""
    square = torch.randn(2048, 2048)
    square @ square
    flop_per_second = 2 * 2048**3 / min(seconds(lambda: square @ square) for _ in range(5))
    found = {}
    for n_patches in PATCHES:
        runs = steps(n_patches)
        with FlopCounterMode(display=False) as counter:
            runs["transcription"]()
        runs["subfuse"]()
        times = [[seconds(run) for run in runs.values()] for _ in range(REPEATS)]
        products = counter.get_total_flops() / flop_per_second
        found[str(n_patches)] = [*(min(column) for column in zip(*times, strict=True)), products]
    return found


def rows(pages: str) -> list[str]:
    """A row per size, measured in a process of its own, which has such pages from its start."""
    command = [sys.executable, __file__, "--measure"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {LARGE_PAGES: pages})
    return [
        f"| {'2 MB' if pages == '1' else '4 kB'} | {n_patches} | {1000 * plain:.0f} | {1000 * ours:.0f} "
        f"| {plain / ours:.2f} × | {1000 * products:.0f} | {plain / products:.2f} × |"
        for n_patches, (plain, ours, products) in json.loads(done.stdout).items()
    ]


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1:] == ["--measure"]:
        sys.stdout.write(json.dumps(measure()))
        return
    start, about = time.perf_counter(), machine()
    lines = ["# Speed of SurvPath", "", "    python benchmarks/baseline_speed.py", "", *about, ""]
    lines += [
        f"Forward and backward of one patient, {PATHWAYS} pathways of {SMALLEST} to {LARGEST - 1} genes, "
        f"1024 features, float32, one thread. CPU milliseconds, best of {REPEATS}; both models alternate. Matrix "
        "products: the time that those of the transcription take at the speed of a product of 2048 × 2048; every way "
        "to compute the same model has them, so that the last column bounds what can be had.",
        "",
        "| memory pages | patches | transcription ms | subfuse ms | ratio | matrix products ms | bound |",
        "|---" * 7 + "|",
        *rows("1"),
        *rows("0"),
        "",
        "The commands of subfuse use pages of 2 MB unless `THP_MEM_ALLOC_ENABLE` says otherwise. Twice the speed is "
        "out of reach for large bags: there, most of the time of both are the same matrix products. For small ones it "
        "is the memory: 27 million weights are read twice, and as many gradients written.",
        "",
        f"Whole run: {time.perf_counter() - start:.0f} s.",
    ]
    (Path(__file__).parent / "results" / "baseline_speed.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

"""Speed and memory of `SubspaceFusion` against a direct transcription of the released model, in one run.

    python benchmarks/model_speed.py [--quick] [--threads 1]

Writes benchmarks/results/model_speed.md. Both models alternate in one process for the timings; every peak of memory is
measured in a process of its own. Times are those of the process (CPU seconds, summed over threads), which other work on
the machine disturbs least; with one thread they are what the clock shows on an idle machine. `--quick` repeats less,
leaves out batch 8 and growth, and writes nothing.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "model"))

from transcription import Transcription  # noqa: E402

from subfuse.model import SubspaceFusion, SubspaceFusionConfig, position_bias_error  # noqa: E402

N_TUMOUR, N_MICRO, PATCH_DIM, PITCH_UM = 59, 361, 1024, 128.0
CONFIG = SubspaceFusionConfig(n_outputs=4)
GENE_SETS = {"tumour": range(N_TUMOUR), "microenvironment": range(N_TUMOUR, N_TUMOUR + N_MICRO)}
GIB_FOR_BATCH_8 = {"train": 21, "predict": 11}  # of the transcription


class Package(nn.Module):
    """`SubspaceFusion` with the transcription's arguments and results."""

    def __init__(self, config: SubspaceFusionConfig = CONFIG) -> None:
        super().__init__()
        self.model = SubspaceFusion(config, GENE_SETS)

    def forward(self, patches: Tensor, genes: Tensor) -> dict[str, Tensor]:
        """Patches on a full square grid, every modality present."""
        batch, n_patches = patches.shape[:2]
        side = int(n_patches**0.5)
        index = torch.arange(n_patches, device=patches.device)
        coords = torch.stack([index % side, index // side], -1) * PITCH_UM
        output = self.model(
            patches,
            coords.expand(batch, -1, -1),
            torch.ones(batch, n_patches, dtype=torch.bool, device=patches.device),
            genes,
            torch.ones(batch, dtype=torch.bool, device=patches.device),
        )
        return {
            "logits": output.logits,
            "expression_embedding": output.expression_embedding,
            "sampling_grid": output.sampling_grid,
        }


MODELS: dict[str, Callable[[], nn.Module]] = {
    "transcription": lambda: Transcription(N_TUMOUR, N_MICRO, CONFIG.n_outputs),
    "table": Package,
    "exact": lambda: Package(replace(CONFIG, position_bias="exact")),
}


def inputs(batch: int, n_patches: int = 2500) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(batch, n_patches, PATCH_DIM, generator=generator)
    return patches, torch.randn(batch, N_TUMOUR + N_MICRO, generator=generator)


def consistency(output: dict[str, Tensor]) -> Tensor:
    """The gene-guided consistency loss on positions, per subspace."""
    loss = output["logits"].new_zeros(())
    for embedding, grid in zip(
        output["expression_embedding"].unbind(1), output["sampling_grid"].unbind(1), strict=True
    ):
        genes = nn.functional.normalize(embedding @ embedding.T, dim=1)
        flat = grid.flatten(2).transpose(0, 1)
        places = nn.functional.normalize(flat @ flat.transpose(1, 2), dim=2).mean(0)
        loss = loss + (genes - places).square().sum() / len(embedding)
    return loss


def train_step(model: nn.Module, optimiser: torch.optim.Optimizer, patches: Tensor, genes: Tensor) -> None:
    optimiser.zero_grad()
    output = model(patches, genes)
    label = torch.arange(len(genes), device=genes.device) % CONFIG.n_outputs
    (nn.functional.cross_entropy(output["logits"], label) + 0.5 * consistency(output)).backward()
    optimiser.step()


def runner(name: str, mode: str, batch: int, n_patches: int = 2500, device: str = "cpu") -> Callable[[], None]:
    """Returns a function that runs one training step or one forward pass for prediction."""
    torch.manual_seed(0)
    model = MODELS[name]().to(device)
    patches, genes = (tensor.to(device) for tensor in inputs(batch, n_patches))
    if mode == "train":
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
        return lambda: train_step(model.train(), optimiser, patches, genes)

    def predict() -> None:
        with torch.no_grad():
            model.eval()(patches, genes)

    return predict


def seconds(run: Callable[[], None]) -> float:
    """CPU seconds of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def peak_mb(name: str, mode: str, batch: int, n_patches: int = 2500) -> tuple[float, float]:
    """Peak resident memory of two repetitions in a process of their own: all of it, and without the imports."""
    command = [sys.executable, __file__, "--measure", json.dumps([name, mode, batch, n_patches])]
    command += ["--threads", str(torch.get_num_threads())]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found["peak_kb"] / 1024, (found["peak_kb"] - found["baseline_kb"]) / 1024


def measure_peak(arguments: str) -> None:
    name, mode, batch, n_patches = json.loads(arguments)
    baseline = peak_kb()
    run = runner(name, mode, batch, n_patches)
    for _ in range(1 if name == "transcription" else 2):
        run()
    sys.stdout.write(json.dumps({"peak_kb": peak_kb(), "baseline_kb": baseline}))


def peak_kb() -> int:
    """Peak resident size; unlike ru_maxrss it starts anew with the program and owes nothing to the parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def available_gib() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20


def comparison(repeats: dict[int, int]) -> list[str]:
    rows = [
        "| step | batch | transcription s | table s | exact s | ratio table | ratio exact | transcription MB "
        "| table MB | exact MB | ratio table | ratio table without imports |",
        "|---" * 12 + "|",
    ]
    for mode in ("train", "predict"):
        for batch, repetitions in repeats.items():
            command = [sys.executable, __file__, "--row", json.dumps([mode, batch, repetitions])]
            command += ["--threads", str(torch.get_num_threads())]
            rows.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            sys.stderr.write(rows[-1] + "\n")
    return rows


def compare(mode: str, batch: int, repetitions: int) -> str:
    """One row, in a process of its own: what a larger transcription leaves in the allocator would crowd the next."""
    names = ["table", "exact"]
    enough = batch < 8 or available_gib() > GIB_FOR_BATCH_8[mode]
    if enough:
        names.append("transcription")
    memory = {name: peak_mb(name, mode, batch) for name in names}
    runs = {name: runner(name, mode, batch) for name in names}
    for name in names:
        if name == "table" or batch == 1:
            runs[name]()  # warm up
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repetitions):
        for name in names:
            for _ in range(3 if name == "table" else 1):
                times[name].append(seconds(runs[name]))
    return comparison_row(mode, batch, {name: min(values) for name, values in times.items()}, memory, enough)


def comparison_row(
    mode: str, batch: int, best: dict[str, float], memory: dict[str, tuple[float, float]], enough: bool
) -> str:
    if not enough:
        return (
            f"| {mode} | {batch} | not run: memory | {best['table']:.3f} | {best['exact']:.3f} | | | not run: memory "
            f"| {memory['table'][0]:.0f} | {memory['exact'][0]:.0f} | | |"
        )
    slow, slow_memory = best["transcription"], memory["transcription"]
    return (
        f"| {mode} | {batch} | {slow:.2f} | {best['table']:.3f} | {best['exact']:.3f} | {slow / best['table']:.1f} × "
        f"| {slow / best['exact']:.1f} × | {slow_memory[0]:.0f} | {memory['table'][0]:.0f} | {memory['exact'][0]:.0f} "
        f"| {slow_memory[0] / memory['table'][0]:.1f} × | {slow_memory[1] / memory['table'][1]:.1f} × |"
    )


def growth() -> list[str]:
    rows = ["| patches | training step s | forward s | peak MB, training | of which patches MB |", "|---" * 5 + "|"]
    for n_patches in (625, 2500, 10_000, 40_000):
        best = []
        for mode in ("train", "predict"):
            run = runner("table", mode, 1, n_patches)
            run()
            best.append(min(seconds(run) for _ in range(3)))
        size, peak = n_patches * PATCH_DIM * 4 / 2**20, peak_mb("table", "train", 1, n_patches)[0]
        rows.append(f"| {n_patches} | {best[0]:.3f} | {best[1]:.3f} | {peak:.0f} | {size:.0f} |")
    return rows


def trained_weights(steps: int) -> dict[str, Tensor]:
    """Weights after a task whose label is where in the slide the bright patches lie (quadrant)."""
    torch.manual_seed(0)
    config = replace(CONFIG, patch_dim=16, grid=(20, 20))
    model = SubspaceFusion(config, {"tumour": range(8), "microenvironment": range(8, 16)})
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    index = torch.arange(400)
    coords = (torch.stack([index % 20, index // 20], -1) * PITCH_UM).expand(8, -1, -1)
    for _ in range(steps):
        label = torch.randint(4, (8,))
        quadrant = (coords[..., 0] > 9.5 * PITCH_UM) + 2 * (coords[..., 1] > 9.5 * PITCH_UM)
        patches = torch.randn(8, 400, 16)
        patches[..., 0] += 2.0 * (quadrant == label[:, None])
        masks = torch.ones(8, 400, dtype=torch.bool), torch.ones(8, dtype=torch.bool)
        output = model(patches, coords, masks[0], torch.randn(8, 16), masks[1])
        optimiser.zero_grad()
        nn.functional.cross_entropy(output.logits, label).backward()
        optimiser.step()
    return model.state_dict()


def table_errors(steps: int) -> list[str]:
    rows = [
        "| weights | table_size | nodes per axis | largest error of the bias | spread of the bias "
        "| largest change of a logit / spread of logits |",
        "|---" * 6 + "|",
    ]
    trained = trained_weights(steps)
    torch.manual_seed(0)
    gene_sets = {"tumour": range(8), "microenvironment": range(8, 16)}
    config = replace(CONFIG, patch_dim=16)
    initial = SubspaceFusion(config, gene_sets).state_dict()
    enlarged = {name: value * (4 if ".position_bias." in name else 1) for name, value in initial.items()}
    index = torch.arange(2500)
    coords = (torch.stack([index % 50, index // 50], -1) * PITCH_UM).expand(3, -1, -1)
    arguments = (torch.randn(3, 2500, 16), coords, torch.ones(3, 2500, dtype=torch.bool), torch.randn(3, 16))
    named = {"initial": initial, f"trained {steps} steps": trained, "initial, position network × 4": enlarged}
    for label, weights in named.items():
        results = {}
        for size in (0, 64, 128, 256, 512):
            model = SubspaceFusion(
                replace(config, table_size=size or 1, position_bias="table" if size else "exact"), gene_sets
            ).eval()
            model.load_state_dict(weights)
            with torch.no_grad():
                logits = model(*arguments, torch.ones(3, dtype=torch.bool)).logits
            results[size] = (model, logits)
        exact_model, exact = results.pop(0)
        bias = exact_model.subspaces["tumour"].attention.position_bias
        with torch.no_grad():
            spread = bias(2.7 * (2 * torch.rand(20_000, 2) - 1)).std().item()
        for size, (model, logits) in results.items():
            change = ((logits - exact).abs().max() / exact.std()).item()
            error = position_bias_error(model, 20_000)
            axis = model.subspaces["tumour"].attention.table_axes[0]
            nodes = axis.steps_per_cell * axis.nodes_per_phase
            rows.append(f"| {label} | {size} | {nodes} | {error:.1e} | {spread:.2g} | {change:.1e} |")
    return rows


def limits() -> list[str]:
    """Floating-point operations against the machine's matrix products, and the operations that take longest."""
    a = torch.randn(2048, 2048)
    a @ a
    peak = 2 * 2048**3 / min(seconds(lambda: a @ a) for _ in range(5)) / 1e9
    rows = [f"Matrix product 2048 × 2048 × 2048 in float32: {peak:.0f} GFLOP/s.", ""]
    for mode in ("train", "predict"):
        run = runner("table", mode, 4)
        run()
        with FlopCounterMode(display=False) as counter:
            run()
        flop = counter.get_total_flops() / 1e9
        best = min(seconds(run) for _ in range(3))
        rows += [
            f"Batch 4, {mode}: {flop:.1f} GFLOP of matrix products and convolutions in {best:.3f} s, "
            f"{flop / best:.0f} GFLOP/s, {100 * flop / best / peak:.0f} % of that peak.",
            "",
        ]
    run = runner("table", "train", 4)
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    rows += ["| operation (batch 4, training) | share of time | calls |", "|---|---|---|"]
    rows += [f"| {e.key} | {100 * e.self_cpu_time_total / total:.1f} % | {e.count} |" for e in events[:12]]
    return rows


def machine() -> list[str]:
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return [
        f"- machine: {platform.machine()}, {cpu}, {torch.get_num_threads()} threads; load average "
        f"{', '.join(f'{value:.1f}' for value in os.getloadavg())} at the start",
        f"- torch {torch.__version__}, Python {platform.python_version()}, commit {commit}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no batch 8, no growth, nothing written")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        measure_peak(arguments.measure)
        return
    if arguments.row:
        sys.stdout.write(compare(*json.loads(arguments.row)))
        return
    start, about = time.perf_counter(), machine()
    repeats = {1: 1, 4: 1} if arguments.quick else {1: 3, 4: 2, 8: 1}
    lines = ["# Speed and memory of the model", "", "    python benchmarks/model_speed.py", "", *about, ""]
    lines += [
        "Bags of 2500 patches × 1024 features, 59 + 361 genes, float32. Training: forward, cross entropy, "
        "consistency, backward, Adam. CPU seconds, best of the repetitions; models alternate. Memory: peak resident "
        "size of a process of its own, imports and inputs included, unless said otherwise. The package uses "
        '`layout="spatial"` on a full grid.',
        "",
        *comparison(repeats),
        "",
    ]
    if not arguments.quick:
        lines += ["## Growth with the bag (one patient, table)", "", *growth(), ""]
    lines += [
        "## Error of the table",
        "",
        "Trained weights: a task on 20 × 20 patches in which the label is the quadrant that holds the bright patches. "
        "The error is the largest over 20,000 random pairs per subspace (`position_bias_error`).",
        "",
        *table_errors(50 if arguments.quick else 300),
        "",
        "## What limits it",
        "",
        *limits(),
        "",
        f"Whole run: {time.perf_counter() - start:.0f} s.",
    ]
    text = "\n".join(lines) + "\n"
    if arguments.quick:
        sys.stdout.write(text)
        return
    (ROOT / "benchmarks" / "results" / "model_speed.md").write_text(text)


if __name__ == "__main__":
    main()

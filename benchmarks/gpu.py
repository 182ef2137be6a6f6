"""What a GPU changes: agreement with the processor, speed against the transcription, where the time of a step goes.

    python benchmarks/gpu.py [--device cuda] [--batches 1 8 32]

One prepared script for a machine with a GPU; writes benchmarks/results/gpu.md. Times are those of the clock with the
device idle before and after, the best of the repetitions; both models alternate on the same card. `--device cpu` runs
the same on the processor and writes nothing: it shows that the script works.
"""

import argparse
import copy
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from model_speed import CONFIG, MODELS, inputs, runner

RESULT = Path(__file__).parent / "results" / "gpu.md"
REPEATS = 5
AGREEMENT_PATCHES = 900  # of the bags on which both devices are compared


@dataclass(frozen=True)
class Device:
    """Where everything is measured."""

    name: str

    @property
    def is_gpu(self) -> bool:
        """Whether kernels are queued, and memory is the device's own."""
        return self.name.startswith("cuda")

    def wait(self) -> None:
        """Lets the device finish."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object]) -> float:
        """Shortest time of several runs, after one that is not counted."""
        times = []
        for _ in range(REPEATS + 1):
            self.wait()
            start = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - start)
        return min(times[1:])

    def peak_mb(self, run: Callable[[], object]) -> float:
        """Most memory that tensors take on the card while it runs; NaN on the processor."""
        if not self.is_gpu:
            return float("nan")
        torch.cuda.reset_peak_memory_stats()
        run()
        self.wait()
        return torch.cuda.max_memory_allocated() / 2**20


def loss_of(model: nn.Module, patches: Tensor, genes: Tensor) -> Tensor:
    """A loss of logits and sampling positions, so that every parameter has a gradient."""
    output = model(patches, genes)
    label = torch.arange(len(genes), device=genes.device) % CONFIG.n_outputs
    return nn.functional.cross_entropy(output["logits"], label) + output["sampling_grid"].square().mean()


def gradients(model: nn.Module, patches: Tensor, genes: Tensor) -> Tensor:
    """All gradients of `loss_of`, one after the other, on the processor."""
    model.zero_grad()
    loss_of(model, patches, genes).backward()
    return torch.cat([p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None])


def agreement(device: Device) -> list[str]:
    """Largest differences to the processor in double precision, relative to the largest value."""
    torch.manual_seed(0)
    reference = MODELS["table"]().double().eval()
    patches, genes = inputs(4, AGREEMENT_PATCHES)
    with torch.no_grad():
        logits = reference(patches.double(), genes.double())["logits"]
    slopes = gradients(reference, patches.double(), genes.double())
    rows = ["| where | precision | logits | gradients |", "|---|---|---|---|"]
    for name, precision in itertools.product(dict.fromkeys(("cpu", device.name)), ("float32", "bfloat16")):
        model = copy.deepcopy(reference).float().to(name)
        with torch.autocast(torch.device(name).type, torch.bfloat16, enabled=precision == "bfloat16"):
            with torch.no_grad():
                found = model(patches.to(name), genes.to(name))["logits"].double().cpu()
            steep = gradients(model, patches.to(name), genes.to(name))
        errors = [float((a - b).abs().max() / b.abs().max()) for a, b in ((found, logits), (steep, slopes))]
        rows.append(f"| {name} | {precision} | {errors[0]:.1e} | {errors[1]:.1e} |")
    return rows


def speed(device: Device, batches: list[int]) -> list[str]:
    """Steps of both models at several batches; a model that the card's memory cannot hold is said."""
    rows = [
        "| step | batch | transcription ms | subfuse ms | ratio | transcription MB | subfuse MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for mode, batch in itertools.product(("train", "predict"), batches):
        found = []
        for name in ("transcription", "table"):
            try:
                run = runner(name, mode, batch, device=device.name)
                found.append((1000 * device.seconds(run), device.peak_mb(run)))
            except torch.OutOfMemoryError:
                found.append((float("nan"), float("nan")))
        (slow, slow_mb), (fast, fast_mb) = found
        rows.append(
            f"| {mode} | {batch} | {slow:.1f} | {fast:.1f} | {slow / fast:.1f} × | {slow_mb:.0f} | {fast_mb:.0f} |"
        )
    return rows


def shares(device: Device, batch: int = 8) -> list[str]:
    """Where a training step goes: copies of its inputs, launches by the processor, kernels of the card."""
    patches, genes = inputs(batch)
    copied = device.seconds(lambda: (patches.to(device.name), genes.to(device.name)))
    run = runner("table", "train", batch, device=device.name)
    whole = device.seconds(run)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.is_gpu else [])]
    with profile(activities=activities) as profiled:
        run()
        device.wait()
    events = profiled.key_averages()
    kernels = sum(event.self_device_time_total for event in events) / 1e6
    operations = sum(event.count for event in events if event.key.startswith("aten::"))
    waits = sum(event.count for event in events if event.key in ("aten::_local_scalar_dense", "aten::nonzero"))
    return [
        f"Batch {batch}: a step takes {1000 * whole:.1f} ms, copying its inputs from pageable memory "
        f"{1000 * copied:.1f} ms more; kernels take {1000 * kernels:.1f} ms ({100 * kernels / whole:.0f} %), "
        f"{operations} operations are launched, {waits} of which wait for the device.",
    ]


def accumulation(device: Device) -> list[str]:
    """One update of one large batch against the same in parts, as `--train.accumulate` makes it."""
    torch.manual_seed(0)
    whole = MODELS["table"]().to(device.name).eval()
    parts = copy.deepcopy(whole)
    patches, genes = (tensor.to(device.name) for tensor in inputs(8, AGREEMENT_PATCHES))
    label = torch.arange(8, device=device.name) % CONFIG.n_outputs
    nn.functional.cross_entropy(whole(patches, genes)["logits"], label).backward()
    for rows in torch.arange(8).split(2):
        logits = parts(patches[rows], genes[rows])["logits"]
        (nn.functional.cross_entropy(logits, label[rows.to(device.name)], reduction="sum") / 8).backward()
    pairs = zip(whole.parameters(), parts.parameters(), strict=True)
    errors = [
        (a.grad - b.grad).abs().max() / a.grad.abs().max().clamp(min=1e-12) for a, b in pairs if a.grad is not None
    ]
    return [f"Gradients of a batch of 8 and of four batches of 2 differ by at most {float(max(errors)):.1e}."]


def machine(device: Device) -> list[str]:
    """What was measured on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    card = torch.cuda.get_device_name() if device.is_gpu else "the processor"
    return [f"- {card}; torch {torch.__version__}; TF32 off; commit {commit.strip()}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()
    device = Device(options.device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    sections = {
        "Agreement": agreement(device),
        "Speed": speed(device, options.batches),
        "Where a training step goes": shares(device, min(8, options.batches[-1])),
        "Accumulation": accumulation(device),
    }
    lines = ["# On a GPU", "", "    python benchmarks/gpu.py", "", *machine(device), ""]
    lines += ["Bags of 2500 patches × 1024 features, 59 + 361 genes.", ""]
    lines += ["Differences are relative to the largest value of the processor in double precision.", ""]
    for title, rows in sections.items():
        lines += [f"## {title}", "", *rows, ""]
    text = "\n".join(lines)
    sys.stdout.write(text)
    if device.is_gpu:
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

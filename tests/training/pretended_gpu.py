"""A pretended GPU: tensors that say they are on `cuda:0` and are computed by the processor.

What mixes devices fails as on a GPU, as does what it computes in no fixed order where deterministic algorithms are
asked for, and what would wait for one is counted.
"""

import contextlib
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only

GPU = torch.device("cuda:0")
_WAITS = {  # operations whose result, or the shape of it, the processor needs
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::bincount",
    "aten::equal",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
}


_OF_NO_ORDER = {  # operations that a GPU computes in no fixed order, and that PyTorch refuses where one is asked for
    "aten::_adaptive_avg_pool2d_backward",
    "aten::grid_sampler_2d_backward",
    "aten::histc",
    "aten::kthvalue",
    "aten::median",
    "aten::put_",
    "aten::reflection_pad1d_backward",
    "aten::upsample_bilinear2d_backward",
}


class OnGpu(Tensor):
    """A tensor on the pretended GPU."""

    @staticmethod
    def __new__(cls, held: Tensor, requires_grad: bool = False) -> "OnGpu":
        return Tensor._make_wrapper_subclass(
            cls, held.shape, dtype=held.dtype, strides=held.stride(), storage_offset=held.storage_offset(),
            device="meta", requires_grad=requires_grad,
        )  # fmt: skip

    def __init__(self, held: Tensor, requires_grad: bool = False) -> None:
        self.held = held

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def tolist(self) -> Any:
        _counted().waits["tolist"] += 1
        return self.held.tolist()

    def __getitem__(self, places: Any) -> Any:  # PyTorch would put a list on the meta device, without its numbers
        is_listed = isinstance(places, list)
        return super().__getitem__(torch.tensor(places) if is_listed else places)

    def new_tensor(self, data: Any, **options: Any) -> "OnGpu":
        _counted().waits["new_tensor"] += 1
        return OnGpu(torch.tensor(data, dtype=options.get("dtype", self.dtype)))

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return _counted().run(function, arguments, options or {})


class PretendedGpu(TorchDispatchMode):
    """Counts, while it is active, what waits for the GPU (`waits`) and what copies to it (`copies`)."""

    active: "PretendedGpu | None" = None

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()  # by whether they block

    def __enter__(self) -> "PretendedGpu":
        PretendedGpu.active = self
        return super().__enter__()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        return self.run(function, arguments, options or {})

    def run(self, function: Any, arguments: Any, options: dict[str, Any]) -> Any:
        name = function._schema.name
        tensors = [x for x in tree_flatten((arguments, options))[0] if isinstance(x, Tensor)]
        on = [x for x in tensors if isinstance(x, OnGpu)]
        asked = options.get("device")
        to_gpu = asked is not None and torch.device(asked).type in ("cuda", "meta")
        is_copy = name in ("aten::_to_copy", "aten::copy_")
        if any(x.is_meta for x in tensors):
            raise RuntimeError(f"{function} must find numbers. Found a tensor on the meta device, which has none.")
        strangers = [x for x in tensors if not isinstance(x, OnGpu) and x.dim() > 0]
        may_index = name.startswith("aten::index") and len(strangers) < len(tensors)  # by places on the processor
        if on and strangers and may_index:
            self.waits["index from the processor"] += 1
        if on and strangers and not is_copy and not may_index:
            shapes = [tuple(x.shape) for x in strangers]
            raise RuntimeError(f"{function} must find all tensors on the GPU. Found on the processor: {shapes}.")
        is_mask = name == "aten::index" and any(x is not None and x.dtype == torch.bool for x in arguments[1])
        has_no_order = name in _OF_NO_ORDER or (name == "aten::cumsum" and tensors[0].is_floating_point())
        if on and has_no_order and torch.are_deterministic_algorithms_enabled():
            raise RuntimeError(f"{function} must be computed in a fixed order. A GPU has none for it.")
        if on and (name in _WAITS or is_mask):
            self.waits[name] += 1
        if is_copy and to_gpu and not on and tensors:
            self.copies["queued" if options.get("non_blocking") else "blocking"] += 1
        leaves = bool(on) and is_copy and asked is not None and not to_gpu
        if leaves or (name == "aten::copy_" and len(on) == 1):
            self.waits["copy back"] += 1
        if to_gpu:
            options = {**options, "device": torch.device("cpu")}
        options = {key: value for key, value in options.items() if key != "pin_memory"}
        plain = tree_map_only(OnGpu, lambda x: x.held, (arguments, options))
        found = function(*plain[0], **plain[1])
        if not (on or to_gpu) or leaves or name == "aten::_local_scalar_dense":
            return found
        wrapped = tree_map_only(Tensor, lambda x: x if isinstance(x, OnGpu) else OnGpu(x), found)
        is_written = function._schema.is_mutable and bool(on)
        return return_and_correct_aliasing(function, arguments, options, wrapped) if is_written else wrapped


def _counted() -> PretendedGpu:
    return PretendedGpu.active or PretendedGpu()


class OneGpu:
    """What training asks of `lightning.fabric.Fabric`, with the pretended GPU as its device."""

    world_size, global_rank, is_global_zero, device = 1, 0, True, GPU

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def to_device(self, module: nn.Module) -> nn.Module:
        return moved_to_gpu(module)

    def broadcast(self, value: Any) -> Any:
        return value


def moved_to_gpu(module: nn.Module) -> nn.Module:
    """Moves a module to the pretended GPU."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and parameter.device != GPU:
                part._parameters[name] = nn.Parameter(OnGpu(parameter.detach().clone()), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None and buffer.device != GPU:
                part._buffers[name] = OnGpu(buffer.clone())
    return module


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets PyTorch believe in the GPU until the test ends."""
    to = nn.Module.to
    for name, value in {
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "torch.cuda.set_rng_state": lambda *_, **__: None,
        "torch.random.fork_rng": lambda devices=(): contextlib.nullcontext(),
        "torch.inference_mode": torch.no_grad,  # whose tensors cannot be wrapped
        "torch.Tensor.pin_memory": lambda tensor: tensor,
        "torch.optim.Optimizer._accelerator_graph_capture_health_check": lambda optimizer: None,
    }.items():
        monkeypatch.setattr(name, value)

    def moved(module: nn.Module, where: Any) -> nn.Module:
        device = where.device if isinstance(where, Tensor) else torch.device(where)
        return moved_to_gpu(module) if device.type == "cuda" else to(module, where)

    monkeypatch.setattr(nn.Module, "to", moved)

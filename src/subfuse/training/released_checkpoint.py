"""A checkpoint file of the published code, as files of this package."""

import json
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError

import torch
from pydantic import TypeAdapter

from subfuse.errors import ConfigurationError, DataError
from subfuse.files import atomic_path, write_json
from subfuse.model import SubspaceFusion, SubspaceFusionConfig
from subfuse.model.released_weights import convert_released, unused_names


def convert_file(path: Path, out: Path) -> tuple[str, ...]:
    """Writes `model.safetensors` and `model.json` (configuration, genes per subspace) from a released checkpoint.

    `load_converted` reads them back.

    Args:
        path: A plain state dict saved by `torch.save`; nothing but tensors is unpickled.
        out: Folder to write to; must not hold a model.

    Returns:
        Names of the checkpoint that the released forward pass never uses: they are left out.

    Raises:
        DataError: The file cannot be read, or a weight is missing or has another shape.
        ConfigurationError: The folder holds a model already.
    """
    from safetensors.torch import save_file

    if (out / "model.safetensors").exists():
        raise ConfigurationError(f"{out} holds a model already. Choose another --out.")
    try:
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), "an empty file")
        raise DataError(f"{path} must be a state dict saved by torch.save, tensors only. Found: {reason}.") from None
    if not isinstance(state_dict, dict) or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise DataError(f"{path} must be a plain state dict: names to tensors. Found {type(state_dict).__name__}.")
    try:
        config, weights = convert_released(state_dict)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    n_genes = {
        name: weights[f"subspaces.{name}.expression_encoder.layers.0.weight"].shape[1]
        for name in ("tumour", "microenvironment")
    }
    with atomic_path(out / "model.safetensors") as temporary:
        save_file(weights, temporary)
    write_json(out / "model.json", {"config": asdict(config), "n_genes": n_genes})
    return unused_names(state_dict)


def load_converted(folder: Path) -> SubspaceFusion:
    """Returns the model of a folder that `convert_file` wrote; it reproduces the released logits.

    Its gene axis holds the released tumour vector, then the microenvironment vector; patches keep their list order.
    """
    from safetensors.torch import load_file

    described = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    config = TypeAdapter(SubspaceFusionConfig).validate_python(described["config"])
    n_tumour, n_micro = described["n_genes"]["tumour"], described["n_genes"]["microenvironment"]
    genes = {"tumour": range(n_tumour), "microenvironment": range(n_tumour, n_tumour + n_micro)}
    model = SubspaceFusion(config, genes, n_genes=n_tumour + n_micro)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()

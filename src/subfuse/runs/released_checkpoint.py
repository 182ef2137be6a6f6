"""A checkpoint file of the published code, as files of this package."""

from dataclasses import asdict
from pathlib import Path

import torch
from pydantic import TypeAdapter

from subfuse.bounded_files import require_regular_file
from subfuse.errors import ConfigurationError, DataError
from subfuse.files import atomic_path, read_json, remove_parts, require_whole_tensors, write_json
from subfuse.model import SubspaceFusion, SubspaceFusionConfig
from subfuse.model.released_weights import convert_released, unused_names
from subfuse.run_folder.names import MODEL, WEIGHTS


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

    if (out / WEIGHTS).exists():
        raise ConfigurationError(f"{out} holds a model already. Choose another --out.")
    try:
        require_whole_tensors(path)
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged stream of pickle instructions fails in any way
        reason = next(iter(str(error).splitlines()), "an empty file")
        raise DataError(f"{path} must be a state dict saved by torch.save, tensors only. Found: {reason}.") from None
    if not isinstance(state_dict, dict) or not all(_is_named_array(*item) for item in state_dict.items()):
        raise DataError(
            f"{path} must be a plain state dict: names to dense tensors of floating-point numbers. Found another "
            f"{type(state_dict).__name__}."
        )
    try:
        config, weights = convert_released(state_dict)
    except (ValueError, LookupError, RuntimeError) as error:  # also tensors without axes
        raise DataError(f"{path}: {error}") from None
    n_genes = {
        name: weights[f"subspaces.{name}.expression_encoder.layers.0.weight"].shape[1]
        for name in ("tumour", "microenvironment")
    }
    remove_parts(out)
    with atomic_path(out / WEIGHTS) as temporary:
        save_file(weights, temporary)
    write_json(out / MODEL, {"config": asdict(config), "n_genes": n_genes})
    return unused_names(state_dict)


def load_converted(folder: Path | str) -> SubspaceFusion:
    """Returns the model of a folder that `convert_file` wrote; it reproduces the released logits.

    Its gene axis holds the released tumour vector, then the microenvironment vector; patches keep their list order.

    Raises:
        DataError: A file is missing or damaged, or does not fit the other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    described = read_json(folder / MODEL)
    require_regular_file(folder / WEIGHTS, "file of weights")
    try:
        config = TypeAdapter(SubspaceFusionConfig).validate_python(described["config"])
        n_tumour, n_micro = (int(described["n_genes"][name]) for name in ("tumour", "microenvironment"))
        genes = {"tumour": range(n_tumour), "microenvironment": range(n_tumour, n_tumour + n_micro)}
        with torch.device("meta"):
            model = SubspaceFusion(config, genes, n_genes=n_tumour + n_micro)
        weights = load_file(folder / WEIGHTS)
        if {n: v.shape for n, v in weights.items()} != {n: v.shape for n, v in model.state_dict().items()}:
            raise ValueError("names and shapes of the weights are others")
        model = SubspaceFusion(config, genes, n_genes=n_tumour + n_micro)
        model.load_state_dict(weights)
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{folder}: a converted model is required. Found: {problem}. Convert it again.") from error
    return model.eval()


def _is_named_array(name: object, value: object) -> bool:
    return (
        isinstance(name, str)
        and isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.layout is torch.strided
    )

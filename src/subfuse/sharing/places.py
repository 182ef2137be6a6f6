"""Where models are that predict: the folder of a run, of shared models, or a repository of the Hugging Face hub."""

from pathlib import Path

from subfuse.devices import AUTO
from subfuse.run_folder.names import MANIFEST
from subfuse.runs.prediction.predictor import Predictor
from subfuse.runs.run import load_run
from subfuse.sharing.hub import HUB, downloaded
from subfuse.sharing.shared_models import load_shared


def load_models(place: Path | str, *, device: str = AUTO) -> Predictor:
    """Returns the models of a run or an export; those on the hub are fetched once.

    Args:
        place: Folder, or `hf://OWNER/NAME`, see `downloaded`.
        device: Where they predict, see `chosen_device`.

    Raises:
        ConfigurationError: There are none, or this machine has no such device.
        DataError: A file is missing or damaged.
    """
    folder = downloaded(str(place)) if str(place).startswith(HUB) else Path(place)
    return load_shared(folder, device=device) if (folder / MANIFEST).exists() else load_run(folder, device=device)

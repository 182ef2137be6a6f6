"""Models that were exported: they predict as in their run, and know nothing of its patients."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from subfuse.devices import AUTO, chosen_device
from subfuse.errors import DataError
from subfuse.files import read_json
from subfuse.run_folder.job import Job
from subfuse.run_folder.names import REFERENCE
from subfuse.runs.prediction.predictor import ExpressionInputs, Predictor
from subfuse.runs.prediction.reference import Reference
from subfuse.sharing.manifest import Manifest, read_manifest, require_files
from subfuse.training.fitted_model import FittedModel
from subfuse.training.stored_model import load_fitted


@dataclass(frozen=True)
class SharedModels(Predictor):
    """A folder that `export_run` wrote. Everybody is new to it, also whom it was trained on."""

    folder: Path
    manifest: Manifest
    device: str = AUTO

    @property
    def prepared(self) -> Mapping[str, Any]:
        """How slides of training became patches."""
        return self.manifest.prepared

    @property
    def default_model(self) -> None:
        """All models, where none is named."""
        return

    def expression_inputs(self) -> ExpressionInputs | None:
        """Returns how expression of training was read; None where that is not known."""
        found = self.manifest.expression
        return None if found is None else ExpressionInputs(found.unit, found.aliases)

    def fitted(self, job: Job) -> FittedModel:
        """Returns the trained model of a job, on the device.

        Raises:
            ConfigurationError: This machine has no such device.
            DataError: Its files are damaged, or are those of another job.
        """
        found = load_fitted(job.folder(self.folder))
        job.check_model(self.folder, {}, task=found.task, model=found.recipe.name, details=found.details)
        return found.to(chosen_device(self.device))

    def reference(self, job: Job, fitted: FittedModel) -> Reference:
        """Returns what was exported beside a job's model.

        Raises:
            DataError: It is damaged.
        """
        path = job.folder(self.folder) / REFERENCE
        try:
            return Reference.model_validate(read_json(path))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise DataError(f"{path}: {where}: {problem['msg']}. Get the folder again.") from error

    def _finished(self) -> list[Job]:
        return [shared.job for shared in self.manifest.jobs]


def load_shared(folder: Path, *, device: str = AUTO) -> SharedModels:
    """Returns exported models once every file was compared with its hash.

    Raises:
        ConfigurationError: This machine has no such device.
        DataError: A file is missing, or is not what was exported. Names it.
    """
    chosen_device(device)  # is there
    manifest = read_manifest(folder)
    require_files(folder, manifest)
    return SharedModels(folder, manifest, device)

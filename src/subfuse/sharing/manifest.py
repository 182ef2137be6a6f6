"""`subfuse.json`: what a folder of shared models holds, and the hashes of its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from subfuse.errors import DataError, preview
from subfuse.expression.source import ExpressionUnit
from subfuse.files import read_sealed_json, sha256_of_file, write_sealed_json
from subfuse.identifiers import plain_name
from subfuse.run_folder.job import Job
from subfuse.run_folder.names import CARD, MANIFEST, MODEL, REFERENCE, WEIGHTS
from subfuse.settings import Section

_GET_AGAIN = "Get the folder again from where it was shared"
_OF_JOB = (MODEL, WEIGHTS, REFERENCE)


class SharedJob(Section):
    """One model, of one task and one fold."""

    task: Annotated[str, AfterValidator(plain_name)]
    model: Annotated[str, AfterValidator(plain_name)]
    fold: int = Field(ge=0)
    repeat: int = Field(0, ge=0)

    @property
    def job(self) -> Job:
        """The same as a job."""
        return Job(self.task, self.model, self.fold, self.repeat)


class SharedExpression(Section):
    """How a file of expression is read."""

    unit: ExpressionUnit | None
    aliases: dict[str, str] = Field(default_factory=dict)


class Manifest(Section):
    """The content of `subfuse.json`."""

    format: Literal[1] = 1
    subfuse_version: str
    jobs: tuple[SharedJob, ...] = Field(min_length=1)
    prepared: dict[str, Any]  # how slides of training became patches
    expression: SharedExpression | None
    files: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]  # SHA-256, by path in the folder

    @model_validator(mode="after")
    def _names_the_files_of_its_jobs(self) -> "Manifest":
        expected = set(files_of([shared.job for shared in self.jobs]))
        if self.files.keys() != expected:
            raise ValueError(f"must be those of its jobs. Others are {preview(sorted(self.files.keys() ^ expected))}")
        return self


def files_of(jobs: list[Job]) -> list[str]:
    """Returns the paths of all files that are shared with these jobs, relative to the folder, but for the manifest."""
    return [CARD, *((job.folder(Path()) / name).as_posix() for job in jobs for name in _OF_JOB)]


def write_manifest(
    folder: Path, jobs: list[Job], *, version: str, prepared: Mapping[str, Any], expression: SharedExpression | None
) -> None:
    """Writes the manifest of a folder that holds everything else."""
    manifest = Manifest(
        subfuse_version=version,
        jobs=tuple(SharedJob(task=j.task, model=j.model, fold=j.fold_index, repeat=j.repeat) for j in jobs),
        prepared=dict(prepared),
        expression=expression,
        files={name: sha256_of_file(folder / name) for name in files_of(jobs)},
    )
    write_sealed_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest:
    """Returns the manifest of a folder.

    Raises:
        DataError: It is missing, damaged, of a later version, or names a file that is not one of its jobs.
    """
    path = folder / MANIFEST
    content = read_sealed_json(path)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "files"
        problem = " ".join(first["msg"].removeprefix("Value error, ").split()).rstrip(".")
        raise DataError(f"{path}: {where}: {problem}. {_GET_AGAIN}, or use a later subfuse.") from error


def require_files(folder: Path, manifest: Manifest) -> None:
    """Compares every file with its hash.

    Raises:
        DataError: One is missing or another. Names it.
    """
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.exists():
            raise DataError(f"{path}: required by {MANIFEST}, not found. {_GET_AGAIN}.")
        if sha256_of_file(path) != expected:
            raise DataError(
                f"{path}: the file that {MANIFEST} names is required. Found that it was changed since. {_GET_AGAIN}."
            )

"""`provenance.json`: written last, it marks a prepared folder complete and holds the hashes of its tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subfuse.errors import ConfigurationError, DataError, command_line
from subfuse.files import read_json, sha256_of_file, write_json

NAME = "provenance.json"
STARTED = "started.json"  # written first
TABLES = ("cohort.yaml", "patients.csv", "slides.csv", "expression.h5ad", "gene_sets.gmt", "pathways.gmt")
FOLDS = "splits/**/fold_*.json"


def mark_incomplete(root: Path) -> None:
    """Removes the mark, before anything in the folder changes."""
    (root / NAME).unlink(missing_ok=True)


def mark_complete(root: Path, provenance: Mapping[str, Any]) -> None:
    """Writes the mark: where the tables come from, and their hashes."""
    write_json(root / NAME, {**provenance, "files": _hashes(root)})


def read_mark(root: Path) -> dict[str, Any]:
    """Returns where the tables of a prepared folder come from.

    Raises:
        ConfigurationError: Nothing was ever prepared in it.
        DataError: The folder is not completely prepared, or a table is not the one that it was completed with.
    """
    require_prepared(root)
    try:
        found = read_json(root / NAME)
    except DataError as error:
        raise _incomplete(root) from error
    _refuse_earlier_version(root, found)
    recorded = found.get("files")
    if not isinstance(recorded, dict):
        raise _incomplete(root)
    present = _hashes(root)
    differing = [name for name in {**recorded, **present} if recorded.get(name) != present.get(name)]
    if differing:
        name = differing[0]
        problem = "nothing" if name not in present else "another one" if name in recorded else "one of another time"
        wanted = "the file" if name in recorded else "no file"
        raise DataError(
            f"{root / name}: {wanted} with which the folder was completed is required. Found {problem}: it was "
            f"changed, or a preparation was interrupted. {_remedy(root)}"
        )
    return found


def require_prepared(root: Path) -> None:
    """Checks that a preparation was at least begun in a folder; the message has the command that does it.

    Raises:
        ConfigurationError: None was: it is a cohort file, a folder of raw tables, or not there.
    """
    if any((root / name).exists() for name in (NAME, STARTED, "exclusions.csv")):
        return
    source, out = "COHORT.yaml", "prepared"
    if root.is_file():
        found, source = "a file", str(root) if root.suffix in (".yaml", ".yml") else source
    elif (root / "cohort.yaml").exists():
        found, source = "raw data", str(root / "cohort.yaml")
    else:
        found, out = ("other files", out) if root.exists() else ("none", str(root))
    command = command_line("prepare", source, "--out", out)
    raise ConfigurationError(
        f"{root}: a prepared folder is required. Found {found}. Prepare first, `{command}`, and give {out}."
    )


def _incomplete(root: Path) -> DataError:
    return DataError(
        f"{root}: a completely prepared folder is required. Found no {NAME} with the hashes of its tables. "
        f"{_remedy(root)}"
    )


def _refuse_earlier_version(root: Path, found: Mapping[str, Any]) -> None:
    """Raises a DataError for a folder that was completed by a version that recorded no hashes."""
    if "cohort_sha256" in found and "files" not in found:
        raise DataError(
            f"{root / NAME}: the hashes of the tables are required. Found none, as in folders that an earlier subfuse "
            f"({found['versions']['subfuse']}) prepared. {_remedy(root)}"
        )


def _remedy(root: Path) -> str:
    return f"Run `{command_line('prepare', 'COHORT.yaml', '--out', root)}`: it keeps the slides that are done."


def _hashes(root: Path) -> dict[str, str]:
    """Returns the hash of every table and fold that is there, by its path in the folder."""
    paths = [*(root / name for name in TABLES), *sorted(root.glob(FOLDS))]
    return {path.relative_to(root).as_posix(): sha256_of_file(path) for path in paths if path.exists()}

"""What the files of a prepared folder are called, here alone, and the one that marks it complete.

That is `provenance.json`: written last, it holds the hashes of the tables.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subfuse.errors import ConfigurationError, DataError, command_line
from subfuse.files import read_json, sha256_of_file, write_json

STARTED = "started.json"  # written first
PROVENANCE = "provenance.json"  # written last
COHORT_FILE = "cohort.yaml"  # resolved; beside raw tables, what `init` writes
PATIENTS = "patients.csv"
SLIDES = "slides.csv"
EXCLUSIONS = "exclusions.csv"
EXPRESSION = "expression.h5ad"
GENE_SETS = "gene_sets.gmt"  # measured genes of each subspace
PATHWAYS = "pathways.gmt"  # those of every single set
HARMONISATION = "harmonisation.csv"
GENE_SET_COVERAGE = "gene_set_coverage.csv"
SLIDE_QUALITY = "slide_quality.csv"
TABLES = (COHORT_FILE, PATIENTS, SLIDES, EXPRESSION, GENE_SETS, PATHWAYS)  # hashed
FOLDS = "splits/**/fold_*.json"


def mark_incomplete(root: Path) -> None:
    """Removes the mark, before anything in the folder changes."""
    (root / PROVENANCE).unlink(missing_ok=True)


def mark_complete(root: Path, provenance: Mapping[str, Any]) -> None:
    """Writes the mark: where the tables come from, and their hashes."""
    write_json(root / PROVENANCE, {**provenance, "files": _hashes(root)})


def read_mark(root: Path) -> dict[str, Any]:
    """Returns where the tables of a prepared folder come from.

    Raises:
        ConfigurationError: Nothing was ever prepared in it.
        DataError: The folder is not completely prepared, or a table is not the one that it was completed with.
    """
    require_prepared(root)
    try:
        found = read_json(root / PROVENANCE)
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
    if any((root / name).exists() for name in (PROVENANCE, STARTED, EXCLUSIONS)):
        return
    source, out = "COHORT.yaml", "prepared"
    if root.is_file():
        found, source = "a file", str(root) if root.suffix in (".yaml", ".yml") else source
    elif (root / COHORT_FILE).exists():
        found, source = "raw data", str(root / COHORT_FILE)
    else:
        found, out = ("other files", out) if root.exists() else ("none", str(root))
    command = command_line("prepare", source, "--out", out)
    raise ConfigurationError(
        f"{root}: a prepared folder is required. Found {found}. Prepare first, `{command}`, and give {out}."
    )


def _incomplete(root: Path) -> DataError:
    return DataError(
        f"{root}: a completely prepared folder is required. Found no {PROVENANCE} with the hashes of its tables. "
        f"{_remedy(root)}"
    )


def _refuse_earlier_version(root: Path, found: Mapping[str, Any]) -> None:
    """Raises a DataError for a folder that was completed by a version that recorded no hashes."""
    if "cohort_sha256" in found and "files" not in found:
        raise DataError(
            f"{root / PROVENANCE}: the hashes of the tables are required. Found none, as in folders that an earlier "
            f"subfuse ({found['versions']['subfuse']}) prepared. {_remedy(root)}"
        )


def _remedy(root: Path) -> str:
    return f"Run `{command_line('prepare', 'COHORT.yaml', '--out', root)}`: it keeps the slides that are done."


def _hashes(root: Path) -> dict[str, str]:
    """Returns the hash of every table and fold that is there, by its path in the folder."""
    paths = [*(root / name for name in TABLES), *sorted(root.glob(FOLDS))]
    return {path.relative_to(root).as_posix(): sha256_of_file(path) for path in paths if path.exists()}

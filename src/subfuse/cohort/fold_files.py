"""Folds on disk: one JSON each, with a hash and its place among all, both verified when it is read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from subfuse.cohort.fold import SIDES, Fold
from subfuse.errors import DataError
from subfuse.files import read_json, sha256_of_json, write_json

SPLITS = Path("splits") / "default"  # in a prepared folder


def write_repeats(folder: Path, repeats: Sequence[Sequence[Fold]]) -> None:
    """Writes `fold_<k>.json` for the first repeat and `repeat_<r>/fold_<k>.json` for further ones.

    A file holds train, validation and test patients, its own place among all folds, and the SHA-256 of both. Files of
    an earlier run that are not overwritten are removed: all of them where there are no folds.
    """
    kept = set()
    for r, folds in enumerate(repeats):
        for k, fold in enumerate(folds):
            path = _fold_path(folder, r, k)
            content: dict[str, Any] = {name: list(getattr(fold, name)) for name in SIDES}
            content["place"] = {"fold": k, "folds": len(folds), "repeat": r, "repeats": len(repeats)}
            write_json(path, {**content, "sha256": sha256_of_json(content)})
            kept.add(path)
    for path in {*folder.glob("fold_*.json"), *folder.glob("repeat_*/fold_*.json")} - kept:
        path.unlink()
    for path in (*folder.glob("repeat_*"), folder):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def read_repeats(folder: Path) -> tuple[tuple[Fold, ...], ...]:
    """Returns the folds of every repeat, in order.

    Raises:
        DataError: No fold, one that is missing or in another's place, an unreadable file, or content that does not
            match its hash. Names the file.
    """
    first = _fold_path(folder, 0, 0)
    if not first.exists():
        raise DataError(f"{folder}: fold_0.json, fold_1.json, ... are required. Found none. Run `subfuse prepare`.")
    place = _read_fold(first)[1]
    shape = {name: place[name] for name in ("folds", "repeats")}
    repeats = []
    for r in range(shape["repeats"]):
        folds = []
        for k in range(shape["folds"]):
            fold, place = _read_fold(_fold_path(folder, r, k))
            if place != {"fold": k, "repeat": r, **shape}:
                raise DataError(
                    f"{_fold_path(folder, r, k)}: fold {k} of repeat {r} is required. Found another fold's patients: "
                    "the files were exchanged. Run `subfuse prepare` again."
                )
            folds.append(fold)
        repeats.append(tuple(folds))
    return tuple(repeats)


def _fold_path(folder: Path, repeat: int, fold: int) -> Path:
    return (folder / f"repeat_{repeat}" if repeat else folder) / f"fold_{fold}.json"


def _read_fold(path: Path) -> tuple[Fold, dict[str, int]]:
    """Returns the fold and its place."""
    try:
        content = read_json(path)
        recorded = content.pop("sha256")
        sides = [tuple(content[name]) for name in SIDES]
        place = {name: int(content["place"][name]) for name in ("fold", "folds", "repeat", "repeats")}
    except (DataError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: a complete fold file is required. Run `subfuse prepare` again.") from error
    if sha256_of_json(content) != recorded:
        raise DataError(f"{path}: the patients do not match the recorded hash: the file was changed. Prepare again.")
    return Fold(*sides), place

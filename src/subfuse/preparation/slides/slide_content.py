"""Whether the files of a slide are those that its features were made from."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 64 * 1024  # bytes
_BLOCKS = 64  # of all files together, but two of each at least
_UNREADABLE = "unreadable"


def slide_sha256(path: Path) -> str:
    """Returns a hash of the files of a slide: names, sizes, and 4 MB of their content in evenly spaced blocks.

    Slides are too large to be read whole whenever their cohort is prepared again. Times of change do not count, so that
    a cohort may be moved. What cannot be read counts as changed, and opening it says why.
    """
    digest = hashlib.sha256()
    try:
        files = _files_of(path)
        if not all(file.is_file() for file in files):  # a pipe would never end
            return _UNREADABLE
        for file in files:
            digest.update(f"{file.name} {file.stat().st_size}\n".encode(errors="surrogateescape"))
            for block in _blocks(file, max(2, _BLOCKS // len(files))):
                digest.update(block)
    except OSError:
        return _UNREADABLE
    return digest.hexdigest()


def is_same_slide(path: Path, recorded: str, written: float) -> bool:
    """Returns whether the files of a slide are those of which a hash was recorded.

    Args:
        path: Of the slide.
        recorded: What `slide_sha256` returned; by an earlier version a hash of names and sizes alone, which counts
            unless a file has changed since.
        written: When the hash was recorded, in seconds since 1970.
    """
    found = slide_sha256(path)
    if found in (recorded, _UNREADABLE):
        return found != _UNREADABLE
    files = [file for file in _listed(path) if file.exists()]
    listing = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    if recorded != hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest():
        return False
    return all(file.stat().st_mtime <= written for file in files)


def _files_of(path: Path) -> list[Path]:
    """Returns the files that decide what a slide shows; those of MIRAX lie in a folder of its name."""
    companion = path.with_suffix("")
    return [*_listed(path), *(_listed(companion) if path.suffix.lower() == ".mrxs" and companion.is_dir() else [])]


def _listed(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def _blocks(path: Path, count: int) -> Iterator[bytes]:
    """Yields so many blocks of a file, the first and the last among them; all of it where that is less."""
    last = max(0, path.stat().st_size - _BLOCK)
    with open(path, "rb") as file:
        for place in sorted({round(index * last / (count - 1)) for index in range(count)}):
            file.seek(place)
            yield file.read(_BLOCK)

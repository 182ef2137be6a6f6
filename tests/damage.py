"""Files that were damaged by chance, and how tests read them: in a child that is ended where a library hangs.

A reader ends with a result or with one line of ours. `SUBFUSE_FUZZ_ROUNDS` says how many damages of each it is given;
some thousands find what is rare.
"""

import contextlib
import os
import random
import select
import shutil
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from subfuse.errors import SubfuseError

Damage = Callable[[bytes, random.Random], bytes]
READ, REFUSED = "read", "refused"  # how reading may end; anything else is told in words
_MOST_PIPES = 8  # of a folder of files
_SECONDS = 60  # after which a reader hangs; the slowest takes two, and some seconds for what it imports

_CELLS = (
    b"", b"NA", b"nan", b"inf", b"-1", b"1e999", b"\xff", b'"', b"\x00", b"TCGA-02-0001-11A", b"0x1", b"1,5", b"true"
)  # fmt: skip
_SCRAPS = (
    b"\xef\xbb\xbf", b"\r\n", b"\r", b'"', b"\x00", b"\t\t", b",,", b"\n\n", b"\xff\xfe", b"#", b"<html>", b"{}",
    b"[null]", b": &a [*a]", b"../x",
)  # fmt: skip


def rounds(short: int) -> int:
    """Returns how many damages a reader is given: so many in the short form."""
    return int(os.environ.get("SUBFUSE_FUZZ_ROUNDS", str(short)))


def damaged_text(content: bytes, chance: random.Random) -> bytes:
    """Up to three damages: cut, repeated or exchanged lines, other cells, changed or inserted bytes or line ends."""
    for _ in range(chance.randint(1, 3)):
        lines = content.split(b"\n")
        place, line = chance.randrange(len(content) + 1), chance.randrange(len(lines))
        separator = b"\t" if b"\t" in content else b","
        cells = lines[line].split(separator)
        cells[chance.randrange(len(cells))] = chance.choice(_CELLS)
        content = chance.choice(
            [
                content[:place],
                b"\n".join([*lines, lines[line]]),
                b"\n".join(lines[:line] + lines[line + 1 :]),
                b"\n".join(chance.sample(lines, len(lines))),
                b"\n".join([*lines[:line], separator.join(cells), *lines[line + 1 :]]),
                content[:place] + chance.choice(_SCRAPS) + content[place:],
                content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :],
                content.replace(b"\n", chance.choice([b"\r\n", b"\r"])),
                content.split(b"\n")[0],
                chance.choice(_SCRAPS) + content,
            ]
        )
    return content


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """One damage: a cut, a zeroed tail, changed bits or bytes, bytes that are inserted, lost or copied elsewhere."""
    place = chance.randrange(len(content) + 1)
    length = chance.choice((1, 1, 2, 4, 8, 64, 512))
    other = chance.randrange(len(content) + 1)
    bits = bytearray(content)
    for _ in range(chance.randint(1, 8)):
        if bits:
            bits[chance.randrange(len(bits))] ^= 1 << chance.randrange(8)
    return chance.choice(
        [
            content[:place],
            content[:place] + bytes(len(content) - place),
            bytes(bits),
            content[:place] + chance.randbytes(length) + content[place + length :],
            content[:place] + b"\xff" * length + content[place + length :],
            content[:place] + bytes(length) + content[place + length :],
            content[:place] + chance.randbytes(length) + content[place:],
            content[:place] + content[place + length :],
            content[:place] + content[other : other + length] + content[place + length :],
        ]
    )


@dataclass(frozen=True)
class Reader:
    """What writes a sound file or folder at a path, whose folder is new; what reads it; and how it is damaged."""

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]
    damage: Damage = damaged_bytes

    def damaged(self, sound: Path, folder: Path, chance: random.Random) -> Path:
        """Copies the folder of what is sound, damages one file of the copy, and returns the copy's path."""
        shutil.copytree(sound.parent, folder)
        path = folder / sound.name
        file = chance.choice(files_of(path))
        file.write_bytes(self.damage(file.read_bytes(), chance))
        return path

    def piped(self, sound: Path, folder: Path, index: int) -> Path:
        """Copies the folder of what is sound, with a pipe that nobody writes to in the place of one file."""
        shutil.copytree(sound.parent, folder)
        path = folder / sound.name
        put_pipe(files_of(path)[index])
        return path


def files_of(path: Path) -> list[Path]:
    """Returns the files of a folder and below it; of a file itself."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def put_pipe(file: Path) -> None:
    """Replaces a file by a pipe, which a reader that opens it waits for for ever."""
    file.unlink()
    os.mkfifo(file)


def check_reader(reader: Reader, folder: Path, n_rounds: int) -> None:
    """Lets a reader read what is sound, so many damages of it, and pipes; fails for what ends otherwise than it may."""
    whole = folder / "sound" / reader.name

    def sound(_: int) -> None:
        whole.parent.mkdir()
        reader.write(whole)
        reader.read(whole)

    def damaged(seed: int) -> None:
        copy = folder / str(seed)
        try:
            reader.read(reader.damaged(whole, copy, random.Random(seed)))
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def piped(index: int) -> None:
        copy = folder / f"pipe{index}"
        try:
            reader.read(reader.piped(whole, copy, index))
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    ((_, end),) = ends([0], sound)
    if end != READ:
        pytest.fail(f"what is sound: {end}")
    found = dict(ends(range(n_rounds), damaged))
    n_pipes = min(len(files_of(whole)), _MOST_PIPES)
    found |= {f"pipe {index}": end for index, end in ends(range(n_pipes), piped)}
    faults = {seed: end for seed, end in found.items() if end not in (READ, REFUSED)}
    counts = Counter("faults" if seed in faults else end for seed, end in found.items())
    print(f"{n_rounds} rounds: {', '.join(f'{n} {end}' for end, n in sorted(counts.items()))}")
    if faults:
        pytest.fail("\n".join(f"seed {seed}: {end}" for seed, end in list(faults.items())[:20]))


def ends(seeds: Iterable[int], act: Callable[[int], object]) -> Iterator[tuple[int, str]]:
    """Yields how an act ends for each seed: in a child, which is replaced where it hangs or dies."""
    left = list(seeds)
    while left:
        child, pipe = _started(left, act)
        while left and (line := _line(pipe)):
            yield left.pop(0), line.decode()
        if left:
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(pipe)
        if left:
            yield left.pop(0), f"hung for {_SECONDS} s" if code == -signal.SIGKILL else f"the process ended with {code}"


def _line(pipe: int) -> bytes:
    """Returns what a child says next; nothing where it hangs or is gone."""
    said = b""
    while not said.endswith(b"\n"):
        if not select.select([pipe], [], [], _SECONDS)[0] or not (part := os.read(pipe, 1)):
            return b""
        said += part
    return said[:-1]


def _started(seeds: list[int], act: Callable[[int], object]) -> tuple[int, int]:
    """Starts a child that acts for one seed after the other, and the end of a pipe in which it says how each ended."""
    reads, writes = os.pipe()
    child = os.fork()
    if child:
        os.close(writes)
        return child, reads
    with contextlib.suppress(BaseException):
        for seed in seeds:
            os.write(writes, _end(seed, act).encode() + b"\n")
    os._exit(0)


def _end(seed: int, act: Callable[[int], object]) -> str:
    try:
        act(seed)
    except SubfuseError as error:
        return REFUSED if len(str(error).splitlines()) == 1 else f"several lines: {error!r}"
    except BaseException as error:
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({' '.join(places[-4:])})"
    return READ

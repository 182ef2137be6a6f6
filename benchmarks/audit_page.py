"""The page on how far checks of the audit can be trusted: one section of it for each script that measures some."""

import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

from subfuse.execution import available_cores
from subfuse.files import write_text

PAGE = Path(__file__).parent / "results" / "audit.md"
TITLE = "# How far the audit can be trusted\n"
SECTIONS = (
    "How often the check for confounding is wrong",
    "Whether a planted interaction is found",
    "How often promises",
)


def write_section(heading: str, command: str, what: str, table: Iterable[str]) -> None:
    """Writes one section of the page in its place, with command, commit and machine; the others stay."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    of_machine = f"Commit {commit.strip()}; {platform.machine()}, {available_cores()} cores."
    text = "\n".join([f"## {heading}", "", f"    {command}", "", f"{of_machine} {what}", "", *table, ""])
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    kept = {f"## {part}".split("\n")[0]: f"## {part.rstrip()}\n" for part in page.split("\n## ")[1:]}
    kept[f"## {heading}"] = text
    order = sorted(kept, key=lambda name: next(i for i, begin in enumerate(SECTIONS) if name.startswith(f"## {begin}")))
    write_text(PAGE, "\n".join([TITLE, *(kept[name] for name in order)]))
    print(text)

"""Slides: open them, find tissue, cut patches at a physical resolution and store their features."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SlideSource:
    """Where one slide is. `path` is a slide file, a folder of PNG or JPEG images, or one such image."""

    slide_id: str
    patient_id: str
    path: Path
    mpp: float | None = None  # µm per level-0 pixel where the file does not say; a declared value is preferred

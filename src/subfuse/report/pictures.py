"""Pictures of the report as data addresses, within a budget of bytes."""

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from subfuse.report.run_files import Explanation, RunFiles

MAX_PICTURE_BYTES = 10_500_000  # of all pictures as text, so that the report stays below 15 MB
PICTURE_WIDTH_PX = 900
MAX_CONTACT_SHEETS = 6


class PictureBudget:
    """Turns picture files into data addresses until they would make the report too large."""

    def __init__(self) -> None:
        self.spent = 0
        self.left_out = 0

    def embed(self, path: Path) -> str | None:
        """Returns the picture as a data address; None if it is left out.

        After the first picture that does not fit, all are left out: opening every one of a large run takes long.
        """
        address = None if self.left_out else encoded(path)
        if address is None or self.spent + len(address) > MAX_PICTURE_BYTES:
            self.left_out += 1
            return None
        self.spent += len(address)
        return address


def encoded(path: Path) -> str:
    """Returns a picture as a data address of a JPEG, at most `PICTURE_WIDTH_PX` wide."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if picture.width > PICTURE_WIDTH_PX:
        height = max(1, round(picture.height * PICTURE_WIDTH_PX / picture.width))
        picture = picture.resize((PICTURE_WIDTH_PX, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def patient_pictures(explanation: Explanation, budget: PictureBudget) -> Iterator[Mapping[str, Any]]:
    """Yields a patient's heat maps, sampling points and tiles with their descriptions, as long as there is room.

    Galleries of tiles are `wide`: what is written below a tile is too small to read in one column.
    """
    for path, caption, alt in explanation.pictures():
        source = budget.embed(path)
        if source is not None:
            wide = path.name.startswith("gallery_")
            yield {"source": source, "alt": alt, "caption": caption, "wide": wide}


def contact_sheets(run: RunFiles, budget: PictureBudget) -> dict[str, Any]:
    """Returns the first contact sheets and how many more there are."""
    shown = []
    for path in run.contact_sheets[:MAX_CONTACT_SHEETS]:
        source = budget.embed(path)
        if source is not None:
            shown.append({"source": source, "name": path.stem})
    hidden = len(run.contact_sheets) - len(shown)
    note = f"{hidden} more in the run's folder cohort/contact_sheets/." if hidden else ""
    return {"sheets": shown, "sheets_note": note}

"""Quality of prepared slides: one row per slide for a person to look through."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8

QUALITY_COLUMNS = (
    "slide_id",
    "patient_id",
    "n_patches",
    "tissue_mm2",
    "pen_share",
    "sharpness",
    "sharpness_mpp",
    "mpp",
    "mpp_source",
    "warnings",
)
QUALITY_ONLY = ("pen_share", "sharpness", "sharpness_mpp", "mpp_source", "warnings")  # not in slides.csv

_NOTABLE_PEN_SHARE = 0.05
_BLURRED = 30.0  # sharpness of tissue in focus at 0.5 µm per pixel is in the hundreds


def sharpness(image: UInt8[np.ndarray, "height width 3"]) -> float:
    """Returns the variance of the Laplacian of grey values in 0..255, low where a patch is out of focus.

    It depends on the resolution: compare slides at one resolution only. (Pech-Pacheco et al. 2000.)
    """
    import cv2

    edges = cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_16S)
    _, deviation = cv2.meanStdDev(edges)
    return float(deviation[0, 0] ** 2)


def quality_warnings(*, pen_share: float, median_sharpness: float) -> tuple[str, ...]:
    """Returns what a person should look at.

    Args:
        pen_share: Share of the stained and marked area that is pen.
        median_sharpness: Median of `sharpness` over the patches at 0.5 µm per pixel.

    Example:
        >>> quality_warnings(pen_share=0.2, median_sharpness=400.0)
        ('20% of the stained area is pen marks and was left out',)
    """
    found = []
    if pen_share > _NOTABLE_PEN_SHARE:
        found.append(f"{pen_share:.0%} of the stained area is pen marks and was left out")
    if median_sharpness < _BLURRED:
        found.append(f"sharpness {median_sharpness:.0f} is below {_BLURRED:.0f}: most patches may be out of focus")
    return tuple(found)


def quality_table(records: Iterable[Any]) -> pd.DataFrame:
    """Returns one row per slide with `QUALITY_COLUMNS`; what a record (prepared or imported) does not know is missing.

    `sharpness` is the median over the patches, at `sharpness_mpp` µm per pixel; several warnings are joined by `; `.
    """
    rows = [
        {name: getattr(record, name, None) for name in QUALITY_COLUMNS}
        | {"warnings": "; ".join(getattr(record, "warnings", ()))}
        for record in records
    ]
    return pd.DataFrame(rows, columns=list(QUALITY_COLUMNS)).sort_values("slide_id", ignore_index=True)

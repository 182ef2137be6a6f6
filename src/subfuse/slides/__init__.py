"""Slides and folders of tiles: opening them, finding tissue, looking at their quality."""

from subfuse.lazy import on_first_use

_NAMES = {
    "OpenedSlide": "opening",
    "SlideSource": "source",
    "SlidesSection": "source",
    "Tiling": "tissue",
    "find_tissue": "tissue",
    "opened_slide": "opening",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)

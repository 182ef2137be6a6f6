"""Names of slides' files: which files are slides, and what a slide is called by its file."""

from subfuse.identifiers import composed
from subfuse.slides.image_folders import IMAGE_SUFFIXES

SLIDE_SUFFIXES = (
    ".ome.tiff", ".ome.tif", ".svs", ".tiff", ".tif", ".ndpi", ".mrxs", ".scn", ".svslide", ".bif", ".vms", ".vmu",
    ".czi", ".dcm",
)  # fmt: skip
DICOM_SUFFIX = ".dcm"


def slide_id_of(name: str) -> str:
    """Returns a slide's identifier: its file name, `composed`, without a slide or image suffix; dots inside stay.

    Example:
        >>> slide_id_of("TCGA-02-0047-01Z-00-DX1.4755D138.svs"), slide_id_of("case.7")
        ('TCGA-02-0047-01Z-00-DX1.4755D138', 'case.7')
    """
    suffix = next((s for s in (*SLIDE_SUFFIXES, *IMAGE_SUFFIXES) if name.lower().endswith(s)), "")
    return composed(name[: len(name) - len(suffix)])

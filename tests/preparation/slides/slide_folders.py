"""Folders of slides and of feature files, empty as only their names are looked at."""

from pathlib import Path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_slides(beside: Path) -> Path:
    """One slide as GDC lays it out, one of an identifier with dots, a folder of tiles, a single image."""
    folder = beside / "slides"
    touch(
        folder / "0a1b" / "TCGA-02-0047-01Z-00-DX1.4755.svs",
        folder / "0a1b" / "logs" / "x.parcel",
        folder / "case.7 slide.OME.TIFF",
        folder / "case-1_tiles" / "0_0.png",
        folder / "case-1_tiles" / "0_1.jpg",
        folder / "case-12.png",
        folder / ".hidden.svs",
    )
    return folder


def write_features(beside: Path) -> Path:
    """Both files of CLAM for one slide, a file in a subfolder, a zarr store, and what is no feature file."""
    folder = beside / "Merkmale ü"
    touch(
        folder / "h5_files" / "case-1 a.h5",
        folder / "pt_files" / "case-1 a.pt",
        folder / "pt_files" / "case-12.pt",
        folder / "TCGA-02-0047-01Z-00-DX1.4755.svs.h5",
        folder / "case.7.zarr" / "zarr.json",
        folder / "case.7.zarr" / "tables" / "x.h5",
        folder / "case-1 a.jpg",
        folder / ".part.h5",
    )
    return folder

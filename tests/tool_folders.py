"""Folders as other tools leave them, with tables beside them: enough patients for a cross-validation."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from recognised_folders import tpm
from wsidata_store import write_store

from trident_job import write_job

N_PATIENTS, N_TILES, DIM = 20, 5, 8
PATIENTS = [f"P{i:02d}" for i in range(1, N_PATIENTS + 1)]
SLIDES = [f"{patient}_HE" for patient in PATIENTS]
PLACES = np.array([[x * 512, y * 512] for x in range(3) for y in range(2)])[:N_TILES]


def clam(folder: Path) -> Path:
    """CLAM: dataset table, coordinates and pictures in the folder of results, both kinds of feature files."""
    table = pd.DataFrame({"case_id": PATIENTS, "slide_id": SLIDES, "label": ["tumour", "normal"] * (N_PATIENTS // 2)})
    _write(table, folder / "dataset.csv")
    for slide, features in _bags():
        coords = {"patch_level": 0, "patch_size": 256}
        _hdf5(folder / "results" / "patches" / f"{slide}.h5", on_coords=coords, coords=PLACES)
        _hdf5(folder / "features" / "h5_files" / f"{slide}.h5", features=features, coords=PLACES)
        for name in ("masks", "stitches"):
            (folder / "results" / name).mkdir(exist_ok=True)
            (folder / "results" / name / f"{slide}.jpg").touch()
    _tensors(folder / "features" / "pt_files")
    listed = {"slide_id": [f"{slide}.svs" for slide in SLIDES], "process": 0, "status": "processed", "seg_level": 2}
    _write(pd.DataFrame(listed), folder / "results" / "process_list_autogen.csv")
    return folder


def trident(folder: Path) -> Path:
    """TRIDENT: its job, and a clinical table and expression beside it."""
    write_job(folder / "job", dict.fromkeys(SLIDES, 0.25))
    _write(_clinical("patient_id", "os_days", "event"), folder / "clinical.csv")
    tpm(PATIENTS).to_csv(folder / "expression.csv")
    return folder


def stamp(folder: Path) -> Path:
    """STAMP 2: clinical and slide table with a target, features of tiles, embeddings of slides."""
    target = {"isMSIH": ["MSIH", "nonMSIH"] * (N_PATIENTS // 2)}
    _write(_clinical("PATIENT", "OS_DAYS", "EVENT").assign(**target), folder / "clini.csv")
    _write(pd.DataFrame({"PATIENT": PATIENTS, "FILENAME": [f"{slide}.h5" for slide in SLIDES]}), folder / "slide.csv")
    for slide, features in _bags():
        of_tiles = {"extractor": "uni2", "unit": "um", "tile_size_um": 256.0, "tile_size_px": 224, "feat_type": "tile"}
        of_slide = {"encoder": "titan", "precision": "torch.float32", "feat_type": "slide"}
        version = {"stamp_version": "2.4.0"}
        path = folder / "features" / "uni2-1a2b3c4d" / f"{slide}.h5"
        _hdf5(path, on_file=of_tiles | version, coords=PLACES / 2.0, feats=features.astype(np.float16))
        path.with_suffix(".jpg").touch()
        _hdf5(folder / "encoded" / "titan-slide-5e6f7a8b" / f"{slide}.h5", on_file=of_slide | version,
              feats=features.mean(axis=0))  # fmt: skip
    return folder


def lazyslide(folder: Path) -> Path:
    """LazySlide: a store of wsidata for each slide, and a clinical table."""
    import zarr

    _write(_clinical("patient_id", "os_days", "event"), folder / "clinical.csv")
    first = write_store(folder / "stores" / f"{SLIDES[0]}.zarr")
    for index, slide in enumerate(SLIDES[1:]):
        store = first.with_name(f"{slide}.zarr")
        shutil.copytree(first, store)
        values = zarr.open_array(store / "tables" / "resnet50_tiles" / "X", mode="r+")
        values[:] = np.random.default_rng(index).normal(size=values.shape)
    return folder


def survpath(folder: Path) -> Path:
    """SurvPath: table of slides with two endpoints, expression, folds, tensors without places."""
    clinical = _clinical("case_id", "survival_months", "event")
    table = clinical.assign(slide_id=[f"{slide}.svs" for slide in SLIDES], censorship=1 - clinical["event"])
    of_disease = {"survival_months_dss": table["survival_months"], "censorship_dss": table["censorship"].astype(float)}
    table = table.assign(**of_disease)
    table.drop(columns="event").to_csv(_made(folder / "datasets_csv" / "metadata" / "tcga_gbmlgg.csv"))
    values = np.log2(tpm(PATIENTS) + 1).rename_axis(None)
    values.to_csv(_made(folder / "datasets_csv" / "raw_rna_data" / "combine" / "gbmlgg" / "rna_clean.csv"))
    _tensors(folder / "features" / "pt_files")
    _folds(folder)
    return folder


def mcat(folder: Path) -> Path:
    """MCAT and PORPOISE: outcome, expression and copy numbers in one zipped table, folds, tensors without places."""
    clinical = _clinical("case_id", "survival_months", "event")
    table = clinical.assign(
        slide_id=[f"{slide}.svs" for slide in SLIDES], site="02", is_female=0, oncotree_code="GBM", age=50,
        censorship=1 - clinical["event"], train=1,
    ).drop(columns="event")  # fmt: skip
    values = np.log2(tpm(PATIENTS) + 1)
    scores = ((values - values.mean()) / values.std()).fillna(0).add_suffix("_rnaseq").reset_index(drop=True)
    copies = pd.DataFrame(1, index=scores.index, columns=["EGFR_cnv", "PTEN_cnv"])
    path = _made(folder / "datasets_csv" / "tcga_gbmlgg_all_clean.csv.zip")
    pd.concat([table, copies, scores], axis="columns").to_csv(path)
    _write(pd.DataFrame({"Oncogenes": ["EGFR", "MET"]}), folder / "datasets_csv_sig" / "signatures.csv")
    _tensors(folder / "tcga_gbmlgg_20x_features" / "pt_files")
    _folds(folder)
    return folder


def _folds(folder: Path) -> None:
    for fold in range(2):
        sides = {"train": PATIENTS[1 - fold :: 2], "val": PATIENTS[fold::2]}
        frame = pd.DataFrame({side: pd.Series(names) for side, names in sides.items()})
        frame.to_csv(_made(folder / "splits" / "5foldcv" / "tcga_gbmlgg" / f"splits_{fold}.csv"))


def _clinical(patient: str, time: str, event: str) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {patient: PATIENTS, time: random.integers(20, 2000, N_PATIENTS), event: np.arange(N_PATIENTS) % 4 > 0}
    ).astype({event: int})


def _bags() -> Iterator[tuple[str, np.ndarray]]:
    for index, slide in enumerate(SLIDES):
        yield slide, np.random.default_rng(index).normal(size=(N_TILES, DIM)).astype(np.float32)


def _tensors(folder: Path) -> None:
    import torch

    for slide, features in _bags():
        torch.save(torch.from_numpy(features), _made(folder / f"{slide}.pt"))


def _hdf5(path: Path, *, on_file=None, on_coords=None, **arrays: np.ndarray) -> None:
    with h5py.File(_made(path), "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(on_file or {})
        if on_coords:
            file["coords"].attrs.update(on_coords)


def _write(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(_made(path), index=False)


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path

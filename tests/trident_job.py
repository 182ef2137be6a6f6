"""A job folder as TRIDENT leaves it: coordinates, features of patches and of slides, records of slides, pictures."""

import json
from pathlib import Path

import h5py
import numpy as np

PATCH_DIM, SLIDE_DIM = 8, 5
TILING = "20x_256px_0px_overlap"


def write_job(
    job: Path, slides: dict[str, float | None], *, encoders: tuple[str, ...] = ("uni_v1",), tiling: str = TILING
) -> Path:
    """Writes a job of slides, by name with the µm per pixel of each, and returns its folder."""
    for index, (name, mpp) in enumerate(slides.items()):
        random = np.random.default_rng(index)
        n_patches = 6 + index % 3
        coords = 1024 + 512 * np.stack([np.arange(n_patches) % 3, np.arange(n_patches) // 3], axis=1)
        of_coords = {
            "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20,
            "overlap": 0, "name": name, "savetodir": f"job/{tiling}", "level0_width": 9000, "level0_height": 7000,
        }  # fmt: skip
        _save(job / tiling / "patches" / f"{name}_patches.h5", {"coords": coords}, {"coords": of_coords})
        for encoder in encoders:
            features = random.normal(size=(n_patches, PATCH_DIM)).astype(np.float32)
            of_features = {"name": name, "savetodir": f"job/{tiling}/features_{encoder}", "encoder": encoder}
            _save(
                job / tiling / f"features_{encoder}" / f"{name}.h5",
                {"features": features, "coords": coords},
                {"features": of_features, "coords": of_coords},
            )
        _save(
            job / tiling / "slide_features_titan" / f"{name}.h5",
            {"features": random.normal(size=SLIDE_DIM).astype(np.float32), "coords": coords},
            {"features": {"name": name, "savetodir": f"job/{tiling}/slide_features_titan"}, "coords": of_coords},
        )
        write_state(job, name, mpp)
        for folder in ("contours", "thumbnails"):
            (job / folder).mkdir(exist_ok=True)
            (job / folder / f"{name}.jpg").write_bytes(b"")
    (job / tiling / "_config_coords.json").write_text("{}")
    (job / "_logs_segmentation.txt").write_text("")
    return job


def write_state(job: Path, name: str, mpp: float | None, *, of: str | None = None, number: int = 0) -> Path:
    """Writes what the job records of a slide, or of another one `of`; `number` stands for the slide's path."""
    path = job / "wsi_states" / f"{name}__{number:012x}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {"dimensions": [9000, 7000], "mpp": mpp, "mag": 40, "level_count": 3}
    content = {
        "schema_version": 2,
        "trident_version": "0.3.0",
        "slide": {"id": f"{of or name}.svs__{number:012x}", "name": of or name, "ext": ".svs", "abs_path": "/slides"},
        "meta": {key: value for key, value in meta.items() if value is not None},
        "tasks": {},
        "summary": {},
    }
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _save(path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            shape = values.shape
            array = file.create_dataset(
                name, shape=shape, maxshape=(None, *shape[1:]), chunks=(1, *shape[1:]), dtype=values.dtype
            )
            array[:] = values
            array.attrs.update(attributes.get(name, {}))

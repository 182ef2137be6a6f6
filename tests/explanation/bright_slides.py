"""Slides of which one patch is bright, and models trained for a moment."""

from pathlib import Path

import numpy as np
from PIL import Image

from small_cohort import deal_folds
from subfuse.cohort.cohort import Cohort
from subfuse.features.store import SlideFeatures, write_features
from subfuse.training.fitted_model import FittedModel
from subfuse.training.fitting import train_fold
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

TISSUE, BRIGHT = (150, 60, 150), (250, 230, 40)


def bright_slide(path: Path, *, width: int, height: int, size: int, bright: tuple[int, int]) -> SlideFeatures:
    """Writes a slide whose patches do not divide it, and returns features whose first is 1 at the bright patch."""
    import tifffile

    image = np.full((height, width, 3), TISSUE, np.uint8)
    image[bright[1] : bright[1] + size, bright[0] : bright[0] + size] = BRIGHT
    per_cm = (1e4 / 0.5, 1e4 / 0.5)
    with tifffile.TiffWriter(path) as file:
        file.write(
            image,
            photometric="rgb",
            tile=(256, 256),
            compression="zlib",
            resolution=per_cm,
            resolutionunit="CENTIMETER",
        )
    y, x = np.meshgrid(np.arange(0, height - size + 1, size), np.arange(0, width - size + 1, size), indexing="ij")
    coords = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int32)
    features = np.zeros((len(coords), 6), np.float16)
    features[(coords == bright).all(axis=1), 0] = 1
    return SlideFeatures(
        features=features,
        coords=coords,
        patch_size_level0=size,
        level0_mpp=0.5,
        target_mpp=0.5,
        encoder="fake",
        encoder_sha256="0" * 64,
        slide_width_px=width,
        slide_height_px=height,
    )


def prepared_slide(folder: Path, slide: SlideFeatures, slide_id: str) -> Path:
    """Writes feature file and thumbnail as a prepared folder has them; returns the feature file."""
    path = folder / "features_fake" / f"{slide_id}.h5"
    write_features(path, slide, tile_px=slide.patch_size_level0)
    thumbnail = folder / "thumbnails" / f"{slide_id}.jpg"
    thumbnail.parent.mkdir(exist_ok=True)
    Image.new("RGB", (slide.slide_width_px // 2, slide.slide_height_px // 2), TISSUE).save(thumbnail)
    return path


def fit(
    cohort: Cohort, *, model: str = "subspace", task: str = "survival", fold: int = 0, linear_path: bool = False
) -> FittedModel:
    """Trains a small model for one epoch."""
    return train_fold(
        cohort,
        deal_folds(cohort)[fold],
        task=task,
        model_name=model,
        plan=TrainingPlan(
            training=TrainingSettings(epochs=1, batch_size=8, linear_path=linear_path),
            architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=32),
            seed=fold,
        ),
    )

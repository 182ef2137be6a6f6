"""Everything that explains one patient's prediction, written to one folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from subfuse.cohort.bags import BagBatch
from subfuse.cohort.cohort import Patient
from subfuse.explanation.attribution import TOLERANCE, Attribution, contribution_ledger
from subfuse.explanation.explained_score import attribute_subspaces, explained_score
from subfuse.explanation.heatmaps import colour_limit, heat_map, write_geojson
from subfuse.explanation.occlusion import occlude_patches
from subfuse.explanation.sampling import DESCRIPTION, sampled_points, sampling_map
from subfuse.explanation.tile_gallery import SlidePlace, gallery, strongest_tiles
from subfuse.features.store import SlideFeatures, read_features
from subfuse.files import atomic_path, write_json, write_table
from subfuse.model.deformable_attention import DeformableAttention
from subfuse.model.output import Ensemble
from subfuse.model.subspace_fusion import SubspaceFusion
from subfuse.training.fitted_model import FittedModel


def explain_patient(
    fitted: FittedModel, patient: Patient, out: Path, *, fold: int, places: Mapping[str, SlidePlace] | None = None
) -> None:
    """Writes one patient's explanation for one task.

    What is explained is the score of `score_weights`: the mean hazard logit (survival) or the predicted class's logit
    minus the mean logit. Files:

    - `explanation.json`: prediction, ledger of subspace x modality, completeness gaps, which tiles could be shown.
    - `genes.csv`: gene, subspace, contribution.
    - `patches.csv`: slide, x, y in level-0 pixels; integrated gradients per subspace and their total; occlusion per
      subspace (`occlusion_<subspace>`).
    - `points.csv` and `sampling_<slide>.png`: where the deformable attention looked, which is no attribution.
    - `heatmap_<subspace>_<slide>.png` and `<slide>.geojson` per slide.
    - `gallery_<subspace>.jpg`: the patches that raise and lower the score most, where the slide can be read.

    Args:
        fitted: The model; its gene axis must be the patient's.
        patient: Patient with at least one modality the model uses.
        out: Folder to write to.
        fold: Which fold's model this is, for the record.
        places: Where the slides are (`locate_slides`); without it there are no galleries.
    """
    batch = next(fitted.batches([patient]))
    score = explained_score(fitted, batch)
    attributions = attribute_subspaces(fitted, batch, score)
    ledger = contribution_ledger(
        fitted.model,
        batch,
        score.of_logits,
        baseline=fitted.baseline_logits,
        subspaces=fitted.subspaces,
        modalities=fitted.recipe.modalities,
    )
    _write_genes(out / "genes.csv", fitted, attributions)
    has_patches = bool(batch.patch_mask.any()) and "slides" in fitted.recipe.modalities
    slides = {path.stem: read_features(path) for path in patient.slides} if has_patches else {}
    scores = {name: attribution.patch[0].double().numpy() for name, attribution in attributions.items()}
    seen: dict[str, Any] = {}
    if slides:
        scores["total"] = np.sum(list(scores.values()), axis=0)
        falls = occlude_patches(fitted.model, batch, score).double().numpy()
        scores |= {f"occlusion_{name}": fall for name, fall in zip(fitted.subspaces, falls, strict=True)}
        _write_patches(out, patient, slides, scores, subspaces=fitted.subspaces)
        seen["points"] = _write_points(out, fitted, batch, patient, slides)
        seen["tiles_not_shown"] = _write_galleries(out, fitted, patient, slides, scores, places or {})
    prediction = fitted.predict([patient]).iloc[0].to_dict()
    with torch.inference_mode():
        value = float(score.of_logits(fitted.model(**batch.inputs()).logits))
    write_json(
        out / "explanation.json",
        {
            "patient_id": patient.patient_id,
            "task": fitted.task,
            "model": fitted.recipe.name,
            "fold": fold,
            "explained": score.explained,
            "score": value,
            "prediction": {name: _plain(value) for name, value in prediction.items()},
            "ledger": ledger.drop(columns="patient_id").to_dict("records"),
            "gap": {name: float(attribution.gap) for name, attribution in attributions.items()},
            "relative_gap": {name: _plain(float(a.relative_gap)) for name, a in attributions.items()},
            "gap_tolerance": TOLERANCE,
            "integration_steps": {name: attribution.steps for name, attribution in attributions.items()},
            "slides": list(slides),
            **seen,
        },
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _write_genes(path: Path, fitted: FittedModel, attributions: dict[str, Attribution]) -> None:
    tables = []
    for name, attribution in attributions.items():
        table = pd.DataFrame(
            {
                "gene": fitted.genes,
                "subspace": name,
                "contribution": attribution.gene[0, : len(fitted.genes)].numpy(),
            }
        )
        tables.append(table[table["contribution"] != 0])
    table = pd.concat(tables, ignore_index=True)
    order = table["contribution"].abs().sort_values(ascending=False, kind="stable").index
    write_table(path, table.loc[order])


def _by_slide(values: np.ndarray, slides: Mapping[str, SlideFeatures]) -> dict[str, np.ndarray]:
    """Cuts the values of a bag's patches into those of its slides."""
    ends = np.cumsum([len(slide.coords) for slide in slides.values()])
    return dict(zip(slides, np.split(values, ends[:-1]), strict=True))


def _write_patches(
    out: Path,
    patient: Patient,
    slides: Mapping[str, SlideFeatures],
    scores: Mapping[str, np.ndarray],
    *,
    subspaces: tuple[str, ...],
) -> None:
    """Writes the scores of all patches as a table, and of every slide as objects and pictures."""
    shown = (*subspaces, "total")
    limit = colour_limit(*(scores[name] for name in shown))
    by_slide = {name: _by_slide(values, slides) for name, values in scores.items()}
    tables = []
    for path in patient.slides:
        slide_id, slide = path.stem, slides[path.stem]
        of_slide = {name: values[slide_id] for name, values in by_slide.items()}
        coords = {"slide_id": slide_id, "x": slide.coords[:, 0], "y": slide.coords[:, 1]}
        tables.append(pd.DataFrame({**coords, **of_slide}))
        write_geojson(out / f"{slide_id}.geojson", slide.coords, slide.patch_size_level0, of_slide, classify_by="total")
        for name in shown:
            picture = heat_map(
                _thumbnail(path),
                slide.coords,
                slide.patch_size_level0,
                slide_width_px=slide.slide_width_px,
                slide_height_px=slide.slide_height_px,
                scores=of_slide[name],
                label=f"{name}: contribution to the score",
                limit=limit,
            )
            _save(picture, out / f"heatmap_{name}_{slide_id}.png")
    write_table(out / "patches.csv", pd.concat(tables))


def _write_points(
    out: Path, fitted: FittedModel, batch: BagBatch, patient: Patient, slides: Mapping[str, SlideFeatures]
) -> dict[str, Any] | None:
    """Writes where the attention looked; returns how many points there are, None for a model that has none."""
    networks = fitted.model.members if isinstance(fitted.model, Ensemble) else [fitted.model]
    model = networks[0]  # all have the same sizes
    has_places = all(slide.has_coordinates for slide in slides.values())
    if not isinstance(model, SubspaceFusion) or model.config.layout != "spatial" or not has_places:
        return None
    with torch.inference_mode():
        grid = fitted.model(**batch.inputs()).sampling_grid[0]
    attention = next(module for module in model.modules() if isinstance(module, DeformableAttention))
    table = sampled_points(
        grid,
        batch.coords[0][batch.patch_mask[0]],
        slides,
        subspaces=fitted.subspaces,
        grid=model.config.grid,
        points=attention.points,
    )
    write_table(out / "points.csv", table)
    for path in patient.slides:
        slide = slides[path.stem]
        picture = sampling_map(
            _thumbnail(path),
            table[table["slide_id"] == path.stem],
            slide_width_px=slide.slide_width_px,
            slide_height_px=slide.slide_height_px,
            subspaces=fitted.subspaces,
        )
        _save(picture, out / f"sampling_{path.stem}.png")
    return {"meaning": DESCRIPTION, "sampled": int(grid[..., 0].numel()), "on_slides": len(table)}


def _write_galleries(
    out: Path,
    fitted: FittedModel,
    patient: Patient,
    slides: Mapping[str, SlideFeatures],
    scores: Mapping[str, np.ndarray],
    places: Mapping[str, SlidePlace],
) -> dict[str, str]:
    """Writes one gallery per subspace; returns the slides whose tiles cannot be shown, with the reason."""
    features = {path.stem: path for path in patient.slides}
    not_shown: dict[str, str] = {}
    for name in fitted.subspaces:
        high, low, missing = strongest_tiles(_by_slide(scores[name], slides), slides, features, places)
        not_shown |= missing
        picture = gallery(high, low, label=f"{name}: contribution to the score, patches at the slide's own resolution")
        if picture is not None:
            _save(picture, out / f"gallery_{name}.jpg")
    return not_shown


def _thumbnail(features: Path) -> Path:
    return features.parent.parent / "thumbnails" / f"{features.stem}.jpg"


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary)

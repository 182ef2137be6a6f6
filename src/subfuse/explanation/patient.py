"""Everything that explains one patient's prediction, written to one folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from subfuse.cohort.batches import BagBatch
from subfuse.cohort.cohort import Patient
from subfuse.errors import DataError
from subfuse.explanation.attribution import TOLERANCE, Attribution
from subfuse.explanation.explained_score import attribute_subspaces, explained_score, ledger_of
from subfuse.explanation.faithfulness import occlude_patches
from subfuse.explanation.ground import NO_PLACES, Ground, slide_ground
from subfuse.explanation.heatmaps import colour_limit, heat_map, write_geojson
from subfuse.explanation.sampling import DESCRIPTION, sampled_points, sampling_map
from subfuse.explanation.tile_gallery import SlidePlace, gallery, strongest_tiles
from subfuse.features.store import SlideFeatures, read_features
from subfuse.files import atomic_path, json_value, write_json, write_table
from subfuse.model.deformable_attention import DeformableAttention
from subfuse.model.linear_path import networks_of
from subfuse.model.subspace_fusion import SubspaceFusion
from subfuse.run_folder import names
from subfuse.training.fitted_model import FittedModel
from subfuse.training.models import subspace_title


def explain_patient(
    fitted: FittedModel, patient: Patient, out: Path, *, fold: int, places: Mapping[str, SlidePlace] | None = None
) -> None:
    """Writes one patient's explanation for one task.

    What is explained is the score of `Objective.score_weights`: the mean hazard logit (survival) or the predicted
    class's logit minus the mean logit. Files:

    - `explanation.json`: prediction, ledger of subspace x modality, completeness gaps; which slides are drawn as the
      places of their patches, which cannot be drawn, and whose tiles cannot be shown.
    - `genes.csv`: gene, subspace, contribution.
    - `patches.csv`: slide, x, y in level-0 pixels; integrated gradients per subspace and their total; occlusion per
      subspace (`occlusion_<subspace>`). Rows of a slide are in the order of its feature file.
    - `points.csv` and `sampling_<slide>.png`: where the deformable attention looked, which is no attribution.
    - `heatmap_<subspace>_<slide>.png` and `<slide>.geojson` per slide, on its thumbnail or its patches' places.
    - `gallery_<subspace>.jpg`: the patches that raise and lower the score most, or their places where the slide cannot
      be read.

    A slide whose patches have no known places is in `patches.csv` alone, without x and y.

    Args:
        fitted: The model; its gene axis must be the patient's.
        patient: Patient with at least one modality the model uses.
        out: Folder to write to.
        fold: Which fold's model this is, for the record.
        places: Where the slides are (`locate_slides`); without it galleries show places.

    Raises:
        DataError: Heat maps of two subspaces and slides would have one name; or features cannot be read.
    """
    _require_own_names(fitted.subspaces, [path.stem for path in patient.slides])
    (out / names.EXPLANATION).unlink(missing_ok=True)  # written last: it marks the folder complete
    batch = next(fitted.batches([patient]))
    score = explained_score(fitted, batch)
    attributions = attribute_subspaces(fitted, batch, score)
    ledger = ledger_of(fitted, fitted.model, batch, score)
    _write_genes(out / names.GENES, fitted, attributions)
    has_patches = bool(batch.patch_mask.any()) and "slides" in fitted.recipe.modalities
    slides = {path.stem: read_features(path) for path in patient.slides} if has_patches else {}
    scores = {name: attribution.patch[0].double().cpu().numpy() for name, attribution in attributions.items()}
    seen: dict[str, Any] = {}
    if slides:
        scores["total"] = np.sum(list(scores.values()), axis=0)
        falls = occlude_patches(fitted.model, batch, score).double().cpu().numpy()
        scores |= {f"occlusion_{name}": fall for name, fall in zip(fitted.subspaces, falls, strict=True)}
        by_slide = {name: _by_slide(values, slides) for name, values in scores.items()}
        _write_patch_table(out / names.PATCHES, slides, by_slide)
        files = {path.stem: path for path in patient.slides}
        placed = {slide_id: slide for slide_id, slide in slides.items() if slide.has_coordinates}
        grounds = {slide_id: slide_ground(files[slide_id], slide) for slide_id, slide in placed.items()}
        drawn = _Drawn(placed, files, grounds, by_slide, fitted.subspaces, score.name)
        _write_maps(out, drawn)
        seen = {
            "drawn_on_places": {name: ground.reason for name, ground in grounds.items() if ground.reason is not None},
            "not_drawn": {slide_id: NO_PLACES for slide_id in slides if slide_id not in placed},
            "points": _write_points(out, fitted, batch, drawn) if len(placed) == len(slides) else None,
            "tiles_not_shown": _write_galleries(out, drawn, places or {}),
        }
    prediction = fitted.predict([patient]).iloc[0].to_dict()
    with torch.inference_mode():
        value = float(score.of_logits(fitted.model(**batch.inputs()).logits))
    write_json(
        out / names.EXPLANATION,
        {
            "patient_id": patient.patient_id,
            "task": fitted.task,
            "model": fitted.recipe.name,
            "fold": fold,
            "explained": score.explained,
            "score_name": score.name,
            "score": value,
            "prediction": {name: json_value(value) for name, value in prediction.items()},
            "ledger": ledger.drop(columns="patient_id").to_dict("records"),
            "gap": {name: float(attribution.gap) for name, attribution in attributions.items()},
            "relative_gap": {name: json_value(float(a.relative_gap)) for name, a in attributions.items()},
            "gap_tolerance": TOLERANCE,
            "integration_steps": {name: attribution.steps for name, attribution in attributions.items()},
            "slides": list(slides),
            **seen,
        },
    )


def _require_own_names(subspaces: Sequence[str], slides: Sequence[str]) -> None:
    """Refuses subspaces `a` and `a_b` with slides `b_s` and `s`, whose heat maps would be written over one another."""
    made: dict[str, str] = {}
    for slide_id in slides:
        for subspace in (*subspaces, "total"):
            what = f"{subspace} of slide {slide_id}"
            name = names.HEAT_MAP.format(subspace=subspace, slide_id=slide_id)
            if (other := made.setdefault(name, what)) != what:
                raise DataError(
                    f"{name}: one heat map is required. Found {other} and {what}. Rename one of the slides."
                )


@dataclass(frozen=True)
class _Drawn:
    """The slides of a patient whose patches have places, and what is drawn on them."""

    slides: Mapping[str, SlideFeatures]
    files: Mapping[str, Path]  # of features, by slide
    grounds: Mapping[str, Ground]
    scores: Mapping[str, Mapping[str, np.ndarray]]  # name, then slide
    subspaces: tuple[str, ...]
    score_name: str


def _write_genes(path: Path, fitted: FittedModel, attributions: dict[str, Attribution]) -> None:
    tables = []
    for name, attribution in attributions.items():
        table = pd.DataFrame(
            {
                "gene": fitted.genes,
                "subspace": name,
                "contribution": fitted.of_genes(attribution.gene[0]).cpu().numpy(),
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


def _write_patch_table(
    path: Path, slides: Mapping[str, SlideFeatures], by_slide: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Writes the scores of all patches."""
    tables = []
    for slide_id, slide in slides.items():
        x, y = (pd.array(column, dtype="Int64") for column in slide.coords.T)
        places = {"x": x, "y": y} if slide.has_coordinates else {"x": pd.NA, "y": pd.NA}
        of_slide = {name: values[slide_id] for name, values in by_slide.items()}
        table = pd.DataFrame({"slide_id": slide_id, **places, **of_slide}, index=range(len(slide.coords)))
        tables.append(table.astype({"x": "Int64", "y": "Int64"}))
    write_table(path, pd.concat(tables))


def _write_maps(out: Path, drawn: _Drawn) -> None:
    """Writes the scores of every slide as objects and pictures."""
    shown = (*drawn.subspaces, "total")
    limit = colour_limit(*(values for name in shown for values in drawn.scores[name].values()))
    for slide_id, slide in drawn.slides.items():
        of_slide = {name: values[slide_id] for name, values in drawn.scores.items()}
        write_geojson(
            out / names.ANNOTATIONS.format(slide_id=slide_id),
            slide.coords,
            slide.patch_size_level0,
            of_slide,
            classify_by="total",
            score_name=drawn.score_name,
            bounds_corner=slide.bounds_corner,
        )
        for name in shown:
            picture = heat_map(
                drawn.grounds[slide_id].picture,
                slide.coords,
                slide.patch_size_level0,
                slide_width_px=slide.slide_width_px,
                slide_height_px=slide.slide_height_px,
                scores=of_slide[name],
                label=f"{subspace_title(name)}: contribution to {drawn.score_name}",
                limit=limit,
            )
            _save(picture, out / names.HEAT_MAP.format(subspace=name, slide_id=slide_id))


def _write_points(out: Path, fitted: FittedModel, batch: BagBatch, drawn: _Drawn) -> dict[str, Any] | None:
    """Writes where the attention looked; returns how many points there are, None for a model that has none."""
    model = networks_of(fitted.model)[0]  # all have the same sizes
    if not isinstance(model, SubspaceFusion) or model.config.layout != "spatial":
        return None
    with torch.inference_mode():
        grid = fitted.model(**batch.inputs()).sampling_grid[0]
    attention = next(module for module in model.modules() if isinstance(module, DeformableAttention))
    table = sampled_points(
        grid,
        batch.coords[0][batch.patch_mask[0]],
        drawn.slides,
        subspaces=fitted.recipe.network_subspaces,
        grid=model.config.grid,
        points=attention.points,
    )
    write_table(out / names.POINTS, table)
    for slide_id, slide in drawn.slides.items():
        picture = sampling_map(
            drawn.grounds[slide_id].picture,
            table[table["slide_id"] == slide_id],
            slide_width_px=slide.slide_width_px,
            slide_height_px=slide.slide_height_px,
            subspaces=fitted.recipe.network_subspaces,
        )
        _save(picture, out / names.SAMPLING_MAP.format(slide_id=slide_id))
    return {"meaning": DESCRIPTION, "sampled": int(grid[..., 0].numel()), "on_slides": len(table)}


def _write_galleries(out: Path, drawn: _Drawn, places: Mapping[str, SlidePlace]) -> dict[str, str]:
    """Writes one gallery per subspace; returns the slides whose tiles cannot be shown, with the reason."""
    not_shown: dict[str, str] = {}
    for name in drawn.subspaces:
        high, low, missing = strongest_tiles(drawn.scores[name], drawn.slides, drawn.files, places)
        not_shown |= missing
        label = f"{subspace_title(name)}: contribution to {drawn.score_name}"
        picture = gallery(high, low, label=label, score_name=drawn.score_name)
        if picture is not None:
            _save(picture, out / names.GALLERY.format(subspace=name))
    return not_shown


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary)

"""Everything that explains one patient's prediction, written to one folder."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from subfuse.data.cohort import Patient
from subfuse.data.feature_store import SlideFeatures, read_features
from subfuse.explanation.attribution import Attribution, Score, contribution_ledger, integrated_gradients
from subfuse.explanation.heatmaps import colour_limit, heat_map, write_geojson
from subfuse.files import atomic_path, write_json, write_table
from subfuse.training.checkpoint import FittedModel, score_weights

INTEGRATION_STEPS = 32


def explain_patient(fitted: FittedModel, patient: Patient, out: Path, *, fold: int) -> None:
    """Writes one patient's explanation for one task.

    What is explained is the score of `score_weights`: the mean hazard logit (survival) or the predicted class's logit
    minus the mean logit. Files: `explanation.json` (prediction, ledger of subspace x modality, completeness gaps),
    `genes.csv` (gene, subspace, contribution), `patches.csv` (slide, x, y in level-0 pixels, one score per subspace
    and their total), and per slide and subspace `heatmap_<subspace>_<slide>.png`, per slide `<slide>.geojson`.

    Args:
        fitted: The model; its gene axis must be the patient's.
        patient: Patient with at least one modality the model uses.
        out: Folder to write to.
        fold: Which fold's model this is, for the record.
    """
    batch = next(fitted.batches([patient]))
    with torch.inference_mode():
        output = fitted.model(**batch.inputs())
    weights = score_weights(fitted.objective, output.logits)

    def share_of(subspace: int) -> Score:
        return lambda output: (output.subspace_logits[:, subspace] * weights[:1]).sum(dim=1)

    attributions = {
        name: integrated_gradients(fitted.model, batch, share_of(index), steps=INTEGRATION_STEPS)
        for index, name in enumerate(fitted.subspaces)
    }
    ledger = contribution_ledger(
        fitted.model,
        batch,
        lambda logits: (logits * weights[:1]).sum(dim=1),
        baseline=fitted.baseline_logits,
        subspaces=fitted.subspaces,
        modalities=fitted.recipe.modalities,
    )
    _write_genes(out / "genes.csv", fitted, attributions)
    slides = [read_features(path) for path in patient.slides] if batch.patch_mask.any() else []
    if slides:
        _write_patches(out, patient, slides, attributions)
    prediction = fitted.predict([patient]).iloc[0].to_dict()
    write_json(
        out / "explanation.json",
        {
            "patient_id": patient.patient_id,
            "task": fitted.task,
            "model": fitted.recipe.name,
            "fold": fold,
            "score": float((output.logits * weights).sum()),
            "prediction": {name: _plain(value) for name, value in prediction.items()},
            "ledger": ledger.drop(columns="patient_id").to_dict("records"),
            "gap": {name: float(attribution.gap) for name, attribution in attributions.items()},
            "slides": [path.stem for path in patient.slides] if slides else [],
        },
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def _write_genes(path: Path, fitted: FittedModel, attributions: dict[str, Attribution]) -> None:
    tables = []
    for name, attribution in attributions.items():
        table = pd.DataFrame({"gene": fitted.genes, "subspace": name, "contribution": attribution.gene[0].numpy()})
        tables.append(table[table["contribution"] != 0])
    table = pd.concat(tables, ignore_index=True)
    order = table["contribution"].abs().sort_values(ascending=False, kind="stable").index
    write_table(path, table.loc[order])


def _write_patches(
    out: Path, patient: Patient, slides: list[SlideFeatures], attributions: dict[str, Attribution]
) -> None:
    scores = {name: attribution.patch[0].double().numpy() for name, attribution in attributions.items()}
    scores["total"] = np.sum(list(scores.values()), axis=0)
    limit = colour_limit(*scores.values())
    tables, start = [], 0
    for path, slide in zip(patient.slides, slides, strict=True):
        of_slide = {name: values[start : start + len(slide.coords)] for name, values in scores.items()}
        start += len(slide.coords)
        coords = {"slide_id": path.stem, "x": slide.coords[:, 0], "y": slide.coords[:, 1]}
        tables.append(pd.DataFrame({**coords, **of_slide}))
        write_geojson(
            out / f"{path.stem}.geojson", slide.coords, slide.patch_size_level0, of_slide, classify_by="total"
        )
        thumbnail = path.parent.parent / "thumbnails" / f"{path.stem}.jpg"
        for name, values in of_slide.items():
            picture = heat_map(
                thumbnail,
                slide.coords,
                slide.patch_size_level0,
                slide_width_px=slide.slide_width_px,
                slide_height_px=slide.slide_height_px,
                scores=values,
                label=f"{name}: contribution to the score",
                limit=limit,
            )
            with atomic_path(out / f"heatmap_{name}_{path.stem}.png") as temporary:
                picture.save(temporary)
    write_table(out / "patches.csv", pd.concat(tables))

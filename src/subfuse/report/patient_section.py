"""Explained patients in the report: prediction, contributions, genes."""

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from subfuse.bounded_files import require_regular_file
from subfuse.errors import counted, preview
from subfuse.evaluation.metrics import duration, number
from subfuse.evaluation.regression.columns import PREDICTED_VALUE, VALUE
from subfuse.execution import Attempts
from subfuse.report.figures.results import contribution_bars, gene_bars
from subfuse.report.run_files import RunFiles
from subfuse.report.statements import Drawn, Section, titled
from subfuse.run_folder.explanations import Explanation
from subfuse.run_folder.names import EXPLANATIONS, GALLERY, HEAT_MAP, SAMPLING_MAP
from subfuse.training.models import model_title, subspace_title

MAX_PICTURE_BYTES = 10_500_000  # of all pictures as text, so that the report stays below 15 MB
_PICTURE_WIDTH_PX = 900
_MAX_CONTACT_SHEETS = 6


class PictureBudget:
    """Turns picture files into data addresses until they would make the report too large."""

    def __init__(self) -> None:
        self.spent = 0
        self.left_out = 0

    def embed(self, path: Path) -> str | None:
        """Returns the picture as a data address; None if it is left out.

        After the first picture that does not fit, all are left out: opening every one of a large run takes long.
        """
        address = None if self.left_out else encoded(path)
        if address is None or self.spent + len(address) > MAX_PICTURE_BYTES:
            self.left_out += 1
            return None
        self.spent += len(address)
        return address


def encoded(path: Path) -> str:
    """Returns a picture as a data address of a JPEG, at most `_PICTURE_WIDTH_PX` wide."""
    from PIL import Image

    require_regular_file(path, "picture")
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if picture.width > _PICTURE_WIDTH_PX:
        height = max(1, round(picture.height * _PICTURE_WIDTH_PX / picture.width))
        picture = picture.resize((_PICTURE_WIDTH_PX, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _patient_pictures(explanation: Explanation, budget: PictureBudget) -> Iterator[Mapping[str, Any]]:
    """Yields a patient's heat maps, sampling points and tiles with their descriptions, as long as there is room.

    Galleries of tiles are `wide`: what is written below a tile is too small to read in one column.
    """
    for name, caption, alt, wide in _pictures(explanation):
        path = explanation.folder / name
        source = budget.embed(path) if path.exists() else None
        if source is not None:
            yield {"source": source, "alt": alt, "caption": caption, "wide": wide}


def _pictures(explanation: Explanation) -> Iterator[tuple[str, str, str, bool]]:
    """Yields file, caption, description and whether it is wide: maps and points by slide, then galleries of tiles."""
    score, on_places = explanation.score_name, explanation.content.get("drawn_on_places", {})
    for slide in map(str, explanation.content.get("slides", ())):
        where = f"the places of the patches of slide {slide}" if slide in on_places else f"slide {slide}"
        for name in dict.fromkeys(("total", *explanation.subspaces)):
            part = "all subspaces" if name == "total" else subspace_title(name)
            alt = f"Heat map on {where}: where {part} raises or lowers {score}."
            yield HEAT_MAP.format(subspace=name, slide_id=slide), f"{part}, {where}: {score}", alt, False
        caption = f"Where the attention looked on {where}: a description, not an attribution"
        alt = f"{where.capitalize()} with the points that the deformable attention sampled, coloured by subspace."
        yield SAMPLING_MAP.format(slide_id=slide), caption, alt, False
    for name in explanation.subspaces:
        alt = f"The patches that raise the share of {subspace_title(name)} in {score} most, and that lower it most."
        yield (
            GALLERY.format(subspace=name),
            f"Patches that raise and lower {score} most, {subspace_title(name)}",
            alt,
            True,
        )


def contact_sheets(run: RunFiles, budget: PictureBudget) -> list[Mapping[str, Any]]:
    """Returns the first contact sheets of the slides."""
    found = ((path, budget.embed(path)) for path in run.contact_sheets[:_MAX_CONTACT_SHEETS])
    return [{"source": source, "name": path.stem} for path, source in found if source is not None]


TOP_GENES = 12
_NOT_SHOWN = {
    "drawn_on_places": "Drawn on the places of the patches",
    "not_drawn": "No heat map and no tiles",
    "tiles_not_shown": "Tiles are shown by where they lie",
}

MAX_FIGURE_BYTES = 2_000_000  # of all patients' figures; a report stays below 15 MB however many are explained


def patients_section(run: RunFiles, budget: PictureBudget, attempts: Attempts) -> Section | None:
    """Returns the explained predictions with their pictures, as many as there is room for; None without any."""
    if not run.explanations:
        return None
    shown: list[dict[str, Any]] = []
    room = MAX_FIGURE_BYTES
    for index, explanation in enumerate(run.explanations, start=1):
        with attempts.attempt(explanation.folder.relative_to(run.folder).as_posix()):
            patient = explained_patient(run, explanation)
            room -= sum(len(drawn.svg) for drawn in patient["figures"])
            if room < 0:
                break
            anchor = {"anchor": f"patient-{index}", "maps": list(_patient_pictures(explanation, budget))}
            shown.append(patient | anchor)
    hidden = len(run.explanations) - len(shown) - len(attempts.table())
    if not shown:
        return None
    notes = [f"{counted(hidden, 'more explained prediction')}"] if hidden else []
    notes += [f"{counted(budget.left_out, 'more picture')}"] if budget.left_out else []
    note = f"In the run's folder {EXPLANATIONS}/, not shown here: {' and '.join(notes)}." if notes else ""
    names = list(dict.fromkeys(patient["name"] for patient in shown))
    gist = f"{counted(len(shown), 'prediction')} of {preview(names, limit=3)}"
    return Section("patients", "Explained patients", gist, "patients.html.j2", {"patients": shown, "note": note})


def explained_patient(run: RunFiles, explanation: Explanation) -> dict[str, Any]:
    """Returns one explained prediction, without its pictures."""
    content = explanation.content
    patient, task, model = (str(content[key]) for key in ("patient_id", "task", "model"))
    row = _predicted_row(run, explanation)
    subtitle = [model_title(model), f"model of fold {content['fold']}"]
    if "split" in row:
        subtitle.append("not seen in training" if row["split"] == "test" else f"{row['split']} patient of this model")
    return {
        "name": patient,
        "task": titled(task),
        "gist": " · ".join(subtitle),
        "facts": [*_prediction_facts(content["prediction"]), *_outcome_facts(row)],
        "figures": [*_ledger_figure(explanation), *_gene_figures(explanation)],
        "remarks": list(_remarks(content)),
    }


def _remarks(content: Mapping[str, Any]) -> Iterator[str]:
    """Yields what limits an explanation: attributions that do not add up, and what could not be drawn."""
    tolerance = content.get("gap_tolerance")
    gaps = {name: gap for name, gap in content.get("relative_gap", {}).items() if gap is not None}
    large = [
        f"{subspace_title(name)} {gap:.0%}" for name, gap in gaps.items() if tolerance is not None and gap > tolerance
    ]
    if large:
        yield (
            f"Attributions of genes and patches do not add up within {tolerance:.0%}: {', '.join(large)} of their sum "
            "is missing. Read them as an order, not as amounts."
        )
    for key, what in _NOT_SHOWN.items():
        slides_of: dict[str, list[str]] = {}
        for slide, reason in (content.get(key) or {}).items():
            slides_of.setdefault(str(reason), []).append(str(slide))
        for reason, slides in slides_of.items():
            yield f"{what} ({preview(slides)}): {reason}."


def _predicted_row(run: RunFiles, explanation: Explanation) -> dict[str, Any]:
    """Returns the patient's row of predictions.csv in this fold; empty for a patient of another cohort."""
    table, content = run.predictions, explanation.content
    chosen = (table["patient_id"] == content["patient_id"]) & (table["task"] == content["task"])
    chosen &= (table["model"] == content["model"]) & (table["fold"] == content["fold"])
    rows = table[chosen].to_dict("records")
    return {str(key): value for key, value in rows[0].items()} if rows else {}


def _prediction_facts(prediction: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    for name, value in prediction.items():
        if value is None or isinstance(value, str) or name.startswith("contribution_"):
            continue
        if name in ("has_slides", "has_expression"):
            facts.append((name.removeprefix("has_").capitalize(), "yes" if value else "no"))
        elif name.startswith("survival_"):
            facts.append((f"Survival at {duration(float(name.split('_')[1]))}", f"{value:.0%}"))
        elif name.startswith("p_"):
            facts.append((f"Probability of {name.removeprefix('p_')}", f"{value:.0%}"))
        else:
            facts.append(({"risk": "Risk", PREDICTED_VALUE: "Predicted value"}.get(name, name), number(float(value))))
    return facts


def _outcome_facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if isinstance(row.get("label"), str):
        facts.append(("True class", row["label"]))
    if not pd.isna(row.get(VALUE, np.nan)):
        facts.append(("Measured value", number(float(row[VALUE]))))
    if not pd.isna(row.get("time_days", np.nan)):
        event = "event" if str(row["event"]) == "True" else "censored"
        facts.append(("Outcome", f"{event} at {duration(row['time_days'])}"))
    return facts


def _ledger_figure(explanation: Explanation) -> list[Drawn]:
    ledger = explanation.ledger
    is_baseline = ledger["modality"] == "baseline"
    if is_baseline.all():
        return []
    values = {
        (subspace_title(str(row["subspace"])), str(row["modality"])): float(row["contribution"])
        for row in ledger[~is_baseline].to_dict("records")
    }
    modalities = list(dict.fromkeys(modality for _, modality in values))
    svg = contribution_bars(
        values, subspaces=[subspace_title(name) for name in explanation.subspaces], modalities=modalities
    )
    baseline, total = float(ledger.loc[is_baseline, "contribution"].sum()), float(ledger["contribution"].sum())
    return [
        Drawn(
            Markup(svg),
            title="Contributions",
            caption=f"Shapley shares of {_definition(explanation)}: the baseline {number(baseline)}, an "
            f"average training patient, and the bars add up to {number(total)}.",
            alt="; ".join(f"{' '.join(row)} {number(value, signed=True)}" for row, value in values.items()),
        )
    ]


def _definition(explanation: Explanation) -> str:
    is_class = any(name.startswith("p_") for name in explanation.content["prediction"])
    has_curve = any(name.startswith("survival_") for name in explanation.content["prediction"])
    if PREDICTED_VALUE in explanation.content["prediction"]:
        return f"{explanation.score_name} (its distance from the training mean, in its own unit)"
    hazard = "mean logit of the hazards, from which survival and risk follow" if has_curve else "log hazard ratio"
    unit = "its logit relative to the mean over classes" if is_class else f"{hazard}; higher is worse"
    return f"{explanation.score_name} ({unit})"


def _gene_figures(explanation: Explanation) -> list[Drawn]:
    drawn, gaps = [], explanation.content.get("gap", {})
    for subspace in explanation.subspaces:
        rows = explanation.genes[explanation.genes["subspace"] == subspace].dropna(subset=["contribution"])
        rows = rows[rows["contribution"] != 0]
        if rows.empty:
            continue
        order = rows["contribution"].abs().sort_values(ascending=False, kind="stable").index[:TOP_GENES]
        genes, contributions = (rows.loc[order, column].tolist() for column in ("gene", "contribution"))
        svg = gene_bars(genes, contributions)
        gap = f" (completeness gap {gaps[subspace]:.1g})".replace("-", "−") if subspace in gaps else ""
        drawn.append(
            Drawn(
                Markup(svg),
                title=f"Top genes, {subspace_title(subspace)}",
                caption=f"{len(genes)} of {len(rows)} genes that raise or lower {explanation.score_name}, by "
                f"integrated gradients{gap}.",
                alt="; ".join(f"{g} {number(c, signed=True)}" for g, c in zip(genes, contributions, strict=True)),
            )
        )
    return drawn

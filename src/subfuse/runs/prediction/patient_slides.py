"""Slides of a new patient: prepared as those of a run were, or read from feature files of its sets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from subfuse.devices import chosen_device
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.features.contrast import read_contrast
from subfuse.features.encoder import SlideEncoder, is_same_encoder
from subfuse.features.registered.slide_encoders import load_encoder
from subfuse.features.store import UNKNOWN_ENCODER
from subfuse.preparation.contrast import flat_slides
from subfuse.preparation.slides.feature_import import FeatureRecord, import_slides
from subfuse.preparation.slides.feature_survey import FeatureSurvey, survey_features
from subfuse.preparation.slides.slide import prepare_slide
from subfuse.preparation.slides.slide_search import FEATURE_SUFFIXES, feature_id_of
from subfuse.preparation.slides.slide_vector import encode_imports, is_slide_encoder_of
from subfuse.runs.prediction.predictor import Predictor
from subfuse.slides.image_folders import is_image_source
from subfuse.slides.source import FeatureSource, SlideSource
from subfuse.slides.stain import method_of
from subfuse.slides.tissue import Tiling
from subfuse.slides.tissue_rule import FIXED, folder_of_outlines
from subfuse.training.fitted_model import FittedModel

_PATIENT = "new-patient"
_SAME_WIDTH = 0.01  # by which the width of a new patient's patches may differ from those of training, as a share


@dataclass(frozen=True)
class PatientSlides:
    """Feature files of a new patient's slides, as a cohort has them."""

    features: tuple[Path, ...] = ()
    encoder: str | None = None
    encoder_sha256: str | None = None
    patch_dim: int | None = None
    notes: tuple[str, ...] = ()
    width_um: Mapping[Path, float] = field(default_factory=dict)  # of patches, by feature file


def read_slides(
    paths: Sequence[Path], mpp: float | None, folder: Path, run: Predictor, fitted: FittedModel
) -> PatientSlides:
    """Returns the features of slides, or what becomes of them with the encoder and tiling of the run.

    Args:
        paths: Slides, or feature files; of several sets that the run joined, those of a slide have one name.
        mpp: µm per level-0 pixel, where declared.
        folder: Where features are written.
        run: Says how its own slides were prepared.
        fitted: A model of the run that reads slides.

    Raises:
        ConfigurationError: Slides beside features, files that are there twice or in unequal numbers, or slides that the
            run cannot prepare.
        DataError: A file cannot be used.
    """
    names = [feature_id_of(path.name) for path in paths]
    ready = [path.suffix.lower() in FEATURE_SUFFIXES for path in paths]
    if all(ready):
        return _import(_feature_sources(paths, mpp), folder, run, fitted)
    if any(ready):
        raise ConfigurationError("either slides or their features are required. Found both. Give files of one kind.")
    if len(set(names)) < len(names):
        raise ConfigurationError(f"slides must have different names. Found {preview(names)}. Give each once.")
    encoder, tiling = _encoder_and_tiling(run)
    tissue, doubts = _tissue_rule(run)
    stain = method_of(run.prepared.get("stain"))
    device = chosen_device(run.device)
    loaded = load_encoder(encoder, device=device)
    sources = [
        SlideSource(name, _PATIENT, path, mpp, FIXED if is_image_source(path) else tissue, stain)
        for name, path in zip(names, paths, strict=True)
    ]
    records = [prepare_slide(source, loaded, tiling, folder / "wsi", device=device) for source in sources]
    notes = [*doubts, *(f"{record.slide_id}: {record.n_patches} patches" for record in records)]
    notes += [f"{record.slide_id}: {warning}" for record in records for warning in record.warnings]
    files = tuple(folder / record.features for record in records)
    widths = {path: r.patch_um for path, r in zip(files, records, strict=True) if not math.isnan(r.patch_um)}
    return PatientSlides(files, loaded.name, loaded.sha256, loaded.dim, tuple(notes), widths)


def _feature_sources(paths: Sequence[Path], mpp: float | None) -> list[FeatureSource]:
    """Returns the features of each slide: files of one name are its sets, joined in the order in which they are given.

    Raises:
        ConfigurationError: A file is given twice, or slides have different numbers of sets.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigurationError(f"different files are required. Found one twice among {preview(paths)}. Give it once.")
    sets: dict[str, list[Path]] = {}
    for path in paths:
        sets.setdefault(feature_id_of(path.name), []).append(path)
    counts = {name: len(files) for name, files in sets.items()}
    if len(set(counts.values())) > 1:
        found = preview([f"{n} of {name}" for name, n in counts.items()])
        raise ConfigurationError(
            f"as many feature files of every slide are required: those of one name are joined. Found {found}. Give all "
            "sets of each slide, or files of one set."
        )
    return [
        FeatureSource(name, _PATIENT, first, mpp, further=tuple(further)) for name, (first, *further) in sets.items()
    ]


def _import(sources: Sequence[FeatureSource], folder: Path, run: Predictor, fitted: FittedModel) -> PatientSlides:
    notes: tuple[str, ...] = ()
    survey = survey_features(sources)
    _require_none(survey.exclusions)
    if survey.encoder == UNKNOWN_ENCODER and fitted.encoder != UNKNOWN_ENCODER:
        notes = (f"the feature files do not name their encoder: taken to be {fitted.encoder}, as in training",)
        sources = [replace(source, encoder=fitted.encoder) for source in sources]
        survey = survey_features(sources)
    _require_order(sources, survey, fitted)
    records, failures = import_slides(sources, survey, folder / "wsi")
    _require_none(failures)
    slide_encoder = run.prepared.get("slide_encoder")
    if slide_encoder and not is_same_encoder(survey.encoder, str(fitted.encoder)):
        return _encoded(records, survey, folder, str(slide_encoder), notes, device=chosen_device(run.device))
    features = tuple(folder / record.features for record in records)
    widths = {folder / record.features: record.patch_um for record in records if record.has_coordinates}
    flat = flat_slides({record.slide_id: read_contrast(folder / record.features) for record in records})
    notes = (*notes, *survey.warnings(), *flat)
    return PatientSlides(features, survey.encoder, survey.encoder_sha256, survey.patch_dim, notes, widths)


def _require_order(sources: Sequence[FeatureSource], survey: FeatureSurvey, fitted: FittedModel) -> None:
    """Refuses joined sets whose first has patches of another width than the first of training: they are exchanged."""
    low, high = fitted.patch_um or (math.nan, math.nan)
    for source in (source for source in sources if source.further):
        width = survey.headers[source.slide_id].patch_um
        if width < (1 - _SAME_WIDTH) * low or width > (1 + _SAME_WIDTH) * high:
            wanted = f"{low:.4g}" if high - low < _SAME_WIDTH * low else f"{low:.4g} to {high:.4g}"
            raise DataError(
                f"{source.path}: the set whose patches are {wanted} µm wide comes first, as in training. Found "
                f"{width:.4g} µm. Give the files of a slide in the order of `features` and `concatenate` of the cohort "
                "file."
            )


def _encoded(
    records: Sequence[FeatureRecord],
    survey: FeatureSurvey,
    folder: Path,
    encoder: str,
    notes: tuple[str, ...],
    *,
    device: str,
) -> PatientSlides:
    """Returns the vectors that the run's slide encoder makes of imported features of patches.

    Raises:
        ConfigurationError: It cannot be loaded, or reads features of another patch encoder.
        DataError: A slide cannot be encoded.
    """
    if not is_slide_encoder_of(encoder, survey.encoder):
        raise DataError(f"features that {encoder} reads are required. Found those of {survey.encoder}.")
    loaded = load_encoder(encoder, device=device)
    assert isinstance(loaded, SlideEncoder)
    vectors, failures = encode_imports(records, folder, loaded)
    _require_none(failures)
    files = tuple(folder / vector.features for vector in vectors)
    notes = (*notes, *survey.warnings(), f"features of patches were encoded by {loaded.name}, as in training")
    return PatientSlides(files, loaded.name, loaded.sha256, loaded.dim, notes)


def _require_none(excluded: pd.DataFrame) -> None:
    if len(excluded):
        raise DataError(str(excluded["reason"].iloc[0]))


def _tissue_rule(run: Predictor) -> tuple[str, list[str]]:
    """Returns how tissue was found on the run's slides, and a note where that cannot be done again on another one."""
    rules = run.prepared.get("tissue") or [FIXED]
    rule = FIXED if len(rules) > 1 or folder_of_outlines(rules[0]) is not None else str(rules[0])
    if rules == [rule]:
        return rule, []
    return rule, [
        f"tissue is found by colour (fixed); on the run's slides it was outlined or found by {preview(rules)}"
    ]


def _encoder_and_tiling(run: Predictor) -> tuple[str, Tiling]:
    """Returns what the run's slides were prepared with, from the copy of its cohort's provenance."""
    found = run.prepared
    if not found.get("requested_encoder") or not found.get("tiling"):
        raise ConfigurationError(
            f"{run.folder}: slides can be prepared only for a run whose own slides were, with a known encoder. Found "
            "none. Extract features as for the run, and give these files."
        )
    try:
        return str(found["requested_encoder"]), Tiling(**found["tiling"])
    except (TypeError, ValueError) as error:
        raise DataError(f"{run.folder}: the tiling is required. Found: {error}. Make the run again.") from error

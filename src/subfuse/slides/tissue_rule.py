"""How tissue is found on slides, as the cohort file declares it: by colour, by a model, or as a person outlined it."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from subfuse.errors import ConfigurationError, DataError, meant
from subfuse.settings import resolved_path

FIXED, OTSU = "fixed", "otsu"
_MODEL, _OUTLINES = "lazyslide:", "geojson:"
_PEN = "pen by absorbance 2"
_RECORDED = {FIXED: f"saturation 15, {_PEN}", OTSU: f"saturation by Otsu's threshold, {_PEN}"}

TISSUE_MODELS = {  # keys of lazyslide-models -> µm per pixel at which they were trained
    "grandqc-tissue": 10.0,
    "hest-tissue-segmentation": 1.0,
    "pathprofiler": 4.0,
}
_SHORT_NAMES = {"grandqc": "grandqc-tissue", "hest": "hest-tissue-segmentation"}


def _checked(rule: str, info: Any) -> str:  # ValidationInfo, which run-time type checks do not accept
    kind, colon, argument = rule.partition(":")
    if rule not in _RECORDED and not (f"{kind}{colon}" in (_MODEL, _OUTLINES) and argument):
        raise ValueError(
            f"must be `{FIXED}`, `{OTSU}`, `{_MODEL}MODEL` or `{_OUTLINES}FOLDER`, which {rule[:40]!r} is not"
        )
    return f"{_OUTLINES}{resolved_path(Path(argument), info)}" if f"{kind}{colon}" == _OUTLINES else rule


DeclaredTissue = Annotated[str, AfterValidator(_checked)]  # with the folder relative to the cohort file


def model_of(rule: str) -> str | None:
    """Returns the model that finds tissue, by its key in lazyslide-models; None for rules without one.

    Raises:
        ConfigurationError: There is no such model of tissue.
    """
    if not rule.startswith(_MODEL):
        return None
    name = rule.removeprefix(_MODEL)
    key = _SHORT_NAMES.get(name, name)
    if key not in TISSUE_MODELS:
        raise ConfigurationError(
            f"slides.tissue: a model of lazyslide-models that finds tissue is required, {_MODEL}"
            f"{' or '.join(sorted({*_SHORT_NAMES, 'pathprofiler'}))}. Found {name!r}."
            f"{meant(name, [*TISSUE_MODELS, *_SHORT_NAMES])}"
        )
    return key


def folder_of_outlines(rule: str) -> Path | None:
    """Returns the folder that holds outlines of tissue, one GeoJSON per slide; None for rules that find it."""
    return Path(rule.removeprefix(_OUTLINES)) if rule.startswith(_OUTLINES) else None


def require_rule(rule: str) -> None:
    """Checks what can be checked of a rule before any slide is opened.

    Raises:
        ConfigurationError: There is no such model.
        DataError: There is no such folder of outlines.
    """
    model_of(rule)
    folder = folder_of_outlines(rule)
    if folder is not None and not folder.is_dir():
        raise DataError(
            f"{folder}: a folder of outlines, SLIDE.geojson each, is required by slides.tissue. Found "
            f"{'a file' if folder.exists() else 'nothing'}. Correct the path; `prepare` writes such a folder, "
            "contours_geojson."
        )


def recorded_rule(rule: str) -> str:
    """Returns what is kept with the features: another rule is another result. Outlines count by what they are."""
    model = model_of(rule)
    if model is not None:
        return f"{_MODEL}{model}, {_PEN}"
    return _RECORDED.get(rule, "outlines of a person")

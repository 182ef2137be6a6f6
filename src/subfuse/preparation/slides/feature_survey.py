"""Features that other tools extracted: what the files of a cohort say about themselves, before any is converted."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.bounded_files import file_of
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.exclusions import exclusion_table, join_exclusions
from subfuse.features.contrast import PatchContrast, contrast_of
from subfuse.features.encoder import is_same_encoder
from subfuse.features.feature_file import FeatureFile
from subfuse.features.feature_table import feature_row, read_feature_table
from subfuse.features.hdf5_layouts import OF_PATIENTS
from subfuse.features.other_tools import opened_features
from subfuse.features.patch_spacing import NO_PATCH_SIZE
from subfuse.features.store import UNKNOWN_ENCODER
from subfuse.features.stored.in_place import where_features_are
from subfuse.features.trident_job import encoder_of_folder
from subfuse.files import sha256_of_json
from subfuse.preparation.slides.feature_sets import concatenated
from subfuse.slides.source import FeatureSource, SlideSource


@dataclass(frozen=True)
class FeatureHeader:
    """What one feature file says about itself; its features are not read."""

    layout: str
    n_patches: int
    n_features: int
    encoder: str
    encoder_sha256: str  # empty where unknown
    has_coordinates: bool
    patch_um: float  # side of a patch in µm; NaN where the header does not tell and the places were not read
    warnings: tuple[str, ...]
    bytes_in_place: int = 0  # of features that stay where they are
    why_copied: str = ""  # into the prepared folder; empty for features that stay


@dataclass(frozen=True)
class FeatureSurvey:
    """The feature files of a cohort, all of one encoder."""

    headers: Mapping[str, FeatureHeader]  # by slide; without those that cannot be used
    exclusions: pd.DataFrame  # those, with their reason
    encoder: str
    encoder_sha256: str  # of the weights where recorded, else of the encoder's name and its features
    patch_dim: int | None  # None: no file can be used

    @property
    def width_um(self) -> dict[str, float]:
        """Side of the patches of each slide in µm, where its header tells."""
        return {slide: header.patch_um for slide, header in self.headers.items() if not math.isnan(header.patch_um)}

    @property
    def by_spacing(self) -> list[str]:
        """Slides whose patches are as wide as they lie apart, since nothing else tells."""
        return [slide for slide, header in self.headers.items() if NO_PATCH_SIZE in header.warnings]

    def summary(self) -> str:
        """Returns in two lines what the files are, and which features stay where they are."""
        layouts = pd.Series([header.layout for header in self.headers.values()], dtype=object).value_counts()
        counts = preview([f"{name}: {count}" for name, count in layouts.items()]) or "none can be used"
        bare = sum(not header.has_coordinates for header in self.headers.values())
        without = f"; {bare} without coordinates" if bare else ""
        each = "patch" if any(header.n_patches > 1 for header in self.headers.values()) else "slide"
        of = f"{self.patch_dim} numbers a {each}, of encoder {self.encoder}"
        stay = where_features_are([(header.bytes_in_place, header.why_copied) for header in self.headers.values()])
        lines = [f"slide features: {len(self.headers)} ({counts}), {of}{without}", *([stay] if stay else [])]
        return "\n".join(f"  {line}" for line in lines)

    def warnings(self, imported: Mapping[str, tuple[str, ...]] | None = None) -> tuple[str, ...]:
        """Returns what the files leave open, one line each.

        Args:
            imported: Of slides whose values were read, what these told beside the headers as well.
        """
        of_headers = {slide_id: header.warnings for slide_id, header in self.headers.items()}
        notes = group_warnings((of_headers | dict(imported or {})).items())
        if self.headers and self.encoder == UNKNOWN_ENCODER:
            notes += (
                "the encoder of the features is not recorded: name it as slides.encoder, so that features of another "
                "encoder are not mistaken for these",
            )
        return notes


def feature_sources(slides: Sequence[SlideSource]) -> tuple[FeatureSource, ...]:
    """Returns the slides if they come as features; none if they are to be encoded.

    Raises:
        ConfigurationError: There are both kinds.
    """
    ready = tuple(source for source in slides if isinstance(source, FeatureSource))
    if ready and len(ready) < len(slides):
        raise ConfigurationError(
            f"slides: either slides or ready features are required in one cohort file. Found {len(ready)} with "
            f"features and {len(slides) - len(ready)} slides. Extract features of all with one encoder."
        )
    return ready


def survey_features(slides: Sequence[FeatureSource]) -> FeatureSurvey:
    """Opens every feature file without reading its features.

    Raises:
        DataError: The files are of several encoders or differ in the number of features, or the table cannot be used.
        ConfigurationError: A library for these files is missing.
    """
    headers, failures = {}, []
    for source in slides:
        try:
            headers[source.slide_id] = _header(source)
        except DataError as error:
            failures.append(("slide", source.slide_id, str(error)))
    require_one_encoder(
        [(source.path.name, headers[source.slide_id]) for source in slides if source.slide_id in headers]
    )
    first = next(iter(headers.values()), None)
    return FeatureSurvey(
        headers=headers,
        exclusions=exclusion_table(failures),
        encoder=UNKNOWN_ENCODER if first is None else first.encoder,
        encoder_sha256="" if first is None else first.encoder_sha256 or _sha256_of_name(first),
        patch_dim=None if first is None else first.n_features,
    )


def look_into_features(
    slides: Sequence[FeatureSource], survey: FeatureSurvey, *, seconds: float
) -> tuple[FeatureSurvey, int, dict[str, PatchContrast]]:
    """Reads the features of as many files as there is time for, and leaves out what cannot be imported.

    Args:
        slides: The feature files.
        survey: What `survey_features` found of them.
        seconds: After this no further file is begun.

    Returns:
        The survey without them, and with the widths that only places tell; how many files were read, which are spread
        over the cohort; and whether the patches of those that can be imported differ.
    """
    usable = [source for source in slides if source.slide_id in survey.headers]
    failures: list[tuple[str, str, str]] = []
    contrasts: dict[str, PatchContrast] = {}
    widths: dict[str, float] = {}
    end, n_read = time.monotonic() + seconds, 0
    for index in np.random.default_rng(0).permutation(len(usable)):
        if time.monotonic() > end:
            break
        source, n_read = usable[index], n_read + 1
        try:
            with opened_source(source) as file:
                slide = file.slide_features(source.path)
                contrasts[source.slide_id] = contrast_of(slide.features)
                widths[source.slide_id] = slide.patch_um
        except DataError as error:
            failures.append(("slide", source.slide_id, str(error)))
    failed = {name for _, name, _ in failures}
    headers = {
        name: replace(header, patch_um=widths.get(name, header.patch_um))
        for name, header in survey.headers.items()
        if name not in failed
    }
    exclusions = join_exclusions([survey.exclusions, exclusion_table(sorted(failures))])
    return replace(survey, headers=headers, exclusions=exclusions), n_read, contrasts


def group_warnings(warnings: Iterable[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    """Returns one line per warning, however many slides have it.

    Example:
        >>> group_warnings([("a", ["blurred"]), ("b", ["blurred", "small"])])
        ('slides a, b: blurred', 'slide b: small')
    """
    slides: dict[str, list[str]] = {}
    for slide_id, texts in warnings:
        for text in texts:
            slides.setdefault(text, []).append(slide_id)
    return tuple(f"slide{'s' * (len(ids) > 1)} {preview(ids, limit=3)}: {text}" for text, ids in slides.items())


@contextmanager
def opened_source(source: FeatureSource) -> Iterator[FeatureFile]:
    """Opens the features of one slide: a file of its own, several joined place by place, or its row of a table."""
    if source.in_table:
        yield feature_row(table_of_features(source.path), source.slide_id, source.path)
        return
    with ExitStack() as stack:
        declared = [source.encoder, *(_unless_named(source.encoder, path) for path in source.further)]
        files = [
            stack.enter_context(opened_features(path, mpp=source.mpp, encoder=encoder))
            for path, encoder in zip(source.paths, declared, strict=True)
        ]
        yield files[0] if len(files) == 1 else concatenated(files, source.paths)


def _unless_named(encoder: str | None, path: Path) -> str | None:
    """Returns the declared encoder of further features, None where their folder names theirs."""
    return encoder if encoder_of_folder(path.parent.name) is None else None


def table_of_features(path: Path) -> pd.DataFrame:
    """Returns a feature table, which is read once for all its slides."""
    return _table(path, file_of(path).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _table(path: Path, modified_ns: int) -> pd.DataFrame:
    return read_feature_table(path)


def _header(source: FeatureSource) -> FeatureHeader:
    with opened_source(source) as file:
        why_copied = "as slides.copy says" if source.is_copied else file.why_copied
        return FeatureHeader(
            layout=file.layout,
            n_patches=file.shape[0],
            n_features=file.shape[1],
            encoder=file.encoder,
            encoder_sha256=file.encoder_sha256,
            has_coordinates=file.read_coords is not None,
            patch_um=file.patch_um,
            warnings=file.warnings,
            bytes_in_place=int(file.array.nbytes) if file.array is not None and not why_copied else 0,
            why_copied=why_copied,
        )


def _sha256_of_name(header: FeatureHeader) -> str:
    """Stands for the weights where files do not record them: a cohort of another encoder or width differs."""
    return sha256_of_json({"encoder": header.encoder, "features": header.n_features})


def require_one_encoder(headers: Sequence[tuple[str, FeatureHeader]]) -> None:
    """Checks that feature files, each told by its name, are of one encoder.

    Raises:
        DataError: They are of several, or have different numbers of features, or are of patients and of slides.
    """
    of_patients = [name for name, header in headers if header.layout == OF_PATIENTS]
    if 0 < len(of_patients) < len(headers):
        of_slides = [name for name, header in headers if header.layout != OF_PATIENTS]
        raise DataError(
            "slides.features: vectors of patients, or features of slides, are required. Found "
            f"{len(of_patients)} of patients ({preview(of_patients, 2)}) beside {len(of_slides)} of slides "
            f"({preview(of_slides, 2)}). Name the folder of one kind."
        )
    files: dict[tuple[str, str, int], list[str]] = {}
    for name, header in headers:
        files.setdefault((header.encoder, header.encoder_sha256, header.n_features), []).append(name)
    if len(files) < 2:
        return
    kinds = [
        f"{n_features} features of {'an unknown encoder' if encoder == UNKNOWN_ENCODER else encoder} in "
        f"{preview(sorted(set(names)), limit=3)}"
        for (encoder, _, n_features), names in sorted(files.items(), key=lambda kind: -len(kind[1]))
    ]
    remedy = "Keep one kind in the folder; name the encoder as `slides.encoder` where files do not record it."
    (first, _, n_features), *others = files
    if all(is_same_encoder(first, encoder) and n == n_features for encoder, _, n in others):
        remedy = "Where these are names of one encoder, write one of them into all files, or prepare the cohorts apart."
    raise DataError(
        f"slides.features: all files must be of one encoder and one number of features. Found {'; '.join(kinds)}. "
        f"{remedy}"
    )

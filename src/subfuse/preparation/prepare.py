"""From a cohort file to a prepared folder: slides become features, tables become one cohort."""

import math
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from subfuse import __version__
from subfuse.cohort.cohort import used_of_listed
from subfuse.cohort.cohort_file import CohortFile, cohort_file_text, read_cohort_file
from subfuse.cohort.marker import (
    EXCLUSIONS,
    GENE_SET_COVERAGE,
    SLIDE_QUALITY,
    STARTED,
    mark_complete,
    mark_incomplete,
)
from subfuse.devices import AUTO, chosen_device, gpus_of, processes_on
from subfuse.errors import ConfigurationError, DataError, counted, preview
from subfuse.exclusions import NothingLeft, exclusion_table, group_reasons, join_exclusions
from subfuse.execution import Progress
from subfuse.expression.source import MatrixSource
from subfuse.features.contrast import read_contrast
from subfuse.features.encoder import OFFLINE_ENCODER, PatchEncoder, SlideEncoder, is_file
from subfuse.features.patch_spacing import NO_PATCH_SIZE
from subfuse.features.registered.slide_encoders import load_encoder
from subfuse.features.stored.in_place import where_features_are
from subfuse.files import is_begun, read_json, sha256_of_file, sha256_of_json, write_json, write_table
from subfuse.preparation.contrast import require_varying_features
from subfuse.preparation.declared_slides import declared_stain, declared_tiling, declared_tissue
from subfuse.preparation.plan import CohortPlan, plan_cohort
from subfuse.preparation.prepared import write_prepared
from subfuse.preparation.remaining import remaining
from subfuse.preparation.slides.feature_import import FeatureRecord, import_slides
from subfuse.preparation.slides.feature_survey import (
    FeatureSurvey,
    feature_sources,
    group_warnings,
    survey_features,
)
from subfuse.preparation.slides.slide import SlideRecord, completed_record, prepare_slide
from subfuse.preparation.slides.slide_jobs import FinishedSlide, SlideProgress, run_slides
from subfuse.preparation.slides.slide_vector import encode_imports, is_slide_encoder_of, require_width
from subfuse.preparation.slides.stored_tiles import require_tiles
from subfuse.slides.patch_width import mixed_widths
from subfuse.slides.review import QUALITY_ONLY, quality_table
from subfuse.slides.source import FeatureRows, SlideSource
from subfuse.slides.stain import recorded_stain
from subfuse.slides.tissue import Tiling

VERSIONED = ("subfuse", "torch", "timm", "wsidata", "lazyslide", "openslide-python", "anndata", "numpy", "pandas")


@dataclass(frozen=True)
class Preparation:
    """What `prepare` made of a cohort."""

    folder: Path
    plan: CohortPlan  # what remains of it
    slides: pd.DataFrame  # one row per prepared slide
    warnings: tuple[str, ...]
    features: str = ""  # in one line, where ready features are

    @property
    def exclusions(self) -> pd.DataFrame:
        """Level, id and reason of all that is not used."""
        return self.plan.exclusions

    def summary(self) -> str:
        """Returns how many patients and slides there are, what is excluded, and where ready features are."""
        patients = used_of_listed(len(self.plan.patients), sum(self.plan.n_listed.values()))
        others = self.exclusions.loc[self.exclusions["level"] != "patient", "level"].value_counts()
        left_out = preview([f"{level}: {count}" for level, count in others.items()])
        excluded = f"; also excluded, by level: {left_out} (exclusions.csv)" if left_out else ""
        stay = f"\n{self.features[0].upper()}{self.features[1:]}" if self.features else ""
        return f"Prepared {patients} and {counted(len(self.slides), 'slide')} in {self.folder}{excluded}{stay}"


def prepare(
    cohort_path: Path | str,
    out: Path | str,
    *,
    encoder: str = OFFLINE_ENCODER,
    device: str = AUTO,
    workers: int = 1,
    scheduler: str | None = None,
    tiles_from: Path | str | None = None,
    progress: Progress | None = None,
) -> Preparation:
    """Prepares a cohort: tissue, patches and features of every slide, expression, labels and splits.

    Slides that are complete in `out` are not done again, so an interrupted run goes on where it stopped. A slide that
    cannot be used is excluded with its reason and the rest goes on.

    Args:
        cohort_path: The cohort file.
        out: The prepared folder.
        encoder: Encoder of patches or of slides, see `load_encoder`.
        device: Of the encoder and of a model that finds tissue, see `chosen_device`.
        workers: Local processes that prepare slides; 0: one per GPU that encodes, or core.
        scheduler: Address of a running Dask scheduler, instead of local processes.
        tiles_from: A prepared folder of the same slides with another encoder: tissue and tiles are taken from it.
        progress: Called after each slide, and within it where this process does it, with the speed and the time left.

    Raises:
        ConfigurationError: The cohort file is wrong, there is no such device, it cannot take so many processes, or
            `out` holds another cohort or encoder.
        DataError: The tables cannot be used, or nothing is left of what is declared; then `out` has exclusions.csv.
    """
    cohort_file, out = read_cohort_file(Path(cohort_path)), Path(out)
    was_there = out.exists()
    if scheduler is None:  # its workers have devices of their own
        chosen_device(device)
    try:
        plan = plan_cohort(cohort_file)
        ready = feature_sources(plan.slides)
        survey = survey_features(ready)
        encodes = bool(plan.slides) and not ready
        workers = processes_on(device if encodes and scheduler is None else "cpu", workers)
        tiling = declared_tiling(cohort_file, encoder)
        slide_encoder = _slide_encoder(encoder, device, survey)
        if encodes and tiles_from is not None:
            require_tiles(Path(tiles_from), tiling, declared_tissue(cohort_file))
        provenance = _provenance(cohort_file, encoder if encodes else None, tiling)
        _claim(out, cohort_file, provenance["requested_encoder"])
        mark_incomplete(out)
        records: Sequence[SlideRecord | FeatureRecord]
        stay = ""
        if ready:
            imported, failures = import_slides(
                ready, survey, out / "wsi", workers=workers, scheduler=scheduler, progress=progress
            )
            records, stay = imported, where_features_are([(r.bytes_in_place, r.why_copied) for r in imported])
            provenance |= {name: getattr(survey, name) for name in ("encoder", "encoder_sha256", "patch_dim")}
            if slide_encoder is not None:
                records, lost = encode_imports(imported, out, slide_encoder, progress=progress)
                failures = join_exclusions([failures, lost])
                provenance |= {"slide_encoder": encoder, **_identity_of(slide_encoder)}
        else:
            how = _Encoding(encoder, device, tiling, out / "wsi", None if tiles_from is None else Path(tiles_from))
            records, failures = _prepare_slides(plan.slides, how, workers, scheduler, progress)
            if records:
                loaded = _encoder(encoder, device)
                provenance |= _identity_of(loaded)
        plan = remaining(plan, failures)
        contrasts = {record.slide_id: read_contrast(out / record.features) for record in records}
        flat = require_varying_features(plan.slides, plan.patients, contrasts)
    except ConfigurationError:
        if not was_there:
            _remove_unused(out)
        raise
    except NothingLeft as error:
        _require_own(out, cohort_file)
        write_table(out / EXCLUSIONS, error.exclusions)
        raise DataError(f"{error} All are in {out / EXCLUSIONS}.") from error
    slides = _slide_table(records)
    other_folds = write_prepared(out, cohort_file, plan, slides)
    write_table(out / GENE_SET_COVERAGE, plan.coverage)
    write_table(out / SLIDE_QUALITY, quality_table(records))
    mark_complete(out, provenance)
    said = {record.slide_id: record.warnings for record in records}
    of_slides = survey.warnings(said) if ready else group_warnings(said.items())
    widths = mixed_widths(
        {record.slide_id: record.patch_um for record in records if not math.isnan(record.patch_um)},
        by_spacing=[record.slide_id for record in records if NO_PATCH_SIZE in record.warnings],
    )
    of_encoder = _of_encoder(encoder, survey) if slide_encoder is None else ()
    warnings = (*plan.warnings, *of_slides, *flat, *widths, *_of_failures(failures), *of_encoder, *other_folds)
    return Preparation(out, plan, slides, warnings, stay)


def _remove_unused(out: Path) -> None:
    """Removes a folder that holds nothing but the mark of its beginning."""
    if {path.name for path in out.rglob("*") if not path.is_dir()} <= {STARTED}:
        shutil.rmtree(out, ignore_errors=True)


def _slide_encoder(encoder: str, device: str, survey: FeatureSurvey) -> SlideEncoder | None:
    """Returns what ready features of patches are to go through; None: they stay as they are, or there are none."""
    if not survey.headers or encoder == OFFLINE_ENCODER or not is_slide_encoder_of(encoder, survey.encoder):
        return None
    loaded = _encoder(encoder, device)
    if not isinstance(loaded, SlideEncoder):
        return None
    require_width(loaded, survey.patch_dim)
    return loaded


def _of_failures(failures: pd.DataFrame) -> Iterator[str]:
    """Yields a warning for each kind of reason why slides that were listed and found cannot be used."""
    for row in group_reasons(failures).to_dict("records"):
        yield f"slide{'s' * (row['n'] > 1)} {preview(row['ids'], 3)} left out: {row['reason']}"


def _of_encoder(encoder: str, survey: FeatureSurvey) -> Iterator[str]:
    if survey.headers and encoder not in (OFFLINE_ENCODER, survey.encoder):
        yield f"--encoder {encoder} encodes nothing here: the slides come as features of encoder {survey.encoder}"


@dataclass(frozen=True)
class _Encoding:
    """How slides become features."""

    encoder: str
    device: str
    tiling: Tiling
    out: Path  # the folder `wsi` of the prepared cohort
    tiles_from: Path | None


def _prepare_one_slide(
    source: SlideSource, how: _Encoding, watch: Callable[[str, int, int], None] | None = None
) -> FinishedSlide:
    """Prepares one slide unless it is complete; the encoder stays loaded in its process.

    Args:
        source: The slide.
        how: By which encoder and tiling.
        watch: Called with the slide, patches encoded and patches expected.
    """
    # a file may hold other weights than when the slide was encoded; what has a name of its own does not
    sha256 = _encoder(how.encoder, how.device).sha256 if is_file(how.encoder) else None
    done = completed_record(source, how.encoder, how.tiling, how.out, encoder_sha256=sha256)
    if done is not None:
        return FinishedSlide(done, is_new=False)
    progress = None if watch is None else partial(watch, source.slide_id)
    loaded = _encoder(how.encoder, how.device)
    start = time.monotonic()
    record = prepare_slide(
        source,
        loaded,
        how.tiling,
        how.out,
        tiles_from=how.tiles_from,
        device=chosen_device(how.device),
        progress=progress,
    )
    return FinishedSlide(record, is_new=True, seconds=time.monotonic() - start)


@lru_cache(maxsize=1)
def _encoder(name: str, device: str) -> PatchEncoder | SlideEncoder:
    return load_encoder(name, device=chosen_device(device))


def _prepare_slides(
    slides: tuple[SlideSource, ...],
    how: _Encoding,
    workers: int,
    scheduler: str | None,
    progress: Progress | None,
) -> tuple[list[SlideRecord], pd.DataFrame]:
    stays_here = scheduler is None and min(workers, len(slides)) <= 1  # other processes cannot call back
    if slides and stays_here:
        _encoder(how.encoder, how.device)  # loaded before the clock starts
    meter = SlideProgress(len(slides), progress, workers=workers)
    watch = meter.within if stays_here else None
    jobs = [(source, how, watch) for source in slides]
    gpus = [] if scheduler is not None else gpus_of(how.device, min(workers, len(slides)))
    records, failures = run_slides(
        _prepare_one_slide, jobs, workers=workers, scheduler=scheduler, gpus=gpus, progress=meter
    )
    return records, exclusion_table(failures)


def _slide_table(records: Sequence[SlideRecord | FeatureRecord]) -> pd.DataFrame:
    fields = type(records[0]).__dataclass_fields__ if records else SlideRecord.__dataclass_fields__
    columns = [name for name in fields if name not in (*QUALITY_ONLY, "bytes_in_place", "why_copied")]
    return pd.DataFrame([asdict(record) for record in records], columns=columns)


def _provenance(cohort_file: CohortFile, encoder: str | None, tiling: Tiling) -> dict[str, Any]:
    """Returns what the mark of the folder tells; `encoder` is the one that is asked for, None where none is needed."""
    return {
        "cohort_sha256": sha256_of_json(cohort_file_text(cohort_file)),
        "table_sha256": {path.as_posix(): sha256_of_file(path) for path in _tables(cohort_file)},
        "requested_encoder": encoder,
        "tiling": None if encoder is None else asdict(tiling),
        "tissue": None if encoder is None else declared_tissue(cohort_file),
        "stain": None if encoder is None else recorded_stain(declared_stain(cohort_file)),
        "versions": {name: _version(name) for name in VERSIONED},
        "python": platform.python_version(),
        "encoder": None,
        "encoder_sha256": None,
        "patch_dim": None,
    }


def _identity_of(encoder: PatchEncoder | SlideEncoder) -> dict[str, Any]:
    return {"encoder": encoder.name, "encoder_sha256": encoder.sha256, "patch_dim": encoder.dim}


def _version(package: str) -> str | None:
    """None where it is not installed: tables and ready features need no slide library."""
    try:
        return __version__ if package == "subfuse" else version(package)
    except PackageNotFoundError:
        return None


def _tables(cohort_file: CohortFile) -> list[Path]:
    """Returns the files that hold the cohorts' tables; not those of folders."""
    members = cohort_file.members
    slides = [member.slides for member in members if member.slides is not None]
    lists = [section.table for section in slides if section.table is not None]
    features = [section.feature_table for section in slides if isinstance(section, FeatureRows)]
    matrices = [member.expression.table for member in members if isinstance(member.expression, MatrixSource)]
    return [path for member in members for path in member.patients.table] + [*lists, *features, *matrices]


def _claim(out: Path, cohort_file: CohortFile, encoder: str | None) -> None:
    """Refuses a folder that holds something else; a started one is marked by `started.json`.

    The same cohort may come with other tables, tasks or folders: tables are written again and slides are looked at one
    by one, see `completed_record`. Another encoder may take the folder as long as nothing is encoded in it.
    """
    found = _require_own(out, cohort_file)
    wanted = {"cohorts": [member.name for member in cohort_file.members], "encoder": encoder}
    if found is not None and found.get("encoder") != encoder and any(out.glob("wsi/*/features_*/*.h5")):
        raise ConfigurationError(_another(out, wanted, found))
    if found != wanted:
        write_json(out / STARTED, wanted)


def _require_own(out: Path, cohort_file: CohortFile) -> dict[str, Any] | None:
    """Returns the mark of a folder that was started for these cohorts, None for a new one.

    Raises:
        ConfigurationError: It holds something else.
    """
    wanted = {"cohorts": [member.name for member in cohort_file.members]}
    if not is_begun(out, STARTED, what="a prepared folder", beside=EXCLUSIONS):
        return None
    found = read_json(out / STARTED)
    if found.get("cohorts") != wanted["cohorts"]:
        raise ConfigurationError(_another(out, wanted, found))
    return found


def _another(out: Path, wanted: dict[str, Any], found: dict[str, Any]) -> str:
    return (
        f"{out} must hold {_described(wanted)} or be new. Found {_described(found)}. Choose another --out, or "
        "remove the folder."
    )


def _described(mark: dict[str, Any]) -> str:
    cohorts, encoder = mark.get("cohorts") or ["another cohort"], mark.get("encoder")
    return f"{', '.join(cohorts)}{f' with features of {encoder}' if encoder else ''}"

"""A patient of no cohort, given as slide or feature files and an expression file: predicted by all models of a run."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pandas as pd

from subfuse.bounded_files import file_of, open_unpacked, require_regular_file
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.expression.gene_names import gene_aliases
from subfuse.expression.source import ExpressionUnit
from subfuse.expression.table import COHORT_SCALE
from subfuse.expression.units import MODEL_SCALE, units_of
from subfuse.expression.upload import UploadedExpression, read_upload
from subfuse.files import read_table
from subfuse.preparation.slides.slide_search import feature_id_of
from subfuse.run_folder.job import Job
from subfuse.run_folder.names import COHORT, SLIDES
from subfuse.runs.external_validation import mean_predictions
from subfuse.runs.prediction.patient_slides import PatientSlides, read_slides
from subfuse.runs.prediction.predictor import Predictor
from subfuse.runs.prediction.summary import promised, summarise
from subfuse.slides.tissue import MPP_PLACE, doubt_of_mpp
from subfuse.training.fitted_model import FittedModel
from subfuse.training.models import modalities_of
from subfuse.workbooks.sheet import workbook_of

NEW_PATIENT = "new-patient"


@dataclass(frozen=True)
class NewPatientPrediction:
    """What the models of all folds say of one patient."""

    predictions: pd.DataFrame  # one row per model; columns of `predictions.csv` and risk_percentile
    summary: pd.DataFrame  # columns SUMMARY_COLUMNS; see `summarise`
    promises: tuple[str, ...]  # what holds with a stated probability; see `promised`
    notes: tuple[str, ...]  # how the files were read, and what is unknown


def predict_new_patient(
    run: Predictor,
    *,
    slides: Sequence[Path] = (),
    mpp: float | None = None,
    expression: Path | None = None,
    unit: ExpressionUnit | None = None,
    model: str | None = None,
) -> NewPatientPrediction:
    """Predicts a patient from files, through the checks of a prepared cohort; nothing is kept but what is returned.

    Slide files are prepared with the run's encoder and tiling. Feature files must come from the run's encoder. The
    expression file is read as the run's own cohort would be, in its unit or in another of the same scale, and must have
    all its genes; see `read_upload` for the layouts. Covariates are unknown: models take those of their average
    training patient.

    Args:
        run: A finished run, or shared models.
        slides: Slide files, or feature files (.h5, .hdf5, .pt, .zarr) of all slides; of several sets that the run
            joined, all of them, those of a slide with one name and in the order of the run.
        mpp: µm per level-0 pixel of all slides, for files that do not say; preferred where they do.
        expression: One patient's expression.
        unit: Unit of its values; that of the run's cohort by default.
        model: Which of its models; the main one by default.

    Raises:
        ConfigurationError: No file, both kinds of slides, a file that is not there, a pixel size that is none or of
            no slide, a unit of no file or of another scale, no file that the model reads, or slides that the run cannot
            prepare.
        DataError: A file cannot be read, its genes, unit or encoder are not the run's, or the model uses none of it.
    """
    files = [*slides, *([] if expression is None else [expression])]
    if not files:
        raise ConfigurationError(
            "a slide or an expression file is required. Found neither. Add --slide or --expression."
        )
    for path in files:
        if not file_of(path).exists():
            raise ConfigurationError(f"{path}: a file is required. Found none. Correct the path.")
    if mpp is not None and not slides:
        raise ConfigurationError(f"--mpp {mpp:g} is the pixel size of slides, in µm. Found none. Add --slide.")
    doubt = None if mpp is None else doubt_of_mpp(mpp)
    if doubt is not None:
        raise ConfigurationError(f"--mpp must be {doubt}. Found {mpp:g}. Correct it.")
    if unit is not None and expression is None:
        raise ConfigurationError(f"--unit {unit} is that of an expression file. Found none. Add --expression.")
    model = model or run.default_model
    fitted = run.fitted(_reader_of_all(run, model))
    unread = _unread(fitted, {"slides": bool(slides), "expression": expression is not None})
    uploaded, how = (None, ()) if expression is None else _read_expression(expression, unit, run, fitted)
    try:
        with tempfile.TemporaryDirectory(prefix="subfuse-patient-") as folder:
            found = (
                read_slides(slides, mpp, Path(folder), run, fitted)
                if slides and not unread
                else PatientSlides(notes=unread)
            )
            values = None if uploaded is None else uploaded.values
            cohort = Cohort(
                name=NEW_PATIENT,
                patients=(Patient(NEW_PATIENT, NEW_PATIENT, slides=found.features, expression=values),),
                genes=fitted.genes,
                expression_unit=None if uploaded is None else uploaded.scale,
                expression_basis=None if uploaded is None else uploaded.basis,
                gene_sets={},
                tasks={},
                covariates=fitted.covariates,
                encoder=found.encoder,
                encoder_sha256=found.encoder_sha256,
                patch_dim=found.patch_dim,
                patch_um=found.width_um,
                given_files=_names(slides, expression),
            )
            predictions, notes = run.predict_with_notes(cohort, model=model)
    except DataError as error:
        raise DataError(_by_option(str(error))) from error
    reads_covariates = bool(fitted.covariates) and fitted.recipe.modalities != {"slides"}
    notes += ["covariates are not given by files: use --cohort with a prepared cohort"] * reads_covariates
    notes = [_by_option(note) for note in (*_of_the_run(run, slides), *how, *found.notes, *notes)]
    mean = mean_predictions(predictions)
    return NewPatientPrediction(predictions, summarise(predictions), tuple(promised(mean)), tuple(notes))


def _reader_of_all(run: Predictor, model: str | None) -> Job:
    """Returns a job whose model reads all that any of these models does."""
    reads = {job: modalities_of(job.model) for job in run.jobs(model=model)}
    together = frozenset().union(*reads.values())
    found = next((job for job, its in reads.items() if its == together), None)
    if found is None:
        raise ConfigurationError(
            f"{run.folder} has models that read different inputs: {preview({job.model for job in reads})}. Name one "
            "with --model."
        )
    return found


def _unread(fitted: FittedModel, given: dict[str, bool]) -> tuple[str, ...]:
    """Returns a note on slides that a model does not read; refuses files of which it reads none."""
    model, reads = fitted.recipe.name, fitted.recipe.modalities
    options = {"slides": "--slide", "expression": "--expression"}
    found = [name for name in options if given[name]]
    if reads.isdisjoint(options):
        raise ConfigurationError(
            f"{model} reads {preview(sorted(reads))}, which files of one patient do not hold. Prepare a cohort and use "
            "--cohort, or name another --model."
        )
    if reads.isdisjoint(found):
        wanted = [name for name in options if name in reads]
        raise ConfigurationError(
            f"{model} reads {preview(wanted)}. Found only {preview(found)}. Give "
            f"{preview([options[name] for name in wanted])}, or name another --model."
        )
    is_unread = given["slides"] and "slides" not in reads
    return (f"slides are not used: {model} reads {preview(sorted(reads))}",) if is_unread else ()


def _of_the_run(run: Predictor, slides: Sequence[Path]) -> tuple[str, ...]:
    """Returns a note on slides that are called as those of the run's own patients; shared models know no names."""
    table = run.folder / COHORT / SLIDES
    if not table.exists():
        return ()
    owner = read_table(table).set_index("slide_id")["patient_id"]
    known = [name for name in dict.fromkeys(feature_id_of(path.name) for path in slides) if name in owner.index]
    if not known:
        return ()
    return (
        f"{preview(known)}: a slide of this name, of {preview(dict.fromkeys(owner[known]))}, is of the run's own "
        "cohort. Models that trained on the patient predict here too; `--cohort` leaves them out",
    )


def _names(slides: Sequence[Path], expression: Path | None) -> dict[str, tuple[str, ...]]:
    of_slides = tuple(path.name for path in slides)
    return {
        "slides": of_slides,
        "features": of_slides,
        "expression": () if expression is None else (expression.name,),
    }


def _by_option(text: str) -> str:
    """Returns what is said of a pixel size with the option that declares it: a new patient has no cohort file."""
    return re.sub(rf"`mpp`( for \S+)? in {re.escape(MPP_PLACE)}", "--mpp", text)


def _read_expression(
    path: Path, declared: ExpressionUnit | None, run: Predictor, fitted: FittedModel
) -> tuple[UploadedExpression, tuple[str, ...]]:
    require_regular_file(path, "expression file")
    measured = fitted.genes
    if not measured or fitted.expression_unit is None:
        raise DataError(f"{path}: the models of {run.folder} read no expression. Leave out --expression.")
    if fitted.expression_unit == COHORT_SCALE:
        raise DataError(
            f"{path}: the run's expression is standardised within its cohort, which one patient cannot be. Prepare a "
            "cohort of patients and use --cohort."
        )
    inputs = run.expression_inputs()
    if declared is not None and MODEL_SCALE[declared] != fitted.expression_unit:
        raise ConfigurationError(
            f"--unit must become {fitted.expression_unit}, which the run reads, as {units_of(fitted.expression_unit)} "
            f"do. Found {declared}. Convert the file to one of these."
        )
    unit = declared or (None if inputs is None else inputs.unit) or cast(ExpressionUnit, fitted.expression_unit)
    is_sheet = workbook_of(path) is not None
    uploaded = read_upload(
        open_unpacked(path).read() if is_sheet else path.read_bytes(),
        unit=unit,
        genes=measured,
        aliases=None if inputs is None else {**gene_aliases(), **inputs.aliases},
        name=str(path),
        remedy=f"Name the file's own unit with --unit; it is converted to {fitted.expression_unit}, as the run reads.",
    )
    renamed = f" ({uploaded.n_renamed} under another symbol)" if uploaded.n_renamed else ""
    converted = "" if uploaded.transform == "none" else f" and converted to {uploaded.transform}"
    read = f"{path.name}: {len(measured)} genes{renamed} read as {unit}{converted}; {uploaded.n_ignored} not used"
    return uploaded, (read + _outside_subspaces(fitted), *uploaded.warnings)


def _outside_subspaces(fitted: FittedModel) -> str:
    """Returns in words how many genes a model of subspaces takes for the shares only: no subspace reads them."""
    recipe = fitted.recipe
    n_led = len({place for places in recipe.gene_sets.values() for place in places})
    is_led = recipe.subspaces == tuple(recipe.gene_sets) and n_led < recipe.n_genes
    return f", and {recipe.n_genes - n_led} read by no subspace" if is_led else ""

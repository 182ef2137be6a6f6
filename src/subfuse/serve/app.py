"""The HTTP interface: runs, patients, predictions, explanations, slides, and prediction from an uploaded file."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from xstatic.pkg import leaflet

from subfuse import __version__
from subfuse.cohort.cohort import Patient
from subfuse.errors import SubfuseError
from subfuse.expression.upload import LIMIT_BYTES
from subfuse.run_folder.explanations import explanations_of
from subfuse.serve import schema
from subfuse.serve.explanations import ExplanationShelf, ExplanationWorker, read_explanation, read_patch_scores
from subfuse.serve.prediction_queue import PredictionQueue
from subfuse.serve.protection import Access, Protection
from subfuse.serve.run_reader import RunReader
from subfuse.serve.slide_tiles import SlideShelf, Unavailable

_STATIC = Path(__file__).parent / "static"
_WORKBOOKS = (
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.oasis.opendocument.spreadsheet",
)
_NOTICE = "Research use only. Not a medical device."
JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}}}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": schema.Problem, "description": "Another host than the viewer's, or a request that cannot be read"},
    401: {"model": schema.Problem, "description": "The token is missing"},
    403: {"model": schema.Problem, "description": "A request from another site"},
    404: {"model": schema.Problem, "description": "There is no such thing here"},
    408: {"model": schema.Problem, "description": "The file does not arrive within a minute"},
    409: {"model": schema.Problem, "description": "Not now"},
    413: {"model": schema.Problem, "description": "The file is too large"},
    422: {"model": schema.Problem, "description": "A value or file that cannot be used"},
    429: {"model": schema.Problem, "description": "Too many predictions wait; Retry-After says for how many seconds"},
}


def create_app(reader: RunReader, access: Access) -> FastAPI:
    """Returns the application."""
    slides, explanations = SlideShelf(reader.cohort), ExplanationShelf(explanations_of(reader.run.folder))
    worker = ExplanationWorker(explanations, explain=reader.explain, n_tasks=reader.n_explained_tasks)

    queue = PredictionQueue()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        worker.stop()
        queue.stop()

    app = FastAPI(
        title="subfuse viewer",
        version=__version__,
        description=f"Predictions and explanations of one run. {_NOTICE}",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=lifespan,
        responses=_REFUSALS,
    )
    app.add_middleware(Protection, access=access)
    app.add_exception_handler(SubfuseError, _refused)
    app.add_exception_handler(Unavailable, _refused)
    app.add_exception_handler(RequestValidationError, _refused_request)
    _add_pages(app)
    _add_run(app, reader)
    _add_explanations(app, reader, explanations, worker, slides)
    _add_prediction(app, reader, queue)
    _add_patients(app, reader, explanations)  # last: a patient's identifier may hold slashes
    _add_slides(app, slides)
    return app


def _add_pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(_STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=_STATIC))
    app.mount("/leaflet", StaticFiles(directory=leaflet.BASE_DIR))


def _add_run(app: FastAPI, reader: RunReader) -> None:
    @app.get("/api/run", tags=["run"])
    def run() -> schema.RunInfo:
        """The cohort, the tasks and the models."""
        return schema.RunInfo(
            cohort=reader.cohort.name,
            n_patients=len(reader.cohort),
            version=__version__,
            notice=_NOTICE,
            tasks=reader.tasks,
            explained_model=reader.explained_model,
            upload_limit_bytes=LIMIT_BYTES,
        )


def _add_patients(app: FastAPI, reader: RunReader, explanations: ExplanationShelf) -> None:
    @app.get("/api/patients", tags=["patients"])
    def patients(
        task: str,
        model: str,
        split: str = "test",
        query: Annotated[str, Query(description="Part of the identifier, in any case.")] = "",
        event: Annotated[bool | None, Query(description="Only patients with, or without, an observed event.")] = None,
        label: Annotated[str | None, Query(description="Only patients with this label.")] = None,
        has_slides: bool | None = None,
        has_expression: bool | None = None,
    ) -> list[schema.PatientSummary]:
        """The patients of one split as one model predicts one task, from the highest risk percentile down."""
        _require_model(reader, task, model)
        wanted = {"has_slides": has_slides, "has_expression": has_expression}
        return [
            row
            for row in reader.summaries(task, model, split, explanations.patients(task))
            if query.lower() in row.patient_id.lower()
            and event in (None, row.outcome.event)
            and label in (None, row.outcome.label)
            and all(value in (None, getattr(row, name)) for name, value in wanted.items())
        ]

    @app.get("/api/patients/{patient_id:path}", tags=["patients"])
    def patient(patient_id: str) -> schema.PatientDetail:
        """One patient with the predictions of every task and model."""
        found = _require_patient(reader, patient_id)
        return schema.PatientDetail(
            patient_id=found.patient_id,
            cohort=found.cohort,
            site=found.site,
            labels=dict(found.labels),
            slides=[path.stem for path in found.slides],
            has_expression=found.expression is not None,
            upload_unit=reader.upload_unit(found),
            predictions=reader.of_patient(patient_id),
            explained_tasks=explanations.tasks(patient_id),
        )


def _add_explanations(
    app: FastAPI, reader: RunReader, explanations: ExplanationShelf, worker: ExplanationWorker, slides: SlideShelf
) -> None:
    def found(patient_id: str, task: str) -> Path:
        _require_patient(reader, patient_id)
        folder = explanations.find(patient_id, task)
        if folder is None:
            raise HTTPException(404, f"patient {patient_id!r} has no explanation of {task!r} yet.")
        return folder

    @app.get("/api/patients/{patient_id:path}/explanations/{task}", tags=["explanations"])
    def explanation(
        patient_id: str,
        task: str,
        genes: Annotated[int, Query(ge=1, le=1000, description="Strongest genes per subspace.")] = 30,
    ) -> schema.ExplanationInfo:
        """Ledger and genes of one explained prediction."""
        return read_explanation(found(patient_id, task), genes_per_subspace=genes)

    @app.get("/api/patients/{patient_id:path}/explanations/{task}/slides/{slide_id}", tags=["explanations"])
    def patches(patient_id: str, task: str, slide_id: str) -> schema.PatchScores:
        """Patch scores per subspace on one slide, and the sampling points where they are kept."""
        patch_size = slides.info(slide_id).patch_size_px
        scores = read_patch_scores(found(patient_id, task), slide_id, patch_size_px=patch_size)
        if scores is None:
            raise HTTPException(404, f"the explanation of {task!r} has no patches of slide {slide_id!r}.")
        return scores

    @app.post("/api/patients/{patient_id:path}/explanations", status_code=202, tags=["explanations"])
    def explain(patient_id: str) -> schema.Job:
        """Starts the explanation of every task's prediction; one patient at a time."""
        _require_patient(reader, patient_id)
        job = worker.start(patient_id)
        if job is None:
            raise HTTPException(409, "another patient is being explained. Try again when that is done.")
        return job

    @app.get("/api/jobs/{job_id}", tags=["explanations"])
    def job(job_id: str) -> schema.Job:
        """How far an explanation has come."""
        status = worker.status(job_id)
        if status is None:
            raise HTTPException(404, f"there is no job {job_id!r}.")
        return status


def _add_prediction(app: FastAPI, reader: RunReader, queue: PredictionQueue) -> None:
    table = {"schema": {"type": "string", "maxLength": LIMIT_BYTES}}
    workbook = {"schema": {"type": "string", "format": "binary", "maxLength": LIMIT_BYTES}}
    body = {"content": {"text/csv": table, **dict.fromkeys(_WORKBOOKS, workbook)}, "required": True}

    @app.post("/api/patients/{patient_id:path}/predict", tags=["predictions"], openapi_extra={"requestBody": body})
    async def predict(request: Request, patient_id: str, model: str) -> schema.NewPrediction:
        """Predictions of the patient's slides with the expression file in the body, beside those before.

        The file: two columns (gene, value); or a header of gene symbols and one row of values; or a GDC STAR count
        file; or a workbook with one such sheet. Its unit is that of the cohort. Nothing is kept. Files are predicted
        one after another.
        """
        patient = _require_patient(reader, patient_id)
        _require_model(reader, None, model)
        return await queue.run(partial(_limited_body, request), partial(predicted, patient, model))

    def predicted(patient: Patient, model: str, content: bytes) -> schema.NewPrediction:
        uploaded, after = reader.predict_with(patient, content, model=model)
        before = [p for p in reader.of_patient(patient.patient_id) if p.model == model and p.split in ("test", "new")]
        return schema.NewPrediction(
            patient_id=patient.patient_id,
            unit=reader.upload_unit(patient) or "",
            transform=uploaded.transform,
            warnings=list(uploaded.warnings),
            n_genes_used=len(uploaded.values),
            n_genes_ignored=uploaded.n_ignored,
            before=before,
            after=after,
        )


def _add_slides(app: FastAPI, slides: SlideShelf) -> None:
    @app.get("/api/slides/{slide_id}", tags=["slides"])
    def slide(slide_id: str) -> schema.SlideInfo:
        """Size and pyramid of a slide, and whether its pixels can be read here."""
        return slides.info(slide_id)

    @app.get("/api/slides/{slide_id}/thumbnail.jpg", tags=["slides"], responses=JPEG, response_class=Response)
    def thumbnail(slide_id: str) -> Response:
        """The whole slide as a small picture, or the places of its patches."""
        return Response(slides.thumbnail(slide_id), media_type="image/jpeg")

    @app.get("/api/slides/{slide_id}/{level}/{x}_{y}.jpg", tags=["slides"], responses=JPEG, response_class=Response)
    def tile(slide_id: str, level: int, x: int, y: int) -> Response:
        """One tile of a level of the pyramid, counted from the top left."""
        content = slides.tile(slide_id, level, x, y)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


def _require_patient(reader: RunReader, patient_id: str) -> Patient:
    patient = reader.patient(patient_id)
    if patient is None:
        raise HTTPException(404, f"patient {patient_id!r} is not in cohort {reader.cohort.name!r}.")
    return patient


def _require_model(reader: RunReader, task: str | None, model: str) -> None:
    available = {(info.name, name) for info in reader.tasks for name in info.models}
    if not any(task in (None, of_task) and name == model for of_task, name in available):
        listing = ", ".join(sorted(f"{of_task}/{name}" for of_task, name in available))
        raise HTTPException(404, f"the run has no model {model!r} for task {task!r}. Available: {listing}.")


async def _limited_body(request: Request) -> bytes:
    """Returns the body; stops reading where it becomes too long, whatever its declared length says."""
    too_large = HTTPException(413, f"the file must have at most {LIMIT_BYTES / 1e6:g} MB.")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > LIMIT_BYTES:
        raise too_large
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > LIMIT_BYTES:
            raise too_large
    return bytes(content)


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, status_code=404 if isinstance(error, Unavailable) else 422)


def _refused_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = (f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" for problem in error.errors())
    return JSONResponse({"detail": "; ".join(problems)}, status_code=422)

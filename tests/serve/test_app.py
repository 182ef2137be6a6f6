"""The HTTP interface: its answers, its refusals, and whatever else can be sent to it."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from viewer_run import GENES, HOSTILE, N_PATIENTS, made_run

from subfuse.expression.upload import LIMIT_BYTES
from subfuse.serve.app import create_app
from subfuse.serve.explanations import ExplanationWorker
from subfuse.serve.prediction_queue import PredictionQueue
from subfuse.serve.protection import LOOPBACK_NAMES, Access
from subfuse.serve.run_reader import RunReader, open_run
from subfuse.serve.schema import Job
from workbook_files import write_xlsx

OWN = quote(HOSTILE, safe="")
FILE = "\n".join(f"{gene},{10 + i}" for i, gene in enumerate(GENES))


@pytest.fixture(scope="module")
def viewer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory)


@pytest.fixture(scope="module")
def app(viewer_run: Path):
    return create_app(open_run(viewer_run), Access(LOOPBACK_NAMES | {"testserver"}, None))


@pytest.fixture
def client(app) -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1:8000")


@pytest.fixture
def predictions(viewer_run: Path) -> pd.DataFrame:
    return pd.read_csv(viewer_run / "predictions.csv", dtype={"patient_id": str})


def test_the_shown_numbers_are_those_of_the_file(client, predictions):
    shown = client.get("/api/patients", params={"task": "survival", "model": "subspace"}).json()
    rows = predictions.query("task == 'survival' and model == 'subspace' and split == 'test'").set_index("patient_id")
    assert {row["patient_id"]: row["risk"] for row in shown} == rows["risk"].to_dict()
    detail = client.get(f"/api/patients/{OWN}").json()
    assert detail["patient_id"] == HOSTILE
    (own,) = [p for p in detail["predictions"] if (p["task"], p["model"], p["split"]) == ("grade", "snn", "test")]
    row = predictions.query("patient_id == @HOSTILE and task == 'grade' and model == 'snn' and split == 'test'").iloc[0]
    assert own["probabilities"] == {"G2": row["p_G2"], "G4": row["p_G4"]}


def test_uploads_wait_one_after_another_while_everything_else_is_answered(viewer_run, monkeypatch):
    begun, go = [], threading.Event()

    def slow(self, patient, content, *, model):
        begun.append(patient)
        assert go.wait(30)
        raise LookupError("nothing is predicted here")

    monkeypatch.setattr(RunReader, "predict_with", slow)
    monkeypatch.setattr("subfuse.serve.app.PredictionQueue", partial(PredictionQueue, 1))
    app = create_app(open_run(viewer_run), Access(LOOPBACK_NAMES | {"testserver"}, None))
    with (
        TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client,
        ThreadPoolExecutor(3) as others,
    ):
        upload = partial(client.post, "/api/patients/P01/predict", params={"model": "subspace"}, content=FILE)
        uploads = [others.submit(upload) for _ in range(3)]
        refused = next(as_completed(uploads, timeout=120)).result()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/api/patients", params={"task": "survival", "model": "subspace"}).status_code == 200
        assert len(begun) == 1
        go.set()
        assert sorted(future.result(30).status_code for future in uploads) == [429, 500, 500]
    assert len(begun) == 2


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({}, lambda row: True),
        ({"query": "OnError"}, lambda row: row["patient_id"] == HOSTILE),
        ({"event": "true"}, lambda row: row["outcome"]["event"]),
        ({"event": "false", "has_slides": "true"}, lambda row: not row["outcome"]["event"] and row["has_slides"]),
        ({"has_expression": "false"}, lambda row: row["patient_id"] == "P03"),
        ({"query": "no such"}, lambda row: False),
    ],
)
def test_filters_keep_what_they_name(client, filters, kept):
    base = {"task": "survival", "model": "subspace"}
    everyone = client.get("/api/patients", params=base).json()
    assert len(everyone) == N_PATIENTS
    shown = client.get("/api/patients", params=base | filters).json()
    assert shown == [row for row in everyone if kept(row)]


def test_labels_filter_classification(client):
    base = {"task": "grade", "model": "subspace"}
    shown = client.get("/api/patients", params=base | {"label": "G4"}).json()
    assert {row["outcome"]["label"] for row in shown} == {"G4"}


def test_an_uploaded_file_is_predicted_beside_the_old(client):
    answer = client.post("/api/patients/P01/predict", params={"model": "subspace"}, content=FILE)
    assert answer.status_code == 200
    content = answer.json()
    assert (content["unit"], content["n_genes_used"], content["n_genes_ignored"]) == ("tpm", len(GENES), 0)
    before, after = content["before"], content["after"]
    assert [(p["task"], p["fold"]) for p in before] == [(p["task"], p["fold"]) for p in after]
    assert before[0]["risk"] != after[0]["risk"]
    assert client.get("/api/patients/P01").json()["predictions"][0] == before[0]  # nothing was kept


def test_a_workbook_says_what_its_table_says(client, tmp_path):
    pairs = [line.split(",") for line in FILE.split()]
    write_xlsx(tmp_path / "one.xlsx", {"Patient": [["gene", "tpm"], *([gene, float(value)] for gene, value in pairs)]})
    predict = partial(client.post, "/api/patients/P01/predict", params={"model": "snn"})
    answers = [predict(content=content).json() for content in (FILE, (tmp_path / "one.xlsx").read_bytes())]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        (b"x" * (LIMIT_BYTES + 1), {}, 413, "at most 10 MB"),
        (b"x", {"content-length": str(LIMIT_BYTES + 1)}, 413, "at most 10 MB"),
        (b"", {}, 422, "empty"),
        (b"GENE00,1", {}, 422, "Missing 13"),
        (b"\xff\xfe\x00", {}, 422, "UTF-8"),
        (b"<!doctype html>", {}, 422, "web page"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_reason(client, content, headers, status, reason):
    answer = client.post("/api/patients/P01/predict", params={"model": "subspace"}, content=content, headers=headers)
    assert answer.status_code == status
    assert reason in answer.json()["detail"]


def test_a_body_of_undeclared_length_is_limited_too(client):
    chunks = (b"x" * 1_000_000 for _ in range(11))
    answer = client.post("/api/patients/P01/predict", params={"model": "subspace"}, content=chunks)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/api/patients/..%2f..%2fpredictions.csv",
        "/api/patients/%2e%2e/explanations/survival",
        "/api/patients/P01/explanations/..%2f..%2f..",
        "/api/patients/P01/explanations/survival/slides/..%2fslide-a",
        "/api/slides/..%2f..%2fconfig.yaml",
        "/api/slides/..%2fslide-a/thumbnail.jpg",
        "/api/slides/%2fetc%2fpasswd/0/0_0.jpg",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/../../serve/app.py",
        "/config.yaml",
        "/docs",
    ],
)
def test_no_path_leads_out_of_the_tables(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/patients?task=none&model=subspace", 404),
        ("/api/patients?task=survival&model=none", 404),
        ("/api/patients?task=survival", 422),
        ("/api/patients/P01/explanations/survival?genes=0", 422),
        ("/api/patients/P02/explanations/survival", 404),
        ("/api/patients/P01/explanations/survival/slides/slide-c", 404),
        ("/api/slides/slide-a/eleven/0_0.jpg", 422),
        ("/api/slides/slide-lost/0/0_0.jpg", 404),
        ("/api/jobs/7", 404),
    ],
)
def test_a_refusal_is_one_sentence(client, path, status):
    answer = client.get(path)
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


def test_a_lost_slide_says_why_and_has_a_thumbnail(client):
    tile = client.get("/api/slides/slide-lost/0/0_0.jpg")
    assert "no such file" in tile.json()["detail"]
    thumbnail = client.get("/api/slides/slide-lost/thumbnail.jpg")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert thumbnail.content.startswith(b"\xff\xd8")


def test_leaflet_comes_from_this_machine(client):
    for name, kind in (("leaflet-src.esm.js", "javascript"), ("leaflet.css", "css")):
        answer = client.get(f"/leaflet/{name}")
        assert answer.status_code == 200
        assert kind in answer.headers["content-type"]
    assert client.get("/leaflet/../__init__.py").status_code == 404


def test_foreign_origins_cannot_start_anything(client):
    for path in ("/api/patients/P01/explanations", "/api/patients/P01/predict?model=subspace"):
        assert client.post(path, content=FILE, headers={"origin": "http://evil.example"}).status_code == 403


def test_the_page_names_no_other_server_and_holds_no_script_of_its_own(client):
    page = client.get("/")
    assert "Research use only. Not a medical device." in page.text
    texts = [page.text, *(client.get(f"/static/{name}").text for name in ("app.js", "slide_viewer.js", "style.css"))]
    for text in texts:
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text
    assert "<script>" not in page.text  # the policy forbids scripts and styles in the page
    assert "style=" not in page.text


# --- whatever else can be sent ----------------------------------------------------------------------------------------

KNOWN = {  # random values alone would only ever meet 404
    "patient_id": st.sampled_from(["P01", "P03", HOSTILE, None]),
    "task": st.sampled_from(["survival", "grade", None]),
    "model": st.sampled_from(["subspace", "snn", None]),
    "slide_id": st.sampled_from(["slide-a", "slide-c", "slide-lost", None]),
    "level": st.integers(0, 13) | st.none(),
    "x": st.integers(0, 5) | st.none(),
    "y": st.integers(0, 5) | st.none(),
}


def explained_at_once(worker: ExplanationWorker, patient_id: str) -> Job:
    return Job(job_id="1", patient_id=patient_id, state="done", done=2, total=2, error=None)


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # of Schemathesis' own strategies
def test_no_request_makes_the_viewer_fail(viewer_run, monkeypatch):
    monkeypatch.setattr(ExplanationWorker, "start", explained_at_once)
    app = create_app(open_run(viewer_run), Access(LOOPBACK_NAMES | {"testserver"}, None))
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app)
    checks = [not_a_server_error, response_schema_conformance, content_type_conformance]
    operations = [operation.ok() for operation in schema.get_all_operations()]
    assert len(operations) == 11
    for operation in operations:

        @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(), known=st.fixed_dictionaries(KNOWN))
        def check(case, known):
            for values in (case.path_parameters, case.query):
                values.update({name: known[name] for name in values if known.get(name) is not None})
            case.call_and_validate(checks=checks)

        check()

import asyncio

import pytest
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from subfuse.serve.protection import TOKEN_COOKIE, Access, Protection, is_loopback

TOKEN = "a-long-token"


def client(host: str = "127.0.0.1", token: str | None = None, base_url: str = "http://127.0.0.1:8000") -> TestClient:
    async def answer(request):
        return PlainTextResponse("shown")

    routes = [Route(path, answer, methods=["GET", "POST"]) for path in ("/", "/api/run")]
    protected = Protection(Starlette(routes=routes), access=Access.for_host(host, token))
    return TestClient(protected, base_url=base_url, follow_redirects=False)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000"])
def test_the_own_names_are_answered(host):
    assert client().get("/api/run", headers={"host": host}).text == "shown"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::1", "::1"]
)
def test_a_name_that_resolves_to_this_machine_is_refused(host):
    answer = client().get("/api/run", headers={"host": host})
    assert answer.status_code == 400
    assert "Host" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},  # another server of this machine
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests_of_other_sites_are_refused(headers, method):
    assert client().request(method, "/api/run", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/run", {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}),
        ("/api/run", {}),
        ("/", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}),
        ("/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}),  # a link
    ],
)
def test_the_page_itself_and_links_to_it_are_answered(path, headers):
    assert client().get(path, headers=headers).text == "shown"


def test_a_frame_of_another_site_is_refused():
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    assert client().get("/", headers=headers).status_code == 403


@pytest.mark.parametrize("answer", [client().get("/api/run"), client().get("/api/run", headers={"host": "evil"})])
def test_every_answer_has_a_strict_policy(answer):
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_a_websocket_is_closed_before_the_application_sees_it():
    sent = []

    async def application(scope, receive, send):
        raise AssertionError("the application saw it")

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    protected = Protection(application, access=Access.for_host("127.0.0.1", None))
    asyncio.run(protected({"type": "websocket", "path": "/", "headers": [(b"host", b"127.0.0.1")]}, receive, send))

    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "viewer.example"])
def test_beyond_loopback_a_token_is_required(host):
    assert not is_loopback(host)
    with pytest.raises(ValueError, match="token is required"):
        Access.for_host(host, None)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-subfuse-token": "wrong"}, 401),
        ({"x-subfuse-token": ""}, 401),
        ({"x-subfuse-token": "a-long-token-and-more"}, 401),
        ({"x-subfuse-token": TOKEN}, 200),
        ({"cookie": f"{TOKEN_COOKIE}=wrong"}, 401),
        ({"cookie": f"{TOKEN_COOKIE}={TOKEN}"}, 200),
    ],
)
def test_only_holders_of_the_token_are_answered(headers, status):
    remote = client("0.0.0.0", TOKEN, "http://192.168.1.5:8000")
    assert remote.get("/api/run", headers=headers).status_code == status
    assert remote.get("/", headers=headers).status_code == status


def test_the_address_with_the_token_becomes_a_cookie_and_leaves_the_address_bar():
    remote = client("0.0.0.0", TOKEN, "http://192.168.1.5:8000")
    assert remote.get("/?token=wrong").status_code == 401
    assert remote.get(f"/api/run?token={TOKEN}").status_code == 401  # only the page takes it
    answer = remote.get(f"/?token={TOKEN}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert remote.get("/api/run").text == "shown"


def test_a_named_address_is_still_bound_to_its_name():
    remote = client("192.168.1.5", TOKEN, "http://192.168.1.5:8000")
    headers = {"x-subfuse-token": TOKEN}
    assert remote.get("/api/run", headers=headers).status_code == 200
    assert remote.get("/api/run", headers=headers | {"host": "evil.example"}).status_code == 400

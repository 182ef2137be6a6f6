"""Who may talk to the viewer: this machine, its own page, and beyond the machine only holders of the token."""

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
TOKEN_COOKIE = "subfuse_token"  # the name of the cookie
_TOKEN_HEADER = "x-subfuse-token"
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


@dataclass(frozen=True)
class Access:
    """What a request must bring."""

    hosts: frozenset[str] | None  # names that the Host header may give; None: any, since a token is required
    token: str | None  # None: no token is required

    @classmethod
    def for_host(cls, host: str, token: str | None) -> "Access":
        """Returns the rules of a server bound to `host`.

        Raises:
            ValueError: The host is not loopback and there is no token.
        """
        if is_loopback(host):
            return cls(LOOPBACK_NAMES | {host.lower()}, token)
        if token is None:
            raise ValueError(f"token is required beyond loopback. Found none for host {host!r}.")
        return cls(None if _is_wildcard(host) else LOOPBACK_NAMES | {host.lower()}, token)


def is_loopback(host: str) -> bool:
    """Returns True if a server bound to this host can be reached from this machine only.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Protection:
    """Refuses foreign hosts, foreign origins and missing tokens before the application sees a request.

    A page of another site can make a browser send requests to this machine, by a form or an image (forgery) or by
    letting its own name resolve to 127.0.0.1 (DNS rebinding). The first kind betrays itself by `Origin` or
    `Sec-Fetch-Site`, the second by `Host`.
    """

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request that is refused; passes the others on and adds the security headers to their answer."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._answer(Request(scope))
        await (self._app if answer is None else answer)(scope, receive, send_protected)

    def _answer(self, request: Request) -> Response | None:
        if not self._is_known_host(request):
            return _refusal(400, "the Host header must name the address that the viewer was started with.")
        if _is_foreign(request):
            return _refusal(403, "requests from other sites are refused.")
        if self._access.token is None:
            return None
        if request.url.path == "/" and _same(request.query_params.get("token"), self._access.token):
            return self._with_cookie()
        given = (request.headers.get(_TOKEN_HEADER), request.cookies.get(TOKEN_COOKIE))
        if any(_same(candidate, self._access.token) for candidate in given):
            return None
        return _refusal(401, f"a token is required: open the printed address, or send the header {_TOKEN_HEADER}.")

    def _is_known_host(self, request: Request) -> bool:
        try:
            name = urlsplit(f"//{request.headers.get('host', '')}").hostname
        except ValueError:
            return False
        return bool(name) and (self._access.hosts is None or name in self._access.hosts)

    def _with_cookie(self) -> Response:
        answer = RedirectResponse("/", status_code=303)  # so that the token leaves the address bar
        assert self._access.token is not None  # the caller compared it
        answer.set_cookie(TOKEN_COOKIE, self._access.token, httponly=True, samesite="strict")
        return answer


def _is_foreign(request: Request) -> bool:
    origin = request.headers.get("origin")
    if origin is not None:
        try:
            return urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
        except ValueError:
            return True
    if request.headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
        return False
    # following a link to the page itself is harmless
    return not (request.method == "GET" and request.url.path == "/" and _is_navigation(request))


def _is_navigation(request: Request) -> bool:
    return request.headers.get("sec-fetch-mode") == "navigate" and request.headers.get("sec-fetch-dest") == "document"


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _same(given: str | None, token: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), token.encode())


def _refusal(status: int, detail: str) -> Response:
    return JSONResponse({"detail": detail}, status_code=status)

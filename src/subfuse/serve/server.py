"""`subfuse serve`: the viewer on a port of this machine."""

import contextlib
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from subfuse.devices import AUTO
from subfuse.errors import ConfigurationError
from subfuse.serve.run_reader import open_run

if TYPE_CHECKING:
    import uvicorn

logger = logging.getLogger(__name__)

_SECONDS_TO_FINISH = 10  # for the requests that are being answered when the viewer is stopped


def serve(
    run: Path,
    *,
    cohort: Path | None = None,
    role: str | None = None,
    device: str = AUTO,
    host: str = "127.0.0.1",
    port: int = 8000,
    announce: Callable[[str], None],
) -> None:
    """Serves the viewer of a run until it is interrupted; an explanation that runs then is ended with it.

    On loopback everybody on this machine may look; on another address a token is drawn and required.

    Args:
        run: The run folder.
        cohort: Prepared folder of the patients to show; the run's own by default.
        role: Whose patients of a folder with several cohorts, see `read_cohort`.
        device: Where models predict and are explained, see `chosen_device`.
        host: Address to bind to.
        port: Port to bind to; 0 takes a free one.
        announce: Told the address once it is bound.

    Raises:
        ConfigurationError: The extra `serve` is missing, the folder is no run, or the port is taken.
        DataError: The cohort is not prepared.
    """
    try:
        import uvicorn

        from subfuse.serve.app import create_app
        from subfuse.serve.protection import Access, is_loopback
    except ImportError as error:
        raise ConfigurationError(
            f"The viewer needs fastapi, uvicorn and Leaflet ({error}). Run: pip install 'subfuse[serve]'."
        ) from error
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    with _bound(host, port) as bound:  # before the run is read, which may take long
        app = create_app(open_run(run, cohort, role, device=device), Access.for_host(host, token))
        announce(_address(host, bound.getsockname()[1], token))
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_SECONDS_TO_FINISH,
        )
        server = uvicorn.Server(config)
        with _ended_by_sigterm(server), contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[bound])


@contextlib.contextmanager
def _ended_by_sigterm(server: "uvicorn.Server") -> Iterator[None]:
    """Passes SIGTERM on once the server has ended by it: uvicorn would raise it again within its event loop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        server.should_exit = True

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
    if received:
        signal.raise_signal(signal.SIGTERM)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"a free port and an address of this machine are required. Found: {host} port {port}, {error.strerror}. "
            "Choose another --port or --host."
        ) from error


def _address(host: str, port: int, token: str | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + ("" if token is None else f"?token={token}")

"""The viewer: an HTTP interface to one run, and the page that shows it."""

from subfuse.lazy import on_first_use

_NAMES = {
    "RunReader": "run_reader",
    "create_app": "app",
    "open_run": "run_reader",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)

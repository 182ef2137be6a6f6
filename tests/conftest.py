"""How tests are dealt out to processes, and what they need of the machine; `small_cohort.py` has what they share."""

import os
from pathlib import Path

import jaxtyping
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

READERS = {
    "command_run": (
        "tests/test_cli.py",
        "tests/test_pages.py",
        "tests/test_new_patients_page.py",
        "tests/serve/test_demo_in_browser.py",
    ),
    "shared_run": tuple(
        f"tests/sharing/test_{name}.py" for name in ("card", "export", "hub", "places", "shared_models")
    ),
    "viewer_run": tuple(
        f"tests/serve/test_{name}.py"
        for name in ("app", "explanations", "run_reader", "server", "slide_tiles", "viewer_in_browser")
    ),
}


class _ByWhatIsShared(LoadScopeScheduling):
    """A process runs whole modules, so that what their tests share is made once; some modules share one run."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.split("::")[0]
        return next((run for run, readers in READERS.items() if module in readers), module)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return _ByWhatIsShared(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """What tests share takes ten seconds to import: not in a process that only deals them out."""
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):
        config.pluginmanager.import_plugin("small_cohort")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules of walks, the longest, come first, so that no process ends with one while the others wait."""
    items.sort(key=lambda item: item.parent is None or item.parent.get_closest_marker("walk") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Shapes are not checked in walks, which take three times as long with the checks."""
    jaxtyping.config.update("jaxtyping_disable", item.get_closest_marker("walk") is not None)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real TCGA tables, tiles and the real slide."""
    folder = os.environ.get("SUBFUSE_REAL_DATA")
    if not folder:
        pytest.skip("SUBFUSE_REAL_DATA is unset: set it to the folder that holds tcga_gbmlgg/, gdc/, slides/, tiles/")
    return Path(folder)


@pytest.fixture(scope="session")
def cases(real_data: Path) -> Path:
    """The folder of small difficult inputs, beside the real data."""
    folder = real_data.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder

"""Names of a package are imported at their first use, and others are refused as of any module."""

import sys

import pytest

from subfuse.lazy import on_first_use


@pytest.fixture
def package(tmp_path, monkeypatch) -> str:
    folder = tmp_path / "a_package_of_this_test"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "numbers.py").write_text("SEVEN = 7\n")
    (folder / "broken.py").write_text("import no_such_library\nEIGHT = 8\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


def test_a_name_is_that_of_its_module_which_is_imported_then_and_not_before(package):
    lookup = on_first_use(package, {"SEVEN": "numbers", "EIGHT": "broken"})
    assert f"{package}.numbers" not in sys.modules
    assert lookup("SEVEN") == 7
    assert f"{package}.numbers" in sys.modules
    assert f"{package}.broken" not in sys.modules


def test_a_name_that_is_not_public_is_absent_although_the_module_has_it(package):
    lookup = on_first_use(package, {})
    with pytest.raises(AttributeError, match=rf"module '{package}' has no attribute 'SEVEN'"):
        lookup("SEVEN")


def test_what_a_module_lacks_is_not_taken_for_an_absent_name(package):
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        on_first_use(package, {"EIGHT": "broken"})("EIGHT")

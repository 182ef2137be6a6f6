"""The run of planted faults forgets no module whose faults would change what is said of patients."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_scientific_module_has_tests_for_its_planted_faults():
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "benchmarks" / "mutants.py")
    mutants = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutants)
    found = mutants.scientific_modules()
    assert {room.split("/")[0] for room in mutants.ROOMS} == {module.split("/")[0] for module in found}
    assert set(mutants.TESTS) == found
    named = {name for names in mutants.TESTS.values() for name in names.split()}
    assert [name for name in sorted(named) if not (ROOT / "tests" / name).is_file()] == []

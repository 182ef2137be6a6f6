"""The table of the page on scaling follows from the units that it states, and these from the results it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
SLIDES = (1_000, 10_000, 100_000)
N_JOBS, EPOCHS, TRAINING = 3 * 5, 16, 0.68


def rows() -> dict[str, list[str]]:
    """The cells of every row of every table by their first one."""
    lines = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def number(text: str) -> float:
    found = re.search(r"[\d,]+(?:\.\d+)?", text)
    assert found is not None, text
    return float(found[0].replace(",", ""))


def unit(name: str) -> float:
    return number(rows()[name][0])


def expected() -> dict[str, list[float]]:
    patches = [n * unit("patches per slide") for n in SLIDES]
    gigabytes = [n * unit("bytes per patch, 1,024 features in half precision") / 1e9 for n in patches]
    per_second = unit("patches per second of one GPU and encoder")
    reading = unit("reading and cutting a patch, processor") / 1000
    visit = unit("subspace fusion, processor, per training patient and epoch")
    kilobytes = unit("what a job is sent, at 10,000 patients") / 10_000
    return {
        "patches": [n / 1e6 for n in patches],
        "`prepare`, GPU-hours": [n / per_second / 3600 for n in patches],
        "`prepare`, core-hours of reading": [n * reading / 3600 for n in patches],
        "disk for features, GB": gigabytes,
        "`crossval`, jobs": [N_JOBS] * 3,
        "`crossval`, core-hours": [n * TRAINING * EPOCHS * N_JOBS * visit / 3600 for n in SLIDES],
        "`crossval`, GB read": [n * N_JOBS for n in gigabytes],
        "`crossval`, MB of messages": [n * kilobytes * N_JOBS / 1000 for n in SLIDES],
        "handing out: `prepare`, seconds": [n * unit("handing out a job") / 1000 for n in SLIDES],
    }


@pytest.mark.parametrize("what", expected())
def test_the_table_follows_from_the_units(what):
    for shown, value in zip(map(number, rows()[what]), expected()[what], strict=True):
        assert shown == pytest.approx(value, rel=0.01, abs=0.5 if value >= 10 else 0.06)


def test_every_row_of_the_table_is_computed():
    table = PAGE.partition("| | 1,000 slides |")[2].partition("\n\n")[0]
    named = {line.split("|")[1].strip() for line in table.splitlines()[2:]}
    assert named == set(expected())


def test_the_units_are_those_of_the_results():
    cohort = (ROOT / "benchmarks" / "results" / "cohort.md").read_text(encoding="utf-8")
    patients, folds, epochs = (
        int(re.search(pattern, cohort)[1])
        for pattern in (r"--patients (\d+)", r"survival, (\d+) folds", r"--epochs (\d+)")
    )
    seconds = number(re.search(r"processor seconds \|[^|]*\|([^|]*)\|", cohort)[1])
    trained = patients // folds - patients // 10  # in a fold
    assert unit("subspace fusion, processor, per training patient and epoch") == pytest.approx(
        seconds / (folds * epochs * trained), rel=0.1
    )
    scheduling = (ROOT / "benchmarks" / "results" / "scheduling.md").read_text(encoding="utf-8")
    measured = re.search(r"Dask scheduler[^|]*\|([^|]*)\|", scheduling)[1].split(",")
    assert unit("handing out a job") >= max(map(float, measured))
    preparation = (ROOT / "benchmarks" / "results" / "preparation.md").read_text(encoding="utf-8")
    assert f"About {unit('reading and cutting a patch, processor'):.0f} ms per patch are" in preparation

"""Explained patients in the report, with as many pictures as there is room for."""

import base64
import io
import json

import numpy as np
import pytest
from fake_run import SCRIPT, write_fake_run
from PIL import Image

from subfuse.report import patient_section, write_report
from subfuse.report.patient_section import PictureBudget
from subfuse.report.run_files import read_run


def test_the_ledger_of_an_explained_patient_adds_up(run, text):
    content = json.loads((run / "explanations" / "patient_0" / "explanation.json").read_text())
    total = sum(row["contribution"] for row in content["ledger"])
    assert f"the bars add up to {total:.3f}".replace("-", "−") in text
    for row in content["ledger"]:
        if row["modality"] != "baseline":
            assert f"{row['contribution']:+.3f}".replace("-", "−") in text


def test_pictures_stay_within_the_budget(tmp_path, monkeypatch):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), optional=False)
    sheets = run / "cohort" / "contact_sheets"
    sheets.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (400, 2000, 3), dtype=np.uint8)
    for number in range(3):
        Image.fromarray(pixels).save(sheets / f"{number}.jpg")
    monkeypatch.setattr(patient_section, "MAX_PICTURE_BYTES", 250_000)
    path = write_report(run)
    page = path.read_text()
    assert path.stat().st_size < 600_000
    assert page.count("<img") < 3
    assert "more pictures of slides in the run's folder cohort/contact_sheets/" in page.replace("&#39;", "'")


@pytest.mark.walk
def test_five_hundred_explained_patients_fit_into_15_megabytes(tmp_path, monkeypatch):
    """Figures and pictures of every patient are as large as they come, and cost no drawing here."""
    run = write_fake_run(tmp_path / "run", patients=500, tasks=("survival",), explained=1)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (500, 900, 3), dtype=np.uint8))
    folder = run / "explanations" / "patient_0"
    noise.save(folder / "heatmap_total_01Z-DX1.png")
    files = read_run(run)
    drawn = patient_section.explained_patient(files, files.explanations[0])
    monkeypatch.setattr(patient_section, "explained_patient", lambda run, explanation: drawn)
    source = PictureBudget().embed(folder / "heatmap_total_01Z-DX1.png")
    for index in range(1, 500):
        copy = run / "explanations" / f"patient_{index}"
        copy.mkdir()
        for name in ("explanation.json", "heatmap_total_01Z-DX1.png"):
            (copy / name).hardlink_to(folder / name)
    monkeypatch.setattr(patient_section, "encoded", lambda path: source)
    path = write_report(run)
    page = path.read_text(encoding="utf-8")
    assert 8e6 < path.stat().st_size < 15e6
    assert "more explained predictions" in page
    assert "more picture" in page
    assert SCRIPT not in page


@pytest.mark.parametrize(("size", "shown"), [((300, 200), (300, 200)), ((4000, 1000), None), ((5000, 1), None)])
def test_pictures_are_as_wide_as_they_are_shown_and_keep_their_proportion(tmp_path, size, shown):
    Image.new("RGBA", size, (200, 20, 20, 255)).save(tmp_path / "map.png")
    kind, _, content = patient_section.encoded(tmp_path / "map.png").partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:image/jpeg;base64"
    assert picture.format == "JPEG"
    if shown:
        assert picture.size == shown
    else:
        assert picture.width < size[0]
        assert picture.height == max(1, round(size[1] * picture.width / size[0]))


def test_after_the_first_picture_without_room_none_is_shown_and_all_are_counted(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    for name, pixels in (("small", noise[:20, :20]), ("large", noise), ("tiny", noise[:5, :5])):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    small = len(patient_section.encoded(tmp_path / "small.png"))
    monkeypatch.setattr(
        patient_section, "MAX_PICTURE_BYTES", small + len(patient_section.encoded(tmp_path / "tiny.png"))
    )
    budget = PictureBudget()
    shown = [budget.embed(tmp_path / f"{name}.png") for name in ("small", "large", "tiny")]
    assert [address is not None for address in shown] == [True, False, False]
    assert (budget.spent, budget.left_out) == (small, 2)

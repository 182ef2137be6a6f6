import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bright_slides import bright_slide, fit, prepared_slide
from PIL import Image

from subfuse.cohort.bags import PatchStandardiser
from subfuse.errors import DataError
from subfuse.explanation.patient import explain_patient
from subfuse.slides.source import SlideSource

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_patient_with_two_slides_of_which_one_is_on_this_machine(make_cohort, tmp_path):
    cohort = make_cohort(48)  # of fewer there is no line
    fitted = fit(cohort, task="grade", linear_path=True)
    fitted.model.network_share.fill_(0.5)
    shapes = {
        "a": {"width": 700, "height": 520, "size": 150, "bright": (300, 150)},
        "b": {"width": 500, "height": 690, "size": 150, "bright": (0, 450)},
    }
    slides = {name: bright_slide(tmp_path / f"{name}.tiff", **shape) for name, shape in shapes.items()}
    paths = tuple(prepared_slide(tmp_path, slide, name) for name, slide in slides.items())
    patient = replace(cohort.patients[5], slides=paths)
    places = {"a": SlideSource("a", "p", tmp_path / "a.tiff", 0.5), "b": "the disk is elsewhere"}
    explain_patient(fitted, patient, tmp_path / "out", fold=0, places=places)
    out = tmp_path / "out"
    assert_files_agree_with_each_other_and_with_the_prediction(out, slides, fitted, patient)
    assert_points_lie_on_their_slides_and_are_called_a_description(out, slides)
    assert_galleries_name_the_slide_that_is_not_here(out)
    assert_objects_for_qupath_have_classes_and_measurements(out, slides)


def assert_files_agree_with_each_other_and_with_the_prediction(out, slides, fitted, patient):
    content = json.loads((out / "explanation.json").read_text())
    patches, genes = pd.read_csv(out / "patches.csv"), pd.read_csv(out / "genes.csv")
    prediction = fitted.predict([patient]).iloc[0]
    shares = {name: prediction[f"contribution_{name}"] for name in fitted.subspaces}
    assert content["explained"] == max(("G2", "G4"), key=lambda name: prediction[f"p_{name}"])
    assert content["score_name"] == f"the score of {content['explained']}"
    assert content["drawn_on_places"] == content["not_drawn"] == {}
    assert content["score"] == pytest.approx(sum(shares.values()), abs=1e-5)
    assert sum(row["contribution"] for row in content["ledger"]) == pytest.approx(content["score"], abs=1e-5)
    of_line = [row["contribution"] for row in content["ledger"] if row["subspace"] == "linear_path"]
    assert len(of_line) == 2  # slides and expression
    assert all(of_line)
    for name in fitted.subspaces:
        total = patches[name].abs().sum() + genes.loc[genes["subspace"] == name, "contribution"].abs().sum()
        assert content["relative_gap"][name] == pytest.approx(abs(content["gap"][name]) / total, rel=1e-3)
    assert (genes["contribution"] != 0).all()
    assert genes["contribution"].abs().is_monotonic_decreasing  # strongest first
    np.testing.assert_allclose(patches["total"], patches[list(fitted.subspaces)].sum(axis=1), atol=1e-6)
    assert {f"occlusion_{name}" for name in fitted.subspaces} <= set(patches)
    assert patches.groupby("slide_id").size().to_dict() == {name: len(slide.coords) for name, slide in slides.items()}


def assert_points_lie_on_their_slides_and_are_called_a_description(out, slides):
    points, content = pd.read_csv(out / "points.csv"), json.loads((out / "explanation.json").read_text())
    assert list(points) == ["slide_id", "subspace", "group", "x", "y"]
    assert content["points"]["on_slides"] == len(points) > 0
    assert "not an attribution" in content["points"]["meaning"]
    for name, slide in slides.items():
        here = points[points["slide_id"] == name]
        assert here[["x", "y"]].ge(0).all().all()
        assert (here["x"] < slide.slide_width_px).all()
        assert (here["y"] < slide.slide_height_px).all()
        with Image.open(out / f"sampling_{name}.png") as picture:
            assert picture.width == slide.slide_width_px // 2
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        places = here[["x", "y"]].to_numpy() // 2
        drawn = np.array([np.ptp(pixels[int(y), int(x)]) > 0 for x, y in places])
        assert drawn.mean() > 0.7  # but for edges of other dots


def assert_galleries_name_the_slide_that_is_not_here(out):
    content = json.loads((out / "explanation.json").read_text())
    assert content["tiles_not_shown"] == {"b": "the disk is elsewhere"}
    assert list(out.glob("gallery_*.jpg"))


def assert_objects_for_qupath_have_classes_and_measurements(out, slides):
    patches, content = pd.read_csv(out / "patches.csv"), json.loads((out / "explanation.json").read_text())
    for name, slide in slides.items():
        features = json.loads((out / f"{name}.geojson").read_text())["features"]
        assert len(features) == len(slide.coords)
        of_slide = patches[patches["slide_id"] == name].to_dict("records")
        for feature, row in zip(features, of_slide, strict=True):
            assert feature["geometry"]["coordinates"][0][0] == [row["x"], row["y"]]
            assert feature["properties"]["measurements"]["total"] == pytest.approx(row["total"], abs=1e-6)
            sign = np.sign(row["total"])
            assert ("classification" in feature["properties"]) == (sign != 0)
            if sign:
                word = "raises" if sign > 0 else "lowers"
                assert feature["properties"]["classification"]["name"] == f"{word} {content['score_name']}"


def test_the_bright_patch_of_each_slide_is_coloured_on_its_own_heat_maps(make_cohort, tmp_path):
    cohort = make_cohort()
    fitted = fit(cohort, task="grade")
    as_they_are = replace(
        fitted.standardiser,
        patches=PatchStandardiser(*(np.full(fitted.standardiser.patch_dim, n, np.float32) for n in (0, 1))),
    )
    shapes = {"a": (700, 520, (300, 150)), "b": (500, 690, (0, 450))}
    paths = []
    for name, (width, height, bright) in shapes.items():
        slide = bright_slide(tmp_path / f"{name}.tiff", width=width, height=height, size=150, bright=bright)
        paths.append(prepared_slide(tmp_path, slide, name))
    patient = replace(cohort.patients[5], slides=tuple(paths))
    explain_patient(replace(fitted, standardiser=as_they_are), patient, tmp_path / "out", fold=0)
    for name, (width, height, (x, y)) in shapes.items():
        expected = np.zeros((height // 2, width // 2), dtype=bool)
        expected[y // 2 : (y + 150) // 2, x // 2 : (x + 150) // 2] = True
        for shown in (*fitted.subspaces, "total"):
            with Image.open(tmp_path / "out" / f"heatmap_{shown}_{name}.png") as picture:
                pixels = np.asarray(picture.convert("RGB"))[: height // 2].astype(int)
            elsewhere = pixels[~expected]
            assert np.ptp(elsewhere, axis=0).max() <= 3
            assert (np.abs(pixels[expected] - elsewhere[0]).max(axis=1) > 10).all()


@pytest.fixture(scope="module")
def slides_without_pictures(tmp_path_factory):
    """Three slides of one patient: without a thumbnail, with a truncated one, without places."""
    folder = tmp_path_factory.mktemp("slides")
    slide = bright_slide(folder / "a.tiff", width=700, height=520, size=150, bright=(300, 150))
    paths = {
        "a": prepared_slide(folder, slide, "a"),
        "b": prepared_slide(folder, replace(slide, slide_height_px=2000, bounds_corner=(50, 20)), "b"),
        "c": prepared_slide(folder, replace(slide, has_coordinates=False), "c"),
    }
    thumbnails = folder / "thumbnails"
    (thumbnails / "a.jpg").unlink()
    (thumbnails / "b.jpg").write_bytes((thumbnails / "b.jpg").read_bytes()[:300])
    return slide, tuple(paths.values())


def test_slides_without_a_picture_are_drawn_on_the_places_of_their_patches(
    make_cohort, tmp_path, slides_without_pictures
):
    slide, paths = slides_without_pictures
    cohort = make_cohort()
    explain_patient(fit(cohort), replace(cohort.patients[5], slides=paths), tmp_path / "out", fold=0)
    out = tmp_path / "out"
    content = json.loads((out / "explanation.json").read_text())
    assert list(content["drawn_on_places"]) == ["a", "b"]
    assert "b.jpg cannot be read" in content["drawn_on_places"]["b"]
    assert list(content["not_drawn"]) == ["c"]
    for name, height in (("a", 520), ("b", 2000)):
        with Image.open(out / f"heatmap_total_{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        scale = min(1.0, 1024 / max(700, height))
        assert picture.height > round(height * scale)
        patch, beside = pixels[int(75 * scale), int(75 * scale)], pixels[int(515 * scale), int(690 * scale)]
        assert patch.sum() < beside.sum() - 50  # a patch, and the glass between the last patch and the edge
    assert not list(out.glob("*_c.*")) + list(out.glob("c.*"))
    assert list(out.glob("gallery_*.jpg"))
    objects = json.loads((out / "b.geojson").read_text())
    assert objects["features"][0]["geometry"]["coordinates"][0][0] == [-50, -20]
    patches = pd.read_csv(out / "patches.csv")
    assert patches.groupby("slide_id").size().to_dict() == dict.fromkeys("abc", len(slide.coords))
    assert patches[["x", "y"]].isna().all(axis=1).equals(patches["slide_id"] == "c")


def test_a_patient_without_slides_has_genes_only(make_cohort, tmp_path):
    cohort = make_cohort()
    explain_patient(fit(cohort), cohort.patients[0], tmp_path / "out", fold=0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["explanation.json", "genes.csv"]
    assert json.loads((tmp_path / "out" / "explanation.json").read_text())["explained"] == "risk"


def test_no_heat_map_takes_the_place_of_another(make_cohort, tmp_path):
    cohort = make_cohort(48)  # of fewer there is no line
    fitted = fit(cohort, task="grade", linear_path=True)
    recipe = fitted.recipe.model_copy(update={"gene_sets": {"linear": (0, 1)}})
    fitted = replace(fitted, recipe=recipe)
    assert fitted.subspaces == ("linear", "linear_path")
    patient = replace(cohort.patients[5], slides=(tmp_path / "path_s.h5", tmp_path / "s.h5"))
    with pytest.raises(DataError, match=r"heatmap_linear_path_s\.png: .*slide path_s and linear_path of slide s"):
        explain_patient(fitted, patient, tmp_path / "out", fold=0)


@pytest.mark.parametrize("model", ["snn", "abmil"])
def test_what_a_model_does_not_read_is_not_explained(make_cohort, tmp_path, model):
    cohort = make_cohort(n_patients=12)
    slide = bright_slide(tmp_path / "s.tiff", width=700, height=520, size=150, bright=(300, 150))
    patient = replace(cohort.patients[5], slides=(prepared_slide(tmp_path, slide, "s"),))
    explain_patient(fit(cohort, model=model), patient, tmp_path / "out", fold=0)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    content = json.loads((tmp_path / "out" / "explanation.json").read_text())
    if model == "snn":
        assert written == {"explanation.json", "genes.csv"}
        assert content["slides"] == []
    else:
        assert {"patches.csv", "heatmap_total_s.png", "heatmap_all_s.png", "gallery_all.jpg"} <= written
        assert pd.read_csv(tmp_path / "out" / "genes.csv").empty
        assert content["points"] is None  # it looks everywhere

"""Ready features through the commands: check, prepare, crossval; damage, a full disk and a kill on the way."""

import errno
import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

import process_pool
from subfuse.cli import main
from subfuse.cohort.cohort import read_cohort
from subfuse.errors import ConfigurationError, DataError
from subfuse.features.other_tools import opened_features
from subfuse.features.store import features_in_place, read_features, recorded_hash
from subfuse.preparation.slides.feature_import import import_slides
from subfuse.preparation.slides.feature_survey import feature_sources, look_into_features, survey_features
from subfuse.slides.source import FeatureSource, SlideSource

PATIENTS = [f"P{i:02d}" for i in range(12)]
BRIEF = (
    "--explain",
    "false",
    "--train.epochs",
    "1",
    "--architecture.embed_dim",
    "16",
    "--architecture.max_grid",
    "8",
    "--architecture.table_size",
    "32",
)


def write_features(path: Path, n_patches: int, *, n_features: int = 6, seed: int = 0, **attributes) -> None:
    """As CLAM writes them, in rows of three patches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = np.random.default_rng(seed).normal(size=(n_patches, n_features)).astype(np.float32)
        index = np.arange(n_patches)
        file["coords"] = np.stack([index % 3, index // 3], axis=1) * 512
        file["coords"].attrs.update(attributes)


def write_cohort(folder: Path, slides: dict, **sections: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({"patient_id": PATIENTS, "time_days": np.arange(12) * 90 + 100, "event": [0, 1] * 6})
    table.assign(grade=["G2", "G2", "G4"] * 4).to_csv(folder / "patients.csv", index=False)
    content = {
        "name": "ready",
        "patients": {"table": "patients.csv"},
        "slides": slides,
        **sections,
        "tasks": {"grade": {"column": "grade"}},
        "splits": {"folds": 2, "validation": 0.3, "stratify": ["grade"]},
    }
    path = folder / "cohort.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Twelve patients with one CLAM file each, in a folder with a space and a letter outside ASCII."""
    folder = tmp_path / "Kohorte ß"
    for i, patient in enumerate(PATIENTS):
        write_features(folder / "CLAM features" / f"{patient} é.h5", 4 + i, seed=i)
    rows = pd.DataFrame({"slide_id": [f"{patient} é" for patient in PATIENTS], "patient_id": PATIENTS, "mpp": 0.25})
    folder.mkdir(exist_ok=True)
    rows.to_csv(folder / "slides.csv", index=False)
    return write_cohort(folder, {"table": "slides.csv", "features": "CLAM features", "encoder": "resnet50"})


def prepare(cohort: Path, code: int = 0) -> Path:
    out = cohort.parent / "prepared"
    assert main(["prepare", str(cohort), "--out", str(out), "--workers", "1"]) == code
    return out


def excluded(out: Path) -> dict[str, str]:
    return pd.read_csv(out / "exclusions.csv").set_index("id")["reason"].to_dict()


def test_clam_features_through_check_prepare_and_crossval(cohort, capsys):
    assert main(["check", str(cohort)]) == 0
    checked = capsys.readouterr()
    assert "slide features: 12 (CLAM: 12), 6 numbers a patch, of encoder resnet50" in checked.out
    assert "slides P00 é, P01 é, P02 é and 9 more: the size of the patches is not recorded" in checked.err
    where = "eatures of 12 slides stay where they are (0.00274 MB)"
    assert f"  f{where}" in checked.out

    out = prepare(cohort)
    assert f"F{where}" in capsys.readouterr().out
    slides = pd.read_csv(out / "slides.csv")
    assert slides["n_patches"].tolist() == list(range(4, 16))
    assert set(slides["mpp"]) == {0.25}
    assert set(pd.read_csv(out / "slide_quality.csv")["mpp_source"]) == {"declared"}
    assert slides["tissue_mm2"].iloc[0] == pytest.approx(4 * 0.128**2)
    path = out / "wsi" / "imported" / "features_resnet50" / "P03 é.h5"
    assert out / slides["features"].iloc[3] == path
    with h5py.File(path) as file:
        assert file.get("features", getlink=True).filename == str(cohort.parent / "CLAM features" / "P03 é.h5")
        of_tool = file["features"][()].astype(np.float16)
    np.testing.assert_array_equal(read_features(path).features, of_tool)
    assert read_features(path).coords[:2].tolist() == [[0, 0], [512, 0]]
    prepared = read_cohort(out)
    assert (prepared.encoder, prepared.patch_dim, len(prepared)) == ("resnet50", 6, 12)

    run = cohort.parent / "run"
    arguments = ["crossval", str(out), "--tasks", "grade", "--models", "abmil", "--workers", "1"]
    assert main([*arguments, "--out", str(run), *BRIEF]) == 0
    assert pd.read_csv(run / "predictions.csv")["patient_id"].nunique() == 12

    copied, of_copies = cohort.parent / "copied", cohort.parent / "run of copies"
    cohort.write_text(cohort.read_text().replace("slides:", "slides:\n  copy: true"))
    assert main(["prepare", str(cohort), "--out", str(copied), "--workers", "1"]) == 0
    assert "Features of 12 slides are copied: as slides.copy says (12)" in capsys.readouterr().out
    assert main([*arguments[:1], str(copied), *arguments[2:], "--out", str(of_copies), *BRIEF]) == 0
    for name in ("predictions.csv", "grade/abmil/fold_0/model.safetensors"):
        assert (run / name).read_bytes() == (of_copies / name).read_bytes()
    shown = [path for path in run.rglob("*") if path.is_file() and b"CLAM features" in path.read_bytes()]
    assert not shown


def test_a_feature_table_of_any_width_through_check_prepare_and_crossval(tmp_path, capsys):
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(12, 3)), columns=["leading edge", "tumour", "necrosis"])
    table.insert(0, "slide_id", [f"{patient}-DX1" for patient in PATIENTS])
    path = write_cohort(tmp_path, {"feature_table": "areas.csv"}, expression={"table": "genes.csv", "unit": "tpm"})
    genes = pd.DataFrame(random.gamma(2, 20, (12, 4)), columns=["EGFR", "CD44", "CD3D", "VWF"], index=PATIENTS)
    genes.to_csv(tmp_path / "genes.csv", index_label="patient_id")
    table.to_csv(tmp_path / "areas.csv", index=False)

    assert main(["check", str(path)]) == 0
    assert "(feature table: 12), 3 numbers a slide, of encoder areas; 12 without coordinates" in capsys.readouterr().out
    out = prepare(path)
    assert pd.read_csv(out / "slides.csv")["n_patches"].tolist() == [1] * 12
    slide = read_features(out / "wsi" / "imported" / "features_areas" / "P03-DX1.h5")
    np.testing.assert_array_equal(slide.features[0], table.iloc[3, 1:].to_numpy(np.float32))
    assert not slide.has_coordinates
    run = tmp_path / "run"
    arguments = ["crossval", str(out), "--tasks", "grade", "--models", "subspace", "--workers", "1"]
    assert main([*arguments, "--explain", "false", "--out", str(run), *BRIEF]) == 0
    assert pd.read_csv(run / "predictions.csv")["patient_id"].nunique() == 12


def test_preparing_again_does_only_what_changed(cohort):
    out = prepare(cohort)
    before = {path.stem: path.stat().st_mtime_ns for path in out.rglob("*.h5")}
    (out / "wsi" / "imported" / "features_resnet50" / "P01 é.h5").write_bytes(b"half")
    write_features(cohort.parent / "CLAM features" / "P02 é.h5", 6, seed=99)  # the same size, other features

    prepare(cohort)

    after = {path.stem: path.stat().st_mtime_ns for path in out.rglob("*.h5")}
    assert {name for name in after if after[name] != before[name]} == {"P01 é", "P02 é"}
    with h5py.File(cohort.parent / "CLAM features" / "P02 é.h5") as file:
        changed = file["features"][()].astype(np.float16)
    np.testing.assert_array_equal(read_features(out / "wsi/imported/features_resnet50/P02 é.h5").features, changed)


def absent(folder: Path) -> None:
    (folder / "CLAM features" / "P00 é.h5").unlink()


def zero_bytes(folder: Path) -> None:
    (folder / "CLAM features" / "P00 é.h5").write_bytes(b"")


def web_page(folder: Path) -> None:
    (folder / "CLAM features" / "P00 é.h5").write_text("<html>not found</html>")


def not_finite(folder: Path) -> None:
    with h5py.File(folder / "CLAM features" / "P00 é.h5", "a") as file:
        file["features"][1, 2] = np.nan


def stranger(folder: Path) -> None:
    table = pd.read_csv(folder / "slides.csv")
    table.loc[0, "patient_id"] = "nobody"
    table.to_csv(folder / "slides.csv", index=False)


def no_mpp(folder: Path) -> None:
    table = pd.read_csv(folder / "slides.csv")
    table.loc[0, "mpp"] = np.nan
    table.to_csv(folder / "slides.csv", index=False)


EXCLUDED = [
    (absent, "no feature file in"),
    (zero_bytes, "complete HDF5 file is required. Found 0 bytes"),
    (web_page, "complete HDF5 file is required. Found 22 bytes"),
    (not_finite, "features must be finite"),
    (stranger, "nobody is not in the cohort"),
    (no_mpp, "Declare `mpp` in the slide table"),
]


@pytest.mark.parametrize(("damage", "reason"), EXCLUDED, ids=[case[0].__name__ for case in EXCLUDED])
def test_a_slide_that_cannot_be_used_is_listed_and_the_rest_goes_on(cohort, capsys, damage, reason):
    damage(cohort.parent)
    assert main(["check", str(cohort)]) == 0
    if damage is not not_finite:  # features are read by prepare only
        checked = capsys.readouterr().out.split("Excluded")[1]
        assert reason.split()[0] in checked
        assert "P00 é" in checked
    out = prepare(cohort)
    reasons = excluded(out)
    assert set(reasons) == {"P00 é", "P00"}
    assert reason in reasons["P00 é"]
    assert len(pd.read_csv(out / "slides.csv")) == 11
    assert not list(out.rglob("*.part*"))


def other_width(folder: Path) -> None:
    write_features(folder / "CLAM features" / "P07 é.h5", 5, n_features=9)


def other_encoder(folder: Path) -> None:
    write_features(folder / "CLAM features" / "P07 é.h5", 5, encoder="uni")


def listed_twice(folder: Path) -> None:
    table = pd.read_csv(folder / "slides.csv")
    pd.concat([table, table.tail(1)]).to_csv(folder / "slides.csv", index=False)


def two_files(folder: Path) -> None:
    write_features(folder / "CLAM features" / "more" / "P07 é.h5", 5)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (
            other_width,
            "6 features of resnet50 in P00 é.h5, P01 é.h5, P02 é.h5 and 8 more; 9 features of resnet50 in P07",
        ),
        (other_encoder, "6 features of uni in P07 é.h5"),
        (listed_twice, "row 14: slide_id must be given once. Found P11 é again (first: row 13)"),
        (two_files, "Found 'P07 é' as"),
    ],
)
@pytest.mark.parametrize("command", ["check", "prepare"])
def test_a_cohort_that_cannot_be_used_is_one_line_and_nothing_is_written(cohort, capsys, damage, named, command):
    damage(cohort.parent)
    out = cohort.parent / "prepared"
    assert main([command, str(cohort), *(["--out", str(out)] if command == "prepare" else [])]) == 3
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert named in lines[0]
    assert not out.exists()


def test_a_full_disk_stops_with_one_line_and_leaves_nothing_half_written(cohort, capsys, monkeypatch):
    """The disk is full from the fourth slide on; once there is space the same command goes on."""
    create = h5py.Group.create_dataset
    calls = []

    def full(group, name, **options):
        calls.append(name)
        if len(calls) > 10:  # three datasets per slide: the features of the fourth are written, its places are not
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return create(group, name, **options)

    monkeypatch.setattr(h5py.Group, "create_dataset", full)
    out = prepare(cohort, code=2)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("subfuse: error: ")
    assert "free disk space is required" in error
    assert len(list(out.rglob("*.h5"))) == 3
    assert not list(out.rglob("*.part*"))
    assert not (out / "provenance.json").exists()

    monkeypatch.undo()
    prepare(cohort)
    assert len(pd.read_csv(out / "slides.csv")) == 12


def prepare_until_killed(*arguments: str) -> None:
    """Dies while it writes the fifth file."""
    create, calls = h5py.Group.create_dataset, []

    def killed(group, name, **options):
        calls.append(name)
        if len(calls) == 14:  # three datasets per file
            group.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return create(group, name, **options)

    h5py.Group.create_dataset = killed
    main(arguments)


@pytest.mark.walk
def test_a_rerun_after_a_kill_does_only_what_is_missing(cohort):
    out, clean = cohort.parent / "prepared", cohort.parent / "clean"
    arguments = ["prepare", str(cohort), "--workers", "1", "--out"]
    killed = process_pool.start(prepare_until_killed, *arguments, str(out))
    killed.join(timeout=300)
    assert killed.exitcode == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in out.rglob("[!.]*.h5")}
    assert len(done) == 4
    assert len(list(out.rglob(".*.part.h5"))) == 1  # the half-written fifth
    with pytest.raises(DataError, match="completely prepared folder"):
        read_cohort(out)

    assert main([*arguments, str(out)]) == 0
    assert main([*arguments, str(clean)]) == 0

    assert {path: path.stat().st_mtime_ns for path in done} == done
    for name in ("slides.csv", "patients.csv", "exclusions.csv"):
        assert (out / name).read_bytes() == (clean / name).read_bytes()
    for path in clean.rglob("*.h5"):
        ours, theirs = read_features(path), read_features(out / path.relative_to(clean))
        np.testing.assert_array_equal(ours.features, theirs.features)
        np.testing.assert_array_equal(ours.coords, theirs.coords)
    assert json.loads((out / "provenance.json").read_text()) == json.loads((clean / "provenance.json").read_text())


def test_unnamed_encoders_are_a_warning_and_widths_stay_distinct(tmp_path):
    for width in (4, 5):
        write_features(tmp_path / f"{width}.h5", 3, n_features=width, level0_mpp=0.5)
    surveys = [survey_features([FeatureSource("s", "p", tmp_path / f"{width}.h5")]) for width in (4, 5)]
    assert [survey.encoder for survey in surveys] == ["unknown", "unknown"]
    assert surveys[0].encoder_sha256 != surveys[1].encoder_sha256
    assert "name it as slides.encoder" in surveys[0].warnings()[-1]


def test_patches_of_two_scales_are_a_warning_of_check_and_prepare(cohort, capsys):
    rows = pd.read_csv(cohort.parent / "slides.csv")
    for i, patient in enumerate(PATIENTS):
        write_features(cohort.parent / "CLAM features" / f"{patient} é.h5", 4, seed=i, patch_size_level0=512)
    rows.assign(mpp=[1.0] + [0.25] * 11).to_csv(cohort.parent / "slides.csv", index=False)
    expected = "about 128 µm in 11 slides, 512 µm in 1 (P00 é)"
    assert main(["check", str(cohort)]) == 0
    assert expected in capsys.readouterr().err
    out = prepare(cohort)
    assert expected in capsys.readouterr().err
    prepared = read_cohort(out)
    assert sorted(prepared.patch_um.values()) == [128.0] * 11 + [512.0]
    assert prepared.patch_um[prepared.patients[0].slides[0]] == 512.0


def test_slides_and_ready_features_do_not_mix(tmp_path):
    sources = [FeatureSource("a", "p", tmp_path / "a.h5"), SlideSource("b", "p", tmp_path / "b.svs")]
    with pytest.raises(ConfigurationError, match="Found 1 with features and 1 slides"):
        feature_sources(sources)
    assert feature_sources(sources[1:]) == ()


def imported(folder: Path, *, is_copied: bool = False, **files: dict) -> dict:
    """Imports feature files of these attributes; the records by slide."""
    for name, attributes in files.items():
        write_features(folder / f"{name}.h5", 9, **attributes)
    sources = [FeatureSource(name, "p", folder / f"{name}.h5", encoder="toy", is_copied=is_copied) for name in files]
    records, failures = import_slides(sources, survey_features(sources), folder / "out" / "wsi")
    return {record.slide_id: record for record in records} | dict(zip(failures["id"], failures["reason"], strict=True))


def test_changed_features_are_imported_again_and_the_others_are_kept(tmp_path):
    attributes = {"patch_size_level0": 512, "level0_mpp": 0.25}
    imported(tmp_path, is_copied=True, a=attributes, b=attributes)
    folder = tmp_path / "out" / "wsi" / "imported" / "features_toy"
    with h5py.File(folder / "a.h5", "a") as file:
        file["features"][4:] = 0
    kept = (folder / "b.h5").stat().st_mtime_ns
    sources = [FeatureSource(name, "p", tmp_path / f"{name}.h5", encoder="toy") for name in "ab"]
    import_slides(sources, survey_features(sources), tmp_path / "out" / "wsi")
    assert read_features(folder / "a.h5").features[4:].any()
    assert (folder / "b.h5").stat().st_mtime_ns == kept


def test_features_in_place_are_those_of_a_copy_and_what_is_complete_is_kept(tmp_path):
    attributes = {"patch_size_level0": 512, "level0_mpp": 0.25, "encoder": "toy"}
    folder = tmp_path / "out" / "wsi" / "imported" / "features_toy"
    files = {"a": attributes, "b": attributes}
    assert {r.bytes_in_place for r in imported(tmp_path, **files).values()} == {9 * 6 * 4}
    stay = read_features(folder / "a.h5")

    def again(**declared) -> dict:
        sources = [FeatureSource(name, "p", tmp_path / f"{name}.h5", encoder="toy", **declared) for name in files]
        records, _ = import_slides(sources, survey_features(sources), tmp_path / "out" / "wsi")
        return {record.slide_id: record.why_copied for record in records}

    written = (folder / "a.h5").stat().st_mtime_ns
    content = recorded_hash(folder / "a.h5")
    assert set(again().values()) == {""}
    assert (folder / "a.h5").stat().st_mtime_ns == written
    os.utime(tmp_path / "b.h5")  # written again since, as it was: read once
    assert set(again().values()) == {""}
    assert features_in_place(folder / "b.h5").is_same

    assert set(again(is_copied=True).values()) == {"as slides.copy says"}
    assert features_in_place(folder / "a.h5") is None
    np.testing.assert_array_equal(read_features(folder / "a.h5").features, stay.features)
    assert recorded_hash(folder / "a.h5") == content
    written = (folder / "a.h5").stat().st_mtime_ns
    assert set(again().values()) == {"as they were before"}
    assert (folder / "a.h5").stat().st_mtime_ns == written


def test_a_moved_source_is_read_where_it_lies_now(tmp_path):
    imported(tmp_path, a={"patch_size_level0": 512, "level0_mpp": 0.25})
    path = tmp_path / "out" / "wsi" / "imported" / "features_toy" / "a.h5"
    (tmp_path / "moved").mkdir()
    (tmp_path / "a.h5").rename(tmp_path / "moved" / "a.h5")
    with pytest.raises(DataError, match=r"/a\.h5: the file in which features stay is required.*slides\.copy: true"):
        read_features(path)
    sources = [FeatureSource("a", "p", tmp_path / "moved" / "a.h5", encoder="toy")]
    import_slides(sources, survey_features(sources), tmp_path / "out" / "wsi")
    assert features_in_place(path).path == tmp_path / "moved" / "a.h5"


def test_sizes_by_an_earlier_rule_are_found_anew_and_recorded_ones_kept(tmp_path):
    attributes = {"level0_mpp": 0.25}
    imported(tmp_path, is_copied=True, by_spacing=attributes, recorded=attributes | {"patch_size_level0": 700})
    folder = tmp_path / "out" / "wsi" / "imported" / "features_toy"
    for name in ("by_spacing", "recorded"):
        with h5py.File(folder / f"{name}.h5", "a") as file:
            del file["coords"].attrs["spacing_rule"], file["coords"].attrs["content_sha256"]
            file["coords"].attrs["patch_size_level0"] = 1400
    sources = [FeatureSource(name, "p", tmp_path / f"{name}.h5", encoder="toy") for name in ("by_spacing", "recorded")]
    records, _ = import_slides(sources, survey_features(sources), tmp_path / "out" / "wsi")
    assert {record.slide_id: record.patch_um for record in records} == {"by_spacing": 128, "recorded": 350}


def test_widths_that_only_places_tell_are_known_once_files_are_read(tmp_path):
    for name, attributes in {"a": {}, "b": {"patch_size_level0": 700}, "c": {"patch_size_level0": 512}}.items():
        write_features(tmp_path / f"{name}.h5", 9, level0_mpp=0.25, **attributes)
    sources = [FeatureSource(name, "p", tmp_path / f"{name}.h5", encoder="toy") for name in "abc"]
    survey = survey_features(sources)
    assert survey.width_um == {"b": 175, "c": 128}
    read, *_ = look_into_features(sources, survey, seconds=60.0)
    assert read.width_um == {"a": 128, "b": 175, "c": 128}
    assert read.by_spacing == ["a"]


def test_a_vector_of_a_slide_is_called_that(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.ones(7, np.float32)
    survey = survey_features([FeatureSource("a", "p", tmp_path / "a.h5", encoder="titan")])
    assert "7 numbers a slide, of encoder titan; 1 without coordinates" in survey.summary()
    assert survey.warnings() == ("slide a: one vector for the whole slide: no heat maps are drawn",)


def test_overlap_and_repetition_are_not_counted_as_tissue(tmp_path):
    slides = imported(
        tmp_path,
        apart={"patch_size_level0": 512, "level0_mpp": 0.25},
        half_over={"patch_size_level0": 1024, "level0_mpp": 0.25},
    )
    assert slides["apart"].tissue_mm2 == pytest.approx(9 * 0.128**2)
    assert slides["half_over"].tissue_mm2 == pytest.approx(16 * 0.128**2)
    with h5py.File(tmp_path / "apart.h5", "a") as file:
        file["coords"][:8], file["coords"][8] = 0, (512, 0)
        file["features"][3] = 0
    again = imported(tmp_path, same={"patch_size_level0": 512, "level0_mpp": 0.25})["same"]
    assert again.warnings == ()
    sources = [FeatureSource("apart", "p", tmp_path / "apart.h5", encoder="toy")]
    survey = survey_features(sources)
    records, _ = import_slides(sources, survey, tmp_path / "other" / "wsi")
    assert records[0].tissue_mm2 == pytest.approx(2 * 0.128**2)
    told = survey.warnings({"apart": records[0].warnings})
    assert "slide apart: 9 patches stand on 2 places: those that are there again weigh again" in told
    assert "slide apart: the features of 1 of 9 patches are all zero" in told


def test_places_that_count_cells_instead_of_pixels_are_doubted(tmp_path):
    pitches = {"cells": 1, "pixels": 512, "overlapping": 128}
    for name, pitch in pitches.items():
        write_features(tmp_path / f"{name}.h5", 3, patch_size_level0=512, level0_mpp=0.25)
        with h5py.File(tmp_path / f"{name}.h5", "a") as file:
            file["coords"][...] = [(pitch * (i % 3), pitch * (i // 3)) for i in range(len(file["coords"]))]
    sources = [FeatureSource(name, "p", tmp_path / f"{name}.h5", encoder="toy") for name in pitches]
    records, _ = import_slides(sources, survey_features(sources), tmp_path / "out" / "wsi")
    doubts = {record.slide_id: [text for text in record.warnings if "px apart" in text] for record in records}
    assert doubts["pixels"] == doubts["overlapping"] == []
    assert [text.partition(":")[0] for text in doubts["cells"]] == ["patches 512 px wide lie 1 px apart"]


@pytest.mark.parametrize("place", ["features", "coords", "/"])
def test_the_encoder_is_read_wherever_it_stands(tmp_path, place):
    for name, encoder in (("a", "uni_v1"), ("b", "uni_v1"), ("c", np.bytes_(b"conch_v15"))):
        write_features(tmp_path / f"{name}.h5", 3, level0_mpp=0.5)
        with h5py.File(tmp_path / f"{name}.h5", "a") as file:
            file[place].attrs["encoder"] = encoder
    sources = [FeatureSource(name, "p", tmp_path / f"{name}.h5") for name in "abc"]
    assert survey_features(sources[:2]).encoder == "uni_v1"
    with pytest.raises(DataError, match=r"features of uni_v1 in a\.h5, b\.h5; 6 features of conch_v15 in c\.h5"):
        survey_features(sources)


def test_a_declared_encoder_that_the_files_contradict_is_said(tmp_path):
    write_features(tmp_path / "a.h5", 3, level0_mpp=0.5, encoder="uni_v1")
    survey = survey_features([FeatureSource("a", "p", tmp_path / "a.h5", encoder="conch")])
    assert survey.encoder == "uni_v1"
    assert "slides.encoder says conch" in survey.warnings()[-1]


@pytest.mark.real_data
def test_given_layouts(cases):
    def read(name: str, pattern: str, mpp: float | None = None) -> dict:
        found = {}
        for path in sorted((cases / name).glob(pattern)):
            with suppress(DataError), opened_features(path, mpp=mpp) as file:
                found[path.stem] = file.slide_features(path)
        return found

    areas = {name: slide.area_mm2 for name, slide in read("overlapping_patches", "feats/*.h5", 0.25).items()}
    assert len(areas) == 8
    assert max(areas.values()) == min(areas.values()) == pytest.approx(0.147, abs=0.001)
    shapes = read("feature_shapes", "feats/*.h5", 0.25)
    assert shapes["P007"].area_mm2 == pytest.approx(shapes["P003"].area_mm2)
    assert "P008" not in shapes
    stamp = read("stamp_2_0", "feats/*.h5")
    assert set(stamp) == {f"S{i}" for i in (0, 1, 2, 4, 6, 7, 8)}
    np.testing.assert_allclose(stamp["S0"].centres_um, stamp["S1"].centres_um, atol=1)
    sources = [FeatureSource(path.stem, "p", path) for path in sorted((cases / "two_encoders" / "feats").glob("*.h5"))]
    with pytest.raises(DataError, match=r"(conch_v15 in P.*uni_v1 in P|uni_v1 in P.*conch_v15 in P)"):
        survey_features(sources)

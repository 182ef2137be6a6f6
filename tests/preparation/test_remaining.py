"""What is declared and ends empty is an error with its cause, and what was excluded is written all the same."""

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from subfuse.cli import main
from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.cohort.given_folds import write_given_folds
from subfuse.errors import ConfigurationError, DataError
from subfuse.exclusions import NothingLeft, exclusion_table
from subfuse.preparation import prepare as preparation
from subfuse.preparation.plan import plan_cohort
from subfuse.preparation.prepare import prepare
from subfuse.preparation.remaining import remaining
from subfuse.preparation.sources import read_sources

PATIENTS = [f"P{i:03d}" for i in range(12)]


@pytest.fixture
def write(tmp_path: Path):
    """Writes a cohort of ready features, with changes: of patients in the slide table, slides, values, sections."""

    def write(owners=PATIENTS, names=PATIENTS, value=1.0, mpp: float | None = 0.5, **sections) -> Path:
        (tmp_path / "features").mkdir()
        clinical = pd.DataFrame({"patient_id": PATIENTS, "grade": ["G2", "G3"] * 6, "age": np.arange(12) + 40.5})
        clinical.assign(rare=["A"] * 11 + ["B"]).to_csv(tmp_path / "patients.csv", index=False)
        slides = pd.DataFrame({"slide_id": names, "patient_id": owners, "mpp": mpp}).dropna(axis="columns")
        slides.to_csv(tmp_path / "slides.csv", index=False)
        for patient in PATIENTS:
            with h5py.File(tmp_path / "features" / f"{patient}.h5", "w") as file:
                file["features"] = np.arange(1, 13, dtype=np.float32).reshape(1, 4, 3) * np.float32(value)
                file["coords"] = np.array([[[0, 0], [512, 0], [0, 512], [512, 512]]])
                file["coords"].attrs["patch_size_level0"] = 512
        content = {
            "name": "small",
            "patients": {"table": "patients.csv"},
            "slides": {"table": "slides.csv", "features": "features", "encoder": "uni"},
            "tasks": {"grade": {"column": "grade"}},
            "splits": {"folds": 2, "validation": 0.3},
        }
        path = tmp_path / "cohort.yaml"
        path.write_text(yaml.safe_dump(content | sections))
        return path

    return write


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"owners": [p.lower() for p in PATIENTS]}, ["nearest: P000 and p000", "differ only in case", "(12)"]),
        ({"owners": [f"P{i}" for i in range(12)]}, ["patients: P000, P001, P002", "nearest: P000 and P0,"]),
        (
            {"names": [f"P{i}" for i in range(12)]},
            ["no feature file", "slides of slides.csv: P0, P1", "nearest: P0 and"],
        ),
        ({"value": np.nan}, ["P000.h5: features must be finite", "(12)"]),
        ({"mpp": None}, ["P000.h5: the pixel size is required", "Declare `mpp` in", "slides.mpp", "(12)"]),
    ],
    ids=["case", "leading zeros", "slide identifiers", "values", "pixel size"],
)
def test_slides_that_are_all_lost_are_an_error_with_the_cause(write, tmp_path, changes, words):
    out = tmp_path / "out"
    with pytest.raises(DataError) as caught:
        prepare(write(**changes), out)
    assert [word for word in words if word not in str(caught.value)] == []
    excluded = pd.read_csv(out / "exclusions.csv")
    assert (excluded["level"] == "slide").sum() == len(PATIENTS)
    assert not (out / "provenance.json").exists()


def test_expression_of_other_people_is_an_error_that_names_both_sides(write, tmp_path):
    values = pd.DataFrame(np.ones((12, 2)), index=[f"{p}-01A" for p in PATIENTS], columns=["EGFR", "CD3D"])
    values.to_csv(tmp_path / "expression.csv", index_label="patient_id")
    path = write(expression={"table": "expression.csv", "unit": "tpm", "orientation": "patients_by_genes"})
    with pytest.raises(DataError, match=r"patients: P000, P001, P002 .*: P000-01A.*nearest: P000 and P000-01A"):
        plan_cohort(read_cohort_file(path))


@pytest.mark.parametrize("listed", [True, False])
def test_a_folder_of_other_files_says_what_it_holds_and_what_is_read(write, tmp_path, listed):
    path = write(**({} if listed else {"slides": {"features": "features"}}))
    for file in (tmp_path / "features").iterdir():
        file.rename(file.with_suffix(".npy"))
    (tmp_path / "features" / "config.json").touch()
    with pytest.raises(
        NothingLeft, match=r"folder features holds 12 \.npy, 1 \.json; features are read from \.h5, \.hdf5"
    ):
        plan_cohort(read_cohort_file(path))


def test_one_pixel_size_for_the_whole_folder(write):
    path = write(slides={"features": "features", "encoder": "uni", "mpp": 0.5})
    assert {slide.mpp for slide in plan_cohort(read_cohort_file(path)).slides} == {0.5}


@pytest.mark.parametrize(("mpp", "words"), [(40, "magnification"), (252, "nanometres"), (0, "0.05"), (-1, "0.05")])
def test_implausible_pixel_sizes_are_questioned(write, mpp, words):
    path = write(slides={"features": "features", "mpp": mpp})
    with pytest.raises(ConfigurationError, match=rf"slides.mpp: must be .*{words}"):
        read_cohort_file(path)


@pytest.mark.parametrize("mpp", ["40", "252", "0", "many"])
def test_implausible_pixel_sizes_of_the_slide_table_name_the_row(write, tmp_path, mpp):
    path = write()
    table = pd.read_csv(tmp_path / "slides.csv", dtype=str)
    table.loc[2, "mpp"] = mpp
    table.to_csv(tmp_path / "slides.csv", index=False)
    with pytest.raises(DataError, match=f"row 4: mpp must be .* Found '{mpp}'"):
        plan_cohort(read_cohort_file(path))


def test_a_measurement_is_no_class(write):
    path = write(tasks={"old": {"column": "age"}})
    with pytest.raises(DataError, match=r"tasks.old: .* Found 12 different numbers among the 12 patients .*`age`"):
        plan_cohort(read_cohort_file(path))


def test_a_class_that_a_fold_cannot_train_or_test_is_named(write):
    plan = plan_cohort(read_cohort_file(write(tasks={"rare": {"column": "rare"}})))
    (warning,) = [text for text in plan.warnings if "class B" in text]
    assert "class B has 1 patient(s), and none to train on in fold" in warning
    assert "class A" not in " ".join(plan.warnings)


def test_warnings_of_folds_count_the_patients_that_remain(write):
    plan = plan_cohort(
        read_cohort_file(write(tasks={"rare": {"column": "rare"}}, splits={"folds": 3, "validation": 0.4}))
    )
    left_out = next(slide for slide in plan.slides if slide.patient_id == PATIENTS[0])
    failures = exclusion_table([("slide", left_out.slide_id, "damaged")])
    assert not [text for text in plan.warnings if "class A" in text]
    rare = plan.patients.assign(rare=["A"] * 3 + ["B"] * 9)
    known = replace(plan, patients=rare)
    before, after = known.warnings, remaining(known, failures).warnings
    assert [any(f"class A has {n} patient(s)" in text for text in said) for n, said in ((3, before), (2, after))] == [
        True,
        True,
    ]


def test_devices_are_checked_before_work(write, tmp_path):
    with pytest.raises(ConfigurationError, match="--device cuda:99"):  # although ready features need none
        prepare(write(), tmp_path / "out", device="cuda:99")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_which_nothing_was_encoded_is_free_for_another_encoder(write, tmp_path):
    cohort_file, out = read_cohort_file(write()), tmp_path / "out"
    preparation._claim(out, cohort_file, "a")
    preparation._claim(out, cohort_file, "b")
    features = out / "wsi" / "20x" / "features_b" / "P000.h5"
    features.parent.mkdir(parents=True)
    features.touch()
    preparation._claim(out, cohort_file, "b")
    with pytest.raises(ConfigurationError, match="Found small with features of b"):
        preparation._claim(out, cohort_file, "c")


def test_drawn_folds_of_which_one_loses_its_patients_are_drawn_anew_and_given_ones_name_the_cause(write, tmp_path):
    plan = plan_cohort(read_cohort_file(write()))
    failed = exclusion_table(("slide", name, "no tissue") for name in plan.folds[0].test)
    left = remaining(plan, failed)
    rest = {*PATIENTS} - {*plan.folds[0].test}
    assert {name for fold in left.folds for name in fold.test} == rest == {*left.patients["patient_id"]}
    assert all(fold.train and fold.validation and fold.test for fold in left.folds)
    assert "folds are drawn anew of the 6 patients that remain" in " ".join(left.warnings)
    one = exclusion_table([("slide", plan.folds[0].test[0], "no tissue")])
    assert remaining(plan, one).folds[1].test == plan.folds[1].test  # others stay
    nearly_all = exclusion_table(("slide", name, "no tissue") for name in PATIENTS[1:])
    with pytest.raises(NothingLeft, match=r"fold \d: .* Commonest reasons: no tissue \(11\)"):
        remaining(plan, nearly_all)
    write_given_folds(tmp_path / "given", plan.folds)
    (tmp_path / "features").rename(tmp_path / "before")
    given = plan_cohort(read_cohort_file(write(splits={"folder": "given"})))
    with pytest.raises(NothingLeft, match=r"fold 0: .* Commonest reasons: no tissue \(6\)") as caught:
        remaining(given, failed)
    assert set(failed["id"]) <= set(caught.value.exclusions["id"])


def test_check_says_which_ready_features_prepare_will_exclude(write, tmp_path, capsys):
    path = write()
    damage(tmp_path / "features" / "P003.h5")
    assert main(["check", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "small (develop): 11 of 12 patients (1 excluded) slides: 11, of 11 patients" in shown
    assert "P003.h5: features must be finite" in shown
    assert main(["prepare", str(path), "--out", str(tmp_path / "out"), "--encoder", "resnet50"]) == 0
    printed = capsys.readouterr()
    assert "Prepared 11 of 12 patients (1 excluded) and 11 slides" in " ".join(printed.out.split())
    assert re.search(r"warning: slide P003 left out: .*P003.h5: features must be finite", printed.err)
    assert "warning: --encoder resnet50 encodes nothing here: the slides come as features of encoder uni" in printed.err
    for name in PATIENTS:
        damage(tmp_path / "features" / f"{name}.h5")
    assert main(["check", str(path)]) == 3
    error = capsys.readouterr().err
    assert "small: a slide that can be used is required" in error
    assert re.search(r"Commonest reason: .*P000.h5: features must be finite.* \(12\)", error)


def test_prepare_ends_with_the_cause_where_all_slides_are_lost(write, tmp_path, capsys):
    path = write(owners=[name.lower() for name in PATIENTS])
    assert main(["prepare", str(path), "--out", str(tmp_path / "out")]) == 3
    shown = capsys.readouterr()
    assert "Next:" not in shown.out
    error = shown.err
    assert error.count("\n") == 1
    assert "(12)" in error
    assert "nearest: P000 and p000" in error
    assert str(tmp_path / "out" / "exclusions.csv") in error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        (
            {"owners": ["P000", *(p.lower() for p in PATIENTS[1:])]},
            ["p001 is not in the cohort; P001 is", "(11, for ex"],
        ),
        ({"names": ["P000", *(f"x{p}" for p in PATIENTS[1:])]}, ["no feature file in", "(11, for example xP001)"]),
    ],
    ids=["whole", "patients", "files"],
)
def test_slides_that_are_nearly_all_lost_are_a_warning_with_cause_and_example(write, changes, words):
    found = read_sources(read_cohort_file(write(**changes)).members[0], []).warnings
    warnings = [text for text in found if "only 1 of 12 patients have slides" in text]
    assert len(warnings) == (words is not None)
    assert all(word in warnings[0] for word in words or ())


def test_expression_that_is_nearly_all_lost_is_a_warning_with_cause_and_example(write):
    path = write(expression={"table": "rna.csv", "unit": "tpm"}, slides=None)
    rna = pd.DataFrame({"case": ["P000", *(p.lower() for p in PATIENTS[1:])], "EGFR": 1.0, "TP53": 2.0})
    rna.to_csv(path.parent / "rna.csv", index=False)
    found = read_sources(read_cohort_file(path).members[0], []).warnings
    (warning,) = [text for text in found if text.startswith("only 1 of 12 patients have expression")]
    assert "its patient is not in the cohort; P001 is, which differs only in case" in warning
    assert "(11, for example p001)" in warning


def test_few_slides_that_can_be_used_are_a_warning(write):
    from subfuse.exclusions import exclusion_table
    from subfuse.preparation.remaining import remaining

    plan = plan_cohort(read_cohort_file(write(splits={"folds": 2, "validation": 0.3})))
    kept = [fold_side[0] for fold_side in (plan.folds[0].train, plan.folds[0].validation, plan.folds[0].test)]
    kept += [plan.folds[1].validation[0], plan.folds[1].train[0]]
    failed = exclusion_table(("slide", name, "no tissue") for name in PATIENTS if name not in kept)
    (warning,) = [text for text in remaining(plan, failed).warnings if "can be used" in text]
    assert f"only {len(set(kept))} of 12 slides can be used. Commonest reason: no tissue (" in warning


def test_one_pixel_size_for_a_folder_through_the_commands(write, tmp_path, capsys):
    path = write(slides={"features": "features", "encoder": "uni", "mpp": 0.5})
    assert main(["prepare", str(path), "--out", str(tmp_path / "out")]) == 0
    assert set(pd.read_csv(tmp_path / "out" / "slides.csv")["mpp"]) == {0.5}


def damage(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["features"][0, 1, 2] = np.nan

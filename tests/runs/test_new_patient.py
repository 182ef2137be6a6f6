"""One patient from files: the same numbers as from a prepared cohort, and the same refusals."""

import json
import shutil
from dataclasses import asdict, replace

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from small_cohort import deal_folds
from subfuse.cli import main
from subfuse.errors import ConfigurationError, DataError
from subfuse.features.encoder import OFFLINE_ENCODER
from subfuse.features.store import read_features, write_features
from subfuse.files import write_sealed_json
from subfuse.preparation.slides.feature_survey import survey_features
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.new_patient import predict_new_patient
from subfuse.runs.run import load_run
from subfuse.slides.source import FeatureSource
from subfuse.slides.tissue import Tiling
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings
from workbook_files import write_xlsx

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 22 patients with age beside ten genes, one of an earlier symbol, and the cohort of all 24."""
    from small_cohort import make_cohort

    cohort = make_cohort.__wrapped__(tmp_path_factory.mktemp("cohort"))(24)
    ages = np.random.default_rng(0).uniform(30, 80, len(cohort)).astype(np.float32)
    with_age = tuple(
        replace(p, expression=None if p.expression is None else p.expression + 10, covariates={"age": float(age)})
        for p, age in zip(cohort, ages, strict=True)
    )
    genes = ("GENE0", "H2AFZ", *cohort.genes[2:])
    gene_sets = {"tumour": genes[:4], "microenvironment": genes[3:9]}
    cohort = replace(cohort, patients=with_age, genes=genes, covariates=("age",), gene_sets=gene_sets, pathways={})
    known = cohort.select([p.patient_id for p in cohort.patients[:22]])
    out = tmp_path_factory.mktemp("run") / "run"
    cross_validate(
        known,
        task="survival",
        models=["concat", "snn"],
        folds=deal_folds(known),
        out=out,
        plan=TrainingPlan(
            training=TrainingSettings(epochs=2, batch_size=8),
            architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=16),
        ),
        allow_inputs=["GENE0"],
    )
    return load_run(out), cohort


def write_pairs(path, cohort, patient, **names):
    values = zip(cohort.genes, patient.expression.tolist(), strict=True)
    rows = [f"{names.get(gene, gene)},{value!r}" for gene, value in values]
    path.write_text("\n".join(["gene,value", *reversed(rows), "EXTRA,1.5"]) + "\n")
    return path


def test_a_sheet_gives_the_prediction_of_a_table(trained, tmp_path):
    run, cohort = trained
    patient = cohort.patients[23]
    table = write_pairs(tmp_path / "rna.csv", cohort, patient)
    header, *rows = (line.split(",") for line in table.read_text().splitlines())
    values = [header, *([gene, float(value)] for gene, value in rows)]
    write_xlsx(tmp_path / "rna.xlsx", {"Notes": [["by hand"]], "One": values})

    found = predict_new_patient(run, expression=tmp_path / "rna.xlsx#One", model="concat")

    expected = predict_new_patient(run, expression=table, model="concat")
    pd.testing.assert_frame_equal(found.predictions, expected.predictions)
    with pytest.raises(ConfigurationError, match=r"absent\.xlsx#One: a file is required"):
        predict_new_patient(run, expression=tmp_path / "absent.xlsx#One", model="concat")


def of_unknown_age(cohort, patient):
    return replace(cohort, patients=(replace(patient, covariates={}),))


def test_files_of_a_patient_give_the_prediction_of_the_prepared_patient(trained, tmp_path, caplog):
    run, cohort = trained
    patient = cohort.patients[23]
    expression = write_pairs(tmp_path / "rna.csv", cohort, patient)

    found = predict_new_patient(run, slides=patient.slides, expression=expression, model="concat")
    said = [text for text in (*found.notes, *caplog.messages) if "unknown for 1 of 1 patients" in text]

    expected = run.predict(of_unknown_age(cohort, patient), model="concat")
    columns = [name for name in expected if name.startswith(("risk", "p_", "survival_", "contribution_"))]
    np.testing.assert_allclose(found.predictions[columns].astype(float), expected[columns].astype(float), atol=1e-5)
    assert found.predictions[["has_slides", "has_expression"]].all(axis=None)
    assert (found.predictions.groupby("task")["fold"].nunique() == 2).all()
    assert len(said) == 1
    assert said[0].startswith("age: unknown")
    assert "covariates are not given by files: use --cohort with a prepared cohort" in found.notes
    assert any(
        "10 genes (1 under another symbol) read as log2_tpm" in note and "1 not used" in note for note in found.notes
    )
    for row in found.summary.itertuples():
        values = expected.loc[expected["task"] == row.task, row.quantity].astype(float)
        assert (row.lowest, row.mean, row.highest) == pytest.approx((values.min(), values.mean(), values.max()))
        assert row.n_models == 2
    assert "risk_percentile" in set(found.summary["quantity"])


def test_genes_are_found_under_earlier_and_later_symbols(trained, tmp_path):
    run, cohort = trained
    patient = cohort.patients[23]
    found = [
        predict_new_patient(
            run, expression=write_pairs(tmp_path / f"{name}.csv", cohort, patient, H2AFZ=name), model="concat"
        )
        for name in ("H2AFZ", "H2AZ1")
    ]
    pd.testing.assert_frame_equal(found[0].predictions, found[1].predictions)
    assert all("10 genes (1 under another symbol) read as" in of_one.notes[0] for of_one in found)


def test_a_file_in_another_unit_says_what_it_needs_and_the_option_converts_it(trained, tmp_path):
    run, cohort = trained
    patient = cohort.patients[23]
    shares = replace(patient, expression=np.exp2(patient.expression.astype(float)) - 1)
    path = write_pairs(tmp_path / "tpm.csv", cohort, shares)
    with pytest.raises(DataError) as caught:
        predict_new_patient(run, expression=path, model="concat")
    message = str(caught.value)
    assert message.startswith(f"{path}, column 2 (value), gene ")
    assert "values without logarithm, as it seems. The unit log2_tpm is required. Name the file's own unit" in message
    assert not [word for word in ("upload", "Declare", "none") if word in message]
    found = predict_new_patient(run, expression=path, unit="tpm", model="concat")
    assert "read as tpm and converted to log2(TPM + 1); 1 not used" in found.notes[0]
    same = predict_new_patient(run, expression=write_pairs(tmp_path / "log.csv", cohort, patient), model="concat")
    np.testing.assert_allclose(found.predictions["risk"], same.predictions["risk"], atol=1e-4)
    assert "read as log2_tpm; 1 not used" in same.notes[0]
    with pytest.raises(ConfigurationError, match=r"--unit must become log2_tpm, .* Found counts"):
        predict_new_patient(run, expression=path, unit="counts", model="concat")


def test_one_modality_is_enough(trained, tmp_path):
    run, cohort = trained
    patient = cohort.patients[22]
    expression = write_pairs(tmp_path / "rna.csv", cohort, patient)
    for files, has_slides in (({"slides": patient.slides}, True), ({"expression": expression}, False)):
        table = predict_new_patient(run, model="concat", **files).predictions
        assert set(table["has_slides"]) == {has_slides}
        assert set(table["has_expression"]) == {not has_slides}


def test_features_of_another_encoder_and_missing_genes_are_refused(trained, tmp_path):
    run, cohort = trained
    patient = cohort.patients[23]
    other = tmp_path / "other.h5"
    write_features(other, replace(read_features(patient.slides[0]), encoder_sha256="1" * 64), tile_px=256)
    with pytest.raises(DataError, match=r"slides of other\.h5 must be encoded by the weights of fake that"):
        predict_new_patient(run, slides=[other], model="concat")
    (tmp_path / "few.csv").write_text("GENE0,1.5\nGENE3,2.5\n")
    with pytest.raises(DataError, match=r"few.csv: all 10 genes of the cohort are required. Missing 8"):
        predict_new_patient(run, expression=tmp_path / "few.csv", model="concat")


def test_features_of_another_width_are_refused_with_both_numbers(trained, tmp_path):
    run, cohort = trained
    stored = read_features(cohort.patients[23].slides[0])
    narrow = replace(stored, features=stored.features[:, :4], encoder_sha256="1" * 64)
    write_features(tmp_path / "narrow.h5", narrow, tile_px=256)
    with pytest.raises(DataError, match=r"slides of narrow\.h5 must have 6 features per patch .* Found 4\."):
        predict_new_patient(run, slides=[tmp_path / "narrow.h5"], model="concat")


def test_patches_wider_than_in_training_are_refused_with_the_file(trained, tmp_path):
    run, cohort = trained
    stored = read_features(cohort.patients[23].slides[0])
    scan = tmp_path / "scan.h5"
    write_features(scan, replace(stored, level0_mpp=stored.level0_mpp * 1.02), tile_px=256)
    assert not [note for note in predict_new_patient(run, slides=[scan], model="concat").notes if "wide" in note]
    write_features(scan, replace(stored, level0_mpp=stored.level0_mpp * 4), tile_px=256)
    with pytest.raises(DataError, match=r"slides of scan\.h5 must .* as wide as in training, 128 µm\. Found 512 µm"):
        predict_new_patient(run, slides=[scan], model="concat")


@pytest.mark.parametrize("factor", [1.0, 50.0, 0.01])
def test_features_of_another_scale_are_said(trained, tmp_path, factor):
    run, cohort = trained
    stored = read_features(cohort.patients[23].slides[0])
    features = np.tile(stored.features, (3, 1))[:12] * np.float16(factor)
    coords = np.stack([np.arange(12) * 256, np.zeros(12, int)], axis=1).astype(np.int32)
    scaled = replace(stored, features=features, coords=coords, slide_width_px=12 * 256, slide_height_px=256)
    write_features(tmp_path / "scan.h5", scaled, tile_px=256)
    notes = predict_new_patient(run, slides=[tmp_path / "scan.h5"], model="concat").notes
    said = [note for note in notes if "another scale" in note]
    assert len(said) == (factor != 1.0)
    assert all("slides of scan.h5: features of 1 of 1 patients" in note for note in said)


def test_values_far_from_all_of_training_are_said_with_the_file(trained, tmp_path):
    run, cohort = trained
    patient = cohort.patients[23]
    far = write_pairs(tmp_path / "far.csv", cohort, replace(patient, expression=patient.expression + 8.5))
    said = [note for note in predict_new_patient(run, expression=far, model="concat").notes if "most genes" in note]
    assert len(said) == 1
    assert said[0].startswith("expression of far.csv: most genes of 1 of 1 patients")


def test_an_explanation_says_what_a_prediction_says(trained, tmp_path, caplog):
    run, cohort = trained
    far = replace(cohort.patients[23], expression=cohort.patients[23].expression + 8.5, slides=())
    run.explain(replace(cohort, patients=(far,)), far.patient_id, tmp_path / "out", model="snn")
    assert sum("most genes of 1 of 1 patients" in message for message in caplog.messages) == 1
    caplog.clear()
    run.explain(replace(cohort, patients=(replace(far, patient_id="new"),)), "new", tmp_path / "new", model="snn")
    one_of_all = "new: of the run's models, that of fold 0 is explained"
    assert sum(message.startswith(one_of_all) for message in caplog.messages) == 1


def test_files_that_the_model_does_not_read_are_said(trained, tmp_path):
    run, cohort = trained
    patient = cohort.patients[23]
    with pytest.raises(ConfigurationError, match=r"snn reads expression\. Found only slides\. Give --expression"):
        predict_new_patient(run, slides=patient.slides, model="snn")
    expression = write_pairs(tmp_path / "rna.csv", cohort, patient)
    found = predict_new_patient(run, slides=patient.slides, expression=expression, model="snn")
    assert "slides are not used: snn reads expression" in found.notes


def test_wrong_use_is_named(trained, tmp_path):
    run, cohort = trained
    features = cohort.patients[23].slides[0]
    with pytest.raises(ConfigurationError, match="a slide or an expression file is required"):
        predict_new_patient(run, model="concat")
    with pytest.raises(ConfigurationError, match=r"gone.svs: a file is required"):
        predict_new_patient(run, slides=[tmp_path / "gone.svs"], model="concat")
    with pytest.raises(ConfigurationError, match="different files are required"):
        predict_new_patient(run, slides=[features, features], model="concat")
    (tmp_path / "slide.svs").touch()
    with pytest.raises(ConfigurationError, match="Found both"):
        predict_new_patient(run, slides=[features, tmp_path / "slide.svs"], model="concat")
    with pytest.raises(ConfigurationError, match="Extract features as for the run"):
        predict_new_patient(run, slides=[tmp_path / "slide.svs"], model="concat")


def write_bare_features(path, stored):
    """Features as TRIDENT writes them: neither encoder nor pixel size."""
    with h5py.File(path, "w") as file:
        file["features"] = stored.features
        coords = file.create_dataset("coords", data=stored.coords)
        coords.attrs.update(patch_size_level0=256, level0_magnification=20, target_magnification=20, patch_size=256)
    return path


def with_changes(run, folder, *, encoder_sha256=None, provenance=None):
    """A copy of the run whose models know other weights of their encoder, or whose cohort was prepared otherwise."""
    shutil.copytree(run.folder, folder)
    for path in folder.rglob("model.json"):
        described = json.loads(path.read_text())
        del described["sha256"]
        write_sealed_json(path, described | {"encoder_sha256": encoder_sha256 or described["encoder_sha256"]})
    if provenance is not None:
        (folder / "cohort").mkdir(exist_ok=True)
        (folder / "cohort" / "provenance.json").write_text(json.dumps(provenance))
    return load_run(folder)


def test_the_pixel_size_of_features_is_declared_where_the_file_lacks_it(trained, tmp_path):
    run, cohort = trained
    patient = cohort.patients[23]
    bare = write_bare_features(tmp_path / "bare.h5", read_features(patient.slides[0]))
    with pytest.raises(DataError, match=r"bare\.h5: the pixel size is required .* --mpp"):
        predict_new_patient(run, slides=[bare], model="concat")
    with pytest.raises(
        DataError, match="must be encoded by the weights of fake"
    ):  # its weights are known, and not in this file
        predict_new_patient(run, slides=[bare], mpp=0.5, model="concat")

    declared = survey_features([FeatureSource("bare", "p", bare, 0.5, encoder="fake")]).encoder_sha256
    run = with_changes(run, tmp_path / "run", encoder_sha256=declared)
    found = predict_new_patient(run, slides=[bare], mpp=0.5, model="concat")
    expected = run.predict(replace(cohort, patients=(replace(patient, expression=None),), encoder_sha256=declared),
                           model="concat")  # fmt: skip
    np.testing.assert_allclose(found.predictions["risk"], expected["risk"], atol=1e-6)
    assert "taken to be fake, as in training" in found.notes[0]


def test_the_pixel_size_of_a_slide_is_declared_where_the_file_lacks_it(trained, tmp_path, capsys):
    """The whole way of the command; its last word is that this encoder is not that of the run's invented features."""
    prepared = {"requested_encoder": OFFLINE_ENCODER, "tiling": asdict(Tiling())}
    run = with_changes(trained[0], tmp_path / "run", provenance=prepared)
    tissue = np.random.default_rng(0).normal((200, 120, 170), 25, (300, 300, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(tissue).save(tmp_path / "new.png")
    command = ["predict", str(run.folder), "--slide", str(tmp_path / "new.png"), "--model", "concat"]
    for options, code, words in (
        ([], 3, "the pixel size is required (µm per pixel). Found none in the file"),
        (
            ["--mpp", "50"],
            2,
            "--mpp must be between 0.05 and 10 µm per pixel (50 looks like nanometres, that is 0.05 µm). Found 50",
        ),
        (["--mpp", "0.5"], 3, "must be encoded by fake as in training. Found efficientnet-lite0"),
        (["--mpp", "-1"], 2, "--mpp must be between 0.05 and 10 µm per pixel. Found -1"),
        (["--unit", "tpm"], 2, "--unit tpm is that of an expression file. Found none"),
        (["--mpp", "0.5", "--cohort", "elsewhere"], 2, "either --cohort, or files of one patient"),
    ):
        assert main([*command, *options, "--out", str(tmp_path / "new.csv")]) == code
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("subfuse: error: ")]
        assert words in line
        assert options or "Declare --mpp" in " ".join(line.replace("declare", "Declare").split())
        assert "slide table" not in line
        assert not (tmp_path / "new.csv").exists()


def test_a_slide_of_the_runs_own_patients_is_said(trained, tmp_path):
    run, cohort = trained
    patient = cohort.patients[23]
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    (folder / "cohort").mkdir(exist_ok=True)
    own = [path.name.removesuffix(".h5") for path in patient.slides]
    table = pd.DataFrame({"slide_id": own, "patient_id": patient.patient_id, "n_patches": 9})
    for known, is_told in ((table, True), (table.assign(slide_id="other"), False)):
        known.to_csv(folder / "cohort" / "slides.csv", index=False)
        notes = predict_new_patient(load_run(folder), slides=patient.slides, model="concat").notes
        assert any("is of the run's own cohort" in note and patient.patient_id in note for note in notes) == is_told

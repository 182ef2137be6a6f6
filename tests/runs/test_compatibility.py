"""Who can be predicted by a trained model, and what is said of those who are otherwise than its patients."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_fitted_model import fit

from small_cohort import with_covariates
from subfuse.errors import DataError
from subfuse.expression.units import ShareBasis
from subfuse.runs.compatibility import check_compatible, check_patches
from subfuse.slides.stain import recorded_stain
from subfuse.training.stored_model import load_fitted


def test_gene_order_does_not_matter_and_a_missing_gene_is_named(make_cohort):
    cohort = make_cohort()
    fitted = fit(cohort)
    order = np.random.default_rng(0).permutation(len(cohort.genes))
    shuffled = replace(
        cohort,
        genes=tuple(cohort.genes[i] for i in order),
        patients=tuple(p if p.expression is None else replace(p, expression=p.expression[order]) for p in cohort),
    )
    assert check_compatible(fitted, shuffled) == []
    aligned = fitted.align(shuffled)
    pd.testing.assert_frame_equal(fitted.predict(aligned.patients), fitted.predict(cohort.patients))
    with pytest.raises(DataError, match="Missing: GENE9"):
        check_compatible(fitted, replace(cohort, genes=cohort.genes[:9]))
    with pytest.raises(DataError, match=r"Missing: GENE0, .* differ only in case \(`gene0` for GENE0, "):
        check_compatible(fitted, replace(cohort, genes=tuple(map(str.lower, cohort.genes))))


def shares_over(cohort, part, *further):
    """The cohort with shares of a million, of which its genes have a part and further genes the rest."""

    def shares(values):
        positive = np.exp2(values.astype(float))
        return np.log2(positive / positive.sum() * 1e6 * part + 1).astype(np.float32)

    patients = tuple(p if p.expression is None else replace(p, expression=shares(p.expression)) for p in cohort)
    return replace(cohort, patients=patients, expression_basis=ShareBasis.of([*cohort.genes, *further]))


def test_shares_over_more_genes_are_taken_as_those_of_training(make_cohort, tmp_path):
    cohort = make_cohort()
    fit(shares_over(cohort, 1)).save(tmp_path)
    fitted = load_fitted(tmp_path)
    same, more = shares_over(cohort, 1), shares_over(cohort, 0.1, *(f"OTHER{i}" for i in range(90)))
    assert check_compatible(fitted, same) == []
    [note] = check_compatible(fitted, more)
    assert "shares over 100 genes: taken as shares over the 10 genes of training" in note
    found, expected = (fitted.predict(fitted.align(c).patients) for c in (more, same))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-3)


def test_shares_over_other_genes_are_refused_with_both_numbers(make_cohort):
    cohort = make_cohort()
    fitted = fit(shares_over(cohort, 0.1, *(f"OTHER{i}" for i in range(90))))
    with pytest.raises(DataError, match=r"shares over the 100 genes of training\. Found shares over 10 genes"):
        check_compatible(fitted, shares_over(cohort, 1))
    close = shares_over(cohort, 0.1, *(f"OTHER{i}" for i in range(88)))
    assert "98 genes, not exactly the 100 genes" in check_compatible(fitted, close)[0]


def named(cohort, **names):
    def rename(genes):
        return tuple(names.get(gene, gene) for gene in genes)

    sets = {kind: {k: rename(v) for k, v in getattr(cohort, kind).items()} for kind in ("gene_sets", "pathways")}
    return replace(cohort, genes=rename(cohort.genes), **sets)


def test_genes_are_matched_by_the_approved_symbols_behind_their_names(make_cohort):
    """The model knows GENE3 and GENE7 by symbols that a newer cohort has replaced, one of them by declaration."""
    cohort = make_cohort()
    model = fit(named(cohort, GENE3="H2AFZ", GENE7="MYOLD"))
    newer = replace(named(cohort, GENE3="H2AZ1", GENE7="MYNEW"), gene_aliases={"MYOLD": "MYNEW"})
    order = np.random.default_rng(0).permutation(len(cohort.genes))
    newer = replace(
        newer,
        genes=tuple(newer.genes[i] for i in order),
        patients=tuple(p if p.expression is None else replace(p, expression=p.expression[order]) for p in newer),
    )
    assert check_compatible(model, newer) == [
        "2 genes of the model are in the cohort under another symbol: H2AFZ as H2AZ1, MYOLD as MYNEW"
    ]
    pd.testing.assert_frame_equal(model.predict(model.align(newer).patients), model.predict(cohort.patients))
    with pytest.raises(DataError, match=r"Missing: MYOLD\. Name later symbols of these in expression\.aliases"):
        check_compatible(model, replace(newer, gene_aliases={}))


def test_a_cohort_without_a_covariate_of_the_model_is_refused_by_its_name(make_cohort):
    fitted = fit(with_covariates(make_cohort()))
    with pytest.raises(DataError, match=r"Missing: age, gender\. Map these columns"):
        check_compatible(fitted, make_cohort())


def test_patients_of_one_sex_are_predicted_as_among_others(make_cohort):
    cohort = with_covariates(make_cohort())
    fitted = fit(cohort, "clinical")
    males = [patient for patient in cohort if patient.covariates.get("gender") == "Male"]
    of_one_sex = replace(cohort, patients=tuple(males), covariates=("age", "gender"))  # as an external cohort declares

    assert [note for note in check_compatible(fitted, of_one_sex) if "gender" in note] == []
    together = fitted.predict(cohort.patients).set_index("patient_id").loc[[p.patient_id for p in males]]
    alone = fitted.predict(fitted.align(of_one_sex).patients).set_index("patient_id")
    pd.testing.assert_frame_equal(alone, together)


def test_unknown_and_unseen_covariates_are_said_and_taken_as_average(make_cohort):
    cohort = with_covariates(make_cohort())
    fitted = fit(cohort, "clinical")
    variants = [{"age": "50", "gender": "diverse"}, {"age": "50"}, {"gender": "diverse"}]
    new = replace(cohort, patients=tuple(replace(p, covariates=v) for p, v in zip(cohort, variants, strict=False)))

    notes = check_compatible(fitted, new)
    assert "gender: diverse never occurred in training, which had female, male; taken as unknown for 2 of 3" in notes[2]
    assert notes[2].endswith("If one means a word of training, write it so in the clinical table and prepare it again")
    assert notes[0] == (
        f"age: unknown for 1 of 3 patients ({cohort.patients[2].patient_id}), taken as that of an average training "
        "patient. What is known belongs into the clinical table of a cohort"
    )
    risk = fitted.predict(new.patients)["risk"]
    assert risk[0] == risk[1]
    assert np.isnan(risk[2])  # nothing is known


def test_a_word_where_the_model_reads_a_number_names_cohort_and_patient(make_cohort):
    cohort = with_covariates(make_cohort())
    fitted = fit(cohort, "clinical")
    words = replace(cohort.patients[5], covariates={"age": "61 years"})
    new = replace(cohort, name="clinic", patients=(cohort.patients[0], words))
    with pytest.raises(DataError, match=f"cohort 'clinic', .*age .* Found '61 years' for {words.patient_id}"):
        check_compatible(fitted, new)


def test_the_clinical_model_predicts_whose_covariates_are_known_and_knows_no_gene(make_cohort):
    cohort = with_covariates(make_cohort())
    fitted = fit(cohort, "clinical")
    bare = [replace(patient, slides=(), expression=None) for patient in cohort]
    pd.testing.assert_frame_equal(fitted.predict(bare), fitted.predict(cohort.patients))
    known = [bool(patient.covariates) for patient in cohort]
    assert fitted.predict(bare)["risk"].notna().tolist() == known
    assert (fitted.genes, fitted.covariates) == ((), ("age", "gender=male"))
    assert check_compatible(fitted, replace(cohort, expression_unit="zscore")) is not None  # it reads no expression


def test_other_units_and_encoders_are_refused_by_name(make_cohort):
    cohort = make_cohort()
    fitted = fit(cohort)
    with pytest.raises(DataError, match=r"scale of training, log2_tpm\. Found zscore\. .* \(fpkm, .*, tpm, "):
        check_compatible(fitted, replace(cohort, expression_unit="zscore"))
    with pytest.raises(DataError, match=r"encoded by fake as in training\. Found other"):
        check_compatible(fitted, replace(cohort, encoder="other", encoder_sha256="1" * 64))
    with pytest.raises(DataError, match=r"must have 6 features per patch as in training\. Found 4"):
        check_compatible(fitted, replace(cohort, encoder_sha256="1" * 64, patch_dim=4))
    with pytest.raises(DataError, match=r"weights of fake that training had\. Found features that record other"):
        check_compatible(fitted, replace(cohort, encoder_sha256="1" * 64))


def test_another_name_of_the_encoder_and_another_scale_have_their_remedy(make_cohort):
    cohort = make_cohort()
    fitted = fit(replace(cohort, encoder="uni_v2"))
    other = replace(cohort, encoder="uni2", encoder_sha256="1" * 64)
    (note,) = [text for text in check_compatible(fitted, other) if "encoder" in text]
    assert "are of encoder uni2, another name of uni_v2 of training" in note
    of_files = replace(other, given_files={"features": ("a.h5", "b.h5")})
    (note,) = [text for text in check_compatible(fitted, of_files) if "encoder" in text]
    assert note.startswith("features of a.h5, b.h5 are of encoder uni2, another name")
    with pytest.raises(DataError, match=r"encoded by uni_v2 as in training\. Found uni\."):
        check_compatible(fitted, replace(other, encoder="uni"))
    with pytest.raises(
        DataError, match=r"Found cohort_zscore\. Leave `standardise` out of its cohort file, or prepare"
    ):
        check_compatible(fitted, replace(cohort, expression_unit="cohort_zscore"))
    within = fit(replace(cohort, expression_unit="cohort_zscore"))
    with pytest.raises(
        DataError, match=r"cohort_zscore\. Found log2_tpm\. Declare `standardise: cohort` in `expression`"
    ):
        check_compatible(within, cohort)


def shifted(cohort, change, patients=()):
    """The cohort with changed values of some patients, or of all."""
    changed = tuple(
        p if p.expression is None or p.patient_id not in (patients or {p.patient_id})
        else replace(p, expression=change(p.expression).astype(np.float32))
        for p in cohort
    )  # fmt: skip
    return replace(cohort, patients=changed)


def test_patients_of_another_unit_are_named_and_ordinary_ones_never(make_cohort):
    cohort = make_cohort(80)
    trained = cohort.select([p.patient_id for p in cohort.patients[:24]])
    new = cohort.select([p.patient_id for p in cohort.patients[24:]])
    fitted = fit(trained)
    assert check_compatible(fitted, new) == check_compatible(fitted, trained) == []
    assert check_compatible(fitted, shifted(new, lambda values: values * 1.5 + 0.5)) == []  # a batch effect
    [note] = check_compatible(fitted, shifted(new, lambda values: values + 8.5, patients={"P030", "P041"}))
    assert note.startswith("expression of cohort 'small': most genes of 2 of 56 patients (P030, P041) lie more than 3")
    assert "above the mean of training" in note
    assert "Another unit is likely: check the declared one" in note
    assert " below the mean" in check_compatible(fitted, shifted(new, lambda values: values - 8.5))[0]
    assert " away from the mean" in check_compatible(fitted, shifted(new, lambda values: values * 100))[0]


def test_shares_over_a_panel_are_told_from_those_of_a_transcriptome(make_cohort):
    cohort = make_cohort()
    panel = replace(shifted(cohort, lambda values: values + 8.5), expression_basis=ShareBasis.of(cohort.genes))
    [note] = check_compatible(fit(cohort), panel)
    assert "shares of a million over 10 genes, those of training over others: give all genes" in note
    assert fit(cohort).align(panel) is panel  # shares of unknown sums are taken as they are


def test_slides_are_ignored_aloud_when_training_had_none(make_cohort):
    cohort = make_cohort()
    without = replace(cohort, patients=tuple(replace(p, slides=()) for p in cohort if p.expression is not None))
    fitted = fit(without)
    assert check_compatible(fitted, cohort) == ["no training patient had slides: slides are ignored"]
    assert not fitted.predict(cohort.patients)["has_slides"].any()
    assert check_compatible(fit(cohort, model="snn"), cohort) == []  # it reads none by design


def test_patches_of_another_tiling_than_in_training_are_refused(make_cohort):
    cohort = make_cohort()
    fitted = fit(cohort)
    trained = {"tile_px": 256, "mpp": 0.5, "overlap_px": 0, "min_tissue_fraction": 0.25}
    for tiling in (None, dict(reversed(trained.items()))):
        check_patches([fitted], {"tiling": trained}, replace(cohort, tiling=tiling))
    for name, value in (("tile_px", 512), ("mpp", 0.25), ("overlap_px", 64)):
        other = replace(cohort, tiling=trained | {name: value})
        with pytest.raises(DataError, match=r"`tiling: \{mpp: 0.5, tile_px: 256, overlap_px: 0\}` in `slides`"):
            check_patches([fitted], {"tiling": trained}, other)
        check_patches([fitted], {}, other)  # features of another tool
        check_patches([], {"tiling": trained}, other)  # models that read no slides
        check_patches(
            [fitted], {"tiling": trained}, replace(other, patients=tuple(replace(p, slides=()) for p in other))
        )


def test_stain_that_was_normalised_otherwise_is_refused_with_what_to_declare(make_cohort):
    trained = {"tiling": {"tile_px": 256, "mpp": 0.5, "overlap_px": 0}}
    cohort = replace(make_cohort(), tiling=trained["tiling"])
    fitted = fit(cohort)
    normalised = replace(cohort, stain=recorded_stain("macenko"))
    check_patches([fitted], trained, cohort)
    check_patches([fitted], trained | {"stain": recorded_stain("macenko")}, normalised)
    with pytest.raises(DataError, match=r"as in training, none\. Found macenko\. Declare `stain: none`"):
        check_patches([fitted], trained, normalised)
    with pytest.raises(DataError, match=r"as in training, reinhard\. Found none\. Declare `stain: reinhard`"):
        check_patches([fitted], trained | {"stain": recorded_stain("reinhard")}, cohort)


def test_patches_that_are_all_of_another_width_are_refused_and_some_are_said(make_cohort):
    cohort = make_cohort()
    paths = [path for patient in cohort for path in patient.slides]
    fitted = fit(replace(cohort, patch_um=dict.fromkeys(paths, 128.0)))
    with pytest.raises(DataError, match=r"as wide as in training, 128 µm\. Found 256 µm: .* correct mpp"):
        check_compatible(fitted, replace(cohort, patch_um=dict.fromkeys(paths, 256.0)))
    [note] = check_compatible(fitted, replace(cohort, patch_um=dict.fromkeys(paths, 128.0) | {paths[0]: 256.0}))
    assert "patches of 1 of " in note
    assert "are 256 µm wide, those of training 128 µm" in note
    assert check_compatible(fitted, replace(cohort, patch_um={})) == []

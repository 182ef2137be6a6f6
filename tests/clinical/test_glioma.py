import pandas as pd
import pytest

from clinical_sections import patients_section
from subfuse.clinical.glioma import (
    DERIVED_COLUMNS,
    WHO2021_CLASSES,
    GliomaMarkers,
    derive_diagnosis,
    is_adult_diffuse_glioma,
    read_cdkn2a,
    read_codeletion,
    read_grade,
    read_idh,
    who2021_diagnosis,
    who2021_subtype,
)
from subfuse.clinical.reading import read_clinical
from subfuse.clinical.source import DiagnosisRule
from subfuse.errors import ConfigurationError, DataError

NONCODEL = {"is_idh_mutant": True, "is_codeleted": False}


@pytest.mark.parametrize(
    ("markers", "homozygous", "any_loss", "basis"),
    [
        ({"is_idh_mutant": False}, "GBM_IDHwt", "GBM_IDHwt", "IDH-wildtype"),
        ({"is_idh_mutant": False, "grade": 2, "is_codeleted": True}, "GBM_IDHwt", "GBM_IDHwt", "IDH-wildtype"),
        ({"is_idh_mutant": True, "is_codeleted": True, "grade": 4}, "Oligo_codel", "Oligo_codel", "1p/19q codeleted"),
        (NONCODEL | {"grade": 4}, "Astro_G4", "Astro_G4", "grade 4"),
        (NONCODEL | {"histology": "Glioblastoma"}, "Astro_G4", "Astro_G4", "histology of glioblastoma"),
        (
            NONCODEL | {"histology": "Glioblastoma", "cdkn2a": "none", "grade": 3},
            "Astro_G2-3",
            "Astro_G2-3",
            "grade 3,",
        ),
        (NONCODEL | {"histology": "Glioblastoma", "grade": 2}, None, None, "CDKN2A is missing"),
        (NONCODEL | {"histology": "Astrocytoma"}, None, None, "CDKN2A is missing"),
        (NONCODEL | {"cdkn2a": "homozygous"}, "Astro_G4", "Astro_G4", "CDKN2A homozygous deletion"),
        (NONCODEL | {"cdkn2a": "hemizygous", "grade": 3}, "Astro_G2-3", "Astro_G4", "hemizygous deletion"),
        (NONCODEL | {"cdkn2a": "hemizygous"}, None, "Astro_G4", ""),
        (NONCODEL | {"cdkn2a": "none", "grade": 2}, "Astro_G2-3", "Astro_G2-3", "grade 2, CDKN2A not deleted"),
        ({}, None, None, "unknown: IDH is missing"),
        ({"is_codeleted": True, "cdkn2a": "none", "grade": 2}, None, None, "unknown: IDH is missing"),
        ({"is_idh_mutant": True, "grade": 4}, None, None, "unknown: IDH-mutant, 1p/19q is missing"),
        (NONCODEL | {"grade": 3}, None, None, "CDKN2A is missing"),
        (NONCODEL | {"cdkn2a": "none"}, None, None, "grade is missing"),
        (NONCODEL | {"cdkn2a": "none", "grade": 1}, None, None, "grade 1"),
        (
            {"is_idh_mutant": False, "histology": "Pilocytic astrocytoma"},
            None,
            None,
            "not an adult-type diffuse glioma",
        ),
    ],
)
def test_who2021(markers, homozygous, any_loss, basis):
    given = GliomaMarkers(**markers)
    assert who2021_diagnosis(given)[0] == homozygous
    assert who2021_diagnosis(given, cdkn2a="any_loss")[0] == any_loss
    for rule in ("homozygous", "any_loss"):
        label, reason = who2021_diagnosis(given, cdkn2a=rule)
        assert basis in reason
        assert (label is None) == reason.startswith("unknown: ")


@pytest.mark.parametrize(
    ("markers", "subtype"),
    [
        (GliomaMarkers(is_idh_mutant=False), "glioblastoma"),
        (GliomaMarkers(is_idh_mutant=True, is_codeleted=False), "astrocytoma"),
        (GliomaMarkers(is_idh_mutant=True, is_codeleted=True), "oligodendroglioma"),
        (GliomaMarkers(is_idh_mutant=True), None),
        (GliomaMarkers(), None),
        (GliomaMarkers(is_idh_mutant=False, histology="Medulloblastoma"), None),
    ],
)
def test_subtype_needs_only_idh_and_1p19q(markers, subtype):
    assert who2021_subtype(markers) == subtype


@pytest.mark.parametrize(
    ("read", "words", "value"),
    [
        (read_idh, ["Mutant", "IDHmut", "IDH1 R132H", "IDH2-R172K", "LGG_IDHmut-non-codel", "mutated"], True),
        (read_idh, ["WT", "IDHwt", "wild type", "IDH-wildtype", "GBM_IDHwt"], False),
        (read_codeletion, ["codel", "Codeleted", "1p/19q co-deleted", "IDHmut-codel", "yes", "1"], True),
        (read_codeletion, ["non-codel", "IDHmut-non-codel", "intact", "not codeleted", "No codeletion", "0"], False),
        (read_codeletion, ["IDHwt", "GBM_IDHwt"], None),
        (read_cdkn2a, ["-2", "-2.0", "Homozygous deletion", "HOMDEL", "Deep Deletion"], "homozygous"),
        (read_cdkn2a, ["-1", "-1.0", "hemizygous", "shallow deletion", "hetloss"], "hemizygous"),
        (read_cdkn2a, ["0", "1.0", "2", "diploid", "intact", "Not deleted", "gain"], "none"),
        (read_grade, ["G3", "Grade III", "WHO grade 3", "3", "3.0", "iii", "g3"], 3),
        (read_grade, ["IV", "G4", "4"], 4),
        (read_grade, ["II", "G2"], 2),
        (read_grade, ["I", "Grade 1"], 1),
        (read_grade, ["GX", "GB"], None),
    ],
)
def test_words_of_tables(read, words, value):
    assert [read(word) for word in words] == [value] * len(words)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (read_idh, ["1", "positive", "not mutated", "R132H negative", "wildtype R132H", "no mutation"]),
        (read_codeletion, ["1p loss only", "maybe", "codeletion neg."]),
        (read_cdkn2a, ["deleted", "loss", "-3", "0.5", "nan"]),
        (read_grade, ["high", "G2/G3", "5", "V", "23"]),
    ],
)
def test_words_with_two_meanings_are_not_guessed(read, words):
    for word in words:
        with pytest.raises(ValueError, match="must be"):
            read(word)


def test_histologies():
    diffuse = ["Glioblastoma", "Astrocytoma, anaplastic", "Oligodendroglioma, NOS", "Mixed glioma", "oligoastrocytoma"]
    others = ["Pilocytic astrocytoma", "Ependymoma", "Ganglioglioma", "Pleomorphic xanthoastrocytoma", "Meningioma"]
    assert all(map(is_adult_diffuse_glioma, diffuse))
    assert not any(map(is_adult_diffuse_glioma, others))


# --- tables ----------------------------------------------------------------------------------------------------------

PATIENTS = pd.DataFrame(
    {
        "patient_id": list("abcde"),
        "idh": ["WT", "Mutant", "Mutant", None, "Mutant"],
        "codel": [None, "codel", "non-codel", "codel", "non-codel"],
        "cdkn2a": ["-2", "0", "-1", None, None],
        "grade": ["G4", "G2", "G3", "G2", "G2"],
    }
)


def rule(**options) -> DiagnosisRule:
    return DiagnosisRule.model_validate({"rule": "who2021", "columns": {"codeletion_1p19q": "codel"}, **options})


def test_columns_are_derived_with_their_reason():
    table, notes = derive_diagnosis(PATIENTS, rule())
    assert table["diagnosis"].tolist() == ["GBM_IDHwt", "Oligo_codel", "Astro_G2-3", None, None]
    assert table["subtype"].tolist() == ["glioblastoma", "oligodendroglioma", "astrocytoma", None, "astrocytoma"]
    assert table["diagnosis_basis"].str.startswith("unknown").tolist() == [False, False, False, True, True]
    assert "GBM_IDHwt: 1, Astro_G4: 0, Astro_G2-3: 1, Oligo_codel: 1; unknown for 2" in notes[0]
    assert "IDH is missing (1)" in notes[0]
    any_loss, _ = derive_diagnosis(PATIENTS, rule(cdkn2a="any_loss"))
    assert any_loss["diagnosis"].tolist() == ["GBM_IDHwt", "Oligo_codel", "Astro_G4", None, None]
    assert set(table["diagnosis"].dropna()) <= set(WHO2021_CLASSES)
    assert list(table.columns[-3:]) == list(DERIVED_COLUMNS)


def test_absent_columns_leave_patients_unknown():
    table, _ = derive_diagnosis(PATIENTS.drop(columns=["cdkn2a", "grade"]), rule())
    assert table["diagnosis"].tolist() == ["GBM_IDHwt", "Oligo_codel", None, None, None]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"diagnosis": "x"}, ConfigurationError, "diagnosis would be derived but is a column"),
        ({"idh": "positive"}, DataError, r"column idh: IDH must be wildtype .* Found positive"),
        ({"cdkn2a": "loss"}, DataError, r"column cdkn2a: CDKN2A must be .* Found loss"),
    ],
)
def test_bad_tables(change, error, message):
    with pytest.raises(error, match=message):
        derive_diagnosis(PATIENTS.assign(**change), rule())


def test_bad_columns():
    with pytest.raises(ConfigurationError, match=r"columns\.codeletion_1p19q: 'codel' must be a column"):
        derive_diagnosis(PATIENTS.drop(columns="codel"), rule())
    with pytest.raises(ConfigurationError, match="a column `idh` is required"):
        derive_diagnosis(PATIENTS.drop(columns="idh"), rule())


@pytest.mark.parametrize("absent", ["codel", "idh"])
def test_of_many_columns_the_first_twenty_are_named(absent):
    many = PATIENTS.drop(columns=absent).assign(**{f"column{number:02d}": None for number in range(30)})
    with pytest.raises(ConfigurationError) as caught:
        derive_diagnosis(many, rule())
    assert "column15" in str(caught.value)
    assert "column16" not in str(caught.value)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("deletion", "counts"), [("homozygous", (173, 18, 219, 159)), ("any_loss", (173, 84, 153, 159))]
)
def test_the_published_labels_are_derived_patient_by_patient(real_data, deletion, counts):
    path = real_data / "tcga_gbmlgg" / "labels.csv"
    columns = {"patient_id": "case_id", "idh": "idh", "codel": "codel_1p19q", "cdkn2a": "cdkn2a_gistic"}
    section = patients_section(
        table=path,
        columns=columns | {"grade": "grade", "histology": "histology"},
        derive={"diagnosis": rule(cdkn2a=deletion).model_dump()},
    )
    derived = read_clinical(section).patients.set_index("patient_id")["diagnosis"]
    published = pd.read_csv(path, index_col="case_id")[f"who2021_cdkn2a_{deletion}"]
    assert tuple((derived == name).sum() for name in WHO2021_CLASSES) == counts
    pd.testing.assert_series_equal(derived, published.sort_index(), check_names=False, check_dtype=False)

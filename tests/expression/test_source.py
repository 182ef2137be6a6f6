"""`expression` and `gene_sets` of a cohort file: of one source, with the keys of that source alone."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from expression_sections import expression_section
from subfuse.expression.source import (
    CbioportalMatrix,
    ExpressionSection,
    GdcStarFolder,
    GeneSetSource,
    H5adMatrix,
    IvygapFolder,
    PlainMatrix,
    XenaMatrix,
)

KEYS = {
    PlainMatrix: {"table": "e.csv", "unit": "log2_fpkm_001", "orientation": "genes_by_patients"},
    CbioportalMatrix: {"format": "cbioportal", "table": "data_mrna.txt", "sample_sheet": "samples.txt"},
    XenaMatrix: {"format": "xena", "table": "HiSeqV2.gz", "unit": "log2_tpm"},
    H5adMatrix: {"format": "h5ad", "table": "e.h5ad", "patient_column": "case", "layer": "raw"},
    GdcStarFolder: {"format": "gdc_star", "folder": "star", "unit": "tpm", "metadata": "cart.json"},
    IvygapFolder: {"format": "ivygap", "folder": "ivy"},
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_source_is_of_its_format_and_read_back_from_what_is_written(kind):
    section = expression_section(**KEYS[kind], exclude=["XIST"])
    assert type(section) is kind
    assert section.place == Path(KEYS[kind].get("table") or KEYS[kind]["folder"])
    again = TypeAdapter(ExpressionSection).validate_python(section.model_dump(mode="json", exclude_none=True))
    assert again == section


@pytest.mark.parametrize(("kind", "key", "value"), [
    (PlainMatrix, "layer", "raw"), (CbioportalMatrix, "orientation", "genes_by_patients"), (XenaMatrix, "layer", "raw"),
    (H5adMatrix, "folder", "f"), (GdcStarFolder, "table", "t"), (IvygapFolder, "metadata", "m.json"),
])  # fmt: skip
def test_a_key_of_another_source_is_refused_by_its_name(kind, key, value):
    with pytest.raises(ValidationError, match=key):
        expression_section(**KEYS[kind], **{key: value})


@pytest.mark.parametrize("listings", [{}, {"sample_sheet": "s.tsv", "metadata": "m.json"}])
def test_star_files_are_listed_once(listings):
    with pytest.raises(ValidationError, match="takes a `sample_sheet` or a `metadata`"):
        expression_section(format="gdc_star", folder="star", unit="tpm", **listings)


@pytest.mark.parametrize(("kind", "unit"), [(PlainMatrix, "TPM"), (GdcStarFolder, "log2_tpm"), (IvygapFolder, "tpm")])
def test_units_are_those_that_the_source_can_have(kind, unit):
    with pytest.raises(ValidationError, match="unit"):
        expression_section(**KEYS[kind] | {"unit": unit})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gene_suffix": "_rnaseq"}, "go together"),
        ({"patient_column": "case_id"}, "go together"),
        ({"gene_suffix": "_r", "patient_column": "c", "orientation": "genes_by_patients"}, "remove `orientation`"),
    ],
)
def test_columns_of_genes_and_that_of_patients_are_declared_together(keys, message):
    with pytest.raises(ValidationError, match=message):
        expression_section(table="e.csv", unit="tpm", **keys)


def test_a_plain_table_does_not_tell_its_unit():
    with pytest.raises(ValidationError, match="unit"):
        expression_section(table="e.csv")


@pytest.mark.parametrize(("text", "gmt", "sets"), [
    ("builtin", None, None), ("my.gmt", Path("my.gmt"), None),
    ({"gmt": "my.gmt", "sets": ["A"]}, Path("my.gmt"), ("A",)),
    ({"gmt": "builtin", "sets": ["A", "B"]}, None, ("A", "B")),
])  # fmt: skip
def test_gene_sets_are_written_as_they_are_read(text, gmt, sets):
    source = GeneSetSource.model_validate(text)
    assert (source.gmt, source.sets) == (gmt, sets)
    assert source.model_dump() == text
    assert GeneSetSource.model_validate(source.model_dump()) == source


def test_a_subspace_of_no_set_is_refused():
    with pytest.raises(ValidationError, match="sets"):
        GeneSetSource.model_validate({"gmt": "my.gmt", "sets": []})

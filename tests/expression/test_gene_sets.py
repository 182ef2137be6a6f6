import re

import pytest

from subfuse.errors import ConfigurationError, DataError
from subfuse.expression.gene_sets import (
    BUILTIN,
    coverage,
    few_measured,
    gene_indices,
    load_gene_sets,
    load_pathways,
    measured_in_another_case,
    read_gmt,
    restrict_to_axis,
)
from subfuse.expression.source import GeneSetSource


@pytest.fixture
def gmt(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_bytes("\ufeffA\tfirst\tTP53\tEGFR\tEGFR\r\n\r\nB\t\tMKI67\tEGFR\r\n".encode())
    return path


def test_read_gmt_sorts_and_drops_repetition(gmt):
    assert read_gmt(gmt) == {"A": ("EGFR", "TP53"), "B": ("EGFR", "MKI67")}


def test_built_in_sets_are_clean():
    loaded = load_gene_sets({name: GeneSetSource() for name in BUILTIN})
    assert {name: len(genes) for name, genes in loaded.items()} == {"tumour": 733, "microenvironment": 141}
    for genes in loaded.values():
        assert list(genes) == sorted(set(genes))
        assert all(gene.isascii() and len(gene) > 1 and not gene.count(" ") for gene in genes)
    assert {"FOXP3", "GZMA", "IL2RA"} <= set(loaded["microenvironment"])


def test_subspace_is_the_union_of_its_sets_in_declared_order(gmt):
    loaded = load_gene_sets({"z": GeneSetSource(gmt=gmt), "a": GeneSetSource(gmt=gmt, sets=("B",))})
    assert list(loaded.items()) == [("z", ("EGFR", "MKI67", "TP53")), ("a", ("EGFR", "MKI67"))]


def test_pathways_are_the_single_sets_with_their_measured_genes(gmt, tmp_path):
    other = tmp_path / "other.gmt"
    other.write_text("A\td\tTP53\tVIM\nC\td\tNOWHERE\n")
    sections = {"z": GeneSetSource(gmt=gmt), "y": GeneSetSource(gmt=gmt, sets=("B",)), "x": GeneSetSource(gmt=other)}
    pathways = load_pathways(sections, ["VIM", "TP53", "EGFR"])
    assert pathways == {"A": ("EGFR", "TP53"), "B": ("EGFR",), "x/A": ("TP53", "VIM")}


def test_some_built_in_sets():
    loaded = load_gene_sets({"microenvironment": GeneSetSource(sets=("SCALOP_T_CELL_REGULATORY",))})
    assert loaded == {"microenvironment": ("FOXP3", "IL2RA")}


def test_unknown_names_are_configuration_errors(gmt):
    with pytest.raises(ConfigurationError, match=r"gene_sets\.hypoxia: built-in sets exist for tumour and"):
        load_gene_sets({"hypoxia": GeneSetSource()})
    with pytest.raises(ConfigurationError, match=r"gene_sets\.a\.sets: .*: C. It has A, B"):
        load_gene_sets({"a": GeneSetSource(gmt=gmt, sets=("C",))})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("A\tonly description\n", "line 1: a name, a description and at least one gene"),
        ("A\td\tX\nA\td\tY\n", "line 2: set names must be unique"),
        ("A\td\tX\nB\td\tGZMA FOXP3\n", "line 2: gene symbols have no spaces. Found GZMA FOXP3"),
        ("A,d,X\n", "line 1"),
        ("\n", "at least one gene set"),
    ],
)
def test_malformed_gmt_names_file_and_line(tmp_path, content, message):
    path = tmp_path / "bad.gmt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"bad.gmt.*{message}"):
        read_gmt(path)


def test_missing_gmt(tmp_path):
    with pytest.raises(DataError, match=r"none\.gmt"):
        read_gmt(tmp_path / "none.gmt")


def test_restriction_and_indices_follow_the_axis():
    axis = ["MKI67", "TP53", "EGFR"]
    restricted = restrict_to_axis({"a": ("EGFR", "NONE", "TP53"), "b": ("MKI67",)}, axis)
    assert restricted == {"a": ("EGFR", "TP53"), "b": ("MKI67",)}
    assert gene_indices(restricted, axis) == {"a": [2, 1], "b": [0]}


def test_subspace_without_measured_gene_is_an_error():
    with pytest.raises(DataError, match=r"gene_sets\.b: at least one of its 1 genes"):
        restrict_to_axis({"a": ("X",), "b": ("Y",)}, ["X"])
    with pytest.raises(DataError, match="Missing: Y"):
        gene_indices({"b": ("Y",)}, ["X"])


@pytest.mark.parametrize(
    ("spelt", "told"),
    [
        (str.lower, r"2 differ only in case \(`egfr` for EGFR, `tp53` for TP53\): use one spelling"),
        (str.capitalize, r"\(`Egfr` for EGFR, `Tp53` for TP53\): names such as Egfr may be those of a mouse"),
    ],
)
def test_genes_in_another_case_are_told_and_not_matched(spelt, told):
    wanted, genes = {"a": ("EGFR", "TP53"), "b": ("VWF",)}, [spelt("EGFR"), spelt("TP53"), "VWF"]
    with pytest.raises(DataError, match=rf"gene_sets\.a: .* Found none among the 3 genes .*{told}"):
        restrict_to_axis(wanted, genes)
    (warning,) = measured_in_another_case(wanted, genes)
    assert re.search(told, warning)
    assert measured_in_another_case(wanted, ["EGFR", "egfr", "C1orf112", "vwfx"]) == ()


def test_symbols_of_open_reading_frames_in_capitals_are_told_and_no_mouse():
    (warning,) = measured_in_another_case({"a": ("C1orf112", "EGFR")}, ["C1ORF112", "EGFR"])
    assert "1 differs only in case (`C1ORF112` for C1orf112): use one spelling." in warning


def test_coverage_counts_found_missing_and_shared():
    table = coverage({"a": ("G1", "G2", "G3", "G4"), "b": ("G2", "G9")}, ["G1", "G2", "G5"]).set_index("subspace")
    assert table.loc["a", ["n_genes", "n_found", "fraction"]].tolist() == [4, 2, 0.5]
    assert table.loc["a", "missing"] == "G3, G4"
    assert table.loc["a", "overlap"] == "b: 1 (G2)"
    assert table.loc["b", "overlap"] == "a: 1 (G2)"


@pytest.mark.real_data
def test_broad_families_as_subspaces(real_data):
    path = real_data / "gene_sets" / "functional_families.gmt"
    loaded = load_gene_sets({"broad": GeneSetSource(gmt=path, sets=("ONCOGENES", "TUMOR_SUPPRESSOR_GENES"))})
    assert len(loaded["broad"]) > 300


def test_a_subspace_of_which_little_is_measured_is_a_warning_with_the_remedies():
    wanted = {"tumour": [f"G{i}" for i in range(20)], "immune": ["G0", "G1", "G2", "X"]}
    (warning,) = few_measured(coverage(wanted, ["G0", "G1", "G2"]), ["1956", "7157"])
    assert "gene_sets.tumour: 3 of 20 genes are measured" in warning
    assert all(remedy in warning for remedy in ("(it has 1956, 7157)", "`expression.aliases`", "a panel", "GMT file"))
    assert few_measured(coverage({}, [])) == ()


def test_symbols_are_no_evidence_for_other_identifiers():
    found = coverage({"tumour": [f"G{i}" for i in range(20)]}, ["G0"])
    symbols = ["TP53", "VEGFA", "HLA-DRB1", "C1orf112", "C17orf76-AS1", "MT-ND1", "P2RY10"]
    (warning,) = few_measured(found, symbols)
    assert not any(gene in warning for gene in symbols)
    assert warning.index("a panel") < warning.index("`expression.aliases`")
    for name in ("ENSG00000141510", "ENST00000269305.9", "7157", "1007_s_at", "NM_000546", "Trp53", "ILMN_1779356"):
        assert f"(it has {name})" in few_measured(found, [*symbols, name])[0]

import pytest

from subfuse.errors import DataError
from subfuse.expression.gene_names import approved_name, gene_aliases, match_genes, name_genes, read_aliases
from subfuse.expression.gene_sets import BUILTIN, load_gene_sets
from subfuse.expression.source import GeneSetSource


def test_built_in_names_lead_to_approved_ones_in_one_step():
    aliases = gene_aliases()
    assert len(aliases) > 600
    assert not set(aliases.values()) & set(aliases)
    expected = {"H2AFZ": "H2AZ1", "SEPT3": "SEPTIN3", "MARCH1": "MARCHF1", "HIST1H4C": "H4C3", "KIAA0101": "PCLAF"}
    assert expected.items() <= aliases.items()
    assert "MLL2" not in aliases  # was KMT2B and KMT2D


def test_built_in_gene_sets_have_approved_names():
    loaded = load_gene_sets({name: GeneSetSource() for name in BUILTIN})
    names = {gene for genes in loaded.values() for gene in genes}
    assert {"H2AZ1", "SEPTIN3", "RACK1", "ADGRG1"} <= names
    assert not names & set(gene_aliases())


def test_a_table_extends_the_built_in_names_and_wins(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text("previous\tapproved\nMYGENE\tH2AFZ\nSEPT3\tOWN3\nENSG00000146648.18\tEGFR\n")
    aliases = gene_aliases(path)
    assert approved_name("MYGENE", aliases) == "H2AZ1"  # through the built-in table
    assert approved_name("SEPT3", aliases) == "OWN3"
    assert approved_name("ENSG00000146648.3", aliases) == "EGFR"
    assert load_gene_sets({"tumour": GeneSetSource()}, aliases)["tumour"].count("OWN3") == 1


def test_a_probe_map_of_xena_names_ensembl_identifiers(tmp_path):
    path = tmp_path / "gencode.v22.annotation.gene.probeMap"
    path.write_text("id\tgene\tchrom\nENSG00000146648.14\tEGFR\tchr7\n")
    assert read_aliases(path) == {"ENSG00000146648": "EGFR"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("old,new\nA,B\n", "columns previous and approved"),
        ("previous,approved\nA,\n", "row 2: both names"),
        ("previous,approved\nA,B\nA,C\n", "row 3: one approved symbol per name .* B and C"),
    ],
)
def test_broken_alias_tables_name_the_row(tmp_path, text, message):
    path = tmp_path / "aliases.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=f"aliases.csv.*{message}"):
        read_aliases(path)


def test_an_axis_is_renamed_where_the_approved_symbol_is_free():
    named = name_genes(["H2AFZ", "SEPT3", "SEPTIN3", "EGFR", "ENSG00000146648.18_PAR_Y"], gene_aliases())
    assert named.names == ("H2AZ1", "SEPT3", "SEPTIN3", "EGFR", "ENSG00000146648")
    assert named.earlier == ("H2AFZ", "", "", "", "")


@pytest.mark.parametrize("name", ["1-Mar", "2-Sep", "Sep-02", "10-MAR", "1-Dec", "2024-03-01 00:00:00"])
def test_dates_are_lost_symbols(name):
    assert name_genes([name, "EGFR"], gene_aliases()).mangled == (name,)


def test_real_symbols_are_no_dates():
    names = ["MARCHF1", "SEPTIN2", "DEC1", "NKX2-1", "HLA-E", "H1-10", "7SK", "APR-246"]
    assert name_genes(names, {}).mangled == ()


@pytest.mark.parametrize(
    ("wanted", "found", "names", "missing"),
    [
        (["B", "A"], ["A", "C", "B"], {"B": "B", "A": "A"}, ()),
        (["OLD", "A"], ["A", "NEW"], {"OLD": "NEW", "A": "A"}, ()),
        (["NEW"], ["A", "OLD"], {"NEW": "OLD"}, ()),
        (["OLD"], ["OLDER"], {"OLD": "OLDER"}, ()),
        (["OLD", "NEW"], ["NEW", "OLD"], {"OLD": "OLD", "NEW": "NEW"}, ()),
        (["OLD", "NEW"], ["NEW"], {"NEW": "NEW"}, ("OLD",)),  # two genes there, one of them here
        (["NEW"], ["OLD", "OLDER"], {}, ("NEW",)),  # which of them?
        (["OLD", "OLDER"], ["NEW"], {}, ("OLD", "OLDER")),
        (["A", "X"], ["NEW"], {}, ("A", "X")),
    ],
)
def test_genes_of_two_axes_are_matched_where_their_symbols_are_unambiguous(wanted, found, names, missing):
    matched = match_genes(wanted, found, {"OLDER": "OLD", "OLD": "NEW"})
    assert matched.names == names
    assert matched.missing == missing
    assert matched.renamed == {gene: name for gene, name in names.items() if gene != name}

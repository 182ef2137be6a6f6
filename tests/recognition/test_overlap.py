"""How identifiers of tables meet."""

import pytest

from subfuse.recognition.overlap import overlap_lines

IDS = ["TCGA-02-0001", "TCGA-02-0002", "TCGA-02-0003"]


def told(folder, expression="", slides="", **keys):
    keys = {"table": "e.tsv", **keys}
    lines = ["expression:", *(f"  {name}: {value}" for name, value in keys.items())] if expression else []
    (folder / "e.tsv").write_text(expression)
    if slides:
        (folder / "s.csv").write_text("slide_id,f0,f1\n" + "".join(f"{name},1,2\n" for name in slides.split()))
        lines += ["slides:", "  feature_table: s.csv", "  mpp: FILL-IN"]
    return overlap_lines(IDS, lines, folder)


@pytest.mark.parametrize(
    "text",
    [
        "gene\tTCGA-02-0001-01A\tTCGA-02-0003-01A\nEGFR\t1\t2\n",
        '# a comment\npatient;EGFR\n"TCGA-02-0001";1\nTCGA-02-0003;2\nTCGA-02-0009;2\n',
        '"","EGFR"\n"TCGA-02-0001",1\n"TCGA-02-0003",2\n',
    ],
)
def test_patients_in_a_table_of_either_orientation_are_counted(tmp_path, text):
    assert told(tmp_path, text, unit="FILL-IN") == ["# by their identifiers, 2 have expression"]


def test_patients_beside_their_expression_are_counted(tmp_path):
    text = "\tcase\tEGFR_rnaseq\n0\tTCGA-02-0001\t1\n1\tTCGA-02-0001\t1\n2\tTCGA-02-0003\t2\n"
    columns = {"gene_suffix": "_rnaseq", "patient_column": "case"}
    assert told(tmp_path, text, **columns) == ["# by their identifiers, 2 have expression"]


def test_slides_are_counted_by_their_patients(tmp_path):
    assert told(tmp_path, slides="TCGA-02-0001-1 TCGA-02-0001-2 other") == ["# by their identifiers, 1 have slides"]
    (line, problem) = told(tmp_path, slides="x1 x2")
    assert line == "# by their identifiers, 0 have slides"
    assert problem.startswith("# PROBLEM: no patient has slides: patients: TCGA-02-0001, TCGA-02-0002, TCGA-02-0003")
    assert "slides of: x1, x2" in problem


@pytest.mark.parametrize("spelling", ["{}", "00{}", "p_{}"])
def test_names_that_differ_from_those_of_patients_are_shown_and_no_genes(tmp_path, spelling):
    ids = [f"P{number}" if "p" in spelling else f"0{number}" for number in range(10, 13)]
    names = [spelling.format(number) for number in range(10, 13)]
    (tmp_path / "e.tsv").write_text("\t".join(["gene", *names]) + "\nAGT\t1\t2\t3\nANXA5\t1\t2\t3\nAQP4\t1\t2\t3\n")
    _, problem = overlap_lines(ids, ["expression:", "  table: e.tsv"], tmp_path)
    assert "AGT" not in problem
    assert f"nearest: {ids[0]} and {names[0]}" in problem


@pytest.mark.parametrize("keys", [{"format": "h5ad"}, {"sample_sheet": "s.csv"}, {"table": "absent.csv"}])
def test_nothing_is_said_where_names_stand_elsewhere(tmp_path, keys):
    assert told(tmp_path, "a,b\n1,2\n", **keys) == []
    assert overlap_lines(IDS, [], tmp_path) == []

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_run import GENES, SCRIPT, write_fake_run

from subfuse.explanation.cohort.enrichment import COLUMNS
from subfuse.report import reliance_section
from subfuse.report.run_files import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_run(tmp_path_factory.mktemp("reliance") / "run", patients=70, explained=0)


def test_tasks_come_in_the_order_of_the_run_with_their_tables(run):
    parts = reliance_section.reliance_section(read_run(run))
    assert [part["title"] for part in parts] == ["Survival", "Grade"]
    assert "70 patients, each explained by a model that did not train on them" in parts[0]["lede"]
    assert [row["share"] for row in parts[0]["shares"]] == ["10%", "50%", "25%", "15%"]
    assert re.match(r"Rank correlation .*: tumour 0\.\d+ \(lowest 0\.\d+\), microenvironment", parts[0]["stability"])


def test_the_strongest_gene_and_its_direction_are_named(run):
    part = reliance_section.reliance_section(read_run(run))[0]
    first = {row[0]: row for row in reversed(part["genes"].rows)}
    for subspace, genes in GENES.items():
        assert first[subspace][2] == genes[0]
        assert first[subspace][-1] == "higher expression raises the hazard"
    assert f"{GENES['tumour'][0]} higher expression raises the hazard" in part["figures"][0].alt


def test_genes_have_no_direction_where_every_patient_has_another_class_explained(run):
    part = reliance_section.reliance_section(read_run(run))[1]
    assert part["genes"].rows
    assert all(row[-1].startswith("not defined") for row in part["genes"].rows)
    assert "raises" not in part["figures"][0].alt


def test_gene_sets_are_text_and_only_the_first_are_shown(run):
    table = reliance_section.reliance_section(read_run(run))[0]["enrichment"]
    assert len(table.rows) == reliance_section.TOP_SETS * len(GENES)
    assert [row[0] for row in table.rows[:: reliance_section.TOP_SETS]] == list(GENES)
    assert table.rows[0][2] == f"{SCRIPT} set 0"
    assert table.rows[0][-1].endswith(" and 1 more")


def test_gene_sets_of_genes_that_are_not_stable_have_no_fdr_and_the_reason_once(run):
    part = reliance_section.reliance_section(read_run(run))[0]
    fdr = {row[0]: row[6] for row in part["enrichment"].rows}
    stable, unstable = list(GENES)
    assert fdr[stable] != "none"
    assert fdr[unstable] == "none"
    assert part["enrichment_reserve"] == f"No FDR in {unstable} (genes not stable over folds)."
    assert reliance_section._fdr_reserve(None) == ""


def test_gene_sets_whose_stability_is_undefined_are_not_called_unstable():
    one_fold = dict.fromkeys(COLUMNS, 0.5) | {"fdr": np.nan, "stability": np.nan, "leading_genes": "EGFR"}
    table = pd.DataFrame([one_fold | {"subspace": "tumour"}])
    assert reliance_section._fdr_reserve(table) == "No FDR in tumour (stability undefined)."


def test_what_speaks_against_genes_on_top_is_said_once(run):
    explained = read_run(run).cohort_explanations[0]
    first = str(explained.stability["subspace"].iloc[0])

    def told(stability: float, n_patients: int) -> str:
        of_first = explained.stability["subspace"] == first
        table = explained.stability.assign(mean_rank_correlation=np.where(of_first, stability, 0.9))
        changed = replace(explained, stability=table, summary={**explained.summary, "n_patients": n_patients})
        part = reliance_section._of_task(changed)
        assert all(row[4].endswith("%") for row in part["genes"].rows)
        return part["genes_reserve"]

    assert told(0.5, 20) == ""
    assert told(0.49, 20) == f"Trust the ranks little: genes not stable over folds in {first}."
    assert told(0.49, 19) == f"Trust the ranks little: genes not stable over folds in {first}; only 19 patients."


def test_folds_whose_network_is_silent_are_counted_and_the_linear_path_has_a_readable_name(run):
    explained = read_run(run).cohort_explanations[0]
    first, second = explained.stability["subspace"]
    of_first = explained.stability["subspace"] == first
    table = explained.stability.assign(n_folds=np.where(of_first, 1, 5))
    part = reliance_section._of_task(replace(explained, stability=table))
    assert all(row[4].endswith("% of 1 of 5 folds") for row in part["genes"].rows if row[0] == first)
    assert all(row[4].endswith("%") for row in part["genes"].rows if row[0] == second)
    assert f"{first} in 4 of 5." in part["genes_reserve"]

    renamed = {
        name: getattr(explained, name).replace({"subspace": {second: "linear_path"}})
        for name in ("genes", "values", "stability", "enrichment")
    }
    shares = [row | {"subspace": "linear_path"} for row in explained.summary["shares"]]
    part = reliance_section._of_task(replace(explained, **renamed, summary={**explained.summary, "shares": shares}))
    assert "linear path" in part["gist"]
    assert "linear_path" not in repr(part)


def test_undefined_tests_of_truth_are_named(run):
    rows = reliance_section.reliance_section(read_run(run))[0]["faithfulness"].rows
    assert rows[0][2:4] == ("+0.210", "0.150 to 0.270")
    assert rows[-1][2:4] == ("undefined", "no interval")


def test_curves_of_deletion_are_described_and_drawn_with_their_intervals(run, monkeypatch):
    drawn = {}
    monkeypatch.setattr(reliance_section, "removal_curves", lambda curves, **_: drawn.update(curves) or "<svg></svg>")
    figures = reliance_section.reliance_section(read_run(run))[0]["figures"]
    described = "Change of the hazard with half of the patches replaced: highest first −0.300; lowest first −0.100; "
    assert figures[-1].alt == f"{described}random order −0.200."
    assert "Mean over 12 patients" in figures[-1].caption
    np.testing.assert_allclose(drawn["deletion"].change - drawn["deletion"].lower, 0.02)
    np.testing.assert_allclose(drawn["deletion"].upper - drawn["deletion"].change, 0.03)
    assert drawn["random"].change[[0, -1]] == pytest.approx([0, -0.4])


def test_absent_tables_are_said_to_be_absent(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), explained=0)
    folder = run / "explanations" / "cohort" / "survival"
    for name in (
        "genes.csv",
        "gene_values.csv",
        "gene_stability.csv",
        "enrichment.csv",
        "faithfulness.json",
        "faithfulness_curves.csv",
    ):
        (folder / name).unlink()
    part = reliance_section.reliance_section(read_run(run))[0]
    assert part["genes"] is None
    assert part["faithfulness"] is None
    assert part["figures"] == []
    assert part["enrichment"] == "Enrichment of gene sets was not computed."


def test_figures_are_left_out_beyond_their_budget(run, monkeypatch):
    monkeypatch.setattr(reliance_section, "MAX_FIGURE_BYTES", 1000)
    parts = reliance_section.reliance_section(read_run(run))
    assert parts
    assert all(not part["figures"] for part in parts)


def test_a_run_without_explained_cohort_has_no_part(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, optional=False)
    assert reliance_section.reliance_section(read_run(run)) == []

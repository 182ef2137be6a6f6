import numpy as np
import pandas as pd
import pytest

from subfuse.explanation.enrichment import enrich

pytest.importorskip("gseapy")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_planted_set_is_the_most_significant_and_small_sets_are_left_out():
    genes = [f"G{i}" for i in range(80)]
    ranking = pd.Series(np.linspace(1, -1, 80), index=genes)
    sets = {"top": genes[:8], "spread": genes[::10], "bottom": genes[-8:], "tiny": genes[:2], "elsewhere": ["X"] * 9}
    table = enrich(ranking, sets, name="strength")
    assert set(table["gene_set"]) == {"top", "spread", "bottom"}
    found = table.set_index("gene_set")
    assert found.loc["top", "nes"] > 1
    assert found.loc["bottom", "nes"] < -1
    assert found.loc["top", "fdr"] < 0.05 < found.loc["spread", "fdr"]
    assert found.loc["top", "n_genes"] == 8
    assert set(found.loc["top", "leading_genes"].split()) <= set(genes[:8])


def test_nothing_to_look_for_is_an_empty_table():
    table = enrich(pd.Series([1.0, 2.0], index=["A", "B"]), {"s": ["A"]}, name="strength")
    assert table.empty
    assert "fdr" in table

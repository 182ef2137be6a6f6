import numpy as np
import pandas as pd
import pytest

from subfuse.explanation.cohort.enrichment import COLUMNS, enrich, enrich_subspaces, running_sum

GENES = [f"G{i}" for i in range(80)]


def independent(genes, n_patients=40, seed=0):
    return pd.DataFrame(np.random.default_rng(seed).normal(size=(n_patients, len(genes))), columns=genes)


def correlated(generator, n_sets, size, n_patients=40, shared=1.0):
    """Genes in sets that rise and fall together, standardised."""
    values = generator.normal(size=(n_patients, n_sets, size)) + shared * generator.normal(size=(n_patients, n_sets, 1))
    values = values.reshape(n_patients, -1)
    genes = [f"S{k}G{i}" for k in range(n_sets) for i in range(size)]
    return pd.DataFrame((values - values.mean(0)) / values.std(0), columns=genes)


def sets_of(expression):
    names = dict.fromkeys(gene.split("G")[0] for gene in expression)
    return {name: [gene for gene in expression if gene.startswith(f"{name}G")] for name in names}


def attributed(expression, outcome, scale=1.0):
    """Mean absolute attribution of a linear model after one step towards an outcome."""
    weight = expression.T @ (outcome - outcome.mean()) / len(outcome)
    return scale * expression.abs().mean() * weight.abs()


def test_a_planted_set_is_the_most_significant_and_small_sets_are_left_out():
    ranking = pd.Series(np.linspace(1, -1, 80), index=GENES)
    sets = {"top": GENES[:8], "spread": GENES[::10], "bottom": GENES[-8:], "tiny": GENES[:2], "elsewhere": ["X"] * 9,
            "nearly all": GENES[:-3]}  # fmt: skip
    table = enrich(ranking, sets, expression=independent(GENES), permutations=500)
    assert set(table["gene_set"]) == {"top", "spread", "bottom"}
    found = table.set_index("gene_set")
    assert found.loc["top", "nes"] > 1
    assert found.loc["bottom", "nes"] < -1
    assert found.loc["top", "p_value"] < 0.02 < found.loc["spread", "p_value"]
    assert found.loc["top", "n_genes"] == 8
    assert found.loc["top", "leading_genes"].split() == GENES[:8]
    assert set(found.loc["bottom", "leading_genes"].split()) == set(GENES[-8:])


@pytest.mark.filterwarnings("ignore")  # of its dependencies, and few permutations
def test_scores_agree_with_gseapy():
    gseapy = pytest.importorskip("gseapy")
    generator = np.random.default_rng(2)
    ranking = pd.Series(np.sort(generator.normal(size=80))[::-1], index=GENES)
    sets = {f"s{k}": list(generator.choice(GENES, 9 + k, replace=False)) for k in range(6)}
    theirs = gseapy.prerank(
        rnk=ranking, gene_sets=sets, outdir=None, min_size=5, permutation_num=20, threads=1, seed=0, no_plot=True
    ).res2d.set_index("Term")
    ours = enrich(ranking, sets, expression=independent(GENES), permutations=50).set_index("gene_set")
    for name in sets:
        assert ours.loc[name, "es"] == pytest.approx(float(theirs.loc[name, "ES"]), abs=1e-6)
        assert set(ours.loc[name, "leading_genes"].split()) == set(theirs.loc[name, "Lead_genes"].split(";"))


def test_the_running_sum_agrees_with_a_walk():
    generator = np.random.default_rng(0)
    values = np.sort(generator.normal(size=30))[::-1]
    members = generator.choice(30, 7, replace=False)
    total, walk, height = np.abs(values[members]).sum(), [], 0.0
    for place, value in enumerate(values):
        height += abs(value) / total if place in members else -1 / 23
        walk.append(height)
    expected = max(walk) if max(walk) >= -min(walk) else min(walk)
    assert running_sum(values, members[None]).es[0] == pytest.approx(expected)


def test_p_values_are_never_zero_and_those_of_chance_are_uniform():
    p_values = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        expression = correlated(generator, n_sets=6, size=8)
        ranking = attributed(expression, generator.normal(size=40), scale=10.0 ** generator.integers(-3, 3))
        p_values += enrich(ranking, sets_of(expression), expression=expression, seed=seed, permutations=200)[
            "p_value"
        ].tolist()
    p = np.array(p_values)
    assert p.min() >= 1 / 201
    for level in (0.05, 0.1, 0.5):  # of 360 dependent p-values
        assert abs((p <= level).mean() - level) < 3 * np.sqrt(level * (1 - level) / 180)


def test_a_subspace_of_strong_genes_makes_no_set_significant():
    generator = np.random.default_rng(4)
    expression = correlated(generator, n_sets=12, size=6)
    genes = list(expression)
    weak, strong = genes[:48], genes[48:]
    ranking = attributed(expression, generator.normal(size=40))
    ranking[strong] *= 100
    index = pd.MultiIndex.from_tuples(
        [("weak", gene) for gene in weak] + [("strong", gene) for gene in strong], names=["subspace", "gene"]
    )
    table = enrich_subspaces(
        {"strength": ranking.set_axis(index)},
        sets_of(expression),
        expression=expression,
        stability={"weak": 0.9, "strong": 0.9},
    )
    assert list(table.columns) == list(COLUMNS)
    assert table.groupby("subspace")["gene_set"].nunique().to_dict() == {"weak": 8, "strong": 4}
    assert (table["fdr"] > 0.05).all()
    assert (table["fdr"] >= table["p_value"]).all()


def test_where_genes_are_not_stable_there_is_no_rate_of_false_discoveries():
    index = pd.MultiIndex.from_product([["a", "b", "c"], GENES[:20]], names=["subspace", "gene"])
    ranking = pd.Series(np.tile(np.linspace(1, 0, 20), 3), index=index)
    table = enrich_subspaces(
        {"strength": ranking},
        {"top": GENES[:6]},
        expression=independent(GENES[:20]),
        stability={"a": 0.8, "b": 0.1, "c": np.nan},
    ).set_index("subspace")
    assert table["fdr"].notna().to_dict() == {"a": True, "b": False, "c": False}
    assert table.loc["a", "fdr"] == table.loc["a", "p_value"]  # others are not part of the family
    assert table["p_value"].notna().all()


def test_nothing_to_look_for_is_an_empty_table():
    index = pd.MultiIndex.from_tuples([("t", "A"), ("t", "B")], names=["subspace", "gene"])
    expression = independent(["A", "B"])
    table = enrich_subspaces(
        {"strength": pd.Series([1.0, 2.0], index=index)}, {"s": ["A"]}, expression=expression, stability={}
    )
    assert table.empty
    assert list(table.columns) == list(COLUMNS)

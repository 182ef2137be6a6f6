import numpy as np
import pandas as pd
import pytest

from subfuse.explanation.cohort import enrichment
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
    assert table["p_value"].is_monotonic_increasing
    assert table.index.tolist() == [0, 1, 2]
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


def score_of_walk(values, members):
    """The sum's largest deviation from 0, upward where it is as far below; genes of value 0 count alike."""
    size = np.abs(values) if np.abs(values)[members].sum() > 0 else np.ones(len(values))
    total, walk, height = size[members].sum(), [0.0], 0.0
    for place in range(len(values)):
        height += size[place] / total if place in members else -1 / (len(values) - len(members))
        walk.append(height)
    return max(walk) if max(walk) >= -min(walk) else min(walk)


def test_the_running_sum_agrees_with_a_walk():
    generator = np.random.default_rng(0)
    values = np.sort(generator.normal(size=30))[::-1]
    members = np.array([generator.choice(30, 7, replace=False) for _ in range(9)])
    expected = [score_of_walk(values, row) for row in members]
    assert min(expected) < 0 < max(expected)
    for scale in (1.0, 1e-3):
        np.testing.assert_allclose(running_sum(scale * values, members).es, expected)
    with_zeros = np.array([3.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    for row in ([3, 5], [4, 6]):
        assert running_sum(with_zeros, np.array([row])).es[0] == pytest.approx(score_of_walk(with_zeros, row))
    assert running_sum(np.array([2.0, 1.0, -1.0, -2.0]), np.array([[0, 3]])).es[0] == 0.5  # as far below


def test_leading_genes_are_those_up_to_the_peak_or_from_the_trough_on():
    values = np.array([5.0, 4.0, 3.0, 2.0, 1.0, -1.0, -2.0, -3.0, -4.0])
    up, down = [0, 1, 8], [7, 2, 8]
    assert running_sum(values, np.array([up, down])).leading_places() == [0, 1]
    assert running_sum(values, np.array([down, up])).leading_places() == [7, 8]


def test_significance_counts_random_scores_of_the_same_sign_that_reach_it(monkeypatch):
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    genes, members = GENES[:10], [0, 1, 2, 3, 6]
    random, by_size = [np.arange(10), np.roll(np.arange(10), 2), np.arange(10)[::-1]], []

    def random_places(expression, count, generator, **how):
        by_size.append(how["by_size"])
        return np.array(random)

    monkeypatch.setattr(enrichment, "_random_places", random_places)
    expression = independent(genes)
    found = enrich(pd.Series(values, index=genes), {"s": [genes[k] for k in members]}, expression=expression).iloc[0]
    score, lower, opposite = (score_of_walk(values, row[members]) for row in random)
    assert opposite < 0 < lower < score
    assert found["es"] == pytest.approx(score)
    assert found["p_value"] == (1 + 1) / (2 + 1)
    assert found["nes"] == pytest.approx(score / ((score + lower) / 2))
    signed = pd.Series(values - 0.5, index=genes)
    enrich(signed, {"s": genes[:5]}, expression=expression)
    assert by_size == [True, False]


@pytest.mark.parametrize("by_size", [False, True])
def test_random_outcomes_keep_how_genes_go_together(by_size):
    expression = independent(GENES[:6]).to_numpy()
    expression[:, 1] = 1e-3 * expression[:, 0] + 7  # the same gene in another unit
    expression[:, 5] = 3.0  # constant
    places = enrichment._random_places(expression, 500, np.random.default_rng(0), by_size=by_size)
    assert (np.sort(places, axis=1) == np.arange(6)).all()
    assert (np.abs(places[:, 0] - places[:, 1]) == 1).mean() > 0.95  # next to each other, but for rounding
    for gene in (2, 5):
        assert set(places[:, gene]) == set(range(6))  # anywhere


def test_sets_and_the_rest_have_five_genes_and_values_must_differ():
    genes = GENES[:10]
    ranking = pd.Series([2.0] * 5 + [1.0] * 5, index=genes)
    sets = {"five": genes[:5], "four": genes[:4], "but four": genes[:6]}
    found = enrich(ranking, sets, expression=independent(genes), permutations=50)
    assert found["gene_set"].tolist() == ["five"]
    assert enrich(ranking * 0, sets, expression=independent(genes), permutations=50).empty


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
    assert table["subspace"].tolist() == ["weak"] * 8 + ["strong"] * 4
    assert table["gene_set"].nunique() == len(table) == table.index.stop
    assert (table["fdr"] > 0.05).all()
    assert (table["fdr"] >= table["p_value"]).all()


def test_where_genes_are_not_stable_there_is_no_rate_of_false_discoveries():
    index = pd.MultiIndex.from_product([["a", "b", "c"], GENES[:20]], names=["subspace", "gene"])
    ranking = pd.Series(np.tile(np.linspace(1, 0, 20), 3), index=index)
    table = enrich_subspaces(
        {"strength": ranking},
        {"top": GENES[:6]},
        expression=independent(GENES[:20]),
        stability={"a": 0.5, "b": 0.1, "c": np.nan},
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

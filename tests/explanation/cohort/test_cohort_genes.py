import numpy as np
import pandas as pd
import pytest

from subfuse.explanation.cohort.cohort_genes import (
    gene_summary,
    of_speaking_models,
    rank_stability,
    values_of_top_genes,
)

GENES = ("A", "B", "C", "D")


@pytest.fixture
def values() -> pd.DataFrame:
    """Two folds of five patients: A falls with expression, B rises; D is the strongest in the second fold only."""
    random = np.random.default_rng(0)
    rows = []
    for fold in ("0", "1"):
        for patient in range(5):
            expression = random.normal(size=4)
            weight = np.array([-3.0, 2.0, 0.1, 9.0 if fold == "1" else 0.0])
            rows += [
                {
                    "fold": fold,
                    "patient_id": f"{fold}-{patient}",
                    "subspace": "t",
                    "gene": gene,
                    "expression": x,
                    "attribution": x * w,
                    "share": float(expression @ weight),
                }
                for gene, x, w in zip(GENES, expression, weight, strict=True)
            ]
    return pd.DataFrame(rows)


def test_strength_direction_and_stability_of_known_weights(values):
    summary = gene_summary(values, top=2).set_index("gene")
    absolute = values.assign(a=values["attribution"].abs()).groupby("gene")["a"].mean()
    pd.testing.assert_series_equal(summary["mean_absolute"].sort_index(), absolute, check_names=False)
    assert summary.loc["A", "direction"] == pytest.approx(-1)
    assert summary.loc["B", "direction"] == pytest.approx(1)
    assert summary["top_share"].to_dict() == {"A": 1, "B": 0.5, "C": 0, "D": 0.5}
    assert summary["rank"].tolist() == [1, 2, 3, 4]
    assert summary.loc["D", "mean_rank_over_folds"] == 2.5


def test_direction_agrees_with_spearman(values):
    values = values.assign(attribution=values["attribution"] + np.random.default_rng(1).normal(size=len(values)))
    summary = gene_summary(values).set_index("gene")["direction"]
    for gene, rows in values.groupby("gene"):
        assert summary[gene] == pytest.approx(rows["expression"].corr(rows["attribution"], method="spearman"))


def test_rank_stability_over_folds(values):
    table = rank_stability(values)
    by_fold = values.assign(a=values["attribution"].abs()).pivot_table(index="gene", columns="fold", values="a")
    assert table["mean_rank_correlation"].item() == pytest.approx(by_fold["0"].corr(by_fold["1"], method="spearman"))
    assert table["n_folds"].item() == 2
    assert np.isnan(rank_stability(values[values["fold"] == "0"])["mean_rank_correlation"].item())


def test_stability_is_of_three_genes_or_more_however_weak(values):
    three = values[values["gene"] != "D"]
    expected = three.assign(a=values["attribution"].abs()).pivot_table(index="gene", columns="fold", values="a")
    expected = expected["0"].corr(expected["1"], method="spearman")
    weak = three.assign(attribution=1e-3 * three["attribution"])
    assert rank_stability(weak)["mean_rank_correlation"].item() == pytest.approx(expected)
    assert np.isnan(rank_stability(three[three["gene"] != "C"])["mean_rank_correlation"].item())


def test_two_patients_have_a_direction(values):
    two = values[values["patient_id"].isin(["0-0", "0-1"])]
    assert gene_summary(two).set_index("gene")["direction"][["A", "B"]].tolist() == [-1, 1]


def test_subspaces_stay_in_order_with_their_strongest_genes_first(values):
    both = pd.concat([values, values.assign(subspace="another", attribution=values["attribution"] + 100)])
    summary = gene_summary(both)
    assert summary["subspace"].tolist() == ["t"] * 4 + ["another"] * 4
    assert summary["rank"].tolist() == [1, 2, 3, 4] * 2
    assert summary.index.tolist() == list(range(8))
    assert rank_stability(both)["subspace"].tolist() == ["t", "another"]


def test_the_twenty_strongest_genes_count_as_found():
    table = pd.DataFrame({"gene": [f"G{n}" for n in range(25)], "attribution": np.arange(25, 0, -1.0)})
    table = table.assign(fold="0", patient_id="a", subspace="t", expression=0.0, share=0.0)
    summary = gene_summary(table)
    assert summary["top_share"].sum() == 20
    assert values_of_top_genes(table, summary)["gene"].tolist() == [f"G{n}" for n in range(20)]


def test_values_of_the_top_genes_come_strongest_first(values):
    summary = gene_summary(values)
    shown = values_of_top_genes(values, summary, top=2)
    assert list(dict.fromkeys(shown["gene"])) == summary["gene"].tolist()[:2]
    assert len(shown) == 2 * 10


def test_association_is_the_mean_rank_correlation_with_the_share(values):
    summary = gene_summary(values).set_index("gene")["association"]
    for gene, rows in values.groupby("gene"):
        found = [of_fold["expression"].corr(of_fold["share"], method="spearman") for _, of_fold in rows.groupby("fold")]
        assert summary[gene] == pytest.approx(np.mean(found))


def test_a_patient_of_several_models_weighs_as_much_as_one_of_a_single_model(values):
    once, twice = (values[(values["fold"] == "0") & (values["patient_id"] == f"0-{n}")] for n in (0, 1))
    both = pd.concat([once, twice, twice.assign(fold="1", attribution=-twice["attribution"])])
    summary = gene_summary(both).set_index("gene")
    first, second = (rows.set_index("gene")["attribution"] for rows in (once, twice))
    for gene in GENES:
        assert summary.loc[gene, "mean"] == pytest.approx(first[gene] / 2)
        assert summary.loc[gene, "mean_absolute"] == pytest.approx((abs(first[gene]) + abs(second[gene])) / 2)


def test_a_model_that_says_nothing_in_a_subspace_ranks_no_genes(values):
    silent = values.assign(attribution=values["attribution"].where(values["fold"] == "1", 0.0))
    loud = values[values["fold"] == "1"]
    pd.testing.assert_frame_equal(of_speaking_models(silent), loud)
    mute = values.assign(attribution=0.0)
    pd.testing.assert_frame_equal(of_speaking_models(mute), mute)
    pd.testing.assert_frame_equal(rank_stability(silent), rank_stability(loud))
    columns = ["gene", "top_share", "mean_rank_over_folds"]
    pd.testing.assert_frame_equal(gene_summary(silent, top=2)[columns], gene_summary(loud, top=2)[columns])
    nothing = rank_stability(values.assign(attribution=0.0))
    assert nothing["n_folds"].item() == 0
    assert np.isnan(nothing["mean_rank_correlation"].item())

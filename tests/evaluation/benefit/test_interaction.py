"""Shares of variance under exchanged modalities: worked, planted and exact ones."""

import numpy as np
import pytest

from subfuse.evaluation.benefit.interaction import variance_shares

NAMES = ("slides", "expression")


def grid(x: np.ndarray, y: np.ndarray, interaction: float, first: float = 0.5) -> np.ndarray:
    """Predictions of which shares are planted: x and y are of mean 0 and variance 1."""
    rest = 1 - interaction
    both = np.sqrt(first * rest) * x[:, None] + np.sqrt((1 - first) * rest) * y[None]
    return (both + np.sqrt(interaction) * x[:, None] * y[None])[:, :, None]


def shares(*grids: np.ndarray) -> dict[str, float]:
    return variance_shares(grids, modalities=NAMES).set_index("part")["share"].to_dict()


def test_a_worked_example() -> None:
    """Means of rows 1, 1, 4 and of columns alike: 18 over the mean squares, rest (2, 2, -4 twice; 8) less its share."""
    found = np.array([[0.0, 0, 3], [0, 0, 3], [3, 3, 6]])[:, :, None]  # 3 for a last row, 3 for a last column: a sum
    assert shares(found) == pytest.approx({"slides": 0.5, "expression": 0.5, "interaction": 0.0})
    found[2, 2] = 15  # 9 more where both are last: row means 1, 1, 7; mean 3; rest 1, 1, -2, 1, 1, -2, -2, -2, 4
    rest = 36 / 4
    main = (3 * 24 / 2 - rest) / 3
    total = 2 * main + rest
    assert shares(found) == pytest.approx(
        {"slides": main / total, "expression": main / total, "interaction": rest / total}
    )


@pytest.mark.parametrize("planted", [0.0, 0.05, 0.2])
def test_a_planted_interaction_is_found(planted: float) -> None:
    draw = np.random.default_rng(0)
    grids = [grid(draw.normal(size=80), draw.normal(size=80), planted, 0.7) * 10.0**k + k for k in range(5)]

    table = variance_shares(grids, modalities=NAMES).set_index("part")

    assert table["share"].sum() == pytest.approx(1)
    assert table.loc["interaction", "share"] == pytest.approx(planted, abs=0.02)
    assert table.loc["slides", "share"] == pytest.approx(0.7 * (1 - planted), abs=0.06)
    assert table.loc["interaction", "lower"] <= planted <= table.loc["interaction", "upper"]
    assert planted or table.loc["interaction", "lower"] == 0  # no share is below
    assert (table["n_patients"] == 400).all()


def test_intervals_hold_the_planted_share() -> None:
    draw = np.random.default_rng(1)
    inside, values, widths = 0, [], []
    for _ in range(60):
        grids = [grid(draw.normal(size=20), draw.normal(size=20), 0.2) for _ in range(4)]
        row = variance_shares(grids, modalities=NAMES).iloc[2]
        inside += row["lower"] <= 0.2 <= row["upper"]
        values.append(row["share"])
        widths.append(row["upper"] - row["lower"])
    assert inside >= 0.85 * 60
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.3)


def test_outputs_add_their_variances_and_equal_predictions_have_no_shares() -> None:
    draw = np.random.default_rng(2)
    x, y = draw.normal(size=(2, 30))
    both = np.concatenate([grid(x, y, 0.0, 1.0), grid(x, y, 0.0, 0.0)], axis=2)
    expected = x.var(ddof=1) / (x.var(ddof=1) + y.var(ddof=1))
    assert shares(both)["slides"] == pytest.approx(expected)
    assert all(np.isnan(share) for share in shares(np.full((5, 5, 1), 0.3)).values())
    rounded = (1e4 + 5e-4 * draw.normal(size=(5, 5, 1))).astype(np.float32).astype(np.float64)
    assert np.ptp(rounded) > 0  # as single precision has it, and no difference of predictions
    assert all(np.isnan(share) for share in shares(rounded).values())
    with pytest.raises(ValueError, match="three patients or more"):
        shares(both[:2, :2])

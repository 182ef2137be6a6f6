import numpy as np
import pytest

from subfuse.report.figures import reliance
from subfuse.report.figures.reliance import GenePoints, RemovalCurve, beeswarm, removal_curves, swarm_offsets


def test_an_order_that_is_absent_is_not_drawn():
    line = np.linspace(0, 1, 5)
    svg = removal_curves({"deletion": RemovalCurve(line, -line, line * np.nan, line * np.nan)}, score_name="the hazard")
    assert "highest first" in svg
    assert "random order" not in svg


def test_points_of_one_value_lie_apart_and_within_their_row():
    offsets = swarm_offsets(np.array([0.5] * 7 + [-0.2] * 300))
    assert len(set(offsets[:7].round(9))) == 7
    assert np.abs(offsets).max() <= 0.36 + 1e-9
    assert offsets.mean() == pytest.approx(0, abs=1e-9)


def test_every_patient_up_to_the_limit_is_a_point_and_extremes_are_kept():
    contribution = np.linspace(-1, 3, 1000)
    few = beeswarm([GenePoints("A", contribution[:50], np.ones(50))], score_name="the hazard")
    many = beeswarm([GenePoints("A", contribution, np.ones(1000))], score_name="the hazard")
    assert few.count("var(--positive)") - 1 >= 50  # the marker's definition has the colour too
    assert many.count("<use") < few.count("<use") + reliance.MAX_POINTS
    kept = reliance._thinned(GenePoints("A", contribution, contribution))
    assert (kept.contribution.min(), kept.contribution.max()) == (-1, 3)

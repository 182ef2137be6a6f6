"""Integrals of a gradient along a line: exact where they can be worked out, and of one sum however the line is cut."""

import itertools
from dataclasses import replace

import pytest
import torch
from additive_model import AdditiveModel, three_patients

from subfuse.explanation.integration import Interval, StraightPath

WHOLE = Interval(0.0, 1.0)


def score(output):
    return output.logits[:, 2]


def path_of(interaction=0.0, **baselines):
    return StraightPath.from_baseline(AdditiveModel(interaction).eval(), three_patients(), score, **baselines)


def cut(*ends):
    return [Interval(start, stop) for start, stop in itertools.pairwise(ends)]


def test_halves_make_up_the_whole():
    first, second = Interval(0.25, 0.75).halves()
    assert (first, second) == (Interval(0.25, 0.5), Interval(0.5, 0.75))
    assert first.length + second.length == 0.5


@pytest.mark.parametrize("points", [1, 4])
@pytest.mark.parametrize("baseline", [0.0, 0.75])
def test_the_integral_of_a_linear_score_is_weight_times_the_way_from_the_baseline(points, baseline):
    batch, model = three_patients(), AdditiveModel()
    starts = {name: torch.full_like(getattr(batch, name), baseline) for name in ("patches", "expression")}
    (found,) = (path_of(**starts) if baseline else path_of()).integrate([WHOLE], points=points, chunk=3)

    n_patches = batch.patch_mask.sum(dim=1).clamp(min=1)
    patches = (batch.patches - baseline) * batch.patch_mask[..., None]
    of_patches = torch.einsum("bpf,sf->bp", patches, model.patch_weight[:, 2]) / n_patches[:, None]
    of_genes = (batch.expression - baseline) * batch.expression_mask[:, None] * model.gene_weight[:, 2].sum(dim=0)
    torch.testing.assert_close(found.patch, of_patches.detach())
    torch.testing.assert_close(found.gene, of_genes.detach())
    torch.testing.assert_close(found.gap, torch.zeros_like(found.gap), atol=1e-12, rtol=0)


def test_parts_of_the_line_add_up_to_the_whole_and_to_the_change_of_the_score():
    path = path_of(interaction=0.7)  # quadratic along the line: two points are exact
    (whole,) = path.integrate([WHOLE], points=2, chunk=64)
    parts = path.integrate(cut(0.0, 0.1, 0.45, 1.0), points=2, chunk=64)

    torch.testing.assert_close(sum(part.patch for part in parts), whole.patch)
    torch.testing.assert_close(sum(part.gene for part in parts), whole.gene)
    batch = three_patients()
    empty = replace(batch, patches=torch.zeros_like(batch.patches), expression=torch.zeros_like(batch.expression))
    with torch.no_grad():
        change = score(path.model(**batch.inputs())) - score(path.model(**empty.inputs()))
    torch.testing.assert_close(whole.patch.sum(dim=1) + whole.gene.sum(dim=1), change)
    assert [part.interval for part in parts] == cut(0.0, 0.1, 0.45, 1.0)


def test_the_gap_is_what_too_few_points_leave_out():
    def cubed(output):
        return output.logits[:, 2] ** 3  # of degree two along the slopes: one point misses a part, two are exact

    path = StraightPath.from_baseline(AdditiveModel().eval(), three_patients(), cubed)
    (rough,), (exact,) = (path.integrate([WHOLE], points=points, chunk=64) for points in (1, 2))
    missed = (exact.patch - rough.patch).sum(dim=1) + (exact.gene - rough.gene).sum(dim=1)
    torch.testing.assert_close(rough.gap, missed)
    assert (rough.gap.abs() > 1e-3).all()
    torch.testing.assert_close(exact.gap, torch.zeros(3, dtype=torch.float64), atol=1e-10, rtol=0)


@pytest.mark.parametrize("chunk", [1, 5])
def test_how_many_points_are_evaluated_at_once_changes_nothing(chunk):
    intervals = cut(0.0, 0.5, 1.0)
    path = path_of(interaction=0.7)
    for found, expected in zip(
        path.integrate(intervals, points=3, chunk=chunk), path.integrate(intervals, points=3, chunk=64), strict=True
    ):
        for name in ("patch", "gene", "gap"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name))


def test_what_is_absent_adds_nothing_even_where_its_baseline_lies_elsewhere():
    batch = three_patients()
    path = path_of(0.7, patches=torch.ones_like(batch.patches), expression=torch.ones_like(batch.expression))
    (found,) = path.integrate([WHOLE], points=4, chunk=64)
    assert not found.patch[~batch.patch_mask].any()
    assert not found.gene[~batch.expression_mask].any()
    assert found.patch[batch.patch_mask].ne(0).all()


@pytest.mark.parametrize("name", ["patches", "expression"])
def test_a_baseline_of_another_shape_is_refused(name):
    with pytest.raises(ValueError, match=r"A baseline must have the shape of its input \(3, "):
        path_of(**{name: getattr(three_patients(), name)[:2]})

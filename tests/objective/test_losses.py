import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from lifelines import CoxPHFitter
from scipy.special import rel_entr
from torch import Tensor
from torch.nn import functional

from subfuse.objective.losses import (
    Consistency,
    class_divergence,
    consistency_loss,
    cox_nll,
    discrete_hazard_nll,
    hazard_divergence,
)

# --- discrete hazards ---------------------------------------------------------------------------------------------


def discrete_hazard_nll_by_loop(logits: Tensor, bin_index: Tensor, event: Tensor) -> list[float]:
    """The formula with probabilities, patient by patient."""
    values = []
    for row, last, observed in zip(logits.tolist(), bin_index.tolist(), event.tolist(), strict=True):
        hazards = [1 / (1 + math.exp(-x)) for x in row]
        likelihood = math.prod(1 - h for h in hazards[: last if observed else last + 1])
        values.append(-math.log(likelihood * (hazards[last] if observed else 1.0)))
    return values


def test_discrete_hazard_nll_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    bin_index = torch.arange(12) % 5
    event = torch.arange(12) % 2 == 0
    expected = torch.tensor(discrete_hazard_nll_by_loop(logits, bin_index, event), dtype=torch.float64)
    torch.testing.assert_close(discrete_hazard_nll(logits, bin_index, event), expected)


def test_discrete_hazard_nll_of_even_hazards_counts_coin_flips():
    nll = discrete_hazard_nll(torch.zeros(3, 4), torch.tensor([0, 2, 2]), torch.tensor([True, True, False]))
    torch.testing.assert_close(nll, math.log(2) * torch.tensor([1.0, 3.0, 3.0]))


def test_bin_probabilities_and_survival_sum_to_one():
    logits = torch.randn(1, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).expand(5, 4)
    nll = discrete_hazard_nll(logits, torch.tensor([0, 1, 2, 3, 3]), torch.tensor([True] * 4 + [False]))
    torch.testing.assert_close((-nll).exp().sum(), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("event", [True, False])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_discrete_hazard_nll_is_finite_for_extreme_logits(event: bool, size: float):
    logits = (size * torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0]])).requires_grad_()
    nll = discrete_hazard_nll(logits, torch.tensor([1, 1]), torch.tensor([event, event]))
    nll.sum().backward()
    assert nll.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_bins_after_the_last_contact_do_not_matter():
    logits = torch.zeros(2, 3)
    changed = torch.tensor([[0.0, 0.0, 7.0], [0.0, 0.0, -7.0]])
    bin_index, event = torch.tensor([1, 1]), torch.tensor([True, False])
    torch.testing.assert_close(
        discrete_hazard_nll(logits, bin_index, event), discrete_hazard_nll(changed, bin_index, event)
    )


# --- Cox ----------------------------------------------------------------------------------------------------------


def cox_nll_by_loop(log_risk: list[float], time_days: list[float], event: list[bool]) -> float:
    """Efron's partial likelihood, death time by death time."""
    total, n_events = 0.0, sum(event)
    for t in sorted({time for time, observed in zip(time_days, event, strict=True) if observed}):
        dead = [r for r, time, e in zip(log_risk, time_days, event, strict=True) if time == t and e]
        at_risk = sum(math.exp(r) for r, time in zip(log_risk, time_days, strict=True) if time >= t)
        tied = sum(math.exp(r) for r in dead)
        total += sum(dead)
        total -= sum(math.log(at_risk - rank / len(dead) * tied) for rank in range(len(dead)))
    return -total / n_events


@st.composite
def follow_up(draw: st.DrawFn) -> tuple[list[float], list[float], list[bool]]:
    n = draw(st.integers(1, 12))
    risk = draw(st.lists(st.floats(-5, 5), min_size=n, max_size=n))
    time = draw(st.lists(st.integers(0, 5).map(float), min_size=n, max_size=n))
    event = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))
    return risk, time, event


@given(follow_up())
@settings(deadline=None)
def test_cox_nll_equals_a_loop_with_ties_and_censoring(patients: tuple[list[float], list[float], list[bool]]):
    risk, time, event = patients
    value = cox_nll(torch.tensor(risk, dtype=torch.float64), torch.tensor(time), torch.tensor(event))
    assert value.item() == pytest.approx(cox_nll_by_loop(risk, time, event), abs=1e-9)


def test_cox_nll_has_no_gradient_at_the_fit_of_lifelines():
    import pandas as pd

    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2))
    time = np.ceil(rng.exponential(np.exp(-x[:, 0])) * 4)  # many ties
    event = rng.random(60) < 0.7
    table = pd.DataFrame({"x0": x[:, 0], "x1": x[:, 1], "time": time, "event": event.astype(int)})
    fitted = CoxPHFitter().fit(table, "time", "event")
    beta = torch.tensor(fitted.params_.to_numpy(), requires_grad=True)
    loss = cox_nll(torch.tensor(x) @ beta, torch.tensor(time), torch.tensor(event))
    loss.backward()
    assert loss.item() * event.sum() == pytest.approx(-fitted.log_likelihood_, rel=1e-6)
    torch.testing.assert_close(beta.grad, torch.zeros_like(beta), atol=1e-4, rtol=0)  # where lifelines stops


def test_cox_nll_ignores_a_shift_of_risk_and_the_order_of_patients():
    generator = torch.Generator().manual_seed(2)
    risk = torch.randn(9, generator=generator, dtype=torch.float64)
    time, event = torch.arange(9.0) // 2, torch.arange(9) % 3 > 0
    order = torch.randperm(9, generator=generator)
    expected = cox_nll(risk, time, event)
    torch.testing.assert_close(cox_nll(risk + 3.0, time, event), expected)
    torch.testing.assert_close(cox_nll(risk[order], time[order], event[order]), expected)


def test_cox_nll_without_events_is_zero_and_connected():
    risk = torch.randn(4, requires_grad=True)
    loss = cox_nll(risk, torch.arange(4.0), torch.zeros(4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    torch.testing.assert_close(risk.grad, torch.zeros(4))


def test_cox_nll_is_finite_for_extreme_risks():
    risk = torch.tensor([1e4, -1e4, 1e4, 0.0], requires_grad=True)
    loss = cox_nll(risk, torch.tensor([1.0, 1.0, 2.0, 3.0]), torch.tensor([True, True, True, False]))
    loss.backward()
    assert loss.isfinite()
    assert risk.grad is not None
    assert risk.grad.isfinite().all()


# --- consistency --------------------------------------------------------------------------------------------------


def consistency_by_loop(embedding: Tensor, grid: Tensor, *, centred: bool = False) -> float:
    """Equation of the paper with patients, groups and points looped over."""
    n, groups = grid.shape[:2]
    flat = [[grid[i, g].flatten().tolist() for g in range(groups)] for i in range(n)]
    if centred:
        mean = [[sum(flat[i][g][v] for i in range(n)) / n for v in range(len(flat[0][g]))] for g in range(groups)]
        flat = [[[x - m for x, m in zip(flat[i][g], mean[g], strict=True)] for g in range(groups)] for i in range(n)]

    def normalised_gram(vectors: list[list[float]]) -> list[list[float]]:
        gram = [[sum(a * b for a, b in zip(u, v, strict=True)) for v in vectors] for u in vectors]
        return [[entry / math.sqrt(sum(x * x for x in row)) for entry in row] for row in gram]

    a = normalised_gram(embedding.tolist())
    d = [normalised_gram([flat[i][g] for i in range(n)]) for g in range(groups)]
    return sum((a[i][j] - sum(d[g][i][j] for g in range(groups)) / groups) ** 2 for i in range(n) for j in range(n)) / n


def base_grid(height: int = 12, width: int = 12) -> Tensor:
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)  # point 2


def random_case(batch: int = 5, group: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.rand(batch, 7, generator=generator, dtype=torch.float64)
    offsets = torch.randn(batch, group, 4, 2, generator=generator, dtype=torch.float64)
    return embedding, base_grid(2, 2).double() + offsets


@pytest.mark.parametrize("of", ["positions", "offsets"])
@pytest.mark.parametrize("batch", [2, 3, 5, 9])
@pytest.mark.parametrize("size", [1.0, 0.01])
def test_consistency_loss_equals_a_loop(of: str, batch: int, size: float):
    embedding, grid = random_case(batch)
    grid = size * grid
    expected = consistency_by_loop(embedding, grid, centred=of == "offsets")
    assert consistency_loss(embedding, grid, of=of).item() == pytest.approx(expected)


@pytest.mark.parametrize("of", ["positions", "offsets"])
def test_consistency_loss_depends_on_which_patient_owns_which_grid(of: str):
    embedding, grid = random_case()
    permuted = consistency_loss(embedding, grid.roll(1, dims=0), of=of)
    assert abs(permuted - consistency_loss(embedding, grid, of=of)) > 1e-4


@pytest.mark.parametrize("of", ["positions", "offsets"])
def test_consistency_loss_ignores_the_order_of_patients_and_of_groups(of: str):
    embedding, grid = random_case()
    order = torch.tensor([3, 1, 4, 0, 2])
    expected = consistency_loss(embedding, grid, of=of)
    torch.testing.assert_close(consistency_loss(embedding[order], grid[order], of=of), expected)
    torch.testing.assert_close(consistency_loss(embedding, grid.flip(1), of=of), expected)


def test_offsets_do_not_need_the_base_grid():
    embedding, grid = random_case()
    torch.testing.assert_close(
        consistency_loss(embedding, grid, of="offsets"),
        consistency_loss(embedding, grid - base_grid(2, 2), of="offsets"),
    )


def test_one_patient_agrees_with_itself():
    embedding, grid = random_case(batch=1)
    assert consistency_loss(embedding, grid).item() == pytest.approx(0)


@pytest.mark.parametrize("of", ["positions", "offsets"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_consistency_of_an_objective_is_the_sum_over_subspaces_and_nothing_for_one_patient(of: str, batch: int):
    cases = [random_case(batch, seed=seed) for seed in (0, 1)]
    found = Consistency(of=of)(*(torch.stack(part, dim=1) for part in zip(*cases, strict=True)))
    expected = sum(consistency_loss(*case, of=of) for case in cases) if batch > 1 else torch.zeros(())
    torch.testing.assert_close(found, expected, check_dtype=False)


def test_the_base_grid_hides_the_offsets():
    """Its squared norm is 12,144; similarities stay near 1/√8 although the offsets are random."""
    assert base_grid().square().sum() == 12_144
    offsets = 2 * torch.tanh(torch.randn(8, 288, generator=torch.Generator().manual_seed(0)))
    positions = base_grid().flatten() + offsets
    similarity = functional.normalize(positions @ positions.T, dim=-1)
    assert similarity.min() > 0.34
    assert similarity.max() < 0.375


def test_positions_that_follow_expression_lower_the_loss():
    """Offsets that are equal in all groups of a patient: the released layout is blind to them."""
    expression = torch.repeat_interleave(torch.eye(2), 4, dim=0)  # two kinds of patients
    shift = (expression - 0.5) * torch.tensor([1.0, 1.0])
    losses = [
        consistency_loss(expression, (base_grid() + scale * shift[:, None, None, :]).expand(8, 8, 144, 2)).item()
        for scale in (0.0, 1.0, 2.0, 4.0)
    ]
    assert losses == sorted(losses, reverse=True)
    without_offsets = consistency_by_loop(expression, base_grid().expand(8, 1, 144, 2))
    assert losses[0] == pytest.approx(without_offsets, rel=1e-5)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("of", ["positions", "offsets"])
@pytest.mark.parametrize("zero_patients", [1, 4])
def test_zero_embeddings_and_offsets_give_finite_gradients(of: str, zero_patients: int):
    embedding, grid = random_case(batch=4)
    embedding[:zero_patients] = 0
    grid[:zero_patients] = 0
    embedding.requires_grad_()
    grid.requires_grad_()
    loss = consistency_loss(embedding, grid, of=of)
    loss.backward()
    assert loss.isfinite()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()
    assert grid.grad is not None
    assert grid.grad.isfinite().all()


def test_equal_positions_have_no_similarity_made_of_rounding_errors():
    embedding = torch.eye(3, 7)
    grid = (base_grid(3, 5) + 1 / 3).expand(3, 2, 15, 2)
    assert consistency_loss(embedding, grid, of="offsets").item() == pytest.approx(1, abs=1e-2)


def test_an_unknown_choice_of_positions_is_rejected():
    embedding, grid = random_case()
    with pytest.raises(
        (ValueError, TypeCheckError), match=r"positions.*offsets"
    ):  # the latter from the checks in tests
        consistency_loss(embedding, grid, of="grid")  # type: ignore[arg-type]


# --- teachers -----------------------------------------------------------------------------------------------------


def drawn_pair(n_columns: int) -> tuple[Tensor, Tensor]:
    """Logits of a student and of a teacher."""
    generator = torch.Generator().manual_seed(n_columns)
    return tuple(2 * torch.randn(2, 7, n_columns, generator=generator, dtype=torch.float64))


def event_bins(logits: np.ndarray) -> np.ndarray:
    """Probability of an event in each bin, and of none in any."""
    hazard = 1 / (1 + np.exp(-logits))
    survival = np.concatenate([[1.0], np.cumprod(1 - hazard)])
    return np.append(survival[:-1] * hazard, survival[-1])


def test_the_divergence_of_hazards_is_that_of_the_bin_of_the_event():
    student, teacher = drawn_pair(5)
    pairs = zip(student.numpy(), teacher.numpy(), strict=True)
    expected = [rel_entr(event_bins(q), event_bins(p)).sum() for p, q in pairs]
    np.testing.assert_allclose(hazard_divergence(student, teacher), expected, rtol=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_of_classes_is_that_of_softened_probabilities(temperature: float):
    student, teacher = drawn_pair(4)
    soft = [np.exp(logits.numpy() / temperature) for logits in (student, teacher)]
    p, q = (odds / odds.sum(axis=1, keepdims=True) for odds in soft)
    expected = temperature**2 * rel_entr(q, p).sum(axis=1)
    np.testing.assert_allclose(class_divergence(student, teacher, temperature=temperature), expected, rtol=1e-10)


@pytest.mark.parametrize("divergence", [hazard_divergence, lambda a, b: class_divergence(a, b, temperature=2.0)])
def test_a_student_that_says_the_same_is_at_a_minimum_and_extreme_logits_stay_finite(divergence):
    student, teacher = drawn_pair(3)
    student = student.requires_grad_()
    same = divergence(student, student.detach())
    same.sum().backward()
    torch.testing.assert_close(same, torch.zeros(7, dtype=torch.float64))
    torch.testing.assert_close(student.grad, torch.zeros(7, 3, dtype=torch.float64))
    assert (divergence(student, teacher) > 0).all()
    extreme = torch.tensor([[1e4, -1e4, 1e4]], requires_grad=True)
    divergence(extreme, -extreme.detach()).sum().backward()
    assert extreme.grad.isfinite().all()

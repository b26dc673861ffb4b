"""PKD against released values and against loops, and what a correlation does not see."""

from __future__ import annotations

import pytest
import torch
from support.golden import CLOSE, assert_close, load, value_and_grad
from support.oracles import pkd as oracle
from support.steps import context, step

from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.pkd import correlation_loss, standardised


def double(maps: list[torch.Tensor]) -> list:
    return [m.detach().double().numpy() for m in maps]


@pytest.mark.parametrize("case", [0, 1])
def test_released_value_and_gradient(case):
    meta, a = load(f"pkd_{case}")
    value, grad = value_and_grad(lambda s: meta["weight"] * correlation_loss(s, a["teacher"]), a["student"])
    assert_close(value, a["loss"])
    assert_close(grad, a["grad"])
    scale = a["grad"].abs().max()
    assert_close(grad / scale, a["grad"] / scale)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_method_by_loops(seed):
    given = step(seed=seed)
    levels = zip(double(given.student.neck), double(given.teacher.neck), strict=True)
    expected = 10 * sum(oracle.pkd(s, t) for s, t in levels)
    assert build_method("pkd", context())(given)["loss_pkd"].item() == pytest.approx(expected, rel=1e-5)


def test_gradient_as_that_of_one_minus_correlation():
    student = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64)

    def naive(features: torch.Tensor) -> torch.Tensor:
        rows = [f.transpose(0, 1).flatten(1) for f in (features, teacher)]
        correlations = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(*rows, strict=True)]
        return 1 - sum(correlations) / len(correlations)

    assert torch.autograd.gradcheck(naive, (student,))
    # The unbiased deviation leaves a factor of (values - 1) / values.
    expected = naive(student) * 39 / 40
    (grad,) = torch.autograd.grad(expected, student)
    value, actual = value_and_grad(lambda s: correlation_loss(s, teacher), student.detach().float())
    torch.testing.assert_close(value, expected.detach().float(), **CLOSE)
    torch.testing.assert_close(actual, grad.float(), **CLOSE)


def test_scale_and_shift_of_a_channel_do_not_matter():
    student, teacher = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6)
    other = student * (0.5 + torch.rand(1, 4, 1, 1)) + torch.randn(1, 4, 1, 1)
    torch.testing.assert_close(correlation_loss(other, teacher), correlation_loss(student, teacher), **CLOSE)
    torch.testing.assert_close(correlation_loss(-teacher, teacher), torch.tensor(2 * 59 / 60), **CLOSE)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 3, 1, 1)])
def test_channels_that_are_constant_are_zero_with_a_gradient(shape):
    features = torch.ones(shape, requires_grad=True)
    loss = correlation_loss(features, torch.randn(shape))
    loss.backward()
    assert not standardised(features).any()
    assert bool(loss.isfinite())
    assert bool(features.grad.isfinite().all())


def test_levels_beyond_the_finest_are_left_out():
    ctx = context(num_levels=5, strides=(8, 16, 32, 64, 128))
    assert len(build_method("pkd", ctx).adapters) == 4
    assert len(build_method("pkd", ctx, levels=None).adapters) == 5
    assert len(build_method("pkd", context()).adapters) == 2
    given = step()
    one = build_method("pkd", context(), levels=1)(given)["loss_pkd"]
    torch.testing.assert_close(one, 10 * correlation_loss(given.student.neck[0], given.teacher.neck[0]))


def test_widths_are_bridged():
    ctx = context(student_channels=5)
    method, given = build_method("pkd", ctx), step(ctx=ctx)
    term = method(given)["loss_pkd"]
    adapted = [adapt(f) for adapt, f in zip(method.adapters, given.student.neck, strict=True)]
    expected = 10 * sum(oracle.pkd(s, t) for s, t in zip(double(adapted), double(given.teacher.neck), strict=True))
    assert term.item() == pytest.approx(expected, rel=1e-5)
    term.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.parameters())


def test_errors():
    with pytest.raises(MethodError, match="give 1 or more"):
        build_method("pkd", context(), levels=0)


def test_half_precision_is_standardised_in_single():
    features = (torch.randn(2, 4, 16, 16) + 100).bfloat16()
    torch.testing.assert_close(standardised(features), standardised(features.float()))

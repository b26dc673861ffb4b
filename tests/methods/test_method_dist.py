"""DIST by loops, its invariances and its edges."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from support.golden import CLOSE
from support.oracles import cwd as maps_oracle
from support.oracles import dist as oracle
from support.steps import SIZES, context, grid

from pgd.methods import build_method
from pgd.methods.dist import correlation


def a_step(images: int = 2, per_position: int = 1, classes: int = 3, seed: int = 0, grow: float = 1.0):
    generator = torch.Generator().manual_seed(seed)
    positions = dataclasses.replace(grid(images), per_position=per_position)

    def view() -> SimpleNamespace:
        rows = len(positions.prediction_centers)
        logits = (grow * torch.randn(images, rows, classes, generator=generator)).requires_grad_()
        return SimpleNamespace(class_logits=logits, scores=logits.sigmoid())

    return SimpleNamespace(student=view(), teacher=view(), grid=positions)


def by_loops(given, per_position: int) -> tuple[float, float]:
    student, teacher = (
        maps_oracle.class_maps(view.class_logits.detach().double().numpy(), SIZES, per_position)
        for view in (given.student, given.teacher)
    )
    levels = [oracle.dist(s, t) for s, t in zip(student, teacher, strict=True)]
    return sum(inter for inter, _ in levels), sum(intra for _, intra in levels)


@pytest.mark.parametrize(("seed", "images", "per_position"), [(0, 2, 1), (1, 1, 1), (2, 3, 2), (3, 2, 9)])
def test_method_by_loops(seed, images, per_position):
    given = a_step(images, per_position, seed=seed)
    terms = build_method("dist", context(per_position=per_position), weight=2.0, beta=0.5, gamma=3.0)(given)
    inter, intra = by_loops(given, per_position)
    assert terms.keys() == {"loss_dist_inter", "loss_dist_intra"}
    assert terms["loss_dist_inter"].item() == pytest.approx(2 * 0.5 * inter, rel=1e-5)
    assert terms["loss_dist_intra"].item() == pytest.approx(2 * 3 * intra, rel=1e-5)


def test_gradient_by_differences():
    a = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, 5, dtype=torch.float64)

    def naive(table: torch.Tensor) -> torch.Tensor:
        rows = [torch.corrcoef(torch.stack(rows))[0, 1] for rows in zip(table, b, strict=True)]
        return torch.stack(rows).sum()

    assert torch.autograd.gradcheck(naive, (a,))
    (expected,) = torch.autograd.grad(naive(a), a)
    (actual,) = torch.autograd.grad(correlation(a, b, 1).sum(), a)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(correlation(a.T, b.T, 0), correlation(a, b, 1))


def test_what_a_correlation_does_not_see():
    a, b = torch.randn(6, 5), torch.randn(6, 5)
    scaled = a * (0.5 + torch.rand(6, 1)) + torch.randn(6, 1)
    torch.testing.assert_close(correlation(scaled, b, 1), correlation(a, b, 1), **CLOSE)
    torch.testing.assert_close(correlation(a, a, 1), torch.ones(6), **CLOSE)
    torch.testing.assert_close(correlation(a, -a, 0), -torch.ones(5), **CLOSE)


def test_a_student_like_its_teacher_costs_nothing():
    given = a_step()
    given.student = given.teacher
    for term in build_method("dist", context())(given).values():
        torch.testing.assert_close(term, torch.tensor(0.0), rtol=0, atol=1e-3)


def test_constant_scores_are_uncorrelated_and_finite():
    given = a_step()
    logits = torch.zeros_like(given.student.class_logits).requires_grad_()
    given.student = SimpleNamespace(class_logits=logits, scores=logits.sigmoid())
    terms = build_method("dist", context())(given)
    torch.testing.assert_close(terms["loss_dist_inter"].detach(), torch.tensor(2.0))
    torch.testing.assert_close(terms["loss_dist_intra"].detach(), torch.tensor(2.0))
    sum(terms.values()).backward()
    assert bool(logits.grad.isfinite().all())


def test_a_single_class_has_nothing_between_classes():
    given = a_step(classes=1)
    terms = build_method("dist", context(num_classes=1))(given)
    assert terms["loss_dist_inter"].item() == 2.0
    (grad,) = torch.autograd.grad(terms["loss_dist_inter"], given.student.class_logits, retain_graph=True)
    assert not grad.any()
    (grad,) = torch.autograd.grad(terms["loss_dist_intra"], given.student.class_logits)
    assert grad.any()
    assert bool(grad.isfinite().all())


def test_scores_near_zero():
    """As at the start of a training, where all scores are around 0.01 and differ so little that the ridge counts."""
    given = a_step(grow=0.01)
    for name in ("student", "teacher"):
        logits = (getattr(given, name).class_logits.detach() - 4.6).requires_grad_()
        setattr(given, name, SimpleNamespace(class_logits=logits, scores=logits.sigmoid()))
    terms = build_method("dist", context())(given)
    inter, intra = by_loops(given, 1)
    assert terms["loss_dist_inter"].item() == pytest.approx(inter, rel=1e-5)
    assert terms["loss_dist_intra"].item() == pytest.approx(intra, rel=1e-5)
    sum(terms.values()).backward()
    grad = given.student.class_logits.grad
    assert bool(grad.isfinite().all())
    assert grad.any()


def test_a_weight_of_zero_leaves_a_term_out():
    given = a_step()
    assert set(build_method("dist", context(), beta=0.0)(given)) == {"loss_dist_intra"}
    assert set(build_method("dist", context(), gamma=0.0)(given)) == {"loss_dist_inter"}


def test_it_has_no_parameters_and_needs_predictions_alone():
    method = build_method("dist", context(student_channels=5))
    assert method.needs == {"predictions"}
    assert not list(method.parameters())

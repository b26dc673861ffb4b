"""BCKD against the released class term, against plain numpy, and by hand."""

from __future__ import annotations

import pytest
import torch
from support.golden import assert_close, load, value_and_grad
from support.oracles.bckd import bckd as oracle
from support.steps import SIZES, context, step
from torch import Tensor

from pgd.dense import DistillStep
from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.bckd import class_gap
from pgd.methods.crosskd import class_divergence, giou_loss
from pgd.methods.levels import levels_with_positives

COUNTS = [h * w for h, w in SIZES]
LEVEL_OF = [level for level, count in enumerate(COUNTS) for _ in range(count)]


def taught(seed: int = 0, images: int = 3, coarse: bool = True) -> DistillStep:
    """A step in which some predictions are ignored; the coarse level has positives or none."""
    given = step(images, seed)
    if not coarse:
        given.labels[:, COUNTS[0] :] = 3
    kept = torch.rand(given.labels.shape, generator=torch.Generator().manual_seed(seed)) > 0.3
    given.label_weights *= kept | (given.labels < 3)
    return given


def arrays(view) -> dict:
    return {"logits": view.class_logits.detach().numpy(), "boxes": view.boxes.detach().numpy()}


def expected_terms(given: DistillStep, all_levels: bool) -> dict[str, float]:
    labels = given.labels.numpy(), given.label_weights.numpy()
    return oracle(arrays(given.student), arrays(given.teacher), *labels, LEVEL_OF, 3, all_levels)


def found_terms(terms: dict[str, Tensor]) -> dict[str, float]:
    return {key.removeprefix("loss_bckd_"): value.item() for key, value in terms.items()}


@pytest.mark.parametrize("case", [0, 1])
def test_class_term_is_the_released_one(case):
    """As a method: one image on one level, with the normaliser that the positives give."""
    meta, a = load(f"crosskd_cls_{case}")
    method = build_method("bckd", context(num_classes=5), weight_box=0.0)
    given = step(1, ctx=context(num_classes=5))
    assert a["student"].size(0) == given.labels.size(1) == 60
    given.labels = torch.full_like(given.labels, 5)
    given.labels[0, : int(meta["avg_factor"]) - 1] = 2
    given.labels[0, -1] = 2
    given.label_weights, given.teacher.class_logits = a["sample_weight"][None], a["teacher"][None]

    def loss(student):
        given.student.class_logits = student[None]
        return method(given)["loss_bckd_cls"]

    value, grad = value_and_grad(loss, a["student"])
    assert_close(value, a["loss"])
    assert_close(grad, a["grad"])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("coarse", [False, True], ids=["one level", "both levels"])
@pytest.mark.parametrize("all_levels", [False, True])
def test_terms_are_the_formula(seed, coarse, all_levels):
    given = taught(seed, coarse=coarse)
    settings = {"weight": 0.5, "weight_cls": 2.0, "weight_box": 3.0}
    found = found_terms(build_method("bckd", context(), all_levels=all_levels, **settings)(given))
    expected = expected_terms(given, all_levels)
    assert min(expected.values()) > 0.1
    assert found == pytest.approx({"cls": expected["cls"], "box": 1.5 * expected["box"]}, rel=1e-5)
    if not coarse:
        assert expected != pytest.approx(expected_terms(given, not all_levels), rel=1e-2)


def test_defaults_are_the_published_ones():
    given = taught()
    expected = expected_terms(given, all_levels=False)
    found = found_terms(build_method("bckd", context())(given))
    assert found == pytest.approx({"cls": expected["cls"], "box": 4 * expected["box"]}, rel=1e-5)


def test_gradient_of_the_boxes_leaves_the_scores_alone():
    """The factor of the box term is a constant; the gradient is that of a loop in double precision."""
    given = taught()
    logits, sides = given.student.class_logits, given.student.sides
    terms = build_method("bckd", context())(given)
    (found,) = torch.autograd.grad(terms["loss_bckd_box"], sides, retain_graph=True)
    assert torch.autograd.grad(terms["loss_bckd_box"], logits, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(terms["loss_bckd_cls"], sides, retain_graph=True, allow_unused=True) == (None,)
    own, positions = sides.detach().double().requires_grad_(), given.grid
    total, positives = 0.0, (given.labels < 3).sum()
    for n, p in torch.nonzero(given.label_weights).tolist():
        reach = own[n, p] * positions.strides[p]
        a, b = (positions.centers[p] - reach[:2], positions.centers[p] + reach[2:]), given.teacher.boxes[n, p].double()
        low, high = torch.maximum(a[0], b[:2]), torch.minimum(a[1], b[2:])
        inner = (high - low).clamp(min=0).prod()
        union = (a[1] - a[0]).prod() + (b[2:] - b[:2]).prod() - inner
        hull = (torch.maximum(a[1], b[2:]) - torch.minimum(a[0], b[:2])).prod()
        gap = (logits[n, p].sigmoid() - given.teacher.class_logits[n, p].sigmoid()).abs().max().item()
        total = total + 4 * gap * (1 - inner / union + (hull - union) / hull) / positives
    (expected,) = torch.autograd.grad(total, own)
    scale = expected.abs().max()
    torch.testing.assert_close(found.double() / scale, expected / scale, rtol=1e-4, atol=1e-5)


def test_teachers_predictions_take_no_gradient():
    given = taught()
    sum(build_method("bckd", context())(given).values()).backward()
    assert given.teacher.class_logits.grad is None
    assert given.teacher.sides.grad is None


def test_levels_with_positives_of_several_predictions_a_position():
    """In any image; a level has its positions times the predictions of each."""
    given = step(2)
    object.__setattr__(given.grid, "per_position", 3)
    positive = torch.zeros(2, 3 * sum(COUNTS), dtype=torch.bool)
    assert not levels_with_positives(positive, given.grid).any()
    positive[1, 3 * COUNTS[0]] = True
    expected = torch.tensor([False] * 3 * COUNTS[0] + [True] * 3 * COUNTS[1])
    assert torch.equal(levels_with_positives(positive, given.grid), expected)
    positive[0, 3 * COUNTS[0] - 1] = True
    assert levels_with_positives(positive, given.grid).all()


def test_a_batch_without_positives_gives_zero_with_a_gradient():
    given = taught()
    given.labels = torch.full_like(given.labels, 3)
    terms = build_method("bckd", context())(given)
    assert set(found_terms(terms).values()) == {0.0}
    sum(terms.values()).backward()
    for leaf in (given.student.class_logits, given.student.sides):
        assert not leaf.grad.any()
        assert bool(leaf.grad.isfinite().all())
    counted = found_terms(build_method("bckd", context(), all_levels=True, weight_box=1.0)(given))
    assert counted == pytest.approx(expected_terms(given, all_levels=True), rel=1e-5)


def test_by_hand():
    zero, one = torch.zeros(1, 2), torch.tensor([[0.0, 3.0**0.5]])
    one[0, 1] = torch.tensor(0.75).logit()
    # |0.5 - 0.75| times -log 0.5, the other class is at its target
    assert class_divergence(zero, one).item() == pytest.approx(0.25 * 0.6931472, rel=1e-5)
    assert class_gap(zero, one).item() == pytest.approx(0.25, rel=1e-5)
    # 2 x 2 boxes, 4 apart: no overlap, a union of 8 in a hull of 12
    boxes = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[4.0, 0, 6, 2]])
    assert giou_loss(*boxes).item() == pytest.approx(1 + 4 / 12)
    assert giou_loss(boxes[0], boxes[0]).item() == pytest.approx(0, abs=1e-6)


def test_terms_can_be_left_out():
    assert set(build_method("bckd", context(), weight_cls=0.0)(taught())) == {"loss_bckd_box"}
    assert set(build_method("bckd", context(), weight_box=0.0)(taught())) == {"loss_bckd_cls"}


def test_half_precision_logits_are_weighed_in_single():
    given, method = taught(), build_method("bckd", context())
    exact = found_terms(method(given))
    given.student.class_logits = given.student.class_logits.bfloat16()
    terms = method(given)
    assert all(value.dtype == torch.float32 for value in terms.values())
    assert found_terms(terms) == pytest.approx(exact, rel=0.02)


def test_heads_without_positives_are_refused():
    with pytest.raises(MethodError, match="AutoAssign"):
        build_method("bckd", context(assigns_labels=False))

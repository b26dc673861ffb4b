"""FRS by loops, its warm-up, its cross-entropy and its settings."""

from __future__ import annotations

import pytest
import torch
from support.many_anchors import many
from support.oracles import frs as oracle
from support.steps import SIZES, context, step
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.frs import class_entropy, richness, weighted_means
from pgd.scaling import FULL, Size, published_settings

COUNTS = [h * w for h, w in SIZES]


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def by_level(logits: torch.Tensor, per_position: int) -> list:
    """``[N, P A, K]`` to a list over levels of ``[N, H W, A K]``."""
    rows = logits.reshape(len(logits), -1, per_position * logits.size(2))
    return [double(part) for part in rows.split(COUNTS, dim=1)]


def expected_terms(given: DistillStep, adapters) -> tuple[float, float]:
    maps = [double(adapt(s)) for adapt, s in zip(adapters, given.student.neck, strict=True)]
    logits = [by_level(view.class_logits, given.grid.per_position) for view in (given.student, given.teacher)]
    levels = zip(maps, [double(t) for t in given.teacher.neck], *logits, strict=True)
    terms = [oracle.level_terms(*level) for level in levels]
    return sum(f for f, _ in terms), sum(c for _, c in terms)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("make", [step, many], ids=["one", "several"])
def test_method_by_loops(seed, make):
    torch.manual_seed(seed)
    given = make(3, seed)
    settings = {"weight": 2.0, "weight_feature": 0.3, "weight_cls": 0.7, "warmup": 0}
    method = build_method("frs", context(), **settings)
    feature, entropy = expected_terms(given, method.adapters)
    terms = {name: value.item() for name, value in method(given).items()}
    expected = {"loss_frs_feature": 0.6 * feature, "loss_frs_cls": 1.4 * entropy}
    assert terms == pytest.approx(expected, rel=1e-5)


def test_warm_up_starts_at_zero_is_counted_and_kept():
    given = step()
    method = build_method("frs", context(), warmup=4)
    full = build_method("frs", context(), warmup=0)
    full.load_state_dict(method.state_dict())
    whole = sum(full(given).values()).item()
    shares = [sum(method(given).values()).item() / whole for _ in range(3)]
    assert shares == pytest.approx([0, 0.25, 0.5], abs=1e-6)
    method.eval()
    assert sum(method(given).values()).item() / whole == pytest.approx(0.75), "not counted in evaluation"
    resumed = build_method("frs", context(), warmup=4)
    resumed.load_state_dict(method.state_dict())
    shares = [sum(resumed(given).values()).item() / whole for _ in range(4)]
    assert shares == pytest.approx([0.75, 1, 1, 1])


def test_first_step_gives_zero_with_a_gradient():
    given = step()
    loss = sum(build_method("frs", context())(given).values())
    grads = torch.autograd.grad(loss, [*given.student.neck, given.student.class_logits])
    assert loss == 0
    assert not any(grad.any() for grad in grads)


def test_cross_entropy_is_that_of_probabilities():
    """Value and gradient, as released; and finite where probabilities are 0 or 1 in single precision."""
    g = torch.Generator().manual_seed(0)
    student, teacher = (3 * torch.randn(2, 60, 3, generator=g, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    released = F.binary_cross_entropy(student.sigmoid(), teacher.sigmoid(), reduction="none").sum(dim=2)
    (expected,) = torch.autograd.grad(released.sum(), student)
    logits = student.detach().float().requires_grad_()
    found = class_entropy(logits, teacher.float())
    torch.testing.assert_close(found.double(), released.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), logits)[0].double(), expected, rtol=1e-5, atol=1e-5)
    far = class_entropy(torch.tensor([[[200.0, -200.0]]]), torch.tensor([[[-200.0, 200.0]]]))
    assert far.item() == pytest.approx(400.0)


def test_scores_are_the_best_of_a_position():
    scores = torch.tensor([[[0.1, 0.2], [0.5, 0.3], [0.0, 0.9], [0.4, 0.4]]])
    torch.testing.assert_close(richness(scores), torch.tensor([[0.2, 0.5, 0.9, 0.4]]))
    torch.testing.assert_close(richness(scores, 2), torch.tensor([[0.5, 0.9]]))


def test_mean_of_a_level_does_not_see_the_scale_of_the_scores():
    grid, g = step().grid, torch.Generator().manual_seed(0)
    values, weights = torch.rand(2, 60, generator=g), torch.rand(2, 60, generator=g)
    expected = weighted_means(values, weights, grid)
    torch.testing.assert_close(weighted_means(values, weights * 1e-9, grid), expected)
    torch.testing.assert_close(weighted_means(torch.full_like(values, 3.0), weights, grid), torch.tensor(6.0))
    weights[:, : COUNTS[0]] = 0
    torch.testing.assert_close(weighted_means(torch.full_like(values, 3.0), weights, grid), torch.tensor(3.0))


def test_gradient_as_that_of_a_loop():
    given = many(2, 4)
    method = build_method("frs", context(), warmup=0)
    leaves = [*given.student.neck, given.student.class_logits]
    found = torch.autograd.grad(sum(method(given).values()), leaves)
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    twin = build_method("frs", context()).double()
    twin.load_state_dict(method.state_dict())
    scores = given.teacher.scores.detach().double()
    best = scores.reshape(2, 60, -1).amax(dim=2)
    total, start = 0.0, 0
    for level, (height, width) in enumerate(SIZES):
        square = (twin.adapters[level](doubles[level]) - given.teacher.neck[level].detach().double()) ** 2
        own = best[:, start : start + height * width]
        for n in range(2):
            for p in range(height * width):
                share = own[n, p] / own.sum()
                rows = slice(3 * (start + p), 3 * (start + p) + 3)
                x, target = doubles[2][n, rows], scores[n, rows]
                entropy = -(target * x.sigmoid().log() + (1 - target) * (1 - x.sigmoid()).log()).sum()
                total = total + share * (0.1 * square[n, :, p // width, p % width].sum() + 0.05 * entropy)
        start += height * width
    for grad, expected in zip(found, torch.autograd.grad(total, doubles), strict=True):
        torch.testing.assert_close(grad.double(), expected, rtol=1e-4, atol=1e-7)


def test_nothing_reaches_the_teacher():
    given = step()
    sum(build_method("frs", context(), warmup=0)(given).values()).backward()
    assert given.teacher.class_logits.grad is None
    assert given.student.class_logits.grad.any()
    assert all(leaf.grad.any() for leaf in given.student.neck)


def test_terms_can_be_left_out():
    given = step()
    classes = build_method("frs", context(), weight_feature=0.0)
    assert classes.needs == {"predictions"}
    assert not list(classes.parameters())
    given.student.neck, neck = None, given.student.neck
    assert set(classes(given)) == {"loss_frs_cls"}
    given.student.neck = neck
    assert set(build_method("frs", context(), weight_cls=0.0)(given)) == {"loss_frs_feature"}


def test_widths_that_differ():
    ctx = context(student_channels=6)
    given, method = step(ctx=ctx), build_method("frs", ctx, warmup=0)
    feature, _ = expected_terms(given, method.adapters)
    assert method(given)["loss_frs_feature"].item() == pytest.approx(0.1 * feature, rel=1e-5)


def test_published_settings():
    found = {name: published_settings("frs", name) for name in ("gfl", "retinanet", "fcos", "atss")}
    weights = {name: (s["weight_feature"], s["weight_cls"], s["warmup"]) for name, s in found.items()}
    gfl = (0.1, 0.05, 500)
    assert weights == {"gfl": gfl, "atss": gfl, "retinanet": (0.005, 0.02, 500), "fcos": (0.01, 0.05, 500)}
    size = Size(channels=32, positions=533, cells=4, blocks=2, warmup=40)
    small = published_settings("frs", "gfl", size)
    assert small == {**published_settings("frs", "gfl", FULL), "weight_feature": 0.8, "warmup": 40}


def test_bad_warmup():
    with pytest.raises(MethodError, match="warmup -1 is a number of iterations"):
        build_method("frs", context(), warmup=-1)

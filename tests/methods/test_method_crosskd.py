"""CrossKD against the released code's values, against plain numpy, and on real heads."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from support.detectors import BOXES, CLASSES, LABELS, QUIET, batch, images, pair, sample
from support.golden import assert_close, load, value_and_grad
from support.oracles import crosskd as oracle
from support.steps import SIZES, context, step
from torch import Tensor
from torch.nn import functional as F

from pgd.dense import DistillStep, Grid
from pgd.methods import TowerPlace, build_method
from pgd.methods.base import MethodError
from pgd.methods.crosskd import class_divergence, restandardised

pytestmark = QUIET


class LinearHead:
    """Reads every prediction off tower features by fixed linear maps: a teacher's head of no blocks."""

    def __init__(self, ctx, quality: bool = True) -> None:
        g, width = torch.Generator().manual_seed(9), ctx.teacher_tower_channels
        shapes = {"logits": ctx.num_classes, "boxes": 4, "distributions": 4 * 5, "quality": 1}
        self.maps = {key: torch.randn(n, width, generator=g) / width**0.5 for key, n in shapes.items()}
        self.quality = quality
        self.calls: list[tuple] = []

    def outputs_from(self, neck: Sequence, cls_tower: Sequence, reg_tower: Sequence, block: int) -> dict:
        self.calls.append((neck, cls_tower, reg_tower, block))
        cls, reg = (torch.cat([m.flatten(2) for m in maps], dim=2) for maps in (cls_tower, reg_tower))
        towers = {"logits": cls, "boxes": reg, "distributions": reg, "quality": reg}
        return {key: torch.einsum("kc,ncp->npk", self.maps[key], towers[key]) for key in towers}

    def class_logits(self, outputs: dict) -> Tensor:
        return outputs["logits"]

    def boxes(self, outputs: dict, grid: Grid) -> Tensor:
        reach = (outputs["boxes"].abs() + 0.2) * grid.strides[:, None]
        return torch.cat((grid.centers - reach[..., :2], grid.centers + reach[..., 2:]), dim=-1)

    def distributions(self, outputs: dict) -> Tensor:
        return outputs["distributions"].unflatten(-1, (4, 5))

    def quality_logits(self, outputs: dict) -> Tensor | None:
        return outputs["quality"].squeeze(-1) if self.quality else None


def taught(seed: int = 0, ctx=None, quality: bool = True, holes: bool = True) -> DistillStep:
    """A step whose teacher has a head to run on; some predictions are ignored."""
    ctx = ctx or context()
    given = step(3, seed, ctx)
    g = torch.Generator().manual_seed(seed + 100)
    given.teacher.reader = LinearHead(ctx, quality)
    given.teacher.quality_logits = torch.randn(given.labels.shape, generator=g)
    positive = given.labels < ctx.num_classes
    given.centerness = positive * torch.rand(given.labels.shape, generator=g)
    if holes:
        given.label_weights *= (torch.rand(given.labels.shape, generator=g) > 0.3) | positive
    return given


def arrays(view) -> dict:
    values = {"logits": view.class_logits, "boxes": view.boxes, "distributions": view.distributions}
    if view.quality_logits is not None:
        values["quality"] = view.quality_logits
    return {key: value.detach().numpy() for key, value in values.items()}


def expected_terms(given: DistillStep, box_loss: str, normaliser: str) -> dict[str, float]:
    """The oracle from the raw features on."""
    towers = [[], []]
    for branch, name in enumerate(("cls_tower", "reg_tower")):
        for s, t in zip(getattr(given.student, name), getattr(given.teacher, name), strict=True):
            values = oracle.restandardised(s.detach().numpy(), t.detach().numpy())
            towers[branch].append(torch.from_numpy(values.clip(min=0)).float())
    head = given.teacher.reader
    outputs = head.outputs_from(None, *towers, block=-1)
    cross = {"logits": head.class_logits(outputs), "boxes": head.boxes(outputs, given.grid)}
    cross |= {"distributions": head.distributions(outputs)}
    cross |= {"quality": outputs["quality"].squeeze(-1)} if head.quality else {}
    labels = given.labels.numpy()
    weights = {"positives": labels < 3, "centerness": given.centerness.numpy()}[normaliser]
    both = {key: value.numpy() for key, value in cross.items()}, arrays(given.teacher)
    return oracle.crosskd(*both, labels, given.label_weights.numpy(), 3, box_loss, oracle.count(weights))


@pytest.mark.parametrize("case", [0, 1])
def test_class_term_is_the_released_one(case):
    """The factor before the cross-entropy takes gradient."""
    meta, a = load(f"crosskd_cls_{case}")
    assert meta["beta"] == 1

    def loss(student):
        return (a["sample_weight"] * class_divergence(student, a["teacher"])).sum() / meta["avg_factor"]

    value, grad = value_and_grad(loss, a["student"])
    assert_close(value, a["loss"])
    assert_close(grad, a["grad"])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("box_loss", ["kl", "giou", "iou"])
@pytest.mark.parametrize("normaliser", ["positives", "centerness"])
@pytest.mark.parametrize("quality", [False, True])
def test_terms_are_the_formula(seed, box_loss, normaliser, quality):
    given = taught(seed, quality=quality)
    settings = {"weight": 0.5, "weight_cls": 0.4, "weight_box": 3.0, "weight_quality": 2.0}
    method = build_method("crosskd", context(), box_loss=box_loss, normaliser=normaliser, **settings)
    terms = method(given)
    scale = {"cls": 0.2, "box": 1.5, "quality": 1.0}
    expected = {key: scale[key] * value for key, value in expected_terms(given, box_loss, normaliser).items()}
    assert len(expected) == 2 + quality
    assert min(expected.values()) > 0.01
    found = {key.removeprefix("loss_crosskd_"): value.item() for key, value in terms.items()}
    assert found == pytest.approx(expected, rel=1e-5)


def test_gradient_is_that_of_a_loop():
    """Written anew with autograd on double precision, prediction by prediction; and nothing reaches the teacher."""
    given = taught(3)
    leaves = [*given.student.cls_tower, *given.student.reg_tower]
    method = build_method("crosskd", context())
    found = torch.autograd.grad(sum(method(given).values()), leaves)
    maps = zip(leaves, [*given.teacher.cls_tower, *given.teacher.reg_tower], strict=True)
    doubles, features = [leaf.detach().double().requires_grad_() for leaf in leaves], []
    for leaf, (_, t) in zip(doubles, maps, strict=True):
        channels = []
        for c in range(leaf.size(1)):
            s, target = leaf[:, c], t[:, c].detach().double()
            channels.append(F.relu((s - s.mean()) / (s.std() + 1e-6) * target.std() + target.mean()))
        features.append(torch.stack(channels, dim=1))
    head, teacher = given.teacher.reader, given.teacher
    head.maps = {key: value.double() for key, value in head.maps.items()}
    outputs = head.outputs_from(None, features[:2], features[2:], block=-1)
    total, share, box = 0.0, 0.0, 0.0
    positives = (given.labels < 3).sum()
    for i in torch.nonzero(given.label_weights > 0).tolist():
        n, p = i
        x, y = outputs["logits"][n, p], teacher.class_logits[n, p].detach().double().sigmoid()
        entropy = -(y * x.sigmoid().log() + (1 - y) * (1 - x.sigmoid()).log())
        total = total + ((x.sigmoid() - y).abs() * entropy).sum() / positives
        q = teacher.distributions[n, p].detach().double().softmax(-1)
        own = outputs["distributions"][n, p].unflatten(-1, (4, 5)).softmax(-1)
        box, share = box + y.max() * (q * (q / own).log()).sum() / 4, share + y.max()
        if given.labels[n, p] < 3:
            target, own = teacher.quality_logits[n, p].double().sigmoid(), outputs["quality"][n, p, 0].sigmoid()
            total = total - (target * own.log() + (1 - target) * (1 - own).log()) / positives
    expected = torch.autograd.grad(total + 4 * box / share, doubles)
    for one, other in zip(found, expected, strict=True):
        assert other.abs().max() > 1e-4
        scale = other.abs().max()
        torch.testing.assert_close(one.double() / scale, other / scale, rtol=1e-4, atol=1e-5)
    again = taught(3)
    sum(method(again).values()).backward()
    assert again.student.cls_tower[0].grad is not None
    for leaf in (again.teacher.class_logits, again.teacher.distributions, again.student.class_logits):
        assert leaf.grad is None


def test_the_head_gets_what_it_needs():
    given, method = taught(), build_method("crosskd", context(), block=2)
    assert method.tower_place == TowerPlace(block=1, activated=False)
    method(given)
    ((neck, cls_tower, reg_tower, block),) = given.teacher.reader.calls
    assert neck is given.teacher.neck
    assert block == 1
    expected = [*given.teacher.cls_tower, *given.teacher.reg_tower]
    for features, theirs in zip([*cls_tower, *reg_tower], expected, strict=True):
        assert features.shape == theirs.shape
        assert features.min() == 0


def test_restandardised_features_have_the_teachers_statistics():
    g = torch.Generator().manual_seed(0)
    student, teacher = 5 * torch.randn(2, 4, 3, 5, generator=g) - 7, torch.randn(2, 4, 3, 5, generator=g) + 2
    found = restandardised(student, teacher)
    for statistic in (torch.mean, torch.std):
        assert_close(statistic(found, dim=(0, 2, 3)), statistic(teacher, dim=(0, 2, 3)))
    # whatever the student's own scale and offset are
    assert_close(restandardised(3 * student + 1, teacher), found)
    assert_close(restandardised(teacher, teacher), teacher)


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (2, 4, 3, 3)])
def test_a_level_without_variance_gets_the_teachers_mean(shape):
    student = torch.ones(shape).requires_grad_()
    teacher = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = restandardised(student, teacher)
    mean = teacher.mean(dim=(0, 2, 3), keepdim=True).expand(shape)
    torch.testing.assert_close(found, mean, rtol=1e-5, atol=1e-5)
    found.square().sum().backward()
    assert bool(student.grad.isfinite().all())
    if shape[0] == 1:
        assert not student.grad.any()


def test_ignored_predictions_do_not_count():
    """Whatever the teacher says there."""
    given, method = taught(), build_method("crosskd", context(), box_loss="giou")
    ignored = given.label_weights == 0
    assert ignored.any()
    before = method(given)
    with torch.no_grad():
        given.teacher.class_logits[ignored] = 3.0
        given.teacher.boxes[ignored] += 10
    after = method(given)
    for key, value in before.items():
        assert_close(after[key], value)


def test_nothing_positive_nothing_counted():
    """n is at least 1; a batch that is ignored as a whole gives zeros with a gradient."""
    given = taught(holes=False)
    given.labels = torch.full_like(given.labels, 3)
    given.centerness = torch.zeros_like(given.centerness)
    for normaliser in ("positives", "centerness"):
        terms = build_method("crosskd", context(), box_loss="giou", normaliser=normaliser)(given)
        found = {key.removeprefix("loss_crosskd_"): value.item() for key, value in terms.items()}
        expected = expected_terms(given, "giou", "positives")
        assert expected["quality"] == 0
        assert found == pytest.approx({**expected, "box": 4 * expected["box"]}, rel=1e-5)
    given.label_weights = torch.zeros_like(given.label_weights)
    terms = build_method("crosskd", context())(given)
    assert [value.item() for value in terms.values()] == [0.0, 0.0, 0.0]
    sum(terms.values()).backward()
    grads = [leaf.grad for leaf in (*given.student.cls_tower, *given.student.reg_tower)]
    assert all(bool(grad.isfinite().all()) and not grad.any() for grad in grads)


def test_terms_can_be_left_out():
    names = {"cls", "box", "quality"}
    for name in names:
        terms = build_method("crosskd", context(), **{f"weight_{name}": 0.0})(taught())
        assert set(terms) == {f"loss_crosskd_{other}" for other in names - {name}}


def test_narrow_students_get_adapters():
    ctx = context(student_channels=6)
    method = build_method("crosskd", ctx)
    given = taught(ctx=ctx)
    sum(method(given).values()).backward()
    assert len(method.adapters) == 2 * len(SIZES)
    assert all(conv.weight.shape == (8, 6, 1, 1) and conv.weight.grad.any() for conv in method.adapters)
    assert not list(build_method("crosskd", context()).parameters())


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"block": 5}, {}, "block 5 .* at most 4"),
        ({"block": 0}, {}, "block 0 is not one of the 1 to 4"),
        ({"block": 3}, {"tower_blocks": 2}, "set block to at most 2"),
        ({}, {"bins": None}, "distributions .* set box_loss to giou"),
        ({"box_loss": "l1"}, {}, "box_loss 'l1' is not one of kl, giou, iou"),
        ({"normaliser": "none"}, {}, "normaliser 'none' is not one of positives, centerness"),
        ({}, {"assigns_labels": False}, "AutoAssign"),
    ],
)
def test_errors(settings, changes, message):
    with pytest.raises(MethodError, match=message):
        build_method("crosskd", context(**changes), **settings)


def test_a_head_without_centerness_cannot_normalise_by_it():
    given = taught()
    given.centerness = None
    with pytest.raises(MethodError, match="set normaliser to positives"):
        build_method("crosskd", context(), normaliser="centerness")(given)


# ------------------------------------------------------------------------------------------------ real heads

SERVED = {
    "gfl": {},
    "fcos": {"box_loss": "iou"},
    **{name: {"box_loss": "giou"} for name in ("atss", "retinanet", "ddod", "vfnet")},
}


def seen_step(model) -> tuple[DistillStep, dict[str, Tensor]]:
    """What the method sees of a batch, and what it returns."""
    seen = []
    handle = model.method.register_forward_hook(lambda module, args, out: seen.append((args[0], out)))
    model.loss(*batch())
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize(("block", "activated"), [(1, False), (2, False), (2, True)])
def test_equal_students_get_the_teachers_predictions(name, block, activated):
    """From the last block too, and from behind its activation."""
    model = pair(name, equal=True, method="crosskd", block=block, activated=activated, **SERVED[name])
    given, terms = seen_step(model)
    cross = model.method.cross_view(given)
    assert_close(cross.class_logits, given.teacher.class_logits)
    torch.testing.assert_close(cross.boxes, given.teacher.boxes, rtol=1e-4, atol=1e-2)
    assert terms["loss_crosskd_cls"].item() == pytest.approx(0, abs=1e-3)
    if name == "gfl":
        assert_close(cross.distributions, given.teacher.distributions)
        assert terms["loss_crosskd_box"].item() == pytest.approx(0, abs=1e-5)
    has_quality = name in ("fcos", "atss", "ddod")
    assert ("loss_crosskd_quality" in terms) == (cross.quality_logits is not None) == has_quality
    if has_quality:
        assert_close(cross.quality_logits, given.teacher.quality_logits)


@pytest.mark.parametrize("name", SERVED)
def test_gradients_reach_the_students_first_blocks_through_the_teacher(name):
    """The blocks behind the place learn from the ground truth alone."""
    model = pair(name, method="crosskd", block=1, **SERVED[name])
    samples = [sample(b, c) for b, c in zip((*BOXES, []), (*LABELS, []), strict=True)]
    losses = model.loss(images(3), samples)
    terms = sum(value for key, value in losses.items() if key.startswith("loss_crosskd"))
    terms.backward()
    head = model.student.bbox_head
    for tower in (head.cls_convs, head.reg_convs):
        assert tower[0].conv.weight.grad.any()
        assert tower[1].conv.weight.grad is None
        assert bool(tower[0].conv.weight.grad.isfinite().all())
    assert model.student.backbone.layer4[0].conv1.weight.grad.any()
    assert all(p.grad is None for p in model.teacher.parameters())


@pytest.mark.parametrize("name", [name for name in SERVED if name != "fcos"])
def test_terms_on_real_heads_are_the_formula(name):
    """Nine predictions a position, ignored ones, box coders."""
    model = pair(name, method="crosskd", block=2, weight_box=1.0, **SERVED[name])
    given, found = seen_step(model)
    with torch.no_grad():
        cross, teacher = model.method.cross_view(given), given.teacher
    if name != "gfl":
        box_loss = "giou"
        both = [{"logits": view.class_logits.numpy(), "boxes": view.boxes.numpy()} for view in (cross, teacher)]
    else:
        box_loss = "kl"
        both = [{"logits": v.class_logits.numpy(), "distributions": v.distributions.numpy()} for v in (cross, teacher)]
    if cross.quality_logits is not None:
        for values, view in zip(both, (cross, teacher), strict=True):
            values["quality"] = view.quality_logits.numpy()
    labels, weights = given.labels.numpy(), given.label_weights.numpy()
    positives = oracle.count(labels < CLASSES)
    expected = oracle.crosskd(*both, labels, weights, CLASSES, box_loss, positives)
    assert positives > 3
    terms = {key.removeprefix("loss_crosskd_"): value.item() for key, value in found.items()}
    assert terms == pytest.approx(expected, rel=1e-4)

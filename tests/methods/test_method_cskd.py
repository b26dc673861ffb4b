"""CSKD by loops on hand-made steps, and on real heads."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.detectors import QUIET, batch, pair
from support.golden import CLOSE
from support.oracles import cskd as oracle
from support.oracles.crosskd import count, cross_entropy, overlaps, sigmoid
from support.oracles.cwd import class_maps
from support.oracles.mgd import convolution
from support.slopes import assert_slopes
from support.steps import SIZES, context, step
from torch import nn

from pgd.dense import flatten_levels
from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.cskd import guided_distance, object_mask
from pgd.methods.cskd_assistant import between_bins
from pgd.scaling import published_settings

pytestmark = QUIET

#: contexts of the three forms
FORMS = {"gfl": {}, "fcos": {"bins": None, "anchor_free": True}, "retinanet": {"bins": None}}


def double(tensor: torch.Tensor):
    return tensor.detach().double().numpy()


def form(name: str, **more):
    return context(tower_blocks=2, **FORMS[name], **more)


def taught(name: str, seed: int = 0):
    """A padded step of a form, whose heads have a second block."""
    ctx = form(name)
    given, g = step(3, seed, ctx), torch.Generator().manual_seed(seed + 100)
    given.image_sizes = [(48, 64), (33, 50), (40, 64)]
    given.centerness = (given.labels < 3) * torch.rand(given.labels.shape, generator=g)
    given.label_weights *= torch.rand(given.labels.shape, generator=g) > 0.2
    for view in (given.student, given.teacher):
        blocks = [nn.ModuleList((nn.Identity(), nn.Conv2d(8, 8, 3, padding=1))) for _ in range(2)]
        view.reader = SimpleNamespace(towers=blocks)
        view.outputs = (None, [torch.randn(3, 4, *size, generator=g).requires_grad_() for size in SIZES])
        quality = torch.randn(given.labels.shape, generator=g).requires_grad_()
        view.quality_logits = quality if name == "fcos" else None
    return given


def built(name: str, **settings):
    """Published settings, adapters that are not near zero."""
    method = build_method("cskd", form(name), **{**published_settings("cskd", name), **settings})
    for p in method.parameters():
        nn.init.normal_(p, std=0.3)
    return method


def weights_of(name: str, place: str) -> tuple[float, float]:
    if name == "retinanet":
        return (5.0, 2.0) if place == "towers" else (1.0, 2.0)
    return 1.0, 0.5


def boxes_of(given):
    return [boxes.tolist() for boxes in given.gt_boxes]


def masks_of(given, size):
    return np.stack([oracle.mask(b, s, size) for b, s in zip(boxes_of(given), given.image_sizes, strict=True)])


def adapted(adapter, features):
    return double(features) if isinstance(adapter, nn.Identity) else double(adapter(features))


def box_maps(name: str, view, given):
    """What is said of boxes, level by level."""
    if name == "retinanet":
        return [double(m) for m in view.outputs[1]]
    flat = view.distributions.flatten(2) if name == "gfl" else view.sides
    return class_maps(double(flat), SIZES, 1)


@pytest.mark.parametrize("name", FORMS)
def test_neck_by_loops(name):
    torch.manual_seed(0)
    given, method = taught(name), built(name)
    expected = sum(
        oracle.neck(adapted(adapt, s), double(t), boxes_of(given), given.image_sizes, weights_of(name, "neck"))
        for adapt, s, t in zip(method.adapters, given.student.neck, given.teacher.neck, strict=True)
    )
    assert method(given)["loss_cskd_neck"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_towers_by_loops(name):
    torch.manual_seed(0)
    given, method = taught(name), built(name)
    convolutions = [a for a in method.tower_adapters if isinstance(a, nn.Conv2d)]
    assert len(convolutions) == (8 if name == "fcos" else 0), "for each of two towers, blocks and levels"
    adapters, expected = iter(method.tower_adapters), 0.0
    for tower, features in enumerate(("cls_tower", "reg_tower")):
        for block in range(2):
            for level in range(2):
                maps = []
                for view in (given.student, given.teacher):
                    first = getattr(view, features)[level]
                    maps.append(first if block == 0 else view.reader.towers[tower][1](first))
                own = adapted(next(adapters), maps[0])
                expected += oracle.guided(own, double(maps[1]), weights_of(name, "towers")) / 2
    assert method(given)["loss_cskd_towers"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", FORMS)
def test_outputs_by_loops(name):
    given, method = taught(name), built(name)
    weights, expected = weights_of(name, "outputs"), 0.0
    views = given.student, given.teacher
    kinds = {
        "classes": [class_maps(double(view.scores), SIZES, 1) for view in views],
        "boxes": [box_maps(name, view, given) for view in views],
    }
    if name == "fcos":
        kinds["quality"] = [class_maps(double(v.quality_logits.sigmoid().unsqueeze(2)), SIZES, 1) for v in views]
    for kind, levels in kinds.items():
        for s, t in zip(*levels, strict=True):
            average = masks_of(given, s.shape[2:]).sum() * s.shape[1]
            plain = kind == "classes" and name != "gfl"
            expected += oracle.guided(s, t, weights, None if plain else average)
    assert method(given)["loss_cskd_outputs"].item() == pytest.approx(expected, rel=1e-4)


def assistant_says(method, given):
    """What the assistant's layers put out: class logits ``[N, P, K]``, boxes ``[N, P, 4 bins]``, third branch."""
    towers = method.towers(given.student)
    assistant = method.assistant

    def layer(conv, features, width, scaled=False):
        maps = [convolution(double(f), double(conv.weight), double(conv.bias)) for f in features]
        scales = assistant.scales if scaled and assistant.scales is not None else [torch.ones(())] * len(maps)
        maps = [torch.from_numpy(m * scale.item()) for m, scale in zip(maps, scales, strict=True)]
        return flatten_levels(maps, width).numpy()

    logits, boxes = (
        layer(assistant.cls, towers[1], 3),
        layer(assistant.box, towers[3], assistant.box.out_channels, True),
    )
    return logits, boxes, None if assistant.quality is None else layer(assistant.quality, towers[1], 1)[..., 0]


@pytest.mark.parametrize("name", FORMS)
def test_assistant_by_loops(name):
    torch.manual_seed(1)
    given, method = taught(name, 1), built(name, weight=2.0, weight_assistant=3.0)
    logits, boxes, quality = assistant_says(method, given)
    labels, label_weights = given.labels.numpy(), given.label_weights.numpy()
    positive, teacher = labels < 3, given.teacher
    if name == "gfl":
        theirs = double(teacher.distributions)
        expected = oracle.gfl(logits, boxes.reshape(theirs.shape), theirs, labels, label_weights, 3)
    else:
        inside = np.concatenate([masks_of(given, size).reshape(3, -1) for size in SIZES], axis=1)
        expected = {"cls": oracle.focal(logits, double(teacher.class_logits), inside, label_weights, positive)}
    if name == "retinanet":
        deltas = flatten_levels(teacher.outputs[1], 4).detach().numpy()
        expected["box"] = np.abs(boxes - deltas)[positive].sum() / count(positive)
    if name == "fcos":
        sides, centerness = double(teacher.sides), double(given.centerness)
        box = third = 0.0
        for i in np.ndindex(*labels.shape):
            pair_ = oracle.box_around(boxes[i].clip(min=0)), oracle.box_around(sides[i])
            if positive[i]:
                box += centerness[i] * (1 - overlaps(*pair_)[1])
                third += cross_entropy(quality[i], sigmoid(teacher.quality_logits[i].item()))
        expected |= {"box": box / count(centerness), "quality": third / count(positive)}
    terms = method(given)
    found = {key: value.item() for key, value in terms.items() if "assistant" in key}
    expected = {f"loss_cskd_assistant_{key}": 6 * value for key, value in expected.items()}
    assert found == pytest.approx(expected, rel=1e-4)


def test_gradient_of_distances():
    """Through the cosines, too; with and without a count."""
    g = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 3, 4, generator=g).requires_grad_(), torch.randn(2, 3, 3, 4, generator=g)
    for average in (None, 7.0):
        counted = None if average is None else torch.tensor(average)
        loss = guided_distance(student, teacher, (2.0, 0.7), counted)
        assert_slopes(loss, (student,), lambda v, a=average: oracle.guided(v[0], double(teacher), (2.0, 0.7), a))


@pytest.mark.parametrize("name", FORMS)
def test_gradients_reach_all_of_the_student_and_nothing_of_the_teacher(name):
    given, method = taught(name), built(name)
    sum(method(given).values()).backward()
    for kind in ("neck", "cls_tower", "reg_tower"):
        assert all(bool(f.grad.isfinite().all()) and f.grad.any() for f in getattr(given.student, kind))
        assert all(f.grad is None for f in getattr(given.teacher, kind))
    assert given.student.class_logits.grad.any()
    assert given.teacher.class_logits.grad is None
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.parameters())


def test_a_common_factor_costs_no_cosine():
    maps = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(guided_distance(3 * maps, maps, (1.0, 1.0)), torch.tensor(0.0), rtol=0, atol=1e-5)
    opposite = guided_distance(-maps, maps, (1.0, 0.0))
    torch.testing.assert_close(opposite, 4 * (2 * maps).square().mean(), **CLOSE)


def test_mask_by_hand():
    cells = torch.tensor([[0.9, 1.2, 2.9, 1.8], [5.1, 2.0, 9.0, 9.0], [-0.5, -3.0, 0.2, 0.4]])
    expected = torch.zeros(4, 6)
    expected[1, 0:3] = expected[2:4, 5:6] = expected[0, 0] = 1
    assert torch.equal(object_mask(cells, (4, 6)), expected)
    assert not object_mask(cells[:0], (4, 6)).any()


def test_between_bins_is_least_at_its_target():
    logits = torch.full((1, 5), -20.0)
    logits[0, 2], logits[0, 3] = torch.tensor([0.75, 0.25]).log()
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert between_bins(logits, torch.tensor([2.25])).item() == pytest.approx(entropy, rel=1e-4)
    assert between_bins(logits, torch.tensor([9.0])).isfinite()


def test_batches_without_objects_are_finite():
    given, method = taught("gfl"), built("gfl")
    given.gt_boxes = [boxes[:0] for boxes in given.gt_boxes]
    given.labels[:] = 3
    terms = method(given)
    assert all(bool(value.isfinite()) for value in terms.values())
    assert terms["loss_cskd_outputs"] == 0
    assert terms["loss_cskd_assistant_box"] == 0
    sum(terms.values()).backward()


@pytest.mark.parametrize(("name", "layer"), [("gfl", "gfl_cls"), ("fcos", "conv_cls"), ("retinanet", "retina_cls")])
def test_blocks_that_are_run_again_give_what_the_head_saw(name, layer):
    model = pair(name, method="cskd", **published_settings("cskd", name))
    seen = {}

    def keep(step):
        towers = model.method.towers(step.student)
        seen["again"] = getattr(model.student.bbox_head, layer)(towers[len(towers) // 2 - 1][0])
        seen["head"] = step.student.outputs[0][0]
        return {"loss_cskd": step.student.neck[0].sum() * 0}

    model.method.forward = keep
    model.loss(*batch())
    torch.testing.assert_close(seen["again"], seen["head"])


def test_the_assistant_can_be_left_out():
    method = build_method("cskd", form("gfl"), weight_assistant=0.0)
    assert "assignment" not in method.needs
    assert not any("assistant" in name for name, _ in method.named_parameters())
    assert set(method(taught("gfl"))) == {"loss_cskd_neck", "loss_cskd_towers", "loss_cskd_outputs"}


def test_widths_are_bridged():
    method = build_method("cskd", form("gfl", student_channels=5))
    assert all(adapter.weight.shape == (8, 5, 1, 1) for adapter in (*method.adapters, *method.tower_adapters))
    assert method.assistant.cls.in_channels == 5


def test_heads_without_labels_are_refused():
    with pytest.raises(MethodError, match="AutoAssign"):
        build_method("cskd", form("fcos", assigns_labels=False))

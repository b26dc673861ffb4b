"""GID by loops and on real heads, its settings and its edges; its parts are in ``test_gid_parts.py``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.detectors import QUIET, batch, pair
from support.many_anchors import many
from support.oracles import gid as oracle
from support.steps import STRIDES, context, step
from torch import nn
from torchvision.ops import nms

from pgd.dense import DistillStep
from pgd.methods import build_method
from pgd.methods.base import MethodError
from pgd.methods.gid import matched
from pgd.scaling import FULL, Size, published_settings

pytestmark = QUIET
#: at which the second level takes boxes from 32 pixels on
BASE = 2.0
WEIGHTS = {"feature": 5e-4, "relation": 40.0, "cls": 0.1, "box": 1.0}


def double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def arrays(view, image: int | slice = slice(None)) -> dict[str, np.ndarray]:
    return {"logits": double(view.class_logits[image]), "boxes": double(view.boxes[image])}


def predictions_valid(given: DistillStep) -> torch.Tensor:
    return given.grid.valid.repeat_interleave(given.grid.per_position, dim=1)


def expected_instances(given: DistillStep, **settings) -> list[np.ndarray]:
    valid = predictions_valid(given).numpy()
    return [
        oracle.instances(arrays(given.student, i), arrays(given.teacher, i), valid[i], size, **settings)
        for i, size in enumerate(given.image_sizes)
    ]


def expected_terms(given: DistillStep, adapt: nn.Module, instances: list[np.ndarray], beta: float) -> dict[str, float]:
    """The unweighted terms from the instances on."""
    both, anchors, valid = [], double(given.grid.priors), predictions_valid(given).numpy()
    for neck in ([adapt(f) for f in given.student.neck], given.teacher.neck):
        maps, found = [double(f) for f in neck], []
        for image, boxes in enumerate(instances):
            for box in boxes:
                level = oracle.level_of(box, len(STRIDES), STRIDES[0], BASE)
                found.append(oracle.roi_align(maps[level][image], box, STRIDES[level]))
        both.append(found)
    chosen = np.stack([oracle.matched(anchors, b, v) for b, v in zip(instances, valid, strict=True)])
    cls, box = oracle.response(arrays(given.student), arrays(given.teacher), anchors, chosen, beta)
    feature = sum(((s - t) ** 2).sum() for s, t in zip(*both, strict=True)) / (100 * len(both[0]))
    return {"feature": feature, "relation": oracle.relation(*both), "cls": cls, "box": box}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("make", [step, many], ids=["one anchor", "several anchors"])
@pytest.mark.parametrize(("keep", "candidates", "adapter"), [(10, 3000, False), (3, 40, True)])
def test_method_by_loops(seed, make, keep, candidates, adapter):
    torch.manual_seed(seed)
    given = make(2, seed)
    given.image_sizes[1] = (40, 50)
    given.grid.valid[1, :7] = False
    own = {f"weight_{name}": 2 * weight for name, weight in WEIGHTS.items()}
    settings = {"instances": keep, "candidates": candidates, "adapter": adapter, "base": BASE, "beta": 0.3}
    method = build_method("gid", context(), weight=3.0, **own, **settings)
    instances = expected_instances(given, keep=keep, candidates=candidates)
    assert all(2 < len(boxes) <= keep for boxes in instances)
    for found, expected in zip(method.instances(given), instances, strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-4)
    levels = {oracle.level_of(box, 2, STRIDES[0], BASE) for boxes in instances for box in boxes}
    assert levels == {0, 1} or keep == 3
    expected = expected_terms(given, method.adapter, instances, beta=0.3)
    terms = {name: value.item() for name, value in method(given).items()}
    assert min(expected.values()) > 1e-3
    weighed = {f"loss_gid_{name}": 6 * WEIGHTS[name] * value for name, value in expected.items()}
    assert terms == pytest.approx(weighed, rel=1e-5)


def test_padding_gives_no_instance_and_no_match():
    given = step()
    method = build_method("gid", context())
    free = method.instances(given)
    given.grid.valid[0] = False
    alone = method.instances(given)
    assert len(alone[0]) == 0
    assert torch.equal(alone[1], free[1])
    anchors = given.grid.priors
    chosen = matched(anchors, free, given.grid.valid)
    assert not chosen[0].any()
    assert chosen[1].any()


def test_suppression_keeps_images_apart():
    """Images of one batch give what each gives alone."""
    given = step(3, 5)
    method = build_method("gid", context())
    whole = method.instances(given)
    for i, expected in enumerate(expected_instances(given)):
        assert len(expected)
        assert len(nms(whole[i], torch.arange(len(whole[i]), 0.0, -1), 0.3)) == len(whole[i])
        np.testing.assert_allclose(whole[i].numpy(), expected, rtol=1e-5, atol=1e-4)


def test_two_instances_have_no_relation():
    given = step(1)
    method = build_method("gid", context(), instances=2)
    assert len(method.instances(given)[0]) == 2
    loss = method(given)["loss_gid_relation"]
    grads = torch.autograd.grad(loss, given.student.neck)
    assert loss == 0
    assert not any(grad.any() for grad in grads)


def test_gradient_as_that_of_a_loop():
    given = step(2, 6)
    method = build_method("gid", context(), base=BASE)
    leaves = [*given.student.neck, given.student.class_logits, given.student.sides]
    found = torch.autograd.grad(sum(method(given).values()), leaves)
    instances, grid = method.instances(given), given.grid
    chosen = matched(grid.priors, instances, grid.valid).nonzero().tolist()
    maps, logits, sides = (
        [f.detach().double().requires_grad_() for f in leaves[:2]],
        *(leaf.detach().double().requires_grad_() for leaf in leaves[2:]),
    )
    rows = [[], []]
    for neck, own in zip((maps, [f.detach().double() for f in given.teacher.neck]), rows, strict=True):
        for image, boxes in enumerate(instances):
            for box in boxes:
                level = oracle.level_of(double(box), 2, STRIDES[0], BASE)
                # bilinear weights of every cell: what the loop makes of maps with a single one
                cells = neck[level].shape[-2:]
                basis = np.eye(cells.numel()).reshape(-1, *cells)
                weights = torch.from_numpy(oracle.roi_align(basis, double(box), STRIDES[level]))
                own.append(torch.einsum("khw,ck->chw", weights, neck[level][image].flatten(1)).flatten())
    n = len(rows[0])
    total = 5e-4 * sum(((s - t) ** 2).sum() for s, t in zip(*rows, strict=True)) / (100 * n)
    distances = [torch.stack([(a - b).norm() for i, a in enumerate(r) for b in r[:i]]) for r in rows]
    gaps = [d / d.mean() for d in distances]
    total = total + 40 * 2 * nn.functional.smooth_l1_loss(*gaps, reduction="sum") / (n * n - n)
    for image, p in chosen:
        x, y = logits[image, p], given.teacher.scores[image, p].detach().double()
        total = total - 0.1 * (y * x.sigmoid().log() + (1 - y) * (1 - x.sigmoid()).log()).sum() / len(chosen)
        # distances in strides from a centre at which an anchor of four strides stands
        reach, other = sides[image, p] / 4, given.teacher.sides[image, p].detach().double() / 4
        pairs = [torch.cat(((r[2:] - r[:2]) / 2, (r[2:] + r[:2]).log())) for r in (reach, other)]
        total = total + nn.functional.smooth_l1_loss(*pairs, reduction="sum", beta=0.1) / len(chosen)
    for grad, expected in zip(found, torch.autograd.grad(total, [*maps, logits, sides]), strict=True):
        scale = expected.abs().max()
        torch.testing.assert_close(grad.double() / scale, expected / scale, rtol=1e-4, atol=1e-5)


def test_nothing_reaches_the_teacher():
    given = step()
    sum(build_method("gid", context())(given).values()).backward()
    leaves = [*given.teacher.neck, given.teacher.class_logits, given.teacher.sides]
    assert all(leaf.grad is None for leaf in leaves)
    assert all(leaf.grad.any() for leaf in (given.student.class_logits, given.student.sides))


def test_a_batch_without_instances_gives_zero_with_a_gradient():
    given = step()
    given.grid.valid[:] = False
    terms = build_method("gid", context())(given)
    leaves = [*given.student.neck, given.student.class_logits, given.student.sides]
    grads = torch.autograd.grad(sum(terms.values()), leaves)
    assert {name: value.item() for name, value in terms.items()} == {f"loss_gid_{name}": 0.0 for name in WEIGHTS}
    assert not any(grad.any() for grad in grads)


def test_point_heads_get_squares():
    points, anchored = step(anchor=None), step(anchor=4.0)
    first, second = (build_method("gid", context(), anchor=4.0)(given) for given in (points, anchored))
    assert all(torch.equal(first[name], second[name]) for name in second)
    other = build_method("gid", context(), anchor=2.0)(points)
    assert other["loss_gid_box"] != first["loss_gid_box"]
    assert torch.equal(other["loss_gid_feature"], first["loss_gid_feature"])


def test_terms_can_be_left_out():
    given = step()
    for name in WEIGHTS:
        others = {f"weight_{other}": 0.0 for other in WEIGHTS if other != name}
        assert set(build_method("gid", context(), **others)(given)) == {f"loss_gid_{name}"}
    predictions = build_method("gid", context(), weight_feature=0.0, weight_relation=0.0, adapter=True)
    assert predictions.needs == {"predictions"}
    assert not list(predictions.parameters())
    given.student.neck = given.teacher.neck = None
    assert set(predictions(given)) == {"loss_gid_cls", "loss_gid_box"}


def test_widths_that_differ_share_one_adapter():
    ctx = context(student_channels=6)
    given, method = step(ctx=ctx), build_method("gid", ctx, base=BASE)
    assert [tuple(p.shape) for p in method.parameters()] == [(8, 6, 3, 3), (8,)]
    instances = [double(boxes) for boxes in method.instances(given)]
    expected = expected_terms(given, method.adapter, instances, beta=0.1)
    found = {name: value.item() for name, value in method(given).items()}
    weighed = {f"loss_gid_{name}": WEIGHTS[name] * value for name, value in expected.items()}
    assert found == pytest.approx(weighed, rel=1e-5)
    assert not list(build_method("gid", context()).parameters())


@pytest.mark.parametrize("name", ["retinanet", "fcos", "gfl"])
def test_real_heads_give_instances_and_matches(name):
    model = pair(name, method="gid", **published_settings("gid", name, SMALL))
    seen = []
    model.method.register_forward_hook(lambda module, inputs, terms: seen.append(inputs[0]))
    losses = model.loss(*batch())
    (given,) = seen
    instances = model.method.instances(given)
    for boxes in instances:
        assert 1 <= len(boxes) <= 10
        assert ((boxes[:, 2:] - boxes[:, :2]) > 5).all()
        assert boxes.min() >= 0
        assert boxes[:, 2].max() <= 128
    alive = WEIGHTS.keys() - ({"relation"} if sum(map(len, instances)) < 3 else set())
    assert {term for term in WEIGHTS if losses[f"loss_gid_{term}"] > 0} == alive


SMALL = Size(channels=32, positions=533, cells=4, blocks=2, warmup=40)


def test_published_settings():
    full, small = (published_settings("gid", "retinanet", size) for size in (FULL, SMALL))
    assert {name: full[f"weight_{name}"] for name in WEIGHTS} == WEIGHTS
    assert full["candidates"] == 3000
    assert full["instances"] == 10
    assert full["min_side"] == 10.0
    changed = {"weight_feature": 4e-3, "min_side": 5.0, "base": 7.0, "anchor": 4.0}
    assert small == {**full, **changed}
    assert published_settings("gid", "fcos") == full


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"instances": 0}, "instances 0 leaves no instance: give 1 or more"),
        ({"candidates": 0}, "candidates 0 leaves no instance"),
        ({"base": 0}, "base 0 is a size in strides"),
        ({"anchor": -1}, "anchor -1 is a size in strides"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(MethodError, match=message):
        build_method("gid", context(), **settings)

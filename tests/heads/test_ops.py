"""mmcv's operators as pgd.ops serves them: mmcv's own functions against independent arithmetic."""

from __future__ import annotations

import importlib
import math
import sys

import pgd.plugin  # noqa: F401  serves mmcv._ext, which mmcv.ops imports
from pgd import ops
from pgd.deformable import Geometry, deform_conv

# isort: split
import mmcv
import numpy as np
import pytest
import torch
from mmcv import ops as mm
from torch.autograd import gradcheck
from torch.nn.functional import conv2d, pad
from torch.testing import assert_close
from torchvision.ops import deform_conv2d

DOUBLE = {"dtype": torch.float64}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_boxes(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = generator(seed)
    corner, size = torch.rand(n, 2, generator=g) * 40, 4 + torch.rand(n, 2, generator=g) * 30
    return torch.cat((corner, corner + size), dim=1), torch.rand(n, generator=g)


def literal_iou(a: list[float], b: list[float], offset: int) -> float:
    w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    area = sum((c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b))
    return w * h / (area - w * h) if area > w * h else 0.0


def literal_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float, offset: int) -> list[int]:
    keep: list[int] = []
    rows = boxes.double().tolist()
    for i in np.argsort(-scores.double().numpy(), kind="stable").tolist():
        if all(literal_iou(rows[i], rows[k], offset) <= threshold for k in keep):
            keep.append(i)
    return keep


def literal_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    rows, left = boxes.double().tolist(), dict(enumerate(scores.double().tolist()))
    keep, kept_scores = [], []
    while left:
        best = max(left, key=left.get)
        keep.append(best)
        kept_scores.append(left.pop(best))
        for i in list(left):
            iou = literal_iou(rows[best], rows[i], offset)
            if method == "gaussian":
                left[i] *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                left[i] *= 0.0 if method == "naive" else 1 - iou
            if left[i] < min_score:
                del left[i]
    return keep, kept_scores


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
def test_nms_equals_literal_loop(threshold, offset):
    boxes, scores = random_boxes(120, seed=1)
    dets, keep = mm.nms(boxes, scores, threshold, offset=offset)
    assert keep.tolist() == literal_nms(boxes, scores, threshold, offset)
    assert len(keep) < 120
    assert_close(dets, torch.cat((boxes, scores[:, None]), dim=1)[keep])


@pytest.mark.parametrize(("offset", "kept"), [(0, [0, 1]), (1, [0])])
def test_nms_offset_by_hand(offset, kept):
    """IoU 8/24 without and 15/35 with the legacy pixel, around a threshold of 0.4."""
    boxes = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4]])
    assert mm.nms(boxes, torch.tensor([0.9, 0.8]), 0.4, offset=offset)[1].tolist() == kept


def test_nms_options_and_numpy():
    boxes, scores = random_boxes(60, seed=2)
    full = literal_nms(boxes, scores, 0.5, 0)
    assert mm.nms(boxes, scores, 0.5, max_num=3)[1].tolist() == full[:3]
    above = [i for i in full if scores[i] > 0.6]
    dets, keep = mm.nms(boxes.numpy(), scores.numpy(), 0.5, score_threshold=0.6)
    assert keep.tolist() == above
    assert isinstance(dets, np.ndarray)
    assert mm.nms(boxes[:0], scores[:0], 0.5)[0].shape == (0, 5)
    assert mm.nms(boxes.half(), scores.half(), 0.5)[1].numel() > 0


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_equals_literal_loop(method, offset):
    boxes, scores = random_boxes(50, seed=3)
    settings = {"sigma": 0.4, "min_score": 0.05, "method": method, "offset": offset}
    dets, keep = mm.soft_nms(boxes, scores, 0.3, **settings)
    expected, decayed = literal_soft_nms(boxes, scores, 0.3, **settings)
    assert keep.tolist() == expected
    assert 0 < len(keep) < 50
    assert_close(dets, torch.cat((boxes[keep], torch.tensor(decayed)[:, None]), dim=1))


@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms_leaves_boxes_without_area(method):
    """The example of mmcv's own docstring: boxes without area do not suppress each other."""
    boxes = torch.tensor([[4.0, 3, 5, 3], [4, 3, 5, 4]] + 4 * [[3, 1, 3, 1]])
    scores = torch.tensor([0.9, 0.9, 0.5, 0.5, 0.4, 0.0])
    dets, keep = mm.soft_nms(boxes, scores, 0.6, sigma=0.5, method=method)
    assert keep.tolist() == [0, 1, 2, 3, 4]
    assert_close(dets[:, 4], scores[:5])
    assert mm.soft_nms(boxes[:0], scores[:0], method=method)[0].shape == (0, 5)


@pytest.mark.parametrize("split", [10000, 10])
def test_batched_nms_is_nms_of_each_class(split):
    boxes, scores = random_boxes(80, seed=4)
    classes = torch.arange(80) % 3
    expected: list[int] = []
    for c in range(3):
        rows = (classes == c).nonzero().flatten()
        expected += rows[literal_nms(boxes[rows], scores[rows], 0.5, 0)].tolist()
    expected.sort(key=lambda i: -scores[i])
    config = {"type": "nms", "iou_threshold": 0.5, "split_thr": split}
    dets, keep = mm.batched_nms(boxes, scores, classes, config)
    assert keep.tolist() == expected
    assert_close(dets, torch.cat((boxes, scores[:, None]), dim=1)[keep])


def test_batched_nms_class_agnostic_soft_and_none():
    boxes, scores = random_boxes(40, seed=5)
    classes = torch.arange(40) % 3
    hard = {"type": "nms", "iou_threshold": 0.5, "class_agnostic": True}
    assert mm.batched_nms(boxes, scores, classes, hard)[1].tolist() == literal_nms(boxes, scores, 0.5, 0)
    soft = {"type": "soft_nms", "iou_threshold": 0.3, "method": "linear", "min_score": 0.05}
    keep = mm.batched_nms(boxes, scores, classes * 0, soft)[1]
    assert keep.tolist() == literal_soft_nms(boxes, scores, 0.3, 0.5, 0.05, "linear", 0)[0]
    order = scores.argsort(descending=True)
    assert mm.batched_nms(boxes, scores, classes, None)[1].tolist() == order.tolist()


TARGET = torch.tensor([0, 2, 3, 1, 3])  # 3 is the background of three classes


def literal_focal(logits, target, gamma, alpha, weight=None):
    out = torch.zeros_like(logits)
    for n, row in enumerate(logits.tolist()):
        for c, x in enumerate(row):
            p = 1 / (1 + math.exp(-x))
            p, balance = (p, alpha) if int(target[n]) == c else (1 - p, 1 - alpha)
            out[n, c] = -balance * (1 - p) ** gamma * math.log(p)
    return out if weight is None else out * weight[target][:, None]


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (1.5, 0.4), (0.0, 0.5)])
def test_focal_loss_value_and_gradient(gamma, alpha):
    logits = (torch.randn(5, 3, generator=generator(6), **DOUBLE) * 3).requires_grad_()
    expected = literal_focal(logits.detach(), TARGET, gamma, alpha)
    assert_close(mm.sigmoid_focal_loss(logits, TARGET, gamma, alpha, None, "none"), expected)
    assert_close(mm.sigmoid_focal_loss(logits, TARGET, gamma, alpha, None, "sum"), expected.sum())
    assert_close(mm.sigmoid_focal_loss(logits, TARGET, gamma, alpha), expected.sum() / 5)
    for how in ("none", "mean"):
        assert gradcheck(lambda x, h=how: mm.sigmoid_focal_loss(x, TARGET, gamma, alpha, None, h), (logits,))


def test_focal_loss_class_weight():
    logits = torch.randn(4, 3, generator=generator(7), **DOUBLE).requires_grad_()
    target, weight = torch.tensor([0, 2, 1, 2]), torch.tensor([0.5, 2.0, 3.0], **DOUBLE)
    loss = mm.sigmoid_focal_loss(logits, target, 1.5, 0.25, weight, "none")
    assert_close(loss, literal_focal(logits.detach(), target, 1.5, 0.25, weight))
    assert gradcheck(lambda x: mm.sigmoid_focal_loss(x, target, 1.5, 0.25, weight, "none"), (logits,))


def test_focal_loss_saturated_logits():
    """A hopeless positive costs alpha * |x| with slope -alpha; a certain one costs nothing."""
    logits = torch.tensor([[-60.0, -60.0], [60.0, -60.0]], requires_grad=True)
    loss = mm.sigmoid_focal_loss(logits, torch.tensor([0, 0]), 2.0, 0.25, None, "none")
    assert_close(loss, torch.tensor([[15.0, 0.0], [0.0, 0.0]]))
    loss.sum().backward()
    assert_close(logits.grad, torch.tensor([[-0.25, 0.0], [0.0, 0.0]]))


def conv_inputs(channels: int, deform_groups: int, stride: int, size: int):
    """Input, offsets (away from integers: sampling has kinks there), mask, weight; 3x3 kernel, padding 1."""
    g, out = generator(8), (size - 1) // stride + 1
    x = torch.randn(1, channels, size, size, generator=g, **DOUBLE)
    sign = torch.randint(0, 2, (1, 18 * deform_groups, out, out), generator=g) * 2 - 1
    offset = sign * (0.1 + 0.3 * torch.rand(sign.shape, generator=g, **DOUBLE))
    mask = torch.rand(1, 9 * deform_groups, out, out, generator=g, **DOUBLE)
    return x, offset, mask, torch.randn(channels, channels, 3, 3, generator=g, **DOUBLE)


@pytest.mark.parametrize("geometry", [(1, 1, 1, 1, 1), (2, 1, 1, 2, 1), (1, 2, 2, 1, 2), (2, 0, 1, 2, 2)])
def test_deform_conv_without_offset_is_convolution(geometry):
    *plain, deform_groups = geometry
    settings = dict(zip(("stride", "padding", "dilation", "groups"), plain, strict=True))
    x = torch.randn(2, 4, 7, 8, generator=generator(9))
    layer = mm.DeformConv2d(4, 6, 3, deform_groups=deform_groups, **settings)
    expected = conv2d(x, layer.weight, **settings)
    offset = torch.zeros(2, 18 * deform_groups, *expected.shape[-2:])
    assert_close(layer(x, offset), expected)
    layer = mm.ModulatedDeformConv2d(4, 6, 3, deform_groups=deform_groups, **settings)
    torch.nn.init.normal_(layer.bias)
    expected = conv2d(x, layer.weight, layer.bias, **settings)
    assert_close(layer(x, offset, torch.ones_like(offset[:, ::2])), expected)


def test_deform_conv_offsets_are_y_then_x():
    """Sampling one row lower everywhere is the convolution of the image shifted up by one row."""
    x, _, mask, weight = conv_inputs(4, 1, 1, 5)
    offset = torch.zeros(1, 18, 5, 5, **DOUBLE)
    offset[:, 0::2] = 1.0
    expected = conv2d(pad(x, (1, 1, 0, 2)), weight)
    assert_close(mm.deform_conv2d(x, offset, weight, 1, 1), expected)
    half = mm.modulated_deform_conv2d(x, offset, torch.full_like(mask, 0.5), weight, None, 1, 1)
    assert_close(half, 0.5 * expected)


@pytest.mark.slow
@pytest.mark.parametrize(("deform_groups", "stride"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_deform_conv_gradients(deform_groups, stride):
    x, offset, mask, weight = (t.requires_grad_() for t in conv_inputs(2, deform_groups, stride, 3))
    assert gradcheck(lambda *a: mm.deform_conv2d(*a, stride, 1, 1, 1, deform_groups), (x, offset, weight))
    bias = torch.randn(2, generator=generator(10), **DOUBLE).requires_grad_()
    settings = (stride, 1, 1, 1, deform_groups)
    assert gradcheck(lambda *a: mm.modulated_deform_conv2d(*a, *settings), (x, offset, mask, weight, bias))
    assert gradcheck(lambda *a: mm.modulated_deform_conv2d(*a, None, *settings), (x, offset, mask, weight))


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation", "groups", "deform_groups"),
    [
        ((9, 14), (1, 1), (1, 1), (1, 1), 1, 1),
        ((5, 1), (1, 1), (1, 1), (1, 1), 1, 1),
        ((9, 14), (2, 1), (0, 2), (1, 2), 2, 1),
        ((6, 5), (1, 2), (2, 1), (2, 1), 1, 4),
        ((9, 14), (3, 3), (1, 0), (1, 1), 4, 2),
    ],
)
def test_deform_conv_is_that_of_torchvision(modulated, size, stride, padding, dilation, groups, deform_groups):
    """Which has kernels of its own for it; offsets reach far outside."""
    g = generator(0)
    h, w = ((a + 2 * b - 2 * c - 1) // d + 1 for a, b, c, d in zip(size, padding, dilation, stride, strict=True))
    x, weight = (
        torch.randn(3, 8, *size, generator=g, **DOUBLE),
        torch.randn(4, 8 // groups, 3, 3, generator=g, **DOUBLE),
    )
    offset = 4 * torch.randn(3, 18 * deform_groups, h, w, generator=g, **DOUBLE)
    mask = torch.rand(3, 9 * deform_groups, h, w, generator=g, **DOUBLE) if modulated else None
    own = [t.requires_grad_() for t in (x, weight, offset, mask) if t is not None]
    # in whatever order of memory
    last = [t if t is None else t.contiguous(memory_format=torch.channels_last) for t in (x, weight, offset, mask)]
    found = deform_conv(*last, None, Geometry(stride, padding, dilation, groups, deform_groups))
    expected = deform_conv2d(x, offset, weight, None, stride, padding, dilation, mask)
    assert_close(found, expected)
    towards = torch.randn(expected.shape, generator=g, **DOUBLE)
    assert_close(torch.autograd.grad(found, own, towards), torch.autograd.grad(expected, own, towards))


def test_deform_conv_where_offsets_are_no_number():
    """The results there are none either; torchvision's kernel alone would read from anywhere and end the process."""
    x, offset, mask, weight = (t.requires_grad_() for t in conv_inputs(2, 1, 1, 5))
    broken = offset.detach().clone()
    broken[:, 3, 2, 4] = math.nan
    broken.requires_grad_()
    hole = torch.zeros(5, 5, dtype=torch.bool)
    hole[2, 4] = True
    for run in (
        lambda o: mm.deform_conv2d(x, o, weight, 1, 1),
        lambda o: mm.modulated_deform_conv2d(x, o, mask, weight, None, 1, 1),
    ):
        found, whole = run(broken), run(offset)
        assert found[..., hole].isnan().all()
        assert torch.equal(found[..., ~hole], whole[..., ~hole])
        found[..., ~hole].sum().backward()
        assert broken.grad[..., ~hole].isfinite().all()


def test_deform_conv_in_bfloat16():
    """As under autocast: near the values and gradients of single precision."""
    inputs = [t.float().requires_grad_() for t in conv_inputs(2, 1, 1, 5)]
    x, offset, _, weight = inputs
    exact = mm.deform_conv2d(x, offset, weight, 1, 1)
    (expected,) = torch.autograd.grad(exact.sum(), x)
    half = mm.deform_conv2d(*(t.bfloat16() for t in (x, offset, weight)), 1, 1)
    assert half.dtype == torch.bfloat16
    (grad,) = torch.autograd.grad(half.sum(), x)
    assert_close(half.float(), exact, rtol=0.1, atol=0.1)
    assert_close(grad, expected, rtol=0.1, atol=0.1)


ROIS = torch.tensor([[0, 1.3, 0.7, 6.1, 5.2], [1, 2.2, 2.9, 3.7, 6.3], [0, 0.4, 1.1, 2.6, 2.3]], **DOUBLE)


@pytest.mark.parametrize(("aligned", "sampling"), [(True, 0), (True, 2), (False, 0), (False, 2)])
def test_roi_align_gradient(aligned, sampling):
    x = torch.randn(2, 2, 8, 8, generator=generator(11), **DOUBLE).requires_grad_()
    assert gradcheck(lambda f: mm.roi_align(f, ROIS, (2, 3), 1.0, sampling, "avg", aligned), (x,))


@pytest.mark.parametrize("aligned", [True, False])
def test_roi_align_of_a_constant_and_of_a_ramp(aligned):
    """Bilinear sampling is exact on a ramp: each bin gives its centre's x, less 0.5 where aligned."""
    layer = mm.RoIAlign((2, 4), spatial_scale=0.5, sampling_ratio=2, aligned=aligned)
    rois = torch.tensor([[0, 4.0, 4, 20, 12]])
    assert_close(layer(torch.full((1, 3, 16, 16), 2.5), rois), torch.full((1, 3, 2, 4), 2.5))
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    expected = torch.tensor([3.0, 5, 7, 9]) - 0.5 * aligned
    assert_close(layer(ramp, rois), expected.expand(1, 1, 2, 4))


UNSERVED = {
    "nms_rotated": lambda: mm.nms_rotated(torch.ones(1, 5), torch.ones(1), 0.5),
    "three_nn_forward": lambda: mm.three_nn(torch.ones(1, 2, 3), torch.ones(1, 4, 3)),
    "roi_align.*max": lambda: mm.roi_align(torch.ones(1, 1, 4, 4), ROIS[:1].float(), 2, 1.0, 0, "max"),
}


@pytest.mark.parametrize("name", UNSERVED)
def test_unserved_operator_names_itself_and_a_remedy(name):
    with pytest.raises(ops.OperatorNotServed, match=f"{name}.*Remedy: install a compiled mmcv"):
        UNSERVED[name]()


def test_install_is_idempotent():
    before = sys.modules[ops.EXT_NAME]
    assert ops.install() is True
    assert ops.install() is True
    assert sys.modules[ops.EXT_NAME] is before
    assert importlib.util.find_spec(ops.EXT_NAME).loader is None
    assert not hasattr(before, "__file__")


def test_install_prefers_a_compiled_extension_on_disk(monkeypatch, tmp_path):
    (tmp_path / "_ext.py").write_text("compiled = True\n")
    monkeypatch.setattr(mmcv, "_ext", None, raising=False)
    monkeypatch.setattr(mmcv, "__path__", [*mmcv.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, ops.EXT_NAME)
    importlib.invalidate_caches()
    assert ops.install() is False
    assert importlib.import_module(ops.EXT_NAME).compiled is True
    assert ops.install() is False


def test_install_serves_where_nothing_is_found(monkeypatch):
    monkeypatch.delitem(sys.modules, ops.EXT_NAME)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert ops.install() is True
    assert sys.modules[ops.EXT_NAME].nms is ops.nms

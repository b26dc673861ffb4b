"""Every served detector: what its reader reads, and what holds for PGD on it whatever the weights."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import ConfigDict
from support.detectors import (
    ALL,
    BOXES,
    CLASSES,
    LABELS,
    OFFSET,
    QUIET,
    SIZE,
    STRIDES,
    batch,
    detector,
    images,
    objects,
    pair,
    sample,
    terms,
    view_of,
)
from torch.testing import assert_close

from pgd.dense import reader_of
from pgd.methods.pgd import pgd_reg_loss
from pgd.tape import Tape
from tools.steps import step_of

pytestmark = QUIET


@pytest.mark.parametrize("name", ALL)
def test_scores_and_boxes_are_those_that_mmdet_predicts_with(name):
    """mmdet's own decoding of all predictions, unfiltered: (class, score) identifies each."""
    model = detector(name).eval()
    view = view_of(model, images())
    everything = ConfigDict(nms_pre=10**6, score_thr=-1, min_bbox_size=-1)
    # cut at the left and upper border all the same
    metas = [{"img_shape": (10**6, 10**6), "scale_factor": (1.0, 1.0)}] * 2
    results = model.bbox_head.predict_by_feat(*view.outputs[:2], batch_img_metas=metas, cfg=everything, with_nms=False)
    assert view.scores.std() > 0.05
    assert (view.boxes[..., 2:] - view.boxes[..., :2]).std(dim=1).min() > 5
    assert view.boxes.min() < 0, "not clipped"
    for scores, boxes, result in zip(view.scores, view.boxes.clamp(min=0), results, strict=True):
        assert len(result.scores) == scores.numel()
        for c in range(CLASSES):
            theirs, found = result.scores[result.labels == c].sort()
            ours, order = scores[:, c].sort()
            assert_close(ours, theirs)
            assert_close(boxes[order], result.bboxes[result.labels == c][found], rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", ALL)
def test_boxes_do_not_depend_on_the_heads_mode(name):
    """FCOS gives strides in training and pixels in evaluation, VFNet another number of outputs."""
    model = detector(name).eval()
    evaluated = view_of(model, images())
    boxes = evaluated.boxes  # now: a view decodes when it is asked, by the mode of the moment
    trained = view_of(model.train(), images())
    assert_close(trained.boxes, boxes)
    assert_close(trained.scores, evaluated.scores)
    if name == "fcos":
        assert not torch.allclose(trained.outputs[1][1], evaluated.outputs[1][1])


@pytest.mark.parametrize("name", ALL)
def test_positions_and_padding(name):
    reader = reader_of(detector(name).bbox_head)
    sizes, pads = [(12, 16), (6, 8), (3, 4), (2, 2), (1, 1)], [SIZE, (64, 100)]
    grid = reader.grid(sizes, [{"pad_shape": pad} for pad in pads], torch.device("cpu"))
    cells = [(x, y, s) for (h, w), s in zip(sizes, STRIDES, strict=True) for y in range(h) for x in range(w)]
    x, y, stride = torch.tensor(cells, dtype=torch.float32).unbind(dim=1)
    assert reader.strides == STRIDES
    assert grid.per_position == (9 if name == "retinanet" else 1)
    assert_close(grid.centers, (torch.stack((x, y), dim=1) + OFFSET[name]) * stride[:, None])
    assert torch.equal(grid.strides, stride)
    expected = [(y * stride < height) & (x * stride < width) for height, width in pads]
    assert torch.equal(grid.valid, torch.stack(expected))


@pytest.mark.parametrize("name", [n for n in ALL if n != "autoassign"])
def test_labels_are_those_that_were_assigned(name):
    """An image's labels are those of its boxes; the positions stand in or by a box of that class."""
    model = detector(name).train()
    tape, inputs = Tape(model), images(3)
    samples = [sample(b, c) for b, c in zip((*BOXES, []), (*LABELS, []), strict=True)]
    with tape.recording(targets=True):
        model.loss(inputs, samples)
    labels, weights = tape.reader.assignment(tape.targets, 3)
    grid = tape.reader.grid([f.shape[-2:] for f in tape.neck], [{"pad_shape": SIZE}] * 3, inputs.device)
    assert labels.shape == weights.shape == (3, len(grid.prediction_centers))
    assert not labels.is_floating_point()
    assert weights.unique().tolist() in ([1.0], [0.0, 1.0])
    assert bool((weights[labels < CLASSES] == 1).all())
    for own, data in zip(labels, samples, strict=True):
        for c in own.unique().tolist():
            assert c == CLASSES or c in data.gt_instances.labels
        for box, c in zip(data.gt_instances.bboxes, data.gt_instances.labels, strict=True):
            points = grid.prediction_centers[own == c]
            assert len(points)
            assert bool(((points > box[:2]) & (points < box[2:])).all(dim=1).any())


@pytest.mark.parametrize("name", ALL)
def test_loss_of_a_batch_and_of_its_images(name):
    """L_cls is the mean over images. L_reg of a level is a mean over positions: an image counts by its positions."""
    model, (inputs, samples) = pair(name), batch()
    single = [(inputs[i : i + 1], samples[i : i + 1]) for i in range(2)]
    whole, alone = terms(model.loss(inputs, samples)), [terms(model.loss(*one)) for one in single]
    assert_close(whole["loss_pgd_cls"], torch.stack([one["loss_pgd_cls"] for one in alone]).mean(), rtol=1e-4, atol=0)
    steps, settings = [step_of(model, *one) for one in single], {"gamma": 1.6 * 0.04, "delta": 8e-4, "temperature": 0.8}
    maps = [model.method.masks(step)[1] for step in steps]
    expected = 0.0
    for level in range(5):
        count = [int((m[level] != 0).sum()) for m in maps]
        towers = [(step.student.reg_tower[level], step.teacher.reg_tower[level]) for step in steps]
        parts = [n * pgd_reg_loss(*both, m[level], **settings) for n, both, m in zip(count, towers, maps, strict=True)]
        expected += sum(parts) / max(1, sum(count))
    assert_close(whole["loss_pgd_reg"], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", ALL)
def test_order_of_images_and_boxes_does_not_matter(name):
    model, (inputs, samples) = pair(name), batch()
    expected = terms(model.loss(inputs, samples))
    turned = [sample(b[::-1], c[::-1]) for b, c in zip(BOXES[::-1], LABELS[::-1], strict=True)]
    for key, value in terms(model.loss(inputs.flip(0), turned)).items():
        assert_close(value, expected[key])


@pytest.mark.parametrize("name", ALL)
def test_a_student_equal_to_its_teacher_pays_nothing(name):
    for value in terms(pair(name, equal=True).loss(*batch())).values():
        assert value.item() == 0


@pytest.mark.parametrize("name", ALL)
def test_a_training_step_moves_the_student_and_leaves_the_teacher(name):
    model = pair(name)
    before = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    own = {k: v.detach().clone() for k, v in model.named_parameters()}
    total, _ = model.parse_losses(model.loss(*batch()))
    total.backward()
    assert bool(total.isfinite())
    assert all(p.grad is None for p in model.teacher.parameters())
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    assert not [k for k, p in trained.items() if p.grad is None or not p.grad.isfinite().all()]
    # a level without an object teaches its scale nothing, an absent class nothing to AutoAssign's prior of centres
    still = {k for k, p in trained.items() if not p.grad.any()}
    assert not [k for k in still if ".scales" not in k and "center_prior" not in k]
    torch.optim.SGD(trained.values(), lr=0.1).step()
    assert all(torch.equal(v, before[k]) for k, v in model.teacher.state_dict().items())
    assert not [k for k, p in trained.items() if torch.equal(p, own[k]) and k not in still]


ODD = {
    "no boxes": ([], []),
    "no position inside": ([[33.0, 33, 35, 35], [57, 57, 59, 59]], [1, 2]),
    "partly outside": ([[-40.0, -20, 30, 30], [100, 60, 190, 130]], [1, 2]),
    "wholly outside": ([[200.0, 10, 260, 50], [-60, -60, -3, -3]], [1, 2]),
    "identical": ([[20.0, 20, 70, 60]] * 4, [1, 1, 2, 2]),
    "tiny": ([[-1.0, -1, 31, 31]], [2]),
    "300": (lambda boxes, labels: (boxes.tolist(), labels.tolist()))(*objects(300)),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ODD)
def test_odd_images(name, kind):
    """Finite losses and gradients beside an ordinary image and in a batch by itself."""
    # 32 x 32 pixels give levels of 4 x 4, 2 x 2 and three times 1 x 1
    size = (32, 32) if kind == "tiny" else SIZE
    model, odd, usual = pair(name), sample(*ODD[kind], size), sample(BOXES[0], LABELS[0], size)
    first = model.student.bbox_head.cls_convs[0].conv.weight
    for samples in ([usual, odd], [odd, odd]):
        losses = model.loss(images(size=size), samples)
        own, _ = model.parse_losses(losses)
        (grad,) = torch.autograd.grad(sum(terms(losses).values()), first)
        assert bool(own.isfinite())
        assert bool(grad.isfinite().all())
        assert bool(grad.any())
    assert (terms(losses)["loss_pgd_reg"] > 0) == (kind not in ("no boxes", "no position inside", "wholly outside"))


@pytest.mark.parametrize("name", ALL)
def test_half_precision(name, monkeypatch):
    """Finite and near single precision."""
    model, given = pair(name), batch()
    if name in ("autoassign", "vfnet"):  # mmdet's own losses of these mix types; PGD's terms do not depend on them
        own = {"loss_own": next(model.student.parameters()).sum() * 0}
        monkeypatch.setattr(model.student.bbox_head, "loss_by_feat", lambda *a, **k: own)
    exact, view = terms(model.loss(*given)), view_of(model.teacher, images())
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(*given)
        boxes = view.boxes
    assert_close(boxes, view_of(model.teacher, images()).boxes)
    total, _ = model.parse_losses(losses)
    total.backward()
    assert bool(total.isfinite())
    for key, value in terms(losses).items():
        # rounded offsets move the samples of a deformable convolution
        assert value.item() == pytest.approx(exact[key].item(), rel=0.2 if name in ("ddod", "vfnet") else 0.1)

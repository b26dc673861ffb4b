"""Rivals on padded batches of real heads, with anchors (RetinaNet) and with points (FCOS), against what releases do.

The second image fills a part of the batch only. Where a release counts the padding, so does its oracle here.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from support.detectors import CLASSES, QUIET, SIZE, STRIDES, pair
from support.oracles import crosskd as crosskd_oracle
from support.oracles import defeat as defeat_oracle
from support.oracles import dist as dist_oracle
from support.oracles import fgfi as fgfi_oracle
from support.oracles import frs as frs_oracle
from support.oracles import gid as gid_oracle
from support.oracles import icd as icd_oracle
from support.padded import IMAGE, batch, double, in_image, in_image_flat, seen
from torch import Tensor, nn

from pgd.dense import DistillStep
from pgd.methods.icd import descriptors, draw_instances, level_places

pytestmark = QUIET
NAMES = ("fcos", "retinanet")


def class_maps(view) -> list[Tensor]:
    """What the head put out, ``[N, A C, H, W]`` a level."""
    return list(view.outputs[0])


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_known(name):
    step, _ = seen(pair(name, method="frs"), batch())
    assert np.array_equal(step.grid.valid.numpy(), in_image_flat(step))
    assert not step.grid.valid[1].all()


@pytest.mark.parametrize("name", NAMES)
def test_frs_counts_padding_as_released(name):
    model = pair(name, method="frs", weight_feature=0.3, weight_cls=0.7, warmup=0)
    step, found = seen(model, batch())
    feature = entropy = 0.0
    adapted = [adapt(s) for adapt, s in zip(model.method.adapters, step.student.neck, strict=True)]
    rows = [[double(m.permute(0, 2, 3, 1).flatten(1, 2)) for m in class_maps(v)] for v in (step.student, step.teacher)]
    for s, t, own, theirs in zip(adapted, step.teacher.neck, *rows, strict=True):
        terms = frs_oracle.level_terms(double(s), double(t), own, theirs)
        feature, entropy = feature + terms[0], entropy + terms[1]
    assert found == pytest.approx({"loss_frs_feature": 0.3 * feature, "loss_frs_cls": 0.7 * entropy}, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_dist_counts_padding_as_released(name):
    step, found = seen(pair(name, method="dist"), batch())
    maps = zip(class_maps(step.student), class_maps(step.teacher), strict=True)
    terms = [dist_oracle.dist(double(s), double(t)) for s, t in maps]
    expected = {"loss_dist_inter": sum(a for a, _ in terms), "loss_dist_intra": sum(b for _, b in terms)}
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("padding", [True, False], ids=["released", "ours"])
def test_defeat_takes_padding_for_background_where_asked(name, padding):
    model = pair(name, method="defeat", base=3.0, padding=padding)
    for adapter in model.method.adapters:
        nn.init.normal_(adapter.weight, std=0.1)
    step, found = seen(model, batch())
    sizes = list(step.grid.sizes)
    each = [defeat_oracle.masks(double(boxes), sizes, list(STRIDES), 3.0) for boxes in step.gt_boxes]
    inside = [np.stack([masks[level] for masks in each]) for level in range(len(sizes))]
    valid = [v | padding for v in in_image(sizes)]
    student = [double(adapt(s)) for adapt, s in zip(model.method.adapters, step.student.neck, strict=True)]
    teacher = [double(t) for t in step.teacher.neck]
    both = list(zip(inside, valid, strict=True))
    expected = {
        "loss_defeat_fg": 3 * defeat_oracle.term(student, teacher, [m & v for m, v in both]),
        "loss_defeat_bg": 12 * defeat_oracle.term(student, teacher, [~m & v for m, v in both]),
    }
    assert found == pytest.approx(expected, rel=1e-4)


def references(step: DistillStep, side: float) -> np.ndarray:
    """Anchors, or squares about the points of a head without: ``[P A, 4]``."""
    if step.grid.priors is not None:
        return double(step.grid.priors)
    half = side / 2 * step.grid.strides[:, None]
    return double(torch.cat((step.grid.centers - half, step.grid.centers + half), dim=1))


@pytest.mark.parametrize("name", NAMES)
def test_fgfi_leaves_padding_out(name):
    model = pair(name, method="fgfi", anchor=4.0, weight=1.0)
    step, found = seen(model, batch())
    anchors, valid = references(step, 4.0), in_image_flat(step)
    every = step.grid.per_position
    chosen = [fgfi_oracle.mask(anchors, double(b), v, every, 0.5) for b, v in zip(step.gt_boxes, valid, strict=True)]
    masks = step.grid.split(torch.from_numpy(np.stack(chosen)))
    levels = zip(step.student.neck, step.teacher.neck, masks, strict=True)
    expected = sum(fgfi_oracle.level_loss(double(s), double(t), m.numpy(), "mean") for s, t, m in levels)
    assert found["loss_fgfi"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gid_finds_no_instance_in_the_padding(name):
    model = pair(name, method="gid", anchor=4.0, base=7.0, min_side=5.0, candidates=200)
    step, _ = seen(model, batch())
    every = step.grid.per_position
    valid = in_image_flat(step).repeat(every, axis=1)
    for i, found in enumerate(model.method.instances(step)):
        sides = [
            {"logits": double(v.class_logits[i]), "boxes": double(v.boxes[i])} for v in (step.student, step.teacher)
        ]
        expected = gid_oracle.instances(*sides, valid[i], step.image_sizes[i], candidates=200, min_side=5.0)
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-3)


def predictions(view, **more: Tensor) -> dict[str, np.ndarray]:
    return {"logits": double(view.class_logits), "boxes": double(view.boxes)} | {k: double(v) for k, v in more.items()}


def test_crosskd_on_fcos_counts_all_positions_as_released():
    model = pair(
        "fcos",
        method="crosskd",
        weight_box=1.0,
        weight_quality=0.0,
        block=2,
        box_loss="iou",
        normaliser="centerness",
    )
    inputs, samples = batch()
    step, found = seen(model, (inputs, samples))
    head = model.student.bbox_head
    points = head.prior_generator.grid_priors(step.grid.sizes, device=inputs.device)
    labels, targets = head.get_targets(points, [s.gt_instances for s in samples])
    positive = torch.cat(labels) < CLASSES
    # mmdet's own, of the positives of all levels
    share = head.centerness_target(torch.cat(targets)[positive]).sum().item()
    assert share > 1
    with torch.no_grad():
        both = predictions(model.method.cross_view(step)), predictions(step.teacher)
    flat = torch.cat([part.reshape(2, -1) for part in labels], dim=1).numpy()
    expected = crosskd_oracle.crosskd(*both, flat, np.ones(flat.shape), CLASSES, "iou", share)
    terms = {"loss_crosskd_cls": expected["cls"], "loss_crosskd_box": expected["box"]}
    assert found == pytest.approx(terms, rel=1e-3)


def retina_targets(model, step: DistillStep, samples: list) -> tuple[Tensor, int]:
    """Label weights ``[N, P A]`` and the count that mmdet's RetinaNet divides by."""
    head, metas = model.student.bbox_head, [s.metainfo for s in samples]
    anchors, flags = head.get_anchors(step.grid.sizes, metas, device="cpu")
    targets = head.get_targets(anchors, flags, [s.gt_instances for s in samples], metas)
    return torch.cat([level.reshape(2, -1) for level in targets[1]], dim=1), targets[-1]


def crosskd_on_retinanet(empty: bool):
    model = pair("retinanet", method="crosskd", weight_box=1.0, block=2, box_loss="giou")
    inputs, samples = batch(empty=empty)
    step, found = seen(model, (inputs, samples))
    weights, count = retina_targets(model, step, samples)
    with torch.no_grad():
        both = predictions(model.method.cross_view(step)), predictions(step.teacher)
    terms = crosskd_oracle.crosskd(*both, step.labels.numpy(), weights.numpy(), CLASSES, "giou", count)
    return step, weights, found, {f"loss_crosskd_{name}": terms[name] for name in ("cls", "box")}


def test_crosskd_on_retinanet_leaves_padding_out_as_released():
    step, weights, found, expected = crosskd_on_retinanet(empty=False)
    outside = ~torch.from_numpy(in_image_flat(step)).repeat_interleave(step.grid.per_position, dim=1)
    assert not weights[outside].any()
    assert found == pytest.approx(expected, rel=1e-3)


def test_crosskd_on_retinanet_counts_positives_where_the_release_counts_an_empty_image_as_one():
    step, _, found, expected = crosskd_on_retinanet(empty=True)
    positives = int((step.labels < CLASSES).sum())
    released = {name: value * (positives + 1) / positives for name, value in expected.items()}
    assert found == pytest.approx(released, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_what_crosskds_release_keeps_is_overwritten_by_its_activation(name):
    """It keeps a block's output and then activates it, in place as mmcv's blocks do: on these heads too."""
    block = pair(name, method="frs").student.bbox_head.cls_convs[0]
    with torch.no_grad():
        kept = block(torch.randn(1, block.conv.in_channels, 4, 4), activate=False)
        assert kept.min() < 0
        block.activate(kept)
    assert kept.min() == 0


# ------------------------------------------------------------------------------------------------ ICD's decoder


def released_inside(sizes, padded: tuple[int, int], image: tuple[int, int]) -> list[np.ndarray]:
    """Cells that the release's decoder may look at: strides are the mean of both sides' ratios to the batch."""
    levels = []
    for rows, columns in sizes:
        stride = (padded[0] / rows + padded[1] / columns) / 2
        y, x = np.mgrid[:rows, :columns]
        levels.append((y < math.ceil(image[0] / stride)) & (x < math.ceil(image[1] / stride)))
    return levels


def ours_inside(sizes, image: tuple[int, int]) -> list[np.ndarray]:
    levels = zip(sizes, STRIDES, strict=True)
    return [level_places(size, s, [image], torch.device("cpu"))[1].reshape(size).numpy() for size, s in levels]


WHOLE, ODD = ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1)), ((12, 16), (6, 8), (3, 4), (2, 2), (1, 1))


def test_icd_knows_the_padding_as_released_where_strides_divide_the_batch():
    for released, ours in zip(released_inside(WHOLE, (128, 128), IMAGE), ours_inside(WHOLE, IMAGE), strict=True):
        assert np.array_equal(released, ours)


def test_icd_knows_it_better_on_a_coarse_level_that_they_do_not_divide():
    """The release's stride of the fourth level is 56 instead of 64, so it takes a row of padding in."""
    both = list(zip(released_inside(ODD, SIZE, IMAGE), ours_inside(ODD, IMAGE), strict=True))
    assert [bool(np.array_equal(*level)) for level in both] == [True, True, True, False, True]
    released, ours = both[3]
    assert released.sum() == 4
    assert ours.sum() == 2


def released_places(inside: np.ndarray, channels: int) -> np.ndarray:
    """Embedding of a level's cells ``[H W, C]`` by counting those of the image up to each, row and column."""
    rows, columns = inside.cumsum(axis=0), inside.cumsum(axis=1)
    y = rows / np.maximum(rows[-1:], 1e-6)
    x = columns / np.maximum(columns[:, -1:], 1e-6)
    both = zip(y.ravel(), x.ravel(), strict=True)
    return np.array([icd_oracle.sines(a, channels // 2) + icd_oracle.sines(b, channels // 2) for a, b in both])


@pytest.mark.parametrize("name", NAMES)
def test_icd_looks_where_torchs_attention_would(name):
    """Attention of the real objects, masked values, layer norm without parameters, as the release has them."""
    model = pair(name, method="icd", weight=2.0, fakes=0.0, jitter=0.0, warmup=0)
    step, found = seen(model, batch((128, 128)))
    method, decoder = model.method, model.method.decoder
    own, theirs = (torch.cat([m.flatten(2).mT for m in v.neck], dim=1).detach() for v in (step.student, step.teacher))
    channels = theirs.size(2)
    attention = nn.MultiheadAttention(channels, decoder.heads, batch_first=True)
    with torch.no_grad():
        weights = (decoder.query.weight, decoder.key.weight, decoder.value.weight)
        biases = (decoder.query.bias, torch.zeros(channels), decoder.value.bias)
        attention.in_proj_weight.copy_(torch.cat(weights))
        attention.in_proj_bias.copy_(torch.cat(biases))
        inside = [released_inside(step.grid.sizes, (128, 128), image) for image in step.image_sizes]
        places = np.stack([np.concatenate([released_places(level, channels) for level in image]) for image in inside])
        outside = ~np.stack([np.concatenate([level.ravel() for level in image]) for image in inside])
        objects = draw_instances(step.gt_boxes, step.gt_labels, step.image_sizes, CLASSES, 0.0, 0.0)
        queries = method.encoder(descriptors(objects, step.image_sizes, CLASSES))
        keys = theirs + decoder.place(torch.from_numpy(places).float())
        masked = {"key_padding_mask": torch.from_numpy(outside), "average_attn_weights": False}
        _, looks = attention(queries, keys, theirs, **masked)
        mass = (looks * objects.real[:, None, :, None]).sum(dim=2)
        values = [decoder.split(v) for v in (method.student_value(own), decoder.value(theirs))]
    expected = 2 * icd_oracle.value_distance(*map(double, values), double(mass))
    assert outside.any()
    assert not mass[torch.from_numpy(outside)[:, None].expand_as(mass)].any()
    assert found["loss_icd"] == pytest.approx(expected, rel=1e-4)


def test_icd_takes_the_size_of_each_image_where_the_release_takes_that_of_the_last():
    boxes, sizes = [torch.tensor([[0.0, 0.0, 80.0, 80.0]])] * 2, [(128, 128), (60, 90)]
    objects = draw_instances(boxes, [torch.tensor([0])] * 2, sizes, CLASSES, 0.0, 0.0)
    own = descriptors(objects, sizes, CLASSES)[0, 0, -10:].reshape(2, 5).argmax(dim=1)
    # in shares of the first image, times width and height of the last
    released = [int(min(max(1.44 * math.log(80 / 128 * side) - 5, 0), 4)) for side in (90, 60)]
    assert own.tolist() == [1, 1]
    assert released == [0, 0]

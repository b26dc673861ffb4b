"""FGD and LD against the values that their released code gives, and by hand where there are none."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from support.golden import assert_close, load, value_and_grad

from pgd.dense import DistillStep, Grid
from pgd.methods import MethodContext, build_method
from pgd.methods.base import MethodError
from pgd.methods.fgd import FGDLevel, background_mask, foreground_mask
from pgd.methods.ld import atss_thresholds, pairwise_diou, softened_kl, vlr_weights


def assert_close_in_scale(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """As ``assert_close`` in units of the largest expected magnitude, for gradients far below 1."""
    scale = expected.abs().max()
    assert_close(actual / scale, expected / scale)


def context(**changes) -> MethodContext:
    values = {
        "student_channels": 8,
        "teacher_channels": 8,
        "num_levels": 2,
        "num_classes": 3,
        "strides": (8, 16),
        "bins": 5,
    }
    values = {**values, **changes}
    towers = {f"{side}_tower_channels": values[f"{side}_channels"] for side in ("student", "teacher")}
    return MethodContext(**{**towers, **values})


# ------------------------------------------------------------------------------------------------------ FGD


def golden_fgd(case: int) -> tuple[dict, dict, list[torch.Tensor], dict]:
    meta, a = load(f"fgd_{case}")
    boxes = [a[f"gt_{image}"] for image in range(a["student"].size(0))]
    prefix = "param_"
    parameters = {k[len(prefix) :].replace("__", "."): v for k, v in a.items() if k.startswith(prefix)}
    return meta, a, boxes, parameters


@pytest.mark.parametrize("case", [0, 1])
def test_fgd_level(case):
    meta, a, boxes, parameters = golden_fgd(case)
    level = FGDLevel(a["student"].size(1), a["teacher"].size(1))
    level.load_state_dict(parameters)
    size, image_size = a["student"].shape[-2:], (meta["img_h"], meta["img_w"])
    foreground = torch.stack([foreground_mask(b, image_size, size) for b in boxes])
    settings = {k: meta[k] for k in ("alpha", "beta", "gamma", "lambda_", "temperature")}

    def loss(student):
        return sum(level(student, a["teacher"], foreground, background_mask(foreground), **settings))

    value, grad = value_and_grad(loss, a["student"])
    assert_close(value, a["loss"])
    assert_close(grad, a["grad"])
    assert_close_in_scale(grad, a["grad"])


def test_fgd_method_sums_levels_with_default_weights():
    meta, a, boxes, parameters = golden_fgd(0)
    channels = a["student"].size(1)
    method = build_method("fgd", context(student_channels=channels, teacher_channels=channels))
    for level in method.levels:
        level.load_state_dict(parameters)
    step = DistillStep(
        student=SimpleNamespace(neck=(a["student"], a["student"])),
        teacher=SimpleNamespace(neck=(a["teacher"], a["teacher"])),
        gt_boxes=boxes,
        gt_labels=[],
        image_sizes=[(meta["img_h"], meta["img_w"])] * len(boxes),
        grid=None,
    )
    assert_close(sum(method(step).values()), 2 * a["loss"])


def test_fgd_relation_starts_as_plain_distance():
    level = FGDLevel(8, 8)
    student, teacher = torch.randn(2, 8, 3, 4), torch.randn(2, 8, 3, 4)
    torch.testing.assert_close(level.relation_loss(student, teacher), ((student - teacher) ** 2).sum() / 2)


def test_fgd_masks_by_hand():
    # 40 x 60 pixels on 4 x 6 cells: ten pixels a cell. The first box spans columns 1 to 3, rows 0 to 2 (the
    # ceiling is included); the second is smaller and wins where they overlap.
    boxes = torch.tensor([[10.0, 5.0, 29.0, 15.0], [25.0, 12.0, 32.0, 18.0]])
    big, small = 1 / (3 * 3), 1 / (2 * 3)
    expected = torch.tensor(
        [
            [0, big, big, big, 0, 0],
            [0, big, small, small, small, 0],
            [0, big, small, small, small, 0],
            [0, 0, 0, 0, 0, 0],
        ]
    )
    foreground = foreground_mask(boxes, (40, 60), (4, 6))
    torch.testing.assert_close(foreground, expected)
    background = background_mask(foreground[None])[0]
    torch.testing.assert_close(background, (expected == 0) / 13)


def test_fgd_image_without_boxes_is_all_background():
    foreground = foreground_mask(torch.zeros(0, 4), (40, 60), (4, 6))
    assert not foreground.any()
    torch.testing.assert_close(background_mask(foreground[None]), torch.full((1, 4, 6), 1 / 24))


def test_fgd_image_that_is_all_foreground_has_no_background():
    foreground = foreground_mask(torch.tensor([[0.0, 0.0, 60.0, 40.0]]), (40, 60), (4, 6))
    # The ceiling of the far edge lies outside the map and still counts for the area.
    torch.testing.assert_close(foreground, torch.full((4, 6), 1 / 35))
    assert not background_mask(foreground[None]).any()


# ------------------------------------------------------------------------------------------------------- LD


@pytest.mark.parametrize("case", [0, 1])
def test_ld_kl(case):
    meta, a = load(f"ld_kl_{case}")

    def loss(student):
        divergence = softened_kl(student, a["teacher"], meta["T"])
        return meta["weight"] / meta["avg_factor"] * (a["sample_weight"] * divergence).sum()

    value, grad = value_and_grad(loss, a["student"])
    assert_close(value, a["loss"])
    assert_close(grad, a["grad"])
    assert_close_in_scale(grad, a["grad"])


def square_anchors(size: int, rows: int, columns: int, stride: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    centers = torch.stack((x, y), dim=-1).reshape(-1, 2).float() * stride
    return torch.cat((centers - size / 2, centers + size / 2), dim=1)


def iou_of(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (area_a + area_b - width * height)


def center_distance(a: list[float], b: list[float]) -> float:
    return math.hypot((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)


def test_atss_thresholds_as_a_literal_loop():
    # The last level has fewer positions than there are candidates.
    levels = [square_anchors(32, 6, 7, 8), square_anchors(64, 3, 4, 16), square_anchors(128, 2, 2, 32)]
    gt_boxes = torch.tensor([[3.1, 5.3, 40.2, 33.9], [20.7, 1.9, 29.4, 47.8], [0.3, 0.9, 55.1, 44.7]])
    expected = []
    for gt in gt_boxes.tolist():
        overlaps = []
        for level in levels:
            nearest = sorted(level.tolist(), key=lambda anchor, gt=gt: center_distance(anchor, gt))[:9]
            overlaps += [iou_of(anchor, gt) for anchor in nearest]
        mean = sum(overlaps) / len(overlaps)
        deviation = math.sqrt(sum((o - mean) ** 2 for o in overlaps) / (len(overlaps) - 1))
        expected.append(mean + deviation)
    actual = atss_thresholds(torch.cat(levels), [len(level) for level in levels], gt_boxes)
    torch.testing.assert_close(actual, torch.tensor(expected))


def test_diou_by_hand():
    # Overlap 2 x 4 of 16 + 16 - 8; centres 2 apart; hull 6 x 4.
    diou = pairwise_diou(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[2.0, 0.0, 6.0, 4.0]]))
    torch.testing.assert_close(diou, torch.tensor([[8 / 24 - 4 / 52]]))


def test_vlr_by_hand():
    # Four 4 x 4 anchors in a row, 2 apart, and a box equal to the first: IoU 1, 1/3, 0, 0. All are
    # candidates: mean 1/3, variance (4/9 + 0 + 1/9 + 1/9) / 3.
    priors = square_anchors(4, 1, 4, 2)
    gt_boxes = priors[:1]
    threshold = atss_thresholds(priors, [4], gt_boxes)
    torch.testing.assert_close(threshold, torch.tensor([1 / 3 + math.sqrt(2 / 9)]))
    # DIoU: 1 is above the threshold 0.805; 1/3 - 4/52 = 0.256 is above a quarter of it; the rest is negative.
    torch.testing.assert_close(vlr_weights(priors, [4], gt_boxes), torch.tensor([0, 1 / 3, 0, 0]))


def test_vlr_weighs_by_the_boxes_in_whose_region_a_position_is():
    # The second box equals the second anchor. Its DIoU of 1 is above the threshold, so that this anchor is in
    # the first box's region only and gets the IoU with the first box, not its 1 with the second.
    priors = square_anchors(4, 1, 4, 2)
    weights = vlr_weights(priors, [4], priors[:2])
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0]))


def test_vlr_without_boxes_is_empty():
    assert not vlr_weights(square_anchors(4, 1, 4, 2), [4], torch.zeros(0, 4)).any()


def ld_step(
    labels: torch.Tensor, gt_boxes: list[torch.Tensor], seed: int = 0
) -> tuple[DistillStep, list[torch.Tensor]]:
    """Two images on two levels (3 x 4 and 2 x 2 positions); and the leaves that a loss must reach."""
    generator = torch.Generator().manual_seed(seed)
    priors = torch.cat((square_anchors(16, 3, 4, 8), square_anchors(32, 2, 2, 16)))
    positions = len(priors)

    def view() -> SimpleNamespace:
        logits = torch.randn(2, positions, 3, generator=generator, requires_grad=True)
        distributions = torch.randn(2, positions, 4, 5, generator=generator, requires_grad=True)
        return SimpleNamespace(class_logits=logits, distributions=distributions, scores=logits.sigmoid())

    student, teacher = view(), view()
    teacher = SimpleNamespace(**{k: v.detach() for k, v in vars(teacher).items()})
    grid = Grid(
        centers=(priors[:, :2] + priors[:, 2:]) / 2,
        strides=torch.tensor([8.0] * 12 + [16.0] * 4),
        sizes=((3, 4), (2, 2)),
        valid=torch.ones(2, positions, dtype=torch.bool),
        priors=priors,
    )
    step = DistillStep(
        student=student,
        teacher=teacher,
        gt_boxes=gt_boxes,
        gt_labels=[torch.zeros(len(b), dtype=torch.long) for b in gt_boxes],
        image_sizes=[(24, 32)] * 2,
        grid=grid,
        labels=labels,
    )
    return step, [student.class_logits, student.distributions]


GT_BOXES = [
    torch.tensor([[1.0, 2.0, 22.0, 15.0]]),
    torch.tensor([[5.0, 1.0, 30.0, 25.0], [0.0, 0.0, 9.0, 12.0]]),
]


def literal_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> float:
    p, q = (student / temperature).softmax(0), (teacher / temperature).softmax(0)
    return (temperature**2 * (q * (q / p).log()).mean()).item()


def test_ld_terms_as_a_literal_loop():
    labels = torch.full((2, 16), 3)
    labels[0, 2], labels[0, 13], labels[1, 5], labels[1, 6] = 1, 0, 2, 2
    step, leaves = ld_step(labels, GT_BOXES)
    main = region = 0.0
    per_level: list[list[float]] = [[], []]
    for image in range(2):
        v = vlr_weights(step.grid.priors, (12, 4), step.gt_boxes[image])
        for i in range(16):
            student, teacher = step.student.distributions[image, i], step.teacher.distributions[image, i]
            sides = sum(literal_kl(student[side], teacher[side], 10.0) for side in range(4))
            region += float(v[i]) * sides
            if labels[image, i] < 3:
                main += step.student.scores[image, i].max().item() * sides
                logits = step.student.class_logits[image, i], step.teacher.class_logits[image, i]
                per_level[int(i >= 12)].append(literal_kl(*logits, 2.0))
    classes = sum(sum(level) / len(level) for level in per_level)
    terms = build_method("ld", context(), weight=2.0)(step)
    expected = {"loss_ld": 0.5 / 4 * main, "loss_ld_vlr": 0.5 / 16 * region, "loss_ld_kd": 20 * classes}
    assert region > 0
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-4)
    # The positives' confidence takes no gradient: without class distillation the class logits get none.
    (terms["loss_ld"] + terms["loss_ld_vlr"]).backward(retain_graph=True)
    assert leaves[0].grad is None
    assert leaves[1].grad.abs().sum() > 0


def test_ld_leaves_padding_out_of_the_region():
    step, _ = ld_step(torch.full((2, 16), 3), GT_BOXES)
    method = build_method("ld", context())
    before = method.region(step)
    inside = before[1].nonzero()[0]
    step.grid.valid[1, inside] = False
    after = method.region(step)
    torch.testing.assert_close(after[0], before[0])
    assert before[1, inside] > 0
    assert after[1, inside] == 0


def test_ld_without_positives_is_zero_with_a_gradient():
    step, leaves = ld_step(torch.full((2, 16), 3), [torch.zeros(0, 4)] * 2)
    terms = build_method("ld", context())(step)
    assert [v.item() for v in terms.values()] == [0.0, 0.0, 0.0]
    sum(terms.values()).backward()
    for leaf in leaves:
        assert leaf.grad is not None
        assert not leaf.grad.any()
        assert leaf.grad.isfinite().all()


def test_ld_terms_can_be_switched_off():
    step, _ = ld_step(torch.zeros(2, 16, dtype=torch.long), GT_BOXES)
    assert set(build_method("ld", context(), weight_vlr=0.0, weight_kd=0.0)(step)) == {"loss_ld"}


def test_ld_refuses_heads_without_distributions():
    with pytest.raises(MethodError, match="distributions"):
        build_method("ld", context(bins=None))

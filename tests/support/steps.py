"""Small hand-made pairs and steps for tests of single methods: two levels, random features, no detector."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from pgd.dense import DistillStep, Grid
from pgd.methods import MethodContext

SIZES, STRIDES = ((6, 8), (3, 4)), (8, 16)
#: (height, width) of the images: the levels have no padding
IMAGE = (48, 64)


def context(**changes) -> MethodContext:
    """A pair of two levels, 8 channels, 3 classes and 5 bins, with changes; towers are as wide as the neck."""
    values = {"student_channels": 8, "teacher_channels": 8, "num_levels": len(STRIDES), "num_classes": 3}
    values = {**values, "strides": STRIDES, "bins": 5, **changes}
    towers = {f"{side}_tower_channels": values[f"{side}_channels"] for side in ("student", "teacher")}
    return MethodContext(**{**towers, **values})


def grid(images: int, anchor: float | None = 4.0) -> Grid:
    """Positions in the middle of their cells; square anchors of ``anchor`` strides, or none."""
    centers, strides = [], []
    for (h, w), stride in zip(SIZES, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        centers.append(stride * torch.stack((x.flatten(), y.flatten()), dim=1))
        strides.append(torch.full((h * w,), float(stride)))
    points, stride = torch.cat(centers), torch.cat(strides)
    half = None if anchor is None else anchor / 2 * stride[:, None]
    priors = None if half is None else torch.cat((points - half, points + half), dim=1)
    return Grid(points, stride, SIZES, torch.ones(images, len(points), dtype=torch.bool), priors)


def view(
    images: int, generator: torch.Generator, ctx: MethodContext, positions: Grid, channels: int
) -> SimpleNamespace:
    """Random features and predictions of one detector; everything that a gradient may reach asks for one."""

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).requires_grad_()

    def maps() -> list[torch.Tensor]:
        return [normal(images, channels, *size) for size in SIZES]

    logits = normal(images, len(positions.centers), ctx.num_classes)
    sides = (torch.rand(images, len(positions.centers), 4, generator=generator) * 3 + 0.5).requires_grad_()
    reach = sides * positions.strides[:, None]
    boxes = torch.cat((positions.centers - reach[..., :2], positions.centers + reach[..., 2:]), dim=-1)
    return SimpleNamespace(
        neck=maps(),
        cls_tower=maps(),
        reg_tower=maps(),
        class_logits=logits,
        scores=logits.sigmoid(),
        boxes=boxes,
        sides=sides,
        distributions=normal(images, len(positions.centers), 4, ctx.bins or 1),
    )


def step(images: int = 2, seed: int = 0, ctx: MethodContext | None = None, anchor: float | None = 4.0) -> DistillStep:
    """A step with everything in it: two objects in each image but the last, which has none when there are several."""
    ctx, g, positions = ctx or context(), torch.Generator().manual_seed(seed), grid(images, anchor)
    boxes = [torch.tensor([[6.0, 5.0, 40.0, 30.0], [20.0, 14.0, 61.0, 47.0]]) for _ in range(images)]
    labels = [torch.tensor([0, 2]) for _ in range(images)]
    if images > 1:
        boxes[-1], labels[-1] = boxes[-1][:0], labels[-1][:0]
    assigned = torch.full((images, len(positions.centers)), ctx.num_classes)
    for own, gt, classes in zip(assigned, boxes, labels, strict=True):
        for box, label in zip(gt, classes, strict=True):
            center, stride = (box[:2] + box[2:]) / 2, positions.strides
            near = (positions.centers - center).abs().amax(dim=1) < stride
            own[near] = label
    return DistillStep(
        student=view(images, g, ctx, positions, ctx.student_channels),
        teacher=view(images, g, ctx, positions, ctx.teacher_channels),
        image_sizes=[IMAGE] * images,
        grid=positions,
        gt_boxes=boxes,
        gt_labels=labels,
        ignored_boxes=[b[:0] for b in boxes],
        labels=assigned,
        label_weights=torch.ones_like(assigned, dtype=torch.float32),
    )

"""Hand-made steps in which several anchors stand at a position, as RetinaNet's."""

from __future__ import annotations

from dataclasses import replace

import torch

from pgd.dense import DistillStep
from support.steps import context, step

#: (width, height) of the anchors of a position, in strides
SHAPES = ((4.0, 2.0), (3.0, 3.0), (2.5, 5.0))


def many(images: int = 2, seed: int = 0, ctx=None, shapes: tuple = SHAPES) -> DistillStep:
    """As :func:`steps.step` with ``len(shapes)`` predictions a position."""
    ctx, each = ctx or context(), len(shapes)
    given, g = step(images, seed, ctx), torch.Generator().manual_seed(seed + 1000)
    grid = given.grid
    half = torch.tensor(shapes)[None] / 2 * grid.strides[:, None, None]
    priors = torch.cat((grid.centers[:, None] - half, grid.centers[:, None] + half), dim=-1).reshape(-1, 4)
    given.grid = replace(grid, priors=priors, per_position=each)
    for view in (given.student, given.teacher):
        view.class_logits = torch.randn(images, len(priors), ctx.num_classes, generator=g).requires_grad_()
        view.scores = view.class_logits.sigmoid()
        view.sides = (torch.rand(images, len(priors), 4, generator=g) * 3 + 0.5).requires_grad_()
        reach, centers = view.sides * grid.strides.repeat_interleave(each)[:, None], given.grid.prediction_centers
        view.boxes = torch.cat((centers - reach[..., :2], centers + reach[..., 2:]), dim=-1)
    given.labels = given.labels.repeat_interleave(each, dim=1)
    given.label_weights = given.label_weights.repeat_interleave(each, dim=1)
    return given

"""CSKD's assistant: a last layer beside the student's own that learns from the teacher what the head learns from boxes.

Shapes: N images, P positions, A predictions a position, K classes; tower features ``[N, C, H, W]`` a level. Which form
it has goes by the head: box distributions (GFL), points (FCOS), else anchors (RetinaNet). Sums are over the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pgd.dense import DistillStep, Grid, flatten_levels
from pgd.methods.base import MethodContext
from pgd.methods.crosskd import aligned_overlaps, giou_loss, mean_count

#: standard deviation of the first weights, and the class scores that biases start at
START, PRIOR = 0.01, 0.01
#: weights of the boxes' overlap and of their distributions, as in GFL's own loss
GFL_BOX, GFL_DISTRIBUTION = 2.0, 0.25
#: how far below the last bin a distance is cut off
MARGIN = 0.1


def soft_focal(logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Focal loss with targets between 0 and 1, of the same shape: unreduced."""
    score = logits.sigmoid()
    miss = (1 - score) * target + score * (1 - target)
    balance = alpha * target + (1 - alpha) * (1 - target)
    return balance * miss**gamma * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def quality_focal(logits: Tensor, target: Tensor) -> Tensor:
    """GFL's: the squared gap of score and target times the cross-entropy, unreduced."""
    gap = logits.sigmoid() - target
    return gap**2 * F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def around(sides: Tensor) -> Tensor:
    """Left, top, right, bottom to a box around the origin: ``[..., 4]``."""
    return torch.cat((-sides[..., :2], sides[..., 2:]), dim=-1)


def sides_in_strides(boxes: Tensor, grid: Grid) -> Tensor:
    """Boxes ``[N, P, 4]`` to their sides' distances from the positions, in strides."""
    near, far = grid.centers - boxes[..., :2], boxes[..., 2:] - grid.centers
    return torch.cat((near, far), dim=-1) / grid.strides[:, None]


def mean_bins(distributions: Tensor) -> Tensor:
    """Logits ``[..., bins]`` to the mean of their distribution."""
    bins = torch.arange(distributions.size(-1), device=distributions.device)
    return (distributions.softmax(dim=-1) * bins).sum(dim=-1)


def between_bins(distributions: Tensor, target: Tensor) -> Tensor:
    """GFL's distribution focal loss: logits ``[..., bins]``, targets ``[...]`` in bins; unreduced."""
    target = target.clamp(0, distributions.size(-1) - 1 - MARGIN)
    lower = target.floor().long()
    log_p = distributions.log_softmax(dim=-1)
    near, far = (log_p.gather(-1, index[..., None]).squeeze(-1) for index in (lower, lower + 1))
    return -near * (lower + 1 - target) - far * (target - lower)


class Assistant(nn.Module):
    """Layers of the student's tower features, shared by all levels, and their losses."""

    def __init__(self, context: MethodContext) -> None:
        super().__init__()
        self.context = context
        width, each = context.student_tower_channels, context.per_position
        self.cls = nn.Conv2d(width, each * context.num_classes, 3, padding=1)
        self.box = nn.Conv2d(width, each * 4 * (context.bins or 1), 3, padding=1)
        self.quality = nn.Conv2d(width, 1, 3, padding=1) if context.anchor_free else None
        for conv in self.children():
            nn.init.normal_(conv.weight, std=START)
            nn.init.zeros_(conv.bias)
        nn.init.constant_(self.cls.bias, -math.log((1 - PRIOR) / PRIOR))
        scaled = context.bins is not None or context.anchor_free
        self.scales = nn.Parameter(torch.ones(context.num_levels)) if scaled else None

    def _boxes(self, features: Sequence[Tensor]) -> Tensor:
        """What the layer for boxes says, ``[N, P A, 4 bins]``."""
        maps = [self.box(f).float() for f in features]
        if self.scales is not None:
            maps = [scale * m for scale, m in zip(self.scales, maps, strict=True)]
        return flatten_levels(maps, 4 * (self.context.bins or 1))

    def _class_target(self, step: DistillStep, objects: Sequence[Tensor]) -> Tensor:
        """The teacher's scores in the boxes of objects, ``[N, P A, K]``."""
        inside = torch.cat([mask.flatten(1) for mask in objects], dim=1)
        inside = inside.repeat_interleave(self.context.per_position, dim=1)
        return step.teacher.scores.detach() * inside[..., None]

    def _distribution_terms(
        self, step: DistillStep, logits: Tensor, boxes: Tensor, positive: Tensor
    ) -> dict[str, Tensor]:
        own = boxes.unflatten(-1, (4, -1))[positive]
        target = mean_bins(step.teacher.distributions.detach().float()[positive])
        pair = around(mean_bins(own)), around(target)
        # its own scores, as the student's own loss weighs with the student's
        scores = logits.detach().sigmoid()
        weights = scores.amax(dim=-1)[positive]
        count = mean_count(weights)
        quality = torch.zeros_like(logits)
        image, place = positive.nonzero(as_tuple=True)
        quality[image, place, step.labels[positive]] = aligned_overlaps(*pair, eps=1e-6)[0].detach()
        entropy = (step.label_weights[..., None] * quality_focal(logits, quality)).sum() / mean_count(positive)
        between = between_bins(own, target).mean(dim=-1)
        return {
            "cls": entropy,
            "box": GFL_BOX * (weights * giou_loss(*pair)).sum() / count,
            "distribution": GFL_DISTRIBUTION * (weights * between).sum() / count,
        }

    def _point_terms(self, step: DistillStep, boxes: Tensor, quality: Tensor, positive: Tensor) -> dict[str, Tensor]:
        own, target = boxes.clamp(min=0), sides_in_strides(step.teacher.boxes.detach().float(), step.grid)
        distance = giou_loss(around(own), around(target))
        teacher = step.teacher.quality_logits.detach().float().sigmoid()
        entropy = F.binary_cross_entropy_with_logits(quality, teacher, reduction="none")
        return {
            "box": (step.centerness * distance).sum() / mean_count(step.centerness),
            "quality": (positive * entropy).sum() / mean_count(positive),
        }

    def forward(
        self,
        step: DistillStep,
        cls_features: Sequence[Tensor],
        reg_features: Sequence[Tensor],
        positive: Tensor,
        objects: Sequence[Tensor],
    ) -> dict[str, Tensor]:
        """Its losses by name.

        Args:
            step: with what the teacher says.
            cls_features, reg_features: behind the last block of the student's towers.
            positive: bool ``[N, P A]``.
            objects: which cells are in a box, ``[N, H, W]`` of 0 and 1 a level.
        """
        logits = flatten_levels([self.cls(f) for f in cls_features], self.context.num_classes).float()
        boxes = self._boxes(reg_features)
        if self.context.bins is not None:
            return self._distribution_terms(step, logits, boxes, positive)
        count = mean_count(positive)
        entropy = soft_focal(logits, self._class_target(step, objects))
        terms = {"cls": (step.label_weights[..., None] * entropy).sum() / count}
        if self.quality is None:
            deltas = flatten_levels(step.teacher.outputs[1], 4).detach().float()
            return {**terms, "box": ((boxes - deltas).abs() * positive[..., None]).sum() / count}
        quality = flatten_levels([self.quality(f) for f in cls_features], 1).squeeze(-1).float()
        return {**terms, **self._point_terms(step, boxes, quality, positive)}

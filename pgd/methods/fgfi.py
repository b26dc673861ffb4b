"""FGFI: fine-grained feature imitation (Wang et al., CVPR 2019, arXiv 1906.03609).

Released for Faster R-CNN (``anchor_target_layer.py``, ``trainval_net_sup.py``), and for GFL as ``finegrained`` in the
release of LD.

Place: FPN outputs, all levels, where anchors are near objects. Position p of an image is chosen if for any box g

    max over the A anchors at p of IoU(anchor, g) > threshold max over all anchors of all levels of IoU(anchor, g)

and with I(n,p) = 1 there, else 0, and phi the adapter of the level,

    mean: L = weight sum_l sum_{n,c,p} I (phi(F^S) - F^T)^2 / (C sum_{n,p} I)            LD's form, the default
    sum:  L = weight sum_l sum_{n,c,p} I (phi(F^S) - F^T)^2 / (2 sum_{n,p} I)            FGFI's own form

Counts are those of the batch on one GPU; a level without a chosen position gives 0. Padding is never chosen.

Shapes: ``F [N, C, H, W]`` a level, anchors ``[P A, 4]``, boxes ``[G, 4]`` xyxy pixels. Needs the ground truth. Point
heads get squares of ``anchor`` strides in place of anchors. Adapters: a 3x3 convolution a level where the widths differ
or ``adapter`` asks for it, its weights near zero at the start.

Settings at full scale: FGFI's own paper has none for dense detectors. GFL by LD's release: weight 2, mean, no adapter;
the default, and taken for every detector. FGFI's own (VGG-11 by VGG-16, one level): weight 0.01, sum, adapter and relu,
delay 400. The mean does not depend on the size of the detector; under ``sum`` the weight goes with 1/C.

Switches: ``positive_levels`` leaves out a level of the batch on which the student's assigner made nothing positive, as
LD's release does. Deviations: none known.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pgd.dense import DistillStep
from pgd.maths.anchors import SIDE, anchors_of, batch_boxes
from pgd.maths.regions import pairwise_iou
from pgd.methods.base import METHODS, Method, MethodContext, MethodError
from pgd.methods.levels import levels_with_positives, near_zero_adapters

#: What two levels' features may be divided by, see the module docstring.
REDUCTIONS = ("mean", "sum")
#: Boxes that are compared with all anchors at once; bounds the memory (RetinaNet has 200,000 anchors).
BOXES_AT_ONCE = 32
#: Standard deviation of an imitating adapter's first weights; cut off at two of them.
START = 1e-4


@torch.no_grad()
def imitation_mask(
    anchors: Tensor, gt_boxes: Sequence[Tensor], valid: Tensor, per_position: int = 1, threshold: float = 0.5
) -> Tensor:
    """I of the module docstring over all levels.

    Args:
        anchors: ``[P A, 4]`` xyxy pixels.
        gt_boxes: per image ``[G, 4]``; G may be 0.
        valid: bool ``[N, P]``, False in the padding; such positions are neither chosen nor looked at for the maximum.
        per_position: A.
        threshold: share of the largest IoU of a box that a position must exceed.

    Returns:
        bool ``[N, P]``.
    """
    boxes, owner = batch_boxes(gt_boxes)
    chosen = torch.zeros(valid.shape, device=valid.device)
    for part, image in zip(boxes.split(BOXES_AT_ONCE), owner.split(BOXES_AT_ONCE), strict=True):
        overlap = pairwise_iou(part, anchors).unflatten(1, (-1, per_position)).amax(dim=2) * valid[image]
        near = overlap > threshold * overlap.amax(dim=1, keepdim=True)
        chosen.index_add_(0, image, near.to(chosen.dtype))
    return chosen > 0


def masked_distance(student: Tensor, teacher: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """L of one level without its weight: features ``[N, C, H, W]`` and mask ``[N, H, W]``; a scalar."""
    mask = mask.float()
    total = (mask * ((student.float() - teacher.float()) ** 2).sum(dim=1)).sum()
    share = teacher.size(1) if reduction == "mean" else 2
    return total / (share * mask.sum().clamp(min=1))


@METHODS.register_module(name="fgfi")
class FGFI(Method):
    """Imitation of neck features where anchors are near objects.

    Args:
        context: the pair.
        weight: of everything.
        threshold: share of the largest IoU of a box from which on a position is near to it.
        reduction: ``"mean"`` over positions and channels, or FGFI's ``"sum"`` over channels, halved.
        adapter: a convolution on the student's features also where the widths agree.
        relu: an activation behind the adapter, as FGFI has for features of a backbone.
        delay: iterations at the start without imitation.
        positive_levels: leave out levels without a positive.
        anchor: side of what stands for the anchors of point heads, in strides.
    """

    title, place = "FGFI", "neck"
    needs = frozenset({"neck", "ground_truth"})
    scaling = {"anchor": {"cells": 1}}

    def __init__(
        self,
        context: MethodContext,
        weight: float = 2.0,
        threshold: float = 0.5,
        reduction: str = "mean",
        adapter: bool = False,
        relu: bool = False,
        delay: int = 0,
        positive_levels: bool = False,
        anchor: float = SIDE,
    ) -> None:
        super().__init__(context)
        if reduction not in REDUCTIONS:
            raise MethodError(f"fgfi: reduction '{reduction}' is not one of {', '.join(REDUCTIONS)}")
        if not 0 <= threshold < 1:
            raise MethodError(f"fgfi: threshold {threshold} is a share of the largest IoU and must be in [0, 1)")
        if anchor <= 0:
            raise MethodError(f"fgfi: anchor {anchor} is a side in strides and must be above 0")
        if relu and not adapter:
            raise MethodError("fgfi: relu is the activation behind the adapter: set adapter to true as well")
        self.weight, self.threshold, self.reduction, self.anchor = weight, threshold, reduction, anchor
        self.delay, self.positive_levels = delay, positive_levels
        if positive_levels:
            self.needs = self.needs | {"assignment"}
        self.adapters = near_zero_adapters(context, START, always=adapter)
        self.activation = nn.ReLU() if relu else nn.Identity()
        if delay:
            self.register_buffer("iteration", torch.zeros((), dtype=torch.long))

    def mask(self, step: DistillStep) -> Tensor:
        """I of all levels, bool ``[N, P]``."""
        grid = step.grid
        anchors = anchors_of(grid, self.anchor)
        mask = imitation_mask(anchors, step.gt_boxes, grid.valid, grid.per_position, self.threshold)
        if self.positive_levels:
            levels = levels_with_positives(self.positives(step), grid)
            mask = mask & grid.to_positions(levels.float()).bool()
        return mask

    def _started(self) -> Tensor | float:
        """0 before ``delay`` iterations of training are over, then 1; counts them."""
        if not self.delay:
            return 1.0
        started = (self.iteration >= self.delay).float()
        if self.training:
            self.iteration += 1
        return started

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        masks = step.grid.split(self.mask(step))
        levels = zip(self.adapters, step.student.neck, step.teacher.neck, masks, strict=True)
        total = sum(masked_distance(self.activation(adapt(s)), t, m, self.reduction) for adapt, s, t, m in levels)
        return {"loss_fgfi": self._started() * self.weight * total}

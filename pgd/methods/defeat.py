"""DeFeat: decoupled features (Guo et al., CVPR 2021, arXiv 2103.14475; released ``train.py``, ``anchor_head.py``).

Place: FPN outputs, all levels; objects and background apart. With M(n,p) = 1 on the cells of level l that a box of
level l covers, else 0, B(n,p) = 1 - M, and phi the adapter of the level,

    L_fg = 1/levels sum_l sum_{n,c,p} M (phi(F^S) - F^T)^2 / max(1, 2 C sum_{n,p} M)          L_bg likewise with B
    L = weight (w_fg L_fg + w_bg L_bg)

Counts are those of the batch on one GPU. A box of w by h pixels is on one level, floor(log2(sqrt((w+1)(h+1)) / (base
stride of the finest level))), at least the first and at most the last; it covers the rows and columns from the floor of
its near corner up to that of its far corner, which is left out, all in strides and within the map. Where nothing would
be left in x or in y it covers the one cell of its near corner.

Shapes: ``F [N, C, H, W]`` a level, masks ``[N, H, W]``, boxes ``[G, 4]`` xyxy pixels. Needs the ground truth. Adapters:
a 3x3 convolution a level without activation, its weights near zero at the start.

Settings at full scale (Faster R-CNN on VOC, the only ones released; no dense detector is): w_fg 3, w_bg 12, base 14 (56
pixels at stride 4). Means over channels do not depend on the size of the detector; base is a size in cells.

Deviations: cells of the padding are no background (``padding=True`` takes them in, as released). The imitation of
backbone features, which has weight 0 in the release, and the divergence of class scores of proposals, which is for
two-stage heads and not turned on there, are left out. A weight of zero leaves its term out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pgd.dense import DistillStep
from pgd.maths.anchors import BASE, batch_boxes, levels_of
from pgd.methods.base import METHODS, Method, MethodContext, MethodError
from pgd.methods.levels import near_zero_adapters

#: Standard deviation of an adapter's first weights; cut off at two of them.
START = 1e-4


def _covered(near: Tensor, far: Tensor, cells: int) -> Tensor:
    """From near and far edges ``[G]`` in whole cells along one axis to what they cover: bool ``[G, cells]``."""
    index = torch.arange(cells, device=near.device)
    return (index >= near[:, None]) & (index < far[:, None])


@torch.no_grad()
def box_masks(
    gt_boxes: Sequence[Tensor], sizes: Sequence[tuple[int, int]], strides: Sequence[int], base: float = BASE
) -> list[Tensor]:
    """M of the module docstring.

    Args:
        gt_boxes: per image ``[G, 4]`` xyxy pixels; G may be 0.
        sizes: (H, W) of every level.
        strides: of every level, pixels.
        base: in strides of the finest level, sets the level of a box.

    Returns:
        For every level, bool ``[N, H, W]``.
    """
    boxes, owner = batch_boxes(gt_boxes)
    width, height = (boxes[:, 2:] - boxes[:, :2] + 1).clamp(min=0).unbind(dim=1)
    level_of = levels_of((width * height).sqrt(), strides, base)
    of_image = owner == torch.arange(len(gt_boxes), device=boxes.device)[:, None]
    masks = []
    for level, ((rows, columns), stride) in enumerate(zip(sizes, strides, strict=True)):
        limit = torch.tensor((columns, rows), device=boxes.device)
        near, far = (boxes / stride).trunc().long().split(2, dim=1)
        near, far = near.clamp(min=0), torch.minimum(far, limit)
        empty = (near >= far).any(dim=1, keepdim=True)
        near = torch.where(empty, torch.minimum(near, limit - 1), near)
        far = torch.where(empty, near + 1, far)
        in_rows = _covered(near[:, 1], far[:, 1], rows)
        in_columns = _covered(near[:, 0], far[:, 0], columns)
        own = (of_image & (level_of == level)).float()
        masks.append(torch.einsum("ng,gh,gw->nhw", own, in_rows.float(), in_columns.float()) > 0)
    return masks


def decoupled_distance(difference: Tensor, mask: Tensor) -> Tensor:
    """``sum mask difference / max(1, 2 C sum mask)`` for squared differences ``[N, C, H, W]``, mask ``[N, H, W]``."""
    return (mask * difference.sum(dim=1)).sum() / (2 * difference.size(1) * mask.sum()).clamp(min=1)


@METHODS.register_module(name="defeat")
class DeFeat(Method):
    """Imitation of neck features on objects and on background, each by its own mean.

    Args:
        context: the pair.
        weight: of everything.
        weight_fg, weight_bg: of the terms; 0 leaves a term out.
        base: size of the boxes of the first level, in its strides; the next one's are twice as large.
        padding: the padding of a batch is background too.
    """

    title, place = "DeFeat", "neck"
    needs = frozenset({"neck", "ground_truth"})
    scaling = {"base": {"cells": 1}}

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        weight_fg: float = 3.0,
        weight_bg: float = 12.0,
        base: float = BASE,
        padding: bool = False,
    ) -> None:
        super().__init__(context)
        if base <= 0:
            raise MethodError(f"defeat: base {base} is a size in strides and must be above 0")
        self.base, self.padding = base, padding
        self.weights = {"fg": weight * weight_fg, "bg": weight * weight_bg}
        self.adapters = near_zero_adapters(context, START, always=True)

    def masks(self, step: DistillStep) -> dict[str, list[Tensor]]:
        """M and B of every level, ``[N, H, W]``."""
        grid = step.grid
        inside = box_masks(step.gt_boxes, grid.sizes, self.context.strides, self.base)
        valid = grid.split(torch.ones_like(grid.valid) if self.padding else grid.valid)
        pairs = list(zip(inside, valid, strict=True))
        return {"fg": [(m & v).float() for m, v in pairs], "bg": [(~m & v).float() for m, v in pairs]}

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        levels = zip(self.adapters, step.student.neck, step.teacher.neck, strict=True)
        differences = [(adapt(s).float() - t.float()) ** 2 for adapt, s, t in levels]
        terms = {}
        for name, masks in self.masks(step).items():
            if self.weights[name]:
                distances = [decoupled_distance(d, m) for d, m in zip(differences, masks, strict=True)]
                terms[f"loss_defeat_{name}"] = self.weights[name] * sum(distances) / len(distances)
        return terms

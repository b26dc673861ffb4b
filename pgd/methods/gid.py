"""GID: general instance distillation (Dai et al., CVPR 2021, arXiv 2103.02340).

Released as an author's reproduction in detectron2 (``distill_gid.py``, ``loss.py``).

Place: FPN outputs, pooled from instances, and predictions. Instances are where student and teacher differ most, objects
or not. For prediction i of an image

    s_i = | max_k sigma(z^T_ik) - max_k sigma(z^S_ik) |,   box_i = that of the one whose largest score is higher

Of the ``candidates`` predictions of highest s, clipped to the image, with both sides above ``min_side`` pixels and
after suppression at an IoU of ``nms_iou``, the best ``instances`` are kept. With r = RoIAlign (10 x 10 bins, 2 x 2
samples a bin) of the level of a box, n instances in the batch on one GPU, phi the adapter:

    L_feature  = w_feature / (100 n) sum_{instances, c, bins} (r(F^T) - r(phi(F^S)))^2
    L_relation = w_relation / (n^2 - n) sum_{i,j} smoothL1(d^T_ij - d^S_ij; 1)                        0 where n < 3
                 d_ij = |r_i - r_j| over the mean of all i != j, r flattened
    L_cls      = w_cls / m sum_{a,k} BCE(z^S_ak, sigma(z^T_ak))                    a: the m predictions that match
    L_box      = w_box / m sum_{a, 4} smoothL1(delta^S - delta^T; beta)
    L = weight (L_feature + L_relation + L_cls + L_box)

A prediction matches where the IoU of its anchor with an instance is 0.5 or more, or the largest of that instance (as
detectron2 matches RetinaNet's anchors to objects). delta are the boxes coded against the anchor, ((x - x_a) / w_a,
(y - y_a) / h_a, log w / w_a, log h / h_a) of centres and sides, w / w_a cut off at 16/1000 and 1000/16: what RetinaNet
regresses. Selection and matching take no gradient.

Shapes: ``F [N, C, H, W]`` a level, r ``[n, C, 10, 10]``, anchors ``[P A, 4]``. Needs neck and predictions, no ground
truth. Point heads get squares of ``anchor`` strides in place of anchors. Adapter: one 3x3 convolution for all levels
where the widths differ or ``adapter`` asks for it.

Settings at full scale (RetinaNet; others have not been published and take the same): w_feature 5e-4, w_relation 40,
w_cls 0.1, w_box 1, beta 0.1 (0, the absolute value, in the configurations whose detectors learn boxes so). L_feature is
a sum over channels, so w_feature goes with 1/C; base, anchor and min_side are sizes.

Deviations: the adapter is there in the release but by a fault never applied; ``adapter=True`` is what it meant.
Predictions in the padding are neither instances nor matched. Boxes of all heads are coded, so that RetinaNet's deltas
beyond its decoder's limits count as the limit. An instance without any overlap matches nothing, where the release
matches it with all anchors. The release's filters by ground truth, turned off there, are left out. A weight of zero
leaves its term out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image, nms, roi_align

from pgd.dense import DistillStep
from pgd.maths.anchors import BASE, SIDE, anchors_of, batch_boxes, levels_of
from pgd.maths.regions import pairwise_iou
from pgd.methods.base import METHODS, Method, MethodContext, MethodError

#: Side of what is pooled from an instance, and samples a bin along each axis.
BINS, SAMPLES = 10, 2
#: Limit of the logarithm of a coded side.
MAX_LOG_RATIO = math.log(1000 / 16)
#: From which IoU on an anchor matches an instance.
MATCHED_IOU = 0.5


@torch.no_grad()
def general_instances(
    student_scores: Tensor,
    teacher_scores: Tensor,
    student_boxes: Tensor,
    teacher_boxes: Tensor,
    valid: Tensor,
    image_sizes: Sequence[tuple[int, int]],
    *,
    candidates: int = 3000,
    instances: int = 10,
    min_side: float = 10.0,
    nms_iou: float = 0.3,
) -> list[Tensor]:
    """Where the two differ most.

    Args:
        student_scores, teacher_scores: ``[N, P A]``, largest class probability.
        student_boxes, teacher_boxes: ``[N, P A, 4]`` xyxy pixels.
        valid: bool ``[N, P A]``, False for what is not looked at.
        image_sizes: per image (height, width) without padding.
        candidates, instances, min_side, nms_iou: as in the module docstring.

    Returns:
        Per image ``[K, 4]`` boxes by falling score; K is ``instances`` or less.
    """
    gain = teacher_scores.float() - student_scores.float()
    boxes = torch.where((gain > 0)[..., None], teacher_boxes.float(), student_boxes.float())
    scores, index = gain.abs().masked_fill(~valid, -1.0).topk(min(candidates, gain.size(1)), dim=1)
    boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    chosen = []
    for image, own, size in zip(boxes, scores, image_sizes, strict=True):
        image = clip_boxes_to_image(image, size)
        large = ((image[:, 2:] - image[:, :2]) > min_side).all(dim=1) & (own >= 0)
        image, own = image[large], own[large]
        chosen.append(image[nms(image, own, nms_iou)[:instances]])
    return chosen


def pooled(features: Sequence[Tensor], boxes: Sequence[Tensor], strides: Sequence[int], base: float = BASE) -> Tensor:
    """RoIAlign of every box from its level.

    Args:
        features: ``[N, C, H, W]`` of every level.
        boxes: per image ``[K, 4]`` xyxy pixels.
        strides: of every level.
        base: sets the level of a box, see :func:`pgd.maths.anchors.levels_of`.

    Returns:
        ``[n, C, 10, 10]`` of the n boxes of all images, level by level; float32.
    """
    flat, image = batch_boxes(boxes)
    level = levels_of((flat[:, 2:] - flat[:, :2]).prod(dim=1).sqrt(), strides, base)
    rois = torch.cat((image[:, None].to(flat.dtype), flat), dim=1)[level.argsort(stable=True)]
    parts = rois.split(torch.bincount(level, minlength=len(strides)).tolist())
    return torch.cat(
        [
            roi_align(maps.float(), part, BINS, 1 / stride, SAMPLES, aligned=True)
            for maps, part, stride in zip(features, parts, strides, strict=True)
        ]
    )


def relative_distances(vectors: Tensor) -> Tensor:
    """Distances of all pairs of ``[n, D]`` over their mean without the diagonal: ``[n, n]``; n at least 2."""
    # double precision: a difference of large sums where instances are alike
    vectors = vectors.double()
    square = (vectors**2).sum(dim=1)
    # cut off, so that the root has a gradient where two instances are equal
    distance = (square[:, None] + square - 2 * vectors @ vectors.T).clamp(min=1e-12).sqrt()
    distance = distance.masked_fill(torch.eye(len(vectors), dtype=torch.bool, device=vectors.device), 0.0)
    return distance / (distance.sum() / (len(vectors) * (len(vectors) - 1)))


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_feature without its weight, of pooled features ``[n, C, 10, 10]``; n may be 0."""
    return ((student - teacher) ** 2).sum() / max(1, student[:, :1].numel())


def relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_relation without its weight, of pooled features ``[n, C, 10, 10]``; 0 for fewer than three instances."""
    n = len(student)
    if n < 3:
        return student.sum() * 0
    own, target = (relative_distances(features.flatten(1)) for features in (student, teacher.detach()))
    return (F.smooth_l1_loss(own, target, reduction="sum") / (n**2 - n)).to(student.dtype)


@torch.no_grad()
def matched(anchors: Tensor, instances: Sequence[Tensor], valid: Tensor) -> Tensor:
    """Which anchors match an instance.

    Args:
        anchors: ``[P A, 4]`` xyxy pixels.
        instances: per image ``[K, 4]``; K may be 0.
        valid: bool ``[N, P A]``, False for anchors that match nothing.

    Returns:
        bool ``[N, P A]``
    """
    rows = []
    for boxes, own in zip(instances, valid, strict=True):
        overlap = pairwise_iou(anchors, boxes) * own[:, None]
        best = (overlap == overlap.amax(dim=0)) & (overlap > 0)
        rows.append(((overlap >= MATCHED_IOU) | best).any(dim=1))
    return torch.stack(rows)


def box_deltas(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes coded against anchors as RetinaNet does, deviations of 1: ``[..., 4]`` both and the result."""
    sides, own = anchors[..., 2:] - anchors[..., :2], (boxes[..., 2:] - boxes[..., :2]).float()
    # twice the distance of the centres, without their rounding
    shift = (boxes[..., :2] - anchors[..., :2]) + (boxes[..., 2:] - anchors[..., 2:])
    ratio = (own / sides).clamp(min=math.exp(-MAX_LOG_RATIO), max=math.exp(MAX_LOG_RATIO))
    return torch.cat((shift.float() / (2 * sides), ratio.log()), dim=-1)


@METHODS.register_module(name="gid")
class GID(Method):
    """Distils features, relations and predictions of the instances on which student and teacher differ most.

    Args:
        context: the pair.
        weight: of everything.
        weight_feature, weight_relation, weight_cls, weight_box: of the terms; 0 leaves a term out.
        beta: where the smooth L1 of coded boxes turns from square to linear; 0 for the absolute value.
        candidates: predictions an image that are looked at.
        instances: at most so many an image are kept.
        nms_iou: of two instances that overlap more, the one of lower score is dropped.
        min_side: instances are larger, pixels.
        base: size of the boxes of the first level, in its strides; the next one's are twice as large.
        adapter: a convolution on the student's features also where the widths agree.
        anchor: side of what stands for the anchors of point heads, in strides.
    """

    title, place = "GID", "neck"
    needs = frozenset({"neck", "predictions"})
    scaling = {
        "weight_feature": {"channels": 1},
        "min_side": {"cells": 1},
        "base": {"cells": 1},
        "anchor": {"cells": 1},
    }

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        weight_feature: float = 5e-4,
        weight_relation: float = 40.0,
        weight_cls: float = 0.1,
        weight_box: float = 1.0,
        beta: float = 0.1,
        candidates: int = 3000,
        instances: int = 10,
        nms_iou: float = 0.3,
        min_side: float = 10.0,
        base: float = BASE,
        adapter: bool = False,
        anchor: float = SIDE,
    ) -> None:
        super().__init__(context)
        for name, value in (("candidates", candidates), ("instances", instances)):
            if value < 1:
                raise MethodError(f"gid: {name} {value} leaves no instance: give 1 or more")
        for name, value in (("base", base), ("anchor", anchor)):
            if value <= 0:
                raise MethodError(f"gid: {name} {value} is a size in strides and must be above 0")
        self.selection = {"candidates": candidates, "instances": instances, "nms_iou": nms_iou, "min_side": min_side}
        self.base, self.anchor, self.beta = base, anchor, beta
        weights = {"feature": weight_feature, "relation": weight_relation, "cls": weight_cls, "box": weight_box}
        self.weights = {name: weight * own for name, own in weights.items() if weight * own}
        self.adapter: nn.Module = nn.Identity()
        if not self.weights.keys() & {"feature", "relation"}:
            self.place, self.needs = "predictions", frozenset({"predictions"})
        elif adapter or context.student_channels != context.teacher_channels:
            self.adapter = nn.Conv2d(context.student_channels, context.teacher_channels, 3, padding=1)

    def instances(self, step: DistillStep) -> list[Tensor]:
        """Per image the boxes ``[K, 4]`` of the instances."""
        views = step.student, step.teacher
        scores = [view.class_logits.detach().amax(dim=2).float().sigmoid() for view in views]
        boxes = [view.boxes.detach() for view in views]
        valid = step.grid.valid.repeat_interleave(step.grid.per_position, dim=1)
        return general_instances(*scores, *boxes, valid, step.image_sizes, **self.selection)

    def _feature_terms(self, step: DistillStep, instances: list[Tensor]) -> dict[str, Tensor]:
        place = instances, self.context.strides, self.base
        student = pooled([self.adapter(maps) for maps in step.student.neck], *place)
        with torch.no_grad():
            teacher = pooled(step.teacher.neck, *place)
        losses = {"feature": feature_loss, "relation": relation_loss}
        return {name: loss(student, teacher) for name, loss in losses.items() if name in self.weights}

    def _prediction_terms(self, step: DistillStep, instances: list[Tensor]) -> dict[str, Tensor]:
        student, teacher, grid = step.student, step.teacher, step.grid
        anchors = anchors_of(grid, self.anchor)
        chosen = matched(anchors, instances, grid.valid.repeat_interleave(grid.per_position, dim=1))
        image, index = chosen.nonzero(as_tuple=True)
        count, terms = max(1, len(index)), {}
        if "cls" in self.weights:
            own, target = (view.class_logits[image, index].float() for view in (student, teacher))
            entropy = F.binary_cross_entropy_with_logits(own, target.detach().sigmoid(), reduction="sum")
            terms["cls"] = entropy / count
        if "box" in self.weights:
            own, target = (box_deltas(view.boxes[image, index], anchors[index]) for view in (student, teacher))
            terms["box"] = F.smooth_l1_loss(own, target.detach(), reduction="sum", beta=self.beta) / count
        return terms

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        instances = self.instances(step)
        terms = {}
        if self.weights.keys() & {"feature", "relation"}:
            terms |= self._feature_terms(step, instances)
        if self.weights.keys() & {"cls", "box"}:
            terms |= self._prediction_terms(step, instances)
        return {f"loss_gid_{name}": self.weights[name] * term for name, term in terms.items()}

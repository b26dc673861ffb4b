"""Localization Distillation (Zheng et al., CVPR 2022, arXiv 2102.12252; released ``ld_head.py``).

Place: the logits of the four box sides' distributions, and the class logits. With q, p the softmax at
temperature T of the teacher's and the student's logits,

    KLm(T) = T^2 mean_k q_k (log q_k - log p_k)              k over bins or classes: a mean, not a sum
    L_LD   = w_ld  / 4  sum_{i in pos} u_i sum_{4 sides} KLm(T_ld)     u_i = max_k sigma(z^S_ik), no gradient
    L_VLR  = w_vlr / 16 sum_{i in VLR} v_i sum_{4 sides} KLm(T_ld)
    L_KD   = w_kd sum_l mean_{i in pos of level l} KLm(T_kd) of class logits
    L = weight (L_LD + L_VLR + L_KD)

Positives are those of the student's assigner. The valuable localisation region (VLR): with thr_g the
threshold that ATSS gives to box g (mean + standard deviation of the IoU of the 9 anchors a level that are
nearest to g by centre), position i is in the region of g where thr_g / 4 <= DIoU(anchor_i, g) < thr_g; v_i is
the largest IoU of anchor_i with the boxes in whose region it is. Positives are not taken out of the region,
as released. Sums and the means of L_KD are over the images on one GPU: two processes with half a batch each
give half of the whole batch's L_LD and L_VLR, and the plain mean of two L_KD.

Shapes: N images, P positions over all levels, G boxes; distributions ``[N, P, 4, bins]``, class logits ``[N,
P, C]``, anchors ``[P, 4]`` xyxy. Needs ground truth and the assignment. No adapters.

Settings at full scale (GFL, 80 classes, 17 bins, at most 3 images a GPU): w_ld 0.25, w_vlr 0.25, T_ld 10,
w_kd 10, T_kd 2. L_LD and L_VLR are plain sums over positions, so they grow with the batch; the mean over bins
or classes makes every term go with 1/bins or 1/C. With a single class L_KD is zero: a softmax over one logit
says nothing.

Deviations: imitation of neck features, which some released configurations add, is left out (combine with a
method for the neck), and so is the term on negatives, whose released weight is zero. A weight of zero leaves
its term out. The release's DIoU divides the overlap by the anchor's area and not by that of the union
(``overlap="anchor"``), which makes its region 1.7 times as large.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pgd.dense import DistillStep
from pgd.maths.regions import pairwise_iof, pairwise_iou
from pgd.methods.base import METHODS, Method, MethodContext, MethodError

#: Anchors a level that ATSS looks at for each box.
CANDIDATES = 9
#: The region begins at this share of the threshold.
VLR_LOWER = 0.25


def softened_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KLm of the module docstring over the last axis: logits ``[..., K]`` to ``[...]``."""
    log_p = F.log_softmax(student / temperature, dim=-1)
    log_q = F.log_softmax(teacher / temperature, dim=-1)
    return temperature**2 * (log_q.exp() * (log_q - log_p)).mean(dim=-1)


def _centers(boxes: Tensor) -> Tensor:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _square_center_distance(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    return ((_centers(boxes)[:, None] - _centers(gt_boxes)[None]) ** 2).sum(dim=-1)


def pairwise_diou(boxes: Tensor, gt_boxes: Tensor, overlap: str = "union") -> Tensor:
    """IoU less the squared distance of centres over the squared diagonal of the hull -> ``[P, G]``.

    ``overlap="anchor"``: the intersection is divided by the area of ``boxes`` instead of the union's.
    """
    low = torch.minimum(boxes[:, None, :2], gt_boxes[None, :, :2])
    high = torch.maximum(boxes[:, None, 2:], gt_boxes[None, :, 2:])
    diagonal = ((high - low) ** 2).sum(dim=-1).clamp(min=1e-6)
    return OVERLAPS[overlap](boxes, gt_boxes) - _square_center_distance(boxes, gt_boxes) / diagonal


def atss_thresholds(priors: Tensor, counts: Sequence[int], gt_boxes: Tensor, candidates: int = CANDIDATES) -> Tensor:
    """The IoU threshold that ATSS gives to each box: mean + standard deviation over its candidates.

    Args:
        priors: ``[P, 4]`` anchors, level by level.
        counts: anchors of every level; a level with fewer than ``candidates`` gives all it has.
        gt_boxes: ``[G, 4]``; G may be 0.
        candidates: anchors a level, the nearest by centre.

    Returns:
        ``[G]``; the standard deviation is the unbiased one, as in mmdet's assigner.
    """
    distance = _square_center_distance(priors, gt_boxes)
    chosen, start = [], 0
    for part in distance.split(tuple(counts)):
        chosen.append(part.topk(min(candidates, part.size(0)), dim=0, largest=False).indices + start)
        start += part.size(0)
    overlaps = pairwise_iou(priors, gt_boxes).gather(0, torch.cat(chosen))
    return overlaps.mean(dim=0) + overlaps.std(dim=0)


def vlr_weights(
    priors: Tensor, counts: Sequence[int], gt_boxes: Tensor, lower: float = VLR_LOWER, overlap: str = "union"
) -> Tensor:
    """The weights v of one image (module docstring); arguments as :func:`atss_thresholds`.

    Returns:
        ``[P]``, zero outside the region (inside it the IoU is positive, for it is at least the DIoU).
    """
    if gt_boxes.size(0) == 0:
        return priors.new_zeros(priors.size(0))
    threshold = atss_thresholds(priors, counts, gt_boxes)
    diou = pairwise_diou(priors, gt_boxes, overlap)
    region = (diou >= lower * threshold) & (diou < threshold)
    return (pairwise_iou(priors, gt_boxes) * region).amax(dim=1)


#: what an intersection is divided by
OVERLAPS = {"union": pairwise_iou, "anchor": pairwise_iof}


@METHODS.register_module(name="ld")
class LD(Method):
    """Distillation of box distributions on positives and on the region around them, and of class logits.

    ``weight`` scales everything; ``weight_ld``, ``weight_vlr``, ``weight_kd`` the terms, 0 leaves a term out;
    ``overlap`` is what the region's DIoU divides by, of :data:`OVERLAPS`.
    """

    title, place = "LD", "predictions"
    needs = frozenset({"predictions", "assignment", "ground_truth"})

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        weight_ld: float = 0.25,
        weight_vlr: float = 0.25,
        weight_kd: float = 10.0,
        temperature_ld: float = 10.0,
        temperature_kd: float = 2.0,
        overlap: str = "union",
    ) -> None:
        super().__init__(context)
        if overlap not in OVERLAPS:
            raise MethodError(f"ld: overlap '{overlap}' is not one of {', '.join(OVERLAPS)}")
        self.overlap = overlap
        if context.bins is None:
            raise MethodError(
                "ld needs distributions of box sides, but a head has none, or student and teacher differ "
                "in their number of bins: give both a distribution focal loss (GFLHead) and the same reg_max"
            )
        self.weight = weight
        self.weight_ld, self.weight_vlr, self.weight_kd = weight_ld, weight_vlr, weight_kd
        self.temperature_ld, self.temperature_kd = temperature_ld, temperature_kd

    @torch.no_grad()
    def region(self, step: DistillStep) -> Tensor:
        """v of every position, ``[N, P]``. Padding is neither a candidate nor in the region."""
        grid = step.grid
        weights = grid.priors.new_zeros(grid.valid.shape)
        for image, gt_boxes in enumerate(step.gt_boxes):
            valid = grid.valid[image]
            counts = [int(level.sum()) for level in valid.split(grid.counts)]
            weights[image, valid] = vlr_weights(grid.priors[valid], counts, gt_boxes, overlap=self.overlap)
        return weights

    def _box_loss(self, step: DistillStep, chosen: Tensor, weights: Tensor) -> Tensor:
        """Sum of KLm over all sides of the M ``chosen`` positions (bool ``[N, P]``), times ``weights [M]``.

        Without a position the sum is an empty one: zero, with a gradient of zeros.
        """
        student, teacher = step.student.distributions[chosen], step.teacher.distributions[chosen]
        return (weights[:, None] * softened_kl(student, teacher, self.temperature_ld)).sum()

    def _class_loss(self, step: DistillStep, positive: Tensor) -> Tensor:
        """Mean of KLm over the positives of each level, summed over levels; ``positive`` bool ``[N, P]``."""
        num_levels, counts = step.grid.num_levels, torch.tensor(step.grid.counts, device=positive.device)
        level_of = torch.arange(num_levels, device=positive.device).repeat_interleave(counts)
        # The sum of means: every positive weighs one over the number of positives of its level.
        level = level_of.expand_as(positive)[positive]
        share = 1 / torch.bincount(level, minlength=num_levels)[level]
        divergence = softened_kl(
            step.student.class_logits[positive], step.teacher.class_logits[positive], self.temperature_kd
        )
        return (share * divergence).sum()

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        positive = self.positives(step)
        terms = {}
        if self.weight_ld:
            confidence = step.student.scores.detach()[positive].amax(dim=-1)
            terms["loss_ld"] = self.weight * self.weight_ld / 4 * self._box_loss(step, positive, confidence)
        if self.weight_vlr:
            weights = self.region(step)
            chosen = weights > 0
            terms["loss_ld_vlr"] = self.weight * self.weight_vlr / 16 * self._box_loss(step, chosen, weights[chosen])
        if self.weight_kd:
            terms["loss_ld_kd"] = self.weight * self.weight_kd * self._class_loss(step, positive)
        return terms

"""CrossKD: cross-head distillation (Wang et al., CVPR 2024, arXiv 2306.11369; released ``crosskd_*.py``).

Place: behind the norm and before the activation of block i of both towers (i from 1), every level; behind the
convolution where the towers have no norm, as RetinaNet's. The student's features F^S get the teacher's statistics and
run through what is left of the teacher's frozen head; what comes out, the cross predictions x, is compared with the
teacher's own predictions z:

    F = ReLU((F^S - mean F^S) / (std F^S + 1e-6) * std F^T + mean F^T)      by channel, over images and positions
    L_cls = w_cls / n sum_{i,k} m_i |sigma(x_ik) - y_ik| BCE(x_ik, y_ik),   y = sigma(z) without gradient
    L_box = w_box sum_i r_i 1/4 sum_{4 sides} KL(softmax z || softmax x) / sum_i r_i          ("kl": sum over bins)
    L_box = w_box / n sum_i r_i l(box of x_i, box of z_i),   l = 1 - GIoU ("giou") or -log IoU ("iou")
    L_quality = w_quality / n sum_{i in pos} BCE(x'_i, sigma(z'_i))         third branch: centerness, IoU
    L = weight (L_cls + L_box + L_quality)

m_i is the label weight of prediction i (0 in the padding and where the assigner ignores it), r_i = max_k y_ik where m_i
is not 0, else 0. n is the number of positives of the student's assigner, or the sum of their centerness targets
(``normaliser="centerness"``); mean over processes, at least 1. The factor |sigma - y| takes gradient. Gradients pass
through the teacher's layers into the student's blocks up to i; its last blocks learn from the ground truth alone. mean,
std and, by "kl", sum r_i are over the images on one GPU: two processes with half a batch each standardise by their own
statistics, and give the plain mean of two means by r_i.

Shapes: tower features ``[N, C, H, W]`` a level, predictions ``[N, P A, ...]``. Needs both towers, the teacher's neck
and predictions, and the assignment. Adapters: a 1x1 convolution a level and tower where the towers' widths differ.

Settings at full scale: GFL i 3, w_cls 1, w_box 4 by "kl"; ATSS and RetinaNet i 3, w_cls 1, w_box 1 by "giou", ATSS
w_quality 1; FCOS i 2, w_cls 0.4, w_box 0.75 by "iou", n by centerness, its third branch left alone. DDOD and VFNet have
not been published and take ATSS's. A head without a third branch has no L_quality. i is an index, so it goes with the
number of blocks.

Deviations: n is at least 1, where the release's FCOS would divide by 1e-6 and its ATSS, GFL and RetinaNet count an
image without a positive as one; std has the divisor NHW instead of NHW - 1, which cancels out but for the 1e-6 and
leaves a level of a single position finite. On all four heads the release compares features behind the activation, which
its code reads as features before it (``activated``). The imitation of neck features (PKD) that some released
configurations add is left out. AutoAssign has no positives and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine import dist
from torch import Tensor, nn
from torch.nn import functional as F

from pgd.dense import DistillStep, View
from pgd.methods.base import METHODS, Method, MethodContext, MethodError, TowerPlace

NORMALISERS = ("positives", "centerness")


def restandardised(student: Tensor, teacher: Tensor, eps: float = 1e-6) -> Tensor:
    """The student's features with the mean and the deviation of each of the teacher's channels.

    Both ``[N, C, H, W]``, the result too, in single precision. A level of one position gives the teacher's mean.
    """
    student, teacher = student.float(), teacher.float()
    deviation, mean = torch.std_mean(student, dim=(0, 2, 3), correction=0, keepdim=True)
    deviation_t, mean_t = torch.std_mean(teacher, dim=(0, 2, 3), correction=0, keepdim=True)
    return (student - mean) / (deviation + eps) * deviation_t + mean_t


def class_divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """sum_k |sigma(x_k) - y_k| BCE(x_k, y_k) with y = sigma(teacher): ``[..., C]`` to ``[...]``.

    The target takes no gradient, the factor before the cross-entropy does. CrossKD's and BCKD's class term.
    """
    logits, target = logits.float(), teacher_logits.detach().float().sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return ((logits.sigmoid() - target).abs() * entropy).sum(dim=-1)


def distribution_divergence(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean over the four sides of KL(teacher || student), a sum over bins: ``[..., 4, bins]`` to ``[...]``."""
    log_p, log_q = (F.log_softmax(z.float(), dim=-1) for z in (logits, teacher_logits.detach()))
    return F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=-1).mean(dim=-1)


def aligned_overlaps(a: Tensor, b: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """IoU and GIoU of boxes one by one, as mmdet computes them: ``[..., 4]`` xyxy to two ``[...]``."""
    areas = [(boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) for boxes in (a, b)]
    common = (torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    union = (areas[0] + areas[1] - common).clamp(min=eps)
    around = (torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])).clamp(min=0).prod(dim=-1)
    around = around.clamp(min=eps)
    iou = common / union
    return iou, iou - (around - union) / around


def giou_loss(boxes: Tensor, teacher_boxes: Tensor) -> Tensor:
    """1 - GIoU of boxes one by one: ``[..., 4]`` xyxy to ``[...]``."""
    return 1 - aligned_overlaps(boxes.float(), teacher_boxes.detach().float(), eps=1e-7)[1]


def log_iou_loss(boxes: Tensor, teacher_boxes: Tensor) -> Tensor:
    """-log IoU of boxes one by one, IoU at least 1e-6: ``[..., 4]`` xyxy to ``[...]``."""
    return -aligned_overlaps(boxes.float(), teacher_boxes.detach().float(), eps=1e-6)[0].clamp(min=1e-6).log()


def mean_count(weights: Tensor) -> Tensor:
    """Sum of ``weights`` (of any shape, or bool), mean over processes, at least 1."""
    count = weights.sum().float()
    dist.all_reduce(count, "mean")
    return count.clamp(min=1)


BOX_LOSSES = {"giou": giou_loss, "iou": log_iou_loss}


@METHODS.register_module(name="crosskd")
class CrossKD(Method):
    """Distils what the teacher's head says to the student's features.

    Args:
        context: the pair.
        weight: of everything.
        weight_cls, weight_box, weight_quality: of the terms; 0 leaves a term out.
        block: i, how many blocks of its own the student runs.
        box_loss: ``"kl"`` of box distributions, ``"giou"`` or ``"iou"`` of boxes.
        normaliser: n is the number of ``"positives"``, or their ``"centerness"``.
        activated: take the features behind the activation, as the release does without meaning to: its activation
            overwrites in place what it has kept.
    """

    title, place = "CrossKD", "towers"
    needs = frozenset({"neck", "towers", "predictions", "assignment"})
    published = {
        "fcos": {
            "weight_cls": 0.4,
            "weight_box": 0.75,
            "weight_quality": 0.0,
            "block": 2,
            "box_loss": "iou",
            "normaliser": "centerness",
        },
        **{name: {"weight_box": 1.0, "box_loss": "giou"} for name in ("atss", "retinanet", "ddod", "vfnet")},
    }
    scaling = {"block": {"blocks": 1}}

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        weight_cls: float = 1.0,
        weight_box: float = 4.0,
        weight_quality: float = 1.0,
        block: int = 3,
        box_loss: str = "kl",
        normaliser: str = "positives",
        activated: bool = False,
    ) -> None:
        super().__init__(context)
        if not 1 <= block <= context.tower_blocks:
            raise MethodError(
                f"crosskd: block {block} is not one of the 1 to {context.tower_blocks} convolution blocks that both "
                f"towers have; set block to at most {context.tower_blocks}"
            )
        if box_loss not in ("kl", *BOX_LOSSES):
            raise MethodError(f"crosskd: box_loss '{box_loss}' is not one of kl, {', '.join(BOX_LOSSES)}")
        # a head without labels is refused as a whole, when the method is built
        if box_loss == "kl" and context.bins is None and context.assigns_labels:
            raise MethodError(
                "crosskd: box_loss 'kl' needs distributions of box sides, but a head has none, or student and teacher "
                "differ in their number of bins: set box_loss to giou (and weight_box to 1)"
            )
        if normaliser not in NORMALISERS:
            raise MethodError(f"crosskd: normaliser '{normaliser}' is not one of {', '.join(NORMALISERS)}")
        self.tower_place = TowerPlace(block=block - 1, activated=activated)
        self.weights = {
            name: weight * own
            for name, own in (("cls", weight_cls), ("box", weight_box), ("quality", weight_quality))
            if weight * own
        }
        self.box_loss, self.normaliser = box_loss, normaliser
        widths = context.student_tower_channels, context.teacher_tower_channels
        self.adapters = nn.ModuleList(
            nn.Identity() if widths[0] == widths[1] else nn.Conv2d(*widths, 1) for _ in range(2 * context.num_levels)
        )

    def cross_view(self, step: DistillStep) -> View:
        """What the teacher's head says to the student's features."""
        student, teacher = ([*view.cls_tower, *view.reg_tower] for view in (step.student, step.teacher))
        maps = zip(self.adapters, student, teacher, strict=True)
        features = [F.relu(restandardised(adapt(s), t)) for adapt, s, t in maps]
        levels = self.context.num_levels
        reader = step.teacher.reader
        towers: Sequence[Sequence[Tensor]] = features[:levels], features[levels:]
        outputs = reader.outputs_from(step.teacher.neck, *towers, block=self.tower_place.block)
        return View(reader, step.grid, outputs=outputs)

    def _count(self, step: DistillStep, positive: Tensor) -> Tensor:
        """n of the module docstring."""
        if self.normaliser == "positives":
            return mean_count(positive)
        if step.centerness is None:
            raise MethodError(
                "crosskd: normaliser 'centerness' needs a head that learns by centerness (FCOSHead): "
                "set normaliser to positives"
            )
        return mean_count(step.centerness)

    def _box_term(self, cross: View, step: DistillStep, count: Tensor) -> Tensor:
        teacher = step.teacher
        weights = teacher.scores.detach().amax(dim=-1) * (step.label_weights > 0)
        if self.box_loss == "kl":
            divergence = distribution_divergence(cross.distributions, teacher.distributions)
            # scores are positive: the sum is zero only where no prediction counts at all
            return (weights * divergence).sum() / weights.sum().clamp(min=1e-6)
        return (weights * BOX_LOSSES[self.box_loss](cross.boxes, teacher.boxes)).sum() / count

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        cross, teacher, positive = self.cross_view(step), step.teacher, self.positives(step)
        count = self._count(step, positive)
        terms = {}
        if "cls" in self.weights:
            divergence = class_divergence(cross.class_logits, teacher.class_logits)
            terms["cls"] = (step.label_weights * divergence).sum() / count
        if "box" in self.weights:
            terms["box"] = self._box_term(cross, step, count)
        if "quality" in self.weights and cross.quality_logits is not None:
            target = teacher.quality_logits.detach().float().sigmoid()
            entropy = F.binary_cross_entropy_with_logits(cross.quality_logits.float(), target, reduction="none")
            terms["quality"] = (positive * entropy).sum() / count
        return {f"loss_crosskd_{name}": self.weights[name] * term for name, term in terms.items()}

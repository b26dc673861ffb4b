"""Prediction-Guided Distillation (Yang et al., ECCV 2022, arXiv 2203.05469).

Place: the first convolution block of the classification tower and of the regression tower, every level. For each
branch the teacher's predictions give a map of Gaussian weights W over positions (:mod:`pgd.regions`), one with
``xi_cls`` and one with ``xi_reg``; B marks positions outside all boxes. With the teacher's attention
P(p) = HW softmax_p(mean_c|F|/T) and A(c,p) = C softmax_c(|F|/T), and #W, #B counts of non-zeros of an image and level,

    L_cls = sum_l w_l [ alpha/N sum W/#W P A (F^S-F^T)^2 + beta/N sum B/#B P A (F^S-F^T)^2 ]
                  + delta [ 1/(NHW) sum |A^S-A^T| + 1/N sum |P^S-P^T| ]
    L_reg = sum_l gamma mean_{W>0}[ W mean_c A (F^S-F^T)^2 ] + delta mean_{W>0} sum_c |A^S-A^T|

Settings at full scale (256 channels, 4 images a GPU): beta = alpha/2, gamma = 1.6 alpha, delta = 8e-4,
w = 1, 1.25, 1.5, 1.75, 2; alpha 0.04 (FCOS, GFL) or 0.08 (ATSS, AutoAssign, DDOD); T 0.8 (AutoAssign 0.4);
K 30 (ATSS 9); xi 0.8 / 0.6.

Deviations: each image is weighed by its own mask (the release mixes the masks of a batch: ``mix_batch``), the in-box
test precedes top-K and a ridge replaces random jitter (``released_order``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pgd.attention import channel_attention, spatial_attention, weighted_square_distance
from pgd.dense import DistillStep
from pgd.methods.base import METHODS, Method, MethodContext, MethodError
from pgd.regions import background_mask, prediction_guided_weights

LEVEL_WEIGHTS = (1.0, 1.25, 1.5, 1.75, 2.0)


def _share(mask: Tensor) -> Tensor:
    """A mask ``[N, H, W]`` divided by its count of non-zeros in each image."""
    return mask / (mask != 0).sum(dim=(1, 2), keepdim=True).clamp(min=1e-10)


def pgd_cls_loss(
    student: Tensor,
    teacher: Tensor,
    foreground: Tensor,
    background: Tensor,
    *,
    alpha: float,
    beta: float,
    delta: float,
    temperature: float,
    level_weight: float = 1.0,
    mix_batch: bool = False,
) -> Tensor:
    """L_cls of one level: features ``[N, C, H, W]``, masks ``[N, H, W]``; a scalar.

    ``mix_batch=True``: every image's mask weighs every image's features, as the release's broadcasting does.
    """
    n, _, h, w = student.shape
    spatial_t, channel_t = spatial_attention(teacher, temperature), channel_attention(teacher, temperature)
    spatial_s, channel_s = spatial_attention(student, temperature), channel_attention(student, temperature)
    mask = level_weight * (alpha * _share(foreground) + beta * _share(background))
    if mix_batch:
        mask = mask.sum(dim=0, keepdim=True)
    weight = (mask * spatial_t).unsqueeze(1) * channel_t
    feature = weighted_square_distance(student, teacher, weight).sum() / n
    attention = (channel_s - channel_t).abs().sum() / (n * h * w) + (spatial_s - spatial_t).abs().sum() / n
    return feature + delta * attention


def pgd_reg_loss(
    student: Tensor, teacher: Tensor, foreground: Tensor, *, gamma: float, delta: float, temperature: float
) -> Tensor:
    """L_reg of one level: features ``[N, C, H, W]``, mask ``[N, H, W]``; a scalar, zero without foreground."""
    chosen = foreground != 0
    count = chosen.sum().clamp(min=1)
    channel_t, channel_s = channel_attention(teacher, temperature), channel_attention(student, temperature)
    distance = (channel_t * (student - teacher) ** 2).mean(dim=1)
    attention = (channel_s - channel_t).abs().sum(dim=1)
    return (gamma * (foreground * distance).sum() + delta * (attention * chosen).sum()) / count


@METHODS.register_module(name="pgd")
class PGD(Method):
    """Prediction-guided distillation of both towers; ``beta`` and ``gamma`` are multiples of ``alpha``."""

    needs = frozenset({"towers", "predictions"})
    weight_setting = "alpha"

    def __init__(
        self,
        context: MethodContext,
        alpha: float = 0.04,
        beta_ratio: float = 0.5,
        gamma_ratio: float = 1.6,
        delta: float = 8e-4,
        temperature: float = 0.8,
        topk: int = 30,
        xi_cls: float = 0.8,
        xi_reg: float = 0.6,
        level_weights: Sequence[float] = LEVEL_WEIGHTS,
        mix_batch: bool = False,
        released_order: bool = False,
    ) -> None:
        super().__init__(context)
        student, teacher = context.student_tower_channels, context.teacher_tower_channels
        if student != teacher:
            raise MethodError(
                f"pgd compares tower features of equal width, but the student has {student} channels and the teacher "
                f"{teacher}: give both heads the same feat_channels"
            )
        if len(level_weights) < context.num_levels:
            raise MethodError(f"pgd: level_weights has {len(level_weights)} entries for {context.num_levels} levels")
        self.alpha = alpha
        self.beta, self.gamma = beta_ratio * alpha, gamma_ratio * alpha
        self.delta, self.temperature, self.topk = delta, temperature, topk
        self.xi_cls, self.xi_reg = xi_cls, xi_reg
        self.level_weights = tuple(level_weights)
        self.mix_batch, self.released_order = mix_batch, released_order

    @torch.no_grad()
    def masks(self, step: DistillStep) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Weight maps of the two branches and the background map, each a list over levels of ``[N, H, W]``."""
        cls_maps, reg_maps, backgrounds = [], [], []
        centers, valid = step.grid.centers, step.grid.valid
        predictions = zip(step.teacher.scores, step.teacher.boxes, step.gt_boxes, step.gt_labels, strict=True)
        for image, (scores, boxes, gt_boxes, gt_labels) in enumerate(predictions):
            for xi, maps in ((self.xi_cls, cls_maps), (self.xi_reg, reg_maps)):
                maps.append(
                    prediction_guided_weights(
                        scores, boxes, centers, gt_boxes, gt_labels, xi, self.topk, self.released_order
                    )
                )
            backgrounds.append(background_mask(centers, gt_boxes) * valid[image])
        return tuple(step.grid.split(torch.stack(maps)) for maps in (cls_maps, reg_maps, backgrounds))

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        cls_maps, reg_maps, backgrounds = self.masks(step)
        common = {"delta": self.delta, "temperature": self.temperature}
        cls_loss = reg_loss = 0.0
        for level in range(step.grid.num_levels):
            cls_loss = cls_loss + pgd_cls_loss(
                step.student.cls_tower[level],
                step.teacher.cls_tower[level],
                cls_maps[level],
                backgrounds[level],
                alpha=self.alpha,
                beta=self.beta,
                level_weight=self.level_weights[level],
                mix_batch=self.mix_batch,
                **common,
            )
            reg_loss = reg_loss + pgd_reg_loss(
                step.student.reg_tower[level],
                step.teacher.reg_tower[level],
                reg_maps[level],
                gamma=self.gamma,
                **common,
            )
        return {"loss_pgd_cls": cls_loss, "loss_pgd_reg": reg_loss}

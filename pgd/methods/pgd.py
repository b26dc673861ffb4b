"""Prediction-Guided Distillation (Yang et al., ECCV 2022, arXiv 2203.05469).

Place: the first convolution block of the classification tower and of the regression tower, every level. For each
branch the teacher's predictions give a map of Gaussian weights W over positions (:mod:`pgd.maths.regions`; other masks
to compare with: :mod:`pgd.maths.masks`), one with ``xi_cls`` and one with ``xi_reg``; B marks positions outside all
boxes. With the teacher's attention P(p) = HW softmax_p(mean_c|F|/T) and A(c,p) = C softmax_c(|F|/T), and #W, #B counts
of non-zeros of an image and level,

    L_cls = sum_l w_l [ alpha/N sum W/#W P A (F^S-F^T)^2 + beta/N sum B/#B P A (F^S-F^T)^2 ]
                  + delta [ 1/(NHW) sum |A^S-A^T| + s/N sum |P^S-P^T| ]
    L_reg = sum_l gamma mean_{W>0}[ W mean_c A (F^S-F^T)^2 ] + delta mean_{W>0} sum_c |A^S-A^T|

The means of L_reg are over the positions of all images on one GPU: two processes with half a batch each give the plain
mean of theirs, in which positions of the half with fewer weigh more; L_cls is that of the whole batch.

Settings at full scale (256 channels, 4 images a GPU): beta = alpha/2, gamma = 1.6 alpha, delta = 8e-4, s = 1,
w = 1, 1.25, 1.5, 1.75, 2; alpha 0.04 (FCOS, GFL) or 0.08 (ATSS, AutoAssign, DDOD); T 0.8 (AutoAssign 0.4);
K 30 (ATSS 9); xi 0.8 / 0.6. delta is given as a multiple of alpha, so that a search over alpha keeps the balance of the
terms; s is there because one of the two distances grows with the channels and the other with the positions.

Deviations: each image is weighed by its own mask, boxes are decoded and tested where they are, the in-box test precedes
top-K, a ridge replaces random jitter, and regions without annotation are no background. What the released code does
instead: :mod:`pgd.methods.pgd_released` and docs/deviations.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pgd.dense import DistillStep, Grid
from pgd.maths.attention import channel_attention, spatial_attention, weighted_square_distance
from pgd.maths.masks import MASKS, Candidates, at_mean, mask_maps
from pgd.maths.regions import Objects, Pairs, Predictions, inside_pairs_of_images
from pgd.methods.base import METHODS, Method, MethodContext, MethodError

LEVEL_WEIGHTS = (1.0, 1.25, 1.5, 1.75, 2.0)
#: What the settings of these names can be.
CHOICES = {"mask": tuple(MASKS), "branches": ("both", "cls", "reg"), "ignored": ("exclude", "background")}


def _share(mask: Tensor) -> Tensor:
    """A mask ``[N, H, W]`` divided by its count of non-zeros in each image."""
    return mask / (mask != 0).sum(dim=(1, 2), keepdim=True).clamp(min=1e-10)


def pgd_cls_weights(
    foreground: Tensor, background: Tensor, *, alpha: float, beta: float, level_weight: float = 1.0
) -> Tensor:
    """What L_cls weighs positions with: w_l [alpha W/#W + beta B/#B], masks and result ``[N, H, W]``."""
    return level_weight * (alpha * _share(foreground) + beta * _share(background))


def pgd_cls_loss(
    student: Tensor, teacher: Tensor, weights: Tensor, *, delta: float, temperature: float, spatial_ratio: float = 1.0
) -> Tensor:
    """L_cls of one level: features ``[N, C, H, W]``, :func:`pgd_cls_weights` ``[N or 1, H, W]``; a scalar."""
    n, _, h, w = student.shape
    spatial_t, channel_t = spatial_attention(teacher, temperature), channel_attention(teacher, temperature)
    spatial_s, channel_s = spatial_attention(student, temperature), channel_attention(student, temperature)
    weight = (weights * spatial_t).unsqueeze(1) * channel_t
    feature = weighted_square_distance(student, teacher, weight).sum() / n
    attention = (channel_s - channel_t).abs().sum() / (n * h * w)
    attention = attention + spatial_ratio * (spatial_s - spatial_t).abs().sum() / n
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
    """Prediction-guided distillation of both towers.

    Regions without annotation (crowds) are no background by default: they hold objects that the teacher was taught are
    background (mmdet's assigners ignore no region by default), so its features are no model there.

    Args:
        context: the pair.
        alpha: weight of the foreground term of L_cls; ``beta``, ``gamma`` and ``delta`` are multiples of it.
        beta_ratio: beta / alpha, background; 0 leaves the background out.
        gamma_ratio: gamma / alpha, L_reg.
        delta_ratio: delta / alpha, attention terms.
        spatial_ratio: s, weight of the spatial attention's term by that of the channels'.
        temperature: of the attention maps.
        topk: K, positions an object.
        xi_cls: balance of IoU against class score in the map for the classification tower.
        xi_reg: the same for the regression tower.
        level_weights: of L_cls, from the finest level.
        adapter: a 1x1 convolution for each branch maps the student's features to the teacher's width.
        mask: what weighs the foreground, a name of :data:`pgd.maths.masks.MASKS`.
        mask_mean: every level's mask of an image is scaled to this mean weight of its foreground, so that masks can be
            compared by where their weight lies and not by how much it is; None: as the mask is.
        branches: ``both``, or ``cls`` or ``reg`` for L_cls or L_reg alone.
        ignored: what a position in a region without annotation and in no box is: ``background``, or neither
            (``exclude``).
    """

    title, place = "PGD", "key regions"
    needs = frozenset({"towers", "predictions", "ground_truth"})
    weight_setting = "alpha"
    published = {
        "atss": {"alpha": 0.08, "delta_ratio": 0.01, "topk": 9},
        "autoassign": {"alpha": 0.08, "delta_ratio": 0.01, "temperature": 0.4},
        "ddod": {"alpha": 0.08, "delta_ratio": 0.01},
    }
    scaling = {
        "alpha": {"channels": 1},
        "gamma_ratio": {"channels": -1},
        "spatial_ratio": {"channels": -1, "positions": 1},
        "topk": {"cells": 2},
    }

    def __init__(
        self,
        context: MethodContext,
        alpha: float = 0.04,
        beta_ratio: float = 0.5,
        gamma_ratio: float = 1.6,
        delta_ratio: float = 0.02,
        spatial_ratio: float = 1.0,
        temperature: float = 0.8,
        topk: int = 30,
        xi_cls: float = 0.8,
        xi_reg: float = 0.6,
        level_weights: Sequence[float] = LEVEL_WEIGHTS,
        adapter: bool = False,
        mask: str = "pgw",
        mask_mean: float | None = None,
        branches: str = "both",
        ignored: str = "exclude",
    ) -> None:
        super().__init__(context)
        for setting, value in (("mask", mask), ("branches", branches), ("ignored", ignored)):
            if value not in CHOICES[setting]:
                raise MethodError(f"pgd: no {setting} '{value}'; there are: {', '.join(CHOICES[setting])}")
        student, teacher = context.student_tower_channels, context.teacher_tower_channels
        self.cls_adapter = self.reg_adapter = nn.Identity()
        if adapter:
            if branches != "reg":
                self.cls_adapter = nn.Conv2d(student, teacher, 1)
            if branches != "cls":
                self.reg_adapter = nn.Conv2d(student, teacher, 1)
        elif student != teacher:
            raise MethodError(
                f"pgd compares tower features of equal width, but the student has {student} channels and the teacher "
                f"{teacher}: give both heads the same feat_channels, or set adapter: true"
            )
        if len(level_weights) < context.num_levels:
            raise MethodError(f"pgd: level_weights has {len(level_weights)} entries for {context.num_levels} levels")
        self.alpha = alpha
        self.beta, self.gamma, self.delta = beta_ratio * alpha, gamma_ratio * alpha, delta_ratio * alpha
        self.spatial_ratio, self.temperature, self.topk = spatial_ratio, temperature, topk
        self.xi_cls, self.xi_reg = xi_cls, xi_reg
        self.level_weights = tuple(level_weights)
        self.mask, self.mask_mean, self.branches, self.ignored = mask, mask_mean, branches, ignored

    # How the released code differs, :class:`pgd.methods.pgd_released.PGDReleased` says by overriding these five steps.

    def teacher_boxes(self, step: DistillStep) -> Tensor:
        """The boxes that quality is measured with, ``[N, P A, 4]``."""
        return step.teacher.boxes

    def in_boxes(self, grid: Grid, boxes: Sequence[Tensor]) -> Pairs:
        """Which positions ``[N P]`` lie in which boxes, those of N images (``[G, 4]`` each) one after the other."""
        return inside_pairs_of_images(grid.centers, boxes, grid.levels)

    def foreground(self, candidates: Candidates, grid: Grid) -> Sequence[Tensor]:
        """Weights of the predictions for every xi, ``[N P A]`` each."""
        return mask_maps(self.mask, candidates)

    def countable(self, grid: Grid) -> Tensor:
        """Which positions can be background, bool ``[N, P]``: not those in the padding of a batch."""
        return grid.valid

    def mix(self, weights: Tensor) -> Tensor:
        """What L_cls weighs a batch's features with, of the weights of its images ``[N, H, W]``: each by its own."""
        return weights

    def masks(self, step: DistillStep) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Weight maps of the two branches and the background map, each a list over levels of ``[N, H, W]``."""
        objects = [Objects(*image) for image in zip(step.gt_boxes, step.gt_labels, strict=True)]
        cls, reg, background = self.maps(
            step.grid, step.teacher.scores, self.teacher_boxes(step), objects, step.ignored_boxes
        )
        cls_maps, reg_maps = map(step.grid.split, (cls, reg))
        if self.mask_mean is not None:
            cls_maps, reg_maps = ([at_mean(own, self.mask_mean) for own in maps] for maps in (cls_maps, reg_maps))
        return cls_maps, reg_maps, step.grid.split(background * self.countable(step.grid))

    @torch.no_grad()
    def maps(
        self, grid: Grid, scores: Tensor, boxes: Tensor, objects: Sequence[Objects], ignored: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weights of N images for both branches, and their background: ``[N, P]`` each.

        Args:
            grid: the positions.
            scores: the teacher's, ``[N, P A, C]``.
            boxes: likewise, ``[N, P A, 4]``.
            objects: of each image.
            ignored: regions without annotation of each image, ``[R, 4]``.
        """
        # one image after the other makes one long image, and no loop
        images, each = len(objects), grid.per_position
        pairs = self.in_boxes(grid, [own.boxes for own in objects])
        background = grid.centers.new_ones(images * len(grid.centers)).index_fill_(0, pairs.position, 0)
        if self.ignored == "exclude" and any(map(len, ignored)):
            background.index_fill_(0, self.in_boxes(grid, ignored).position, 0)
        centers, strides = grid.prediction_centers, grid.strides.repeat_interleave(each)
        predictions = Predictions(
            scores.flatten(0, 1), boxes.flatten(0, 1), centers.repeat(images, 1), strides.repeat(images)
        )
        together = Objects(*map(torch.cat, zip(*objects, strict=True)))
        xis = self.xi_cls, self.xi_reg
        candidates = Candidates(predictions, together, pairs.repeated(each), xis, self.topk)
        weights = self.foreground(candidates, grid)
        cls, reg = (grid.to_positions(own) if each > 1 else own for own in weights)
        return tuple(flat.view(images, -1) for flat in (cls, reg, background))

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        cls_maps, reg_maps, backgrounds = self.masks(step)
        levels, terms = range(step.grid.num_levels), {}
        common = {"delta": self.delta, "temperature": self.temperature}
        if self.branches != "reg":
            weights = [
                pgd_cls_weights(cls_maps[i], backgrounds[i], alpha=self.alpha, beta=self.beta, level_weight=w)
                for i, w in zip(levels, self.level_weights, strict=False)
            ]
            student, teacher = step.student.cls_tower, step.teacher.cls_tower
            terms["loss_pgd_cls"] = sum(
                pgd_cls_loss(
                    self.cls_adapter(student[i]),
                    teacher[i],
                    self.mix(weights[i]),
                    spatial_ratio=self.spatial_ratio,
                    **common,
                )
                for i in levels
            )
        if self.branches != "cls":
            student, teacher = step.student.reg_tower, step.teacher.reg_tower
            terms["loss_pgd_reg"] = sum(
                pgd_reg_loss(self.reg_adapter(student[i]), teacher[i], reg_maps[i], gamma=self.gamma, **common)
                for i in levels
            )
        return terms

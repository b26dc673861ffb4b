"""FRS: feature-richness score (Du et al., NeurIPS 2021, arXiv 2111.00674; released ``distill_frs_single.py``).

Place: FPN outputs and class scores, all levels. Where the teacher finds any class likely its features are rich:

    S(n,p) = max over classes (and over the A predictions) of sigma(z^T), no gradient
    L_feature = w_feature sum_l sum_{n,c,p} S (phi(F^S) - F^T)^2 / sum_{n,p} S
    L_cls     = w_cls sum_l sum_{n,k,p} S BCE(sigma(z^S), sigma(z^T)) / sum_{n,p} S          k over A predictions, too
    L = weight min(1, i / warmup) (L_feature + L_cls)                           i iterations done, from 0

phi is the adapter of the level. Sums are those of the batch on one GPU. As released, the padding counts and a third
branch (centerness) is not part of S.

Shapes: ``F [N, C, H, W]`` a level, class logits ``[N, P A, K]``. Needs neck and predictions, no ground truth. Adapters:
a 3x3 convolution a level, also where widths agree.

Settings at full scale, w_feature and w_cls: GFL 0.1 and 0.05, RetinaNet 0.005 and 0.02, FCOS 0.01 and 0.05; warmup 500.
Other detectors have not been published and take GFL's. L_feature is a sum over channels over a sum of positions, so
w_feature goes with 1/C.

Deviations: the cross-entropy is taken from logits, which is the same value and holds under autocast. A weight of zero
leaves its term out.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pgd.dense import DistillStep, Grid
from pgd.methods.base import METHODS, Method, MethodContext, MethodError, aligners


def richness(scores: Tensor, per_position: int = 1) -> Tensor:
    """S of the module docstring: class probabilities ``[N, P A, K]`` to ``[N, P]``, no gradient."""
    return scores.detach().amax(dim=2).unflatten(1, (-1, per_position)).amax(dim=2)


def weighted_means(values: Tensor, weights: Tensor, grid: Grid) -> Tensor:
    """Of each level ``sum weights values / sum weights``, summed over levels.

    Both are ``[N, P]``, weights not negative; a level whose weights are all 0 gives 0.
    """
    levels = zip((weights * values).split(grid.counts, dim=1), weights.split(grid.counts, dim=1), strict=True)
    smallest = torch.finfo(weights.dtype).tiny
    return sum(value.sum() / weight.sum().clamp(min=smallest) for value, weight in levels)


def class_entropy(logits: Tensor, teacher_logits: Tensor, per_position: int = 1) -> Tensor:
    """Cross-entropy of all classes of a position, summed: logits ``[N, P A, K]`` to ``[N, P]``."""
    target = teacher_logits.detach().float().sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return entropy.sum(dim=2).unflatten(1, (-1, per_position)).sum(dim=2)


@METHODS.register_module(name="frs")
class FRS(Method):
    """Imitation of neck features and class scores where the teacher finds a class likely.

    Args:
        context: the pair.
        weight: of everything.
        weight_feature, weight_cls: of the terms; 0 leaves a term out.
        warmup: iterations until the terms have their full weight, which they grow to from 0; 0 for none.
    """

    title, place = "FRS", "neck"
    needs = frozenset({"neck", "predictions"})
    published = {
        "retinanet": {"weight_feature": 5e-3, "weight_cls": 0.02},
        "fcos": {"weight_feature": 0.01, "weight_cls": 0.05},
    }
    scaling = {"weight_feature": {"channels": 1}, "warmup": {"warmup": 1}}

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        weight_feature: float = 0.1,
        weight_cls: float = 0.05,
        warmup: int = 500,
    ) -> None:
        super().__init__(context)
        if warmup < 0:
            raise MethodError(f"frs: warmup {warmup} is a number of iterations: give 0 or more")
        self.weight_feature, self.weight_cls, self.warmup = weight * weight_feature, weight * weight_cls, warmup
        #: iterations of training that are done
        self.register_buffer("iteration", torch.zeros((), dtype=torch.long))
        if self.weight_feature:
            self.adapters = aligners(context, kernel=3, always=True)
        else:
            self.adapters, self.place, self.needs = nn.ModuleList(), "predictions", frozenset({"predictions"})

    def _ramp(self) -> Tensor:
        """Share of the weights in this iteration, which it counts."""
        ramp = (self.iteration / self.warmup).clamp(max=1) if self.warmup else torch.ones_like(self.iteration)
        if self.training:
            self.iteration += 1
        return ramp

    def _feature_distance(self, step: DistillStep) -> Tensor:
        """Squared distance of the features, summed over channels, ``[N, P]``."""
        levels = zip(self.adapters, step.student.neck, step.teacher.neck, strict=True)
        distances = [((adapt(s).float() - t.float()) ** 2).sum(dim=1).flatten(1) for adapt, s, t in levels]
        return torch.cat(distances, dim=1)

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        student, teacher, grid = step.student, step.teacher, step.grid
        weights, ramp = richness(teacher.scores, grid.per_position), self._ramp()
        terms = {}
        if self.weight_feature:
            distance = weighted_means(self._feature_distance(step), weights, grid)
            terms["loss_frs_feature"] = ramp * self.weight_feature * distance
        if self.weight_cls:
            entropy = class_entropy(student.class_logits, teacher.class_logits, grid.per_position)
            terms["loss_frs_cls"] = ramp * self.weight_cls * weighted_means(entropy, weights, grid)
        return terms

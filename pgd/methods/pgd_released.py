"""Prediction-Guided Distillation as its authors released it (Yang et al., ECCV 2022, arXiv 2203.05469).

Place: the first convolution block of the classification tower and of the regression tower, every level.

:mod:`pgd.methods.pgd` with the faults of github.com/ChenhongyiYang/PGD, commit 81c54d5, that concern the detector, or
those that the setting ``faults`` names:

| name | what the release does | on |
|---|---|---|
| ``B1`` | every image's mask weighs every image's features in L_cls | all heads |
| ``B2`` | x and y swapped in the in-box test | anchor-free heads (FCOS, AutoAssign) |
| ``B3`` | boxes of image i decoded with the stride of level i | heads with distributions (GFL) |
| ``B4`` | top-K (of what is not padding, where there are anchors) before the in-box test, no ridge | all heads |
| ``B5`` | noise of +-0.05 pixels on the positions that the Gaussian is fitted to | all heads |
| ``padding`` | the padding of a batch is background | anchor-free heads (FCOS, AutoAssign) |
| ``assignment`` | the student's assigners judge the teacher's predictions | heads whose assigners do so (DDOD) |

L_reg depends on the images on one GPU as in PGD. So does B1, which adds up their masks (of two processes with half a
batch each, either adds half of them), and B3, whose i starts anew in each process.

Regions without annotation are background (``ignored``), as the release knows none. docs/deviations.md says where each
stands in the release and what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pgd.dense import DistillStep, Grid
from pgd.maths.masks import Candidates
from pgd.maths.regions import Objects, Pairs, prediction_guided_weights
from pgd.methods.base import METHODS, MethodContext, MethodError
from pgd.methods.pgd import PGD

FAULTS = ("B1", "B2", "B3", "B4", "B5", "padding", "assignment")
#: Half-width of the noise of B5, pixels.
JITTER = 0.05


def foreign_faults(context: MethodContext) -> dict[str, str]:
    """The faults that do not concern this head, each with the sentence that says why not."""
    foreign = {}
    if not context.anchor_free:
        for name in ("B2", "padding"):
            foreign[name] = f"{name} is a fault of the released anchor-free heads; this head has anchors"
    if context.bins is None:
        foreign["B3"] = "B3 is a fault of the released GFL; this head has no distributions"
    if not context.judges_predictions:
        foreign["assignment"] = (
            "the student's head assigns labels without looking at predictions, so no teacher can drive its assignment"
        )
    return foreign


@METHODS.register_module(name="pgd_released")
class PGDReleased(PGD):
    """PGD with faults of the released code; other settings as for :class:`pgd.methods.pgd.PGD`.

    Args:
        context: the pair.
        faults: names of :data:`FAULTS`; None: all that concern the student's head.
        ignored: as for :class:`pgd.methods.pgd.PGD`.
        settings: those of :class:`pgd.methods.pgd.PGD`.

    Raises:
        MethodError: an unknown fault, one that does not concern the head, or one of Gaussian weights with another mask.
    """

    title = "PGD (released)"

    def __init__(
        self,
        context: MethodContext,
        faults: Sequence[str] | None = None,
        ignored: str = "background",
        **settings: Any,
    ) -> None:
        super().__init__(context, ignored=ignored, **settings)
        foreign = foreign_faults(context)
        if faults is None:
            faults = [name for name in FAULTS if name not in foreign]
        if isinstance(faults, str):
            raise MethodError(f"pgd_released: '{faults}' is no list; write faults: [{faults}]")
        for name in faults:
            if name not in FAULTS:
                raise MethodError(f"pgd_released: no fault '{name}'; there are: {', '.join(FAULTS)}")
            if name in foreign:
                raise MethodError(f"pgd_released: {foreign[name]}: leave {name} out of faults")
        self.faults, self.resolved = frozenset(faults), {"faults": list(faults)}
        if self.mask != "pgw" and self.faults & {"B2", "B4", "B5"}:
            raise MethodError(
                f"pgd_released: B2, B4 and B5 are faults of the release's Gaussian weights, and mask '{self.mask}' has "
                "none: leave them off (method pgd), or set mask: pgw"
            )
        self.assign_by_teacher = "assignment" in self.faults
        self.jitter = JITTER if "B5" in self.faults else 0.0

    def teacher_boxes(self, step: DistillStep) -> Tensor:
        """Under B3, decoded with the strides of wrong levels."""
        if "B3" not in self.faults:
            return super().teacher_boxes(step)
        images, strides = len(step.gt_boxes), self.context.strides
        if images > len(strides):
            raise MethodError(
                f"pgd_released: B3 takes image i's stride from level i: at most {len(strides)} images a batch; make "
                "train_dataloader.batch_size smaller, or leave B3 out of faults"
            )
        wrong = step.grid.centers.new_tensor(strides[:images])[:, None].expand(-1, len(step.grid.centers))
        return step.teacher.reader.boxes(step.teacher.outputs, replace(step.grid, strides=wrong))

    def in_boxes(self, grid: Grid, boxes: Sequence[Tensor]) -> Pairs:
        """Under B2, of transposed positions."""
        # Swapped boxes hold the positions that the boxes hold when positions are swapped.
        return super().in_boxes(grid, [own[:, [1, 0, 3, 2]] for own in boxes] if "B2" in self.faults else boxes)

    def maps(
        self, grid: Grid, scores: Tensor, boxes: Tensor, objects: Sequence[Objects], ignored: Sequence[Tensor] = ()
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Under B4 image by image, as it ranks all positions of one."""
        if "B4" not in self.faults or len(objects) < 2:
            return super().maps(grid, scores, boxes, objects, ignored)
        rows = [slice(i, i + 1) for i in range(len(objects))]
        own = [self.maps(replace(grid, valid=grid.valid[i]), scores[i], boxes[i], objects[i], ignored[i]) for i in rows]
        return tuple(map(torch.cat, zip(*own, strict=True)))

    def countable(self, grid: Grid) -> Tensor:
        """Under ``padding``, all positions."""
        return torch.ones_like(grid.valid) if "padding" in self.faults else super().countable(grid)

    def foreground(self, candidates: Candidates, grid: Grid) -> Sequence[Tensor]:
        """Under B4, the in-box test comes last; under B5, noise for each branch."""
        if "B4" not in self.faults:
            return super().foreground(replace(candidates, jitter=self.jitter), grid)
        c = candidates
        settings = {"topk": c.topk, "released": True, "swap_axes": "B2" in self.faults, "jitter": self.jitter}
        if not self.context.anchor_free:
            settings["ranked"] = grid.valid.flatten().repeat_interleave(grid.per_position)
        return [prediction_guided_weights(c.predictions, c.objects, xi, **settings) for xi in c.xis]

    def mix(self, weights: Tensor) -> Tensor:
        """Under B1, all images' weights for each, as the release's broadcasting has it."""
        return weights.sum(dim=0, keepdim=True) if "B1" in self.faults else weights

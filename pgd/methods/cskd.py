"""CSKD: distillation guided by cosine similarity (2024; released in swkdn16/CSKD: ``cskd_head_gfl.py``,
``cskd_head_fcos.py``, ``cskd_head_retina.py``).

Place: FPN outputs, every block of the head's towers, and the predictions; all levels. With across(n,c) the cosine of
student and teacher over the positions of a channel and along(n,p) that over the channels of a position,

    D(S, T) = w_mse mean_{n,c,p} |(1 - across)(1 - along)| (S - T)^2 + w_cos ( mean(1 - across) + mean(1 - along) )
    D(S, T; a): the first and the last mean are sums over a instead
    L_neck   = sum_l D(phi(S), T) + D(RoI(phi(S)), RoI(T)) + sum_M D(M phi(S), M T; C #M)         M objects, background
    L_tower  = sum_l 1/blocks sum_blocks D(S_cls, T_cls) + D(S_reg, T_reg)                          behind activations
    L_output = sum_l D(sigma(z^S), sigma(z^T)) + D(b^S, b^T; C #M_fg) + D(sigma(q^S), sigma(q^T); #M_fg)
    L = weight (L_neck + L_tower + L_output + w_assistant L_assistant)

M_fg is 1 on the cells that a box covers: on every level, from the integer part of its near to that of its far corner,
both included; boxes are scaled by (W/w, H/h), (h, w) the image without padding. RoI cuts every object from every level
(RoIAlign, 7x7 bins, 2x2 samples). b is what the head puts out for boxes: logits of distributions (GFL), sides in
strides (FCOS), deltas (anchors); q its third branch where there is one. The gradient passes through the cosines. #M and
the means over RoIs are of the images on one GPU: two processes with half a batch each give the plain mean of theirs, in
which cells and objects of the half with fewer weigh more. L_tower is that of the whole batch, and so is L_assistant as
far as its counts, means over processes, come to 1.

The assistant (:mod:`pgd.methods.cskd_assistant`) is a second last layer on the student's towers that the teacher
trains. GFL: quality focal loss with the overlap of its box and the teacher's as quality, 2 GIoU with the teacher's box,
0.25 distribution focal loss to the teacher's distances, both weighed by its own score. FCOS: focal loss to M_fg
sigma(z^T), GIoU with the teacher's box weighed by centerness, cross-entropy to the teacher's centerness. Anchors: focal
loss as FCOS's, L1 to the teacher's deltas on positives.

Adapters: a 1x1 convolution a level for the neck, also where widths agree; for the towers one for each level and block
where ``tower_adapters`` is set or widths differ; the assistant. Shapes: ``[N, C, H, W]`` a level. Needs everything.

Settings at full scale, (w_mse, w_cos): GFL and FCOS (1, 0.5) everywhere; RetinaNet neck and outputs (1, 2), towers
(5, 2). sigma(z) is compared with a = C #M_fg on GFL, by plain means on FCOS and RetinaNet (``plain_classes``); only
FCOS uses its tower adapters. Other heads take GFL's settings and the assistant's form that fits. Means over channels do
not depend on the size of the detector.

Deviations: the blocks behind the first are run once more on the first one's output, as a step holds the features of one
block. A batch without objects leaves out what is divided by #M_fg and RoI, which the release makes infinite. Counts are
at least 1. The assistant's centerness reads the classification tower, as configured there, wherever the head's own
does. GFL and RetinaNet build tower adapters in the release, too, without using them. Kept from it though questionable:
cells outside a mask add a constant to its cosine term. The release trains the stem as well (``frozen_stages=-1``) and
inherits nothing: settings of the detector and of the run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from pgd.dense import DistillStep, View
from pgd.methods.base import METHODS, Method, MethodContext, aligners
from pgd.methods.cskd_assistant import START, Assistant, sides_in_strides
from pgd.methods.levels import class_maps

#: of the cosines, and RoIAlign's bins and samples a side
RIDGE, BINS, SAMPLES = 1e-6, 7, 2


def guided_distance(
    student: Tensor, teacher: Tensor, weights: tuple[float, float], count: Tensor | None = None
) -> Tensor:
    """D of the module docstring: ``[N, C, H, W]`` to a scalar; nothing to compare is 0.

    Args:
        student, teacher: the teacher's takes no gradient.
        weights: w_mse and w_cos.
        count: a; None for means. Where it is 0, so is D.
    """
    if not student.numel():
        return student.sum()
    student, teacher = student.float().flatten(2), teacher.detach().float().flatten(2)
    across, along = (1 - F.cosine_similarity(student, teacher, dim=dim, eps=RIDGE) for dim in (2, 1))
    square = (across.unsqueeze(2) * along.unsqueeze(1)).abs() * (student - teacher) ** 2
    if count is None:
        return weights[0] * square.mean() + weights[1] * (across.mean() + along.mean())
    share = (count > 0) / count.clamp(min=1)
    return share * (weights[0] * square.sum() + weights[1] * along.sum()) + (count > 0) * weights[1] * across.mean()


def _scaled(gt_boxes: Tensor, image_size: Sequence[int], size: Sequence[int]) -> Tensor:
    """Boxes ``[G, 4]`` from pixels of an image (height, width) to cells of a level (H, W)."""
    scale = gt_boxes.new_tensor([size[1] / image_size[1], size[0] / image_size[0]])
    return gt_boxes * scale.repeat(2)


@torch.no_grad()
def object_mask(cells: Tensor, size: Sequence[int]) -> Tensor:
    """M_fg of one image from boxes ``[G, 4]`` in cells: ``[H, W]`` of 0 and 1."""
    (left, top), (right, bottom) = (corner.trunc().unbind(dim=1) for corner in cells.split(2, dim=1))
    y, x = (torch.arange(n, device=cells.device) for n in size)
    rows = (y >= top[:, None]) & (y <= bottom[:, None])
    columns = (x >= left[:, None]) & (x <= right[:, None])
    return (rows[:, :, None] & columns[:, None, :]).any(dim=0).to(cells.dtype)


@METHODS.register_module(name="cskd")
class CSKD(Method):
    """Imitation of neck, towers and predictions where and as far as they differ in direction.

    Args:
        context: the pair.
        weight: of everything.
        mse_neck, cos_neck, mse_towers, cos_towers, mse_outputs, cos_outputs: w_mse and w_cos by place.
        weight_assistant: of the assistant; 0 leaves it out.
        plain_classes: class scores are compared by plain means.
        tower_adapters: adapters for the towers also where widths agree.
    """

    title, place = "CSKD", "neck"
    needs = frozenset({"neck", "towers", "predictions", "assignment", "ground_truth"})
    published = {
        "fcos": {"plain_classes": True, "tower_adapters": True},
        "retinanet": {
            "cos_neck": 2.0,
            "mse_towers": 5.0,
            "cos_towers": 2.0,
            "cos_outputs": 2.0,
            "plain_classes": True,
        },
    }

    def __init__(
        self,
        context: MethodContext,
        weight: float = 1.0,
        mse_neck: float = 1.0,
        cos_neck: float = 0.5,
        mse_towers: float = 1.0,
        cos_towers: float = 0.5,
        mse_outputs: float = 1.0,
        cos_outputs: float = 0.5,
        weight_assistant: float = 1.0,
        plain_classes: bool = False,
        tower_adapters: bool = False,
    ) -> None:
        super().__init__(context)
        self.weight, self.weight_assistant, self.plain_classes = weight, weight_assistant, plain_classes
        self.neck_weights, self.tower_weights = (mse_neck, cos_neck), (mse_towers, cos_towers)
        self.output_weights = mse_outputs, cos_outputs
        self.adapters = aligners(context, always=True)
        widths = context.student_tower_channels, context.teacher_tower_channels
        bridged = tower_adapters or widths[0] != widths[1]
        self.tower_adapters = nn.ModuleList(
            nn.Conv2d(*widths, 1) if bridged else nn.Identity()
            for _ in range(2 * context.tower_blocks * context.num_levels)
        )
        for adapter in (*self.adapters, *self.tower_adapters):
            if isinstance(adapter, nn.Conv2d):
                nn.init.normal_(adapter.weight, std=START)
                nn.init.zeros_(adapter.bias)
        self.assistant = Assistant(context) if weight_assistant else None
        if self.assistant is None:
            self.needs = self.needs - {"assignment"}

    def towers(self, view: View) -> list[list[Tensor]]:
        """What the blocks of the classification tower give, level by level, then those of the regression tower."""
        outputs = []
        for features, blocks in zip((view.cls_tower, view.reg_tower), view.reader.towers, strict=True):
            outputs.append(list(features))
            for block in blocks[1:]:
                outputs.append([block(f) for f in outputs[-1]])
        return outputs

    def outputs(self, view: View, step: DistillStep) -> list[list[Tensor]]:
        """Maps of class scores, of what is said of boxes, and of the third branch where there is one."""
        grid = step.grid
        if self.context.anchor_free:
            boxes = class_maps(sides_in_strides(view.boxes, grid), grid)
        elif self.context.bins is not None:
            boxes = class_maps(view.distributions.flatten(2), grid)
        else:
            boxes = list(view.outputs[1])
        quality = view.quality_logits
        third = [] if quality is None else [class_maps(quality.float().sigmoid().unsqueeze(2), grid)]
        return [class_maps(view.scores, grid), boxes, *third]

    def objects(self, step: DistillStep) -> tuple[list[Tensor], list[Tensor]]:
        """M_fg of every level ``[N, H, W]``, and the objects on it for RoIAlign ``[G, 5]``."""
        masks, rois = [], []
        for size in step.grid.sizes:
            cells = [_scaled(*image, size) for image in zip(step.gt_boxes, step.image_sizes, strict=True)]
            masks.append(torch.stack([object_mask(boxes, size) for boxes in cells]))
            rois.append(torch.cat([F.pad(boxes, (1, 0), value=image) for image, boxes in enumerate(cells)]))
        return masks, rois

    def _neck_loss(self, student: Tensor, teacher: Tensor, mask: Tensor, rois: Tensor) -> Tensor:
        student, teacher = student.float(), teacher.float()
        pooled = (roi_align(f, rois, BINS, 1.0, SAMPLES, aligned=True) for f in (student, teacher))
        total = guided_distance(student, teacher, self.neck_weights) + guided_distance(*pooled, self.neck_weights)
        for chosen in (mask, 1 - mask):
            count, chosen = chosen.sum() * student.size(1), chosen.unsqueeze(1)
            total = total + guided_distance(student * chosen, teacher * chosen, self.neck_weights, count)
        return total

    def _tower_loss(self, student: list[list[Tensor]], teacher: list[list[Tensor]]) -> Tensor:
        """Of the blocks that both have; a tower's blocks are the first or the second half of a list."""
        blocks, total = self.context.tower_blocks, 0.0
        adapters = iter(self.tower_adapters)
        for tower in range(2):
            own, theirs = (side[tower * len(side) // 2 :][:blocks] for side in (student, teacher))
            for both in zip(own, theirs, strict=True):
                for s, t in zip(*both, strict=True):
                    total = total + guided_distance(next(adapters)(s), t, self.tower_weights)
        return total / blocks

    def _output_loss(self, step: DistillStep, masks: list[Tensor]) -> Tensor:
        total = 0.0
        pairs = zip(self.outputs(step.student, step), self.outputs(step.teacher, step), strict=True)
        for kind, levels in enumerate(pairs):
            for s, t, mask in zip(*levels, masks, strict=True):
                count = None if kind == 0 and self.plain_classes else mask.sum() * s.size(1)
                total = total + guided_distance(s, t, self.output_weights, count)
        return total

    def forward(self, step: DistillStep) -> dict[str, Tensor]:
        masks, rois = self.objects(step)
        levels = zip(self.adapters, step.student.neck, step.teacher.neck, masks, rois, strict=True)
        neck = sum(self._neck_loss(adapt(s), t, mask, boxes) for adapt, s, t, mask, boxes in levels)
        own = self.towers(step.student)
        with torch.no_grad():
            theirs = self.towers(step.teacher)
        terms = {"neck": neck, "towers": self._tower_loss(own, theirs), "outputs": self._output_loss(step, masks)}
        if self.assistant is not None:
            features = own[len(own) // 2 - 1], own[-1]
            for name, term in self.assistant(step, *features, self.positives(step), masks).items():
                terms[f"assistant_{name}"] = self.weight_assistant * term
        return {f"loss_cskd_{name}": self.weight * term for name, term in terms.items()}

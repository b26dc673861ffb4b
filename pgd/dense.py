"""Reads mmdet's dense detectors: priors, class probabilities, boxes, tower features. All per-head code is here.

N images, P positions over all levels (level by level, row by row), C classes. To support a new head, subclass
:class:`HeadReader` where it differs and register it with :func:`reader_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, singledispatch

import torch
from mmdet.models.dense_heads import ATSSHead, GFLHead
from mmdet.structures.bbox import distance2bbox
from torch import Tensor, nn


class UnsupportedHead(TypeError):
    """The head (or what a method wants of it) is not served; the sentence says what is."""


@dataclass(frozen=True)
class Grid:
    """The positions of a padded batch."""

    #: ``[P, 2]`` (x, y) in input pixels
    centers: Tensor
    #: ``[P]`` pixels
    strides: Tensor
    #: (height, width) of every level
    sizes: tuple[tuple[int, int], ...]
    #: bool ``[N, P]``: not in the padding of its image
    valid: Tensor
    #: ``[P, 4]`` anchors, or None for point-based heads
    priors: Tensor | None

    @property
    def num_levels(self) -> int:
        return len(self.sizes)

    @property
    def counts(self) -> tuple[int, ...]:
        """Positions of every level."""
        return tuple(h * w for h, w in self.sizes)

    def split(self, flat: Tensor) -> list[Tensor]:
        """``[N, P]`` to a list over levels of ``[N, H, W]``."""
        parts = flat.split(self.counts, dim=1)
        return [part.reshape(-1, *size) for part, size in zip(parts, self.sizes, strict=True)]


def flatten_levels(maps: Sequence[Tensor]) -> Tensor:
    """Maps ``[N, K, H, W]`` of every level to ``[N, P, K]``."""
    return torch.cat([m.flatten(2) for m in maps], dim=2).transpose(1, 2)


class HeadReader:
    """Reads an anchor-based head with one square anchor a position; the base of all readers."""

    def __init__(self, head: nn.Module) -> None:
        self.head = head

    @property
    def towers(self) -> tuple[nn.Module, nn.Module]:
        """The first block of the classification and of the regression tower (conv, norm, activation)."""
        return self.head.cls_convs[0], self.head.reg_convs[0]

    @property
    def channels(self) -> int:
        """Width of the towers."""
        return self.head.feat_channels

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(s[0] if isinstance(s, Sequence) else s for s in self.head.prior_generator.strides)

    @property
    def bins(self) -> int | None:
        """Bins of a box side's distribution, None where boxes are regressed directly."""
        return None

    def grid(self, sizes: Sequence[tuple[int, int]], metas: Sequence[dict], device: torch.device) -> Grid:
        """Positions for levels of ``sizes``; ``metas`` carry each image's ``pad_shape``."""
        anchors, valid = self.head.get_anchors([torch.Size(s) for s in sizes], metas, device=device)
        priors = torch.cat(anchors[0])
        strides = [priors.new_full((h * w,), s) for (h, w), s in zip(sizes, self.strides, strict=True)]
        return Grid(
            centers=(priors[:, :2] + priors[:, 2:]) / 2,
            strides=torch.cat(strides),
            sizes=tuple((int(h), int(w)) for h, w in sizes),
            valid=torch.stack([torch.cat(v).bool() for v in valid]),
            priors=priors,
        )

    def class_logits(self, outputs: Sequence) -> Sequence[Tensor]:
        """Class logits ``[N, C, H, W]`` of every level."""
        return outputs[0]

    def box_outputs(self, outputs: Sequence) -> Sequence[Tensor]:
        """Raw regression outputs of every level."""
        return outputs[1]

    def boxes(self, outputs: Sequence, grid: Grid) -> Tensor:
        """Decoded boxes ``[N, P, 4]`` xyxy in input pixels, not clipped."""
        deltas = flatten_levels(self.box_outputs(outputs))
        priors = grid.priors.expand(deltas.size(0), -1, -1)
        return self.head.bbox_coder.decode(priors.reshape(-1, 4), deltas.reshape(-1, 4)).reshape(*deltas.shape[:2], 4)

    def distributions(self, outputs: Sequence) -> Tensor:
        """Logits of the box sides' distributions ``[N, P, 4, bins]``; only where :attr:`bins` is set."""
        raise UnsupportedHead(
            f"{type(self.head).__name__} regresses boxes directly and has no box distributions; "
            "use a head with distribution focal loss such as GFLHead"
        )

    def labels(self, targets: Sequence) -> Tensor:
        """Assigned labels ``[N, P]`` (C for background) from what the head's ``get_targets`` returned."""
        return torch.cat([level.reshape(level.size(0), -1) for level in targets[1]], dim=1)


class GFLReader(HeadReader):
    """GFL: joint class-quality logits; each side's distance is the mean of a distribution, in strides."""

    @property
    def bins(self) -> int:
        return self.head.reg_max + 1

    def distributions(self, outputs: Sequence) -> Tensor:
        flat = flatten_levels(self.box_outputs(outputs))
        return flat.reshape(*flat.shape[:2], 4, self.bins)

    def boxes(self, outputs: Sequence, grid: Grid) -> Tensor:
        distances = self.distributions(outputs).softmax(dim=-1) @ self.head.integral.project
        centers = grid.centers.expand(distances.size(0), -1, -1)
        return distance2bbox(centers, distances * grid.strides[None, :, None])


@singledispatch
def reader_of(head: nn.Module) -> HeadReader:
    """The reader of an mmdet dense head; raises :class:`UnsupportedHead` where there is none."""
    served = ", ".join(sorted(cls.__name__ for cls in reader_of.registry if cls is not object))
    raise UnsupportedHead(f"no reader for {type(head).__name__}; pgd/dense.py serves: {served}")


reader_of.register(ATSSHead, HeadReader)
reader_of.register(GFLHead, GFLReader)


class View:
    """What one detector said about a batch. What a method did not ask for is None."""

    def __init__(
        self,
        reader: HeadReader,
        grid: Grid,
        neck: Sequence[Tensor],
        towers: tuple[list[Tensor], list[Tensor]] | None,
        outputs: Sequence | None,
    ) -> None:
        self.reader, self.grid, self.outputs = reader, grid, outputs
        #: neck features, ``[N, C, H, W]`` a level
        self.neck = neck
        #: first-block features of the two towers, likewise
        self.cls_tower, self.reg_tower = towers or (None, None)

    @cached_property
    def class_logits(self) -> Tensor:
        """``[N, P, C]``"""
        return flatten_levels(self.reader.class_logits(self.outputs))

    @cached_property
    def scores(self) -> Tensor:
        """Class probabilities ``[N, P, C]``."""
        return self.class_logits.sigmoid()

    @cached_property
    def boxes(self) -> Tensor:
        """Decoded boxes ``[N, P, 4]``, pixels."""
        return self.reader.boxes(self.outputs, self.grid)

    @cached_property
    def distributions(self) -> Tensor:
        """Logits of the box sides' distributions ``[N, P, 4, bins]``."""
        return self.reader.distributions(self.outputs)


@dataclass(frozen=True)
class DistillStep:
    """All that a method may look at in one training step."""

    student: View
    teacher: View
    #: per image ``[G, 4]`` xyxy pixels and ``[G]`` class indices
    gt_boxes: list[Tensor]
    gt_labels: list[Tensor]
    #: per image (height, width) without padding
    image_sizes: list[tuple[int, int]]
    grid: Grid
    #: labels ``[N, P]`` that the student's assigner gave (C for background); None unless asked for
    labels: Tensor | None = None

"""What a method sees of a dense detector: positions, neck and tower features, class scores, boxes.

N images, P positions over all levels (level by level, row by row), A predictions a position (1 for all but RetinaNet),
C classes. :class:`HeadReader` reads a head with anchors; each file in :mod:`pgd.heads` says where another head differs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, singledispatch
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class UnsupportedHead(TypeError):
    """The head (or what a method wants of it) is not served; the sentence says what is."""


class Level(NamedTuple):
    """Where the positions of one level stand among all, row by row."""

    #: index of its first position
    start: int
    height: int
    width: int


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
    #: ``[P A, 4]`` anchors, or None for point-based heads
    priors: Tensor | None
    #: A, predictions a position
    per_position: int = 1

    @property
    def num_levels(self) -> int:
        return len(self.sizes)

    @property
    def counts(self) -> tuple[int, ...]:
        """Positions of every level."""
        return tuple(h * w for h, w in self.sizes)

    @property
    def levels(self) -> list[Level]:
        """The rows and columns that :attr:`centers` form."""
        starts = [0, *itertools.accumulate(self.counts)]
        return [Level(start, *size) for start, size in zip(starts[:-1], self.sizes, strict=True)]

    @cached_property
    def prediction_centers(self) -> Tensor:
        """The position of every prediction, ``[P A, 2]``."""
        return self.centers.repeat_interleave(self.per_position, dim=0)

    def to_positions(self, weights: Tensor) -> Tensor:
        """Weights of predictions ``[P A]`` to weights of positions ``[P]``: the largest of each."""
        return weights.reshape(-1, self.per_position).amax(dim=1)

    def split(self, flat: Tensor) -> list[Tensor]:
        """``[N, P]`` to a list over levels of ``[N, H, W]``."""
        parts = flat.split(self.counts, dim=1)
        return [part.reshape(-1, *size) for part, size in zip(parts, self.sizes, strict=True)]


def flatten_levels(maps: Sequence[Tensor], width: int) -> Tensor:
    """Maps ``[N, A width, H, W]`` of every level to ``[N, P A, width]``."""
    flat = torch.cat([m.flatten(2) for m in maps], dim=2).transpose(1, 2)
    return flat.reshape(flat.size(0), -1, width)


class _Feed(nn.Module):
    """Stands at the beginning of a tower and gives, level by level, what it was given."""

    def __init__(self, features: Sequence[Tensor]) -> None:
        super().__init__()
        self._features = iter(features)

    def forward(self, x: Tensor) -> Tensor:
        return next(self._features)


class HeadReader:
    """Reads a head that codes boxes against anchors (ATSS, RetinaNet and their kin); the base of all readers."""

    #: Which method of the head assigns labels to positions.
    assigning: ClassVar[str] = "get_targets"
    #: Whether positions get labels at all.
    assigns_labels: ClassVar[bool] = True
    #: Whether its assigner looks at predictions (then :meth:`assigning_by` works).
    judges_predictions: ClassVar[bool] = False
    anchor_free: ClassVar[bool] = False
    #: Whether a third branch says how good a box is (centerness, IoU).
    predicts_quality: ClassVar[bool] = False
    #: Attributes of the head that training changes and that its state dict lacks; to be kept for resuming.
    memory: ClassVar[tuple[str, ...]] = ()

    def __init__(self, head: nn.Module) -> None:
        if not getattr(head, "use_sigmoid_cls", True):
            raise UnsupportedHead(
                f"{type(head).__name__}: class scores by softmax are not served; set use_sigmoid=True"
            )
        self.head = head

    @property
    def towers(self) -> tuple[nn.ModuleList, nn.ModuleList]:
        """The blocks (conv, norm, activation) of the classification and of the regression tower."""
        return self.head.cls_convs, self.head.reg_convs

    @property
    def channels(self) -> int:
        """Width of the towers."""
        return self.head.feat_channels

    @property
    def strides(self) -> tuple[int, ...]:
        return tuple(s[0] if isinstance(s, Sequence) else s for s in self.head.prior_generator.strides)

    @property
    def per_position(self) -> int:
        """Predictions a position."""
        return self.head.prior_generator.num_base_priors[0]

    @property
    def bins(self) -> int | None:
        """Bins of a box side's distribution, None where boxes are regressed directly."""
        return None

    def grid(self, sizes: Sequence[tuple[int, int]], metas: Sequence[dict], device: torch.device) -> Grid:
        """Positions for levels of ``sizes``; ``metas`` carry each image's ``pad_shape``."""
        generator, sizes = self.head.prior_generator, tuple((int(h), int(w)) for h, w in sizes)
        priors = torch.cat(generator.grid_priors(sizes, device=device))
        valid = [torch.cat(generator.valid_flags(sizes, meta["pad_shape"], device=device)) for meta in metas]
        strides = [priors.new_full((h * w,), s) for (h, w), s in zip(sizes, self.strides, strict=True)]
        every = self.per_position
        return Grid(
            centers=self.centers(priors[::every]),
            strides=torch.cat(strides),
            sizes=sizes,
            valid=torch.stack(valid)[:, ::every].bool(),
            priors=priors if priors.size(1) == 4 else None,
            per_position=every,
        )

    def centers(self, priors: Tensor) -> Tensor:
        """Positions ``[P, 2]`` of what the prior generator gives."""
        return (priors[:, :2] + priors[:, 2:]) / 2

    def class_logits(self, outputs: Sequence) -> Tensor:
        """``[N, P A, C]``"""
        return flatten_levels(outputs[0], self.head.cls_out_channels)

    def boxes(self, outputs: Sequence, grid: Grid) -> Tensor:
        """Decoded boxes ``[N, P A, 4]`` xyxy in input pixels, not clipped."""
        deltas = flatten_levels(outputs[1], 4)
        priors = grid.priors.expand_as(deltas)
        return self.head.bbox_coder.decode(priors.reshape(-1, 4), deltas.reshape(-1, 4)).reshape(deltas.shape)

    def distributions(self, outputs: Sequence) -> Tensor:
        """Logits of the box sides' distributions ``[N, P, 4, bins]``; only where :attr:`bins` is set."""
        raise UnsupportedHead(
            f"{type(self.head).__name__} regresses boxes directly and has no box distributions; "
            "use a head with distribution focal loss such as GFLHead"
        )

    def quality_logits(self, outputs: Sequence) -> Tensor | None:
        """Logits of the third branch ``[N, P A]``, None where the head has none."""
        return flatten_levels(outputs[2], 1).squeeze(-1) if self.predicts_quality else None

    def assignment(self, targets: Sequence, images: int) -> tuple[Tensor, Tensor]:
        """Labels ``[N, P A]`` (C for background) and their weights from what the head's :attr:`assigning` returned.

        A weight is 0 in the padding and where the assigner ignores a prediction, else 1.
        """
        labels, weights = (torch.cat([level.reshape(images, -1) for level in part], dim=1) for part in targets[1:3])
        return labels, weights

    def centerness_targets(self, targets: Sequence, images: int) -> Tensor | None:
        """Centerness ``[N, P]`` of the positives, 0 elsewhere; None where the head's losses do without."""
        return None

    def outputs_from(
        self, neck: Sequence[Tensor], cls_tower: Sequence[Tensor], reg_tower: Sequence[Tensor], block: int = 0
    ) -> Sequence:
        """What the head says when the features behind block ``block`` of its towers are these.

        Args:
            neck: neck features of every level, for what the head reads beside its towers.
            cls_tower: activated features ``[N, C, H, W]`` of every level in place of the classification tower's.
            reg_tower: the same for the regression tower.
            block: which blocks' outputs they replace; the blocks before are not run.
        """
        names = ("cls_convs", "reg_convs")
        own = {name: getattr(self.head, name) for name in names}
        try:
            for name, features in zip(names, (cls_tower, reg_tower), strict=True):
                setattr(self.head, name, nn.ModuleList([_Feed(features), *own[name][block + 1 :]]))
            return self.head(tuple(neck))
        finally:
            for name in names:
                setattr(self.head, name, own[name])

    def assigning_by(self, outputs: Sequence) -> AbstractContextManager[None]:
        """Within the block, the head's assigner judges these ``outputs`` instead of the head's own."""
        raise UnsupportedHead(f"{type(self.head).__name__} assigns labels without looking at predictions")


@singledispatch
def reader_of(head: nn.Module) -> HeadReader:
    """The reader of an mmdet dense head; raises :class:`UnsupportedHead` where there is none."""
    served = ", ".join(cls.__name__ for cls in served_heads())
    raise UnsupportedHead(f"no reader for {type(head).__name__}; pgd/heads/ serves: {served}")


def served_heads() -> list[type[nn.Module]]:
    """The heads that have a reader, by name; what inherits from them is served too."""
    heads = [cls for cls, reader in reader_of.registry.items() if isinstance(reader, type)]
    return sorted(heads, key=lambda cls: cls.__name__)


def reads(*heads: type[nn.Module]) -> Callable[[type[HeadReader]], type[HeadReader]]:
    """Class decorator: this reader serves ``heads`` and what inherits from them."""

    def register(reader: type[HeadReader]) -> type[HeadReader]:
        for head in heads:
            reader_of.register(head, reader)
        return reader

    return register


def refuse(head: type[nn.Module], why: str) -> None:
    """Refuse a head whose class inherits from a served one but works otherwise."""

    def refused(instance: nn.Module) -> HeadReader:
        raise UnsupportedHead(f"{type(instance).__name__}: {why}")

    reader_of.register(head, refused)


class View:
    """What one detector said about a batch. What a method did not ask for is None."""

    def __init__(
        self,
        reader: HeadReader,
        grid: Grid,
        neck: Sequence[Tensor] | None = None,
        towers: tuple[list[Tensor], list[Tensor]] | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        self.reader, self.grid = reader, grid
        self._outputs = outputs
        #: neck features, ``[N, C, H, W]`` a level
        self.neck = neck
        #: features of the two towers, likewise
        self.cls_tower, self.reg_tower = towers or (None, None)

    @property
    def outputs(self) -> Sequence:
        """What the head gave, as it gave it."""
        if self._outputs is None:
            raise LookupError("the method reads predictions but does not say so: add 'predictions' to its needs")
        return self._outputs

    @cached_property
    def class_logits(self) -> Tensor:
        """``[N, P A, C]``"""
        return self.reader.class_logits(self.outputs)

    @cached_property
    def scores(self) -> Tensor:
        """Class probabilities ``[N, P A, C]``."""
        # in float32 also under autocast: fewer ties where scores are ranked
        return self.class_logits.float().sigmoid()

    @cached_property
    def boxes(self) -> Tensor:
        """Decoded boxes ``[N, P A, 4]``, pixels."""
        return self.reader.boxes(self.outputs, self.grid)

    @cached_property
    def distributions(self) -> Tensor:
        """Logits of the box sides' distributions ``[N, P, 4, bins]``."""
        return self.reader.distributions(self.outputs)

    @cached_property
    def quality_logits(self) -> Tensor | None:
        """Logits of the third branch ``[N, P A]``, None where the head has none."""
        return self.reader.quality_logits(self.outputs)


@dataclass
class DistillStep:
    """All that a method may look at in one training step."""

    student: View
    teacher: View
    #: per image (height, width) without padding
    image_sizes: list[tuple[int, int]]
    grid: Grid
    #: ground truth: per image ``[G, 4]`` xyxy pixels and ``[G]`` class indices
    gt_boxes: list[Tensor] | None = None
    gt_labels: list[Tensor] | None = None
    #: ground truth: per image the regions ``[R, 4]`` whose content is not annotated (crowds)
    ignored_boxes: list[Tensor] | None = None
    #: assignment: labels ``[N, P A]`` that the student's assigner gave, C for background
    labels: Tensor | None = None
    #: assignment: ``[N, P A]``, 0 where the assigner ignores a prediction and in the padding
    label_weights: Tensor | None = None
    #: assignment: centerness ``[N, P]`` of the positives, 0 elsewhere; None where the head's losses do without
    centerness: Tensor | None = None

"""The maps of :mod:`pgd.maths` for tests that make their numbers by hand: plain tensors in, one image."""

from __future__ import annotations

from torch import Tensor

from pgd.dense import Grid
from pgd.maths import masks, regions
from pgd.maths.regions import Objects, Predictions
from pgd.methods.base import MethodContext
from pgd.methods.pgd import PGD
from pgd.methods.pgd_released import PGDReleased
from support.detectors import CLASSES, STRIDES


def quality(
    scores: Tensor, boxes: Tensor, centers: Tensor, gt_boxes: Tensor, gt_labels: Tensor, *settings, **more
) -> Tensor:
    return regions.quality(Predictions(scores, boxes, centers), Objects(gt_boxes, gt_labels), *settings, **more)


def prediction_guided_weights(
    scores: Tensor, boxes: Tensor, centers: Tensor, gt_boxes: Tensor, gt_labels: Tensor, *settings, **more
) -> Tensor:
    predictions, objects = Predictions(scores, boxes, centers), Objects(gt_boxes, gt_labels)
    return regions.prediction_guided_weights(predictions, objects, *settings, **more)


def mask(
    kind: str,
    scores: Tensor,
    boxes: Tensor,
    centers: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    *settings,
    **more,
) -> Tensor:
    predictions, objects = Predictions(scores, boxes, centers, strides), Objects(gt_boxes, gt_labels)
    return masks.mask(kind, predictions, objects, *settings, **more)


def maps_of(
    method: PGD, grid: Grid, scores: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, ignored=None
) -> tuple[Tensor, ...]:
    """Both branches' weights and the background of one image, ``[P]`` each."""
    regions_without = [gt_boxes[:0] if ignored is None else ignored]
    found = method.maps(grid, scores[None], boxes[None], [Objects(gt_boxes, gt_labels)], regions_without)
    return tuple(one[0] for one in found)


def maps_with(grid: Grid, *arguments: Tensor, **settings) -> tuple[Tensor, Tensor, Tensor]:
    """The same of PGD, or of its release where ``faults`` are given (those of any head), with these settings."""
    context = MethodContext(32, 32, 32, 32, 5, CLASSES, STRIDES, None, anchor_free=True)
    method = (PGDReleased if "faults" in settings else PGD)(context, **settings)
    return maps_of(method, grid, *arguments)

"""Positions of a feature pyramid with predictions and objects on them, and PGD's weights of these by plain loops."""

from __future__ import annotations

import math

import torch

from pgd.maths.regions import RIDGE

DOUBLE = {"dtype": torch.float64}
#: overlapping, nested, of all sizes, in an image of 128 x 128
SOME_BOXES = [[10, 20, 100, 90], [30, 5, 70, 125], [60, 60, 84, 84], [0, 0, 128, 128], [40, 40, 57, 49]]


def pyramid(strides: tuple[int, ...] = (8, 16, 32), h: int = 128, w: int = 128) -> torch.Tensor:
    """Cell centres (x, y) of every level, row by row."""
    rows = [(s * (x + 0.5), s * (y + 0.5)) for s in strides for y in range(h // s) for x in range(w // s)]
    return torch.tensor(rows, **DOUBLE)


def scene(seed: int, gt_boxes: list | torch.Tensor, centers: torch.Tensor | None = None, classes: int = 3):
    """Arguments of prediction_guided_weights up to the labels: random scores, boxes around each centre."""
    g = torch.Generator().manual_seed(seed)
    centers = pyramid() if centers is None else centers
    scores = torch.rand(len(centers), classes, generator=g, **DOUBLE)
    reach = 4 + 40 * torch.rand(len(centers), 4, generator=g, **DOUBLE)
    boxes = torch.cat((centers - reach[:, :2], centers + reach[:, 2:]), dim=1)
    gt_boxes = torch.as_tensor(gt_boxes, **DOUBLE).reshape(-1, 4)
    return scores, boxes, centers, gt_boxes, torch.arange(len(gt_boxes)) % classes


def single(t: torch.Tensor) -> torch.Tensor:
    """Numbers in single precision, all else as it is."""
    return t.float() if t.is_floating_point() else t


def literal_weights(scores, boxes, centers, gt_boxes, gt_labels, xi, topk, released):
    """PGD sections 3.1 and 3.2 box by box with plain loops and a matrix inverse."""
    total = [0.0] * len(centers)
    for box, label in zip(gt_boxes.tolist(), gt_labels.tolist(), strict=True):
        found = []
        for j, ((x, y), b) in enumerate(zip(centers.tolist(), boxes.tolist(), strict=True)):
            within = box[0] < x < box[2] and box[1] < y < box[3]
            w = max(0.0, min(b[2], box[2]) - max(b[0], box[0]))
            h = max(0.0, min(b[3], box[3]) - max(b[1], box[1]))
            areas = (b[2] - b[0]) * (b[3] - b[1]) + (box[2] - box[0]) * (box[3] - box[1])
            q = float(scores[j, label]) ** (1 - xi) * (w * h / (areas - w * h)) ** xi
            if within or released:
                found.append((q, j, within))
        found = sorted(found, reverse=True)[:topk]
        points = centers[[j for _, j, _ in found]]
        if len(points) == 0:
            continue
        offset = points - points.mean(dim=0)
        cov = offset.T @ offset / len(points) + (0.0 if released else RIDGE) * torch.eye(2, **DOUBLE)
        for (_, j, within), d in zip(found, offset, strict=True):
            total[j] = max(total[j], within * math.exp(-0.5 * float(d @ cov.inverse() @ d)))
    return torch.tensor(total, **DOUBLE)

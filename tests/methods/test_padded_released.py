"""The whole released PGD on padded batches of each of its detectors, against its formulas, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.detectors import OFFSET, PAPER, QUIET, STRIDES, pair
from support.oracles import pgd_released as oracle
from support.padded import batch, double, in_image_flat, seen

from pgd.dense import DistillStep

pytestmark = QUIET
ANCHOR_FREE = ("fcos", "autoassign")
SETTINGS = {"alpha": 0.08, "topk": 5, "temperature": 0.7, "xi_cls": 0.8, "xi_reg": 0.6}
OF = {
    "alpha": 0.08,
    "beta": 0.04,
    "gamma": 0.128,
    "delta": 0.0016,
    "temperature": 0.7,
    "topk": 5,
    "xis": (0.8, 0.6),
    "level_weights": (1.0, 1.25, 1.5, 1.75, 2.0),
}


def positions(name: str, sizes) -> np.ndarray:
    """``[P, 2]`` of a detector, level after level."""
    levels = []
    for (rows, columns), stride in zip(sizes, STRIDES, strict=True):
        y, x = np.mgrid[:rows, :columns]
        levels.append((np.stack([x.ravel(), y.ravel()], axis=1) + OFFSET[name]) * stride)
    return np.concatenate(levels)


def boxes(name: str, step: DistillStep, image: int, centers: np.ndarray) -> np.ndarray:
    """The teacher's, as the release decodes them."""
    if name != "gfl":
        return double(step.teacher.boxes[image])
    logits = np.concatenate(
        [double(level[image]).reshape(4, -1, level[image][0].numel()) for level in step.teacher.outputs[1]], axis=2
    )
    return oracle.decoded(centers, logits.transpose(2, 0, 1), STRIDES[image])


@pytest.mark.parametrize("name", PAPER)
def test_the_release_on_a_padded_batch(name, monkeypatch):
    """Its noise is drawn once and given to both."""
    drawn, rand_like = [], torch.rand_like

    def recorded(like: torch.Tensor) -> torch.Tensor:
        drawn.append(rand_like(like))
        return drawn[-1]

    model = pair(name, method="pgd_released", **SETTINGS)
    monkeypatch.setattr(torch, "rand_like", recorded)
    step, found = seen(model, batch())
    monkeypatch.undo()
    assert len(drawn) == 2 * 2 * 2, "images, branches, coordinates"
    centers = positions(name, step.grid.sizes)
    assert np.array_equal(centers, double(step.grid.centers))
    padding = None if name in ANCHOR_FREE else in_image_flat(step)
    images = [
        oracle.Image(
            double(step.teacher.scores[i]),
            boxes(name, step, i, centers),
            double(step.gt_boxes[i]),
            step.gt_labels[i].numpy(),
            padding if padding is None else padding[i],
        )
        for i in range(2)
    ]
    own, theirs = step.student, step.teacher
    towers = zip(own.cls_tower, theirs.cls_tower, own.reg_tower, theirs.reg_tower, strict=True)
    levels = [tuple(double(features.flatten(2)) for features in level) for level in towers]
    dice = (0.05 * (2 * double(each) - 1) for each in drawn)
    cls, reg = oracle.losses(levels, images, centers, OF, name in ANCHOR_FREE, lambda: next(dice))
    assert found == pytest.approx({"loss_pgd_cls": cls, "loss_pgd_reg": reg}, rel=1e-4)

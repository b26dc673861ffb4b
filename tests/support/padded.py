"""A batch whose second image fills a part of it only, and what a method sees of it."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from pgd.dense import DistillStep
from support.detectors import BOXES, LABELS, SIZE, STRIDES, images, sample

#: (height, width) of the second image and what the loader pads it to
IMAGE, PADDED = (60, 90), (64, 96)


def batch(size: tuple[int, int] = SIZE, empty: bool = False) -> tuple[Tensor, list]:
    inputs = images(2, size)
    inputs[1, :, PADDED[0] :], inputs[1, :, :, PADDED[1] :] = 0, 0
    boxes, labels = ([], []) if empty else ([[10.0, 12, 70, 58], [30, 20, 44, 50]], [1, 4])
    second = sample(boxes, labels, IMAGE)
    second.set_metainfo({"pad_shape": PADDED, "batch_input_shape": size})
    return inputs, [sample(BOXES[0], LABELS[0], size), second]


def seen(model, given: tuple[Tensor, list]) -> tuple[DistillStep, dict[str, float]]:
    """What the method sees of a batch, and its terms."""
    found = []
    handle = model.method.register_forward_hook(lambda module, args, out: found.append((args[0], out)))
    model.loss(*given)
    handle.remove()
    step, terms = found[0]
    return step, {name: value.item() for name, value in terms.items()}


def double(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def in_image(sizes) -> list[np.ndarray]:
    """Which cells mmdet's generators call valid, bool ``[N, H, W]`` a level."""
    levels = []
    for (rows, columns), stride in zip(sizes, STRIDES, strict=True):
        valid = np.ones((2, rows, columns), dtype=bool)
        valid[1, math.ceil(PADDED[0] / stride) :], valid[1, :, math.ceil(PADDED[1] / stride) :] = False, False
        levels.append(valid)
    return levels


def in_image_flat(step: DistillStep) -> np.ndarray:
    return np.concatenate([valid.reshape(2, -1) for valid in in_image(step.grid.sizes)], axis=1)

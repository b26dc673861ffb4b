"""Pairs, batches and steps on either device, for the CUDA tests."""

from __future__ import annotations

from torch import Tensor

from pgd.distiller import Distiller
from support.detectors import QUIET, images, objects, pair, sample
from support.served import SERVED, STILL, settings_at_once
from tools.steps import step_of

__all__ = ["CUDA", "QUIET", "SERVED", "batch", "build", "step_of"]

CUDA = "cuda"
#: Corners between the positions: no two anchors are equally far from a centre, which devices may rank either way.
BOXES = (
    [[10.37, 12.91, 70.83, 60.29], [60.61, 20.17, 99.43, 90.73]],
    [[30.19, 29.83, 45.71, 50.57], [-20.41, 40.13, 49.31, 108.67], [64.27, 8.53, 120.89, 40.71]],
)
LABELS = ([0, 3], [1, 4, 0])


def build(method: str, name: str, device: str, still: bool = True) -> Distiller:
    """A pair at mini scale without warm-up; by default with nothing drawn at random, as devices draw differently."""
    settings = settings_at_once(method, name) | (STILL.get(method, {}) if still else {})
    return pair(name, method=method, **settings).to(device)


def batch(device: str, crowd: int = 0) -> tuple[Tensor, list]:
    """Two images and their objects, or ``crowd`` of these in each, on the device."""
    samples = [sample(b, c) for b, c in zip(BOXES, LABELS, strict=True)]
    if crowd:
        drawn = [objects(crowd, seed) for seed in range(len(samples))]
        samples = [sample(boxes.tolist(), labels.tolist()) for boxes, labels in drawn]
    return images(len(samples)).to(device), [s.to(device) for s in samples]

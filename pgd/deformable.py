"""mmcv's deformable convolutions, on a GPU by torchvision's kernels and on a CPU by ``grid_sample``.

torchvision's CPU kernels visit a position at a time; PyTorch's sampling is vectorised. A step of DDOD, whose head has
two such layers, spends most of its time here (tools/speed.py measures both).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Geometry(NamedTuple):
    """How the kernel lies on the image; pairs are (vertical, horizontal)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    #: groups of channels that share their offsets
    deform_groups: int


def wide(*tensors: Tensor | None) -> Iterator[Tensor | None]:
    """torchvision's kernels know no bfloat16: they get float32, and what they return is copied to where it belongs."""
    return (t.float() if t is not None and t.dtype == torch.bfloat16 else t for t in tensors)


def _readable(offset: Tensor) -> Tensor:
    """Offsets that are no number point outside of the image: torchvision's kernels would read from anywhere.

    So the training of a model that diverged ends with a sentence on its loss and not with a segmentation fault.
    """
    return offset.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)


def deform_conv(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, geometry: Geometry
) -> Tensor:
    """Deformable convolution: the kernel's taps read ``x`` bilinearly where ``offset`` moves them, zeros outside.

    Args:
        x: ``[n, c, H, W]``.
        weight: ``[o, c / groups, kh, kw]``.
        offset: ``[n, deform_groups * kh * kw * 2, h, w]``, (y, x) interleaved, in pixels.
        mask: ``[n, deform_groups * kh * kw, h, w]``, a factor of every tap; None: v1.
        bias: ``[o]``.

    Returns:
        ``[n, o, h, w]``.
    """
    n, channels = x.shape[:2]
    (kh, kw), (h, w), groups = weight.shape[2:], offset.shape[2:], geometry.deform_groups
    moved = offset.view(n * groups, kh * kw, 2, h, w)
    taps = torch.arange(kh, device=x.device).repeat_interleave(kw), torch.arange(kw, device=x.device).repeat(kh)
    positions = torch.arange(h, device=x.device).view(h, 1), torch.arange(w, device=x.device)
    grid = [
        _places(moved[:, :, axis], taps[axis], positions[axis], x.size(2 + axis), axis, geometry) for axis in (1, 0)
    ]
    columns = F.grid_sample(
        x.reshape(n * groups, channels // groups, *x.shape[2:]),
        torch.stack(grid, dim=-1).view(n * groups, -1, w, 2),
        align_corners=False,
    ).view(n, groups, channels // groups, kh * kw, h, w)
    if mask is not None:
        columns = columns * mask.view(n, groups, 1, kh * kw, h, w)
    # what is left is a convolution of one position
    columns, weight = columns.view(n, channels * kh * kw, h, w), weight.flatten(1)[..., None, None]
    return F.conv2d(columns, weight, bias, groups=geometry.groups)


def _places(moved: Tensor, tap: Tensor, position: Tensor, size: int, axis: int, geometry: Geometry) -> Tensor:
    """Where taps read along one axis, in ``grid_sample``'s terms: -1 and 1 are the outer edges of the image.

    What is far outside is brought near: an infinite place that weighs nothing would be no number.
    """
    start = position * geometry.stride[axis] - geometry.padding[axis] + tap.view(-1, 1, 1) * geometry.dilation[axis]
    return ((moved + start).clamp(-2, size + 1) * 2 + 1) / size - 1


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients by input, weight, offset, mask and bias."""
    grad, x, weight, offset, mask = wide(grad, x, weight, offset, mask)
    offset = _readable(offset)
    if not x.is_cuda:
        with torch.enable_grad():
            own = [t if t is None else t.detach().requires_grad_() for t in (x, weight, offset, mask)]
            output = deform_conv(*own, None, geometry)
        found = torch.autograd.grad(output, [t for t in own if t is not None], grad)
        return *found[:3], found[3] if mask is not None else None, grad.sum((0, 2, 3))
    bias = weight.new_zeros(weight.size(0))
    used = mask is not None
    mask = mask if used else x.new_zeros((x.size(0), 1))
    return torch.ops.torchvision._deform_conv2d_backward(grad, x, weight, offset, mask, bias, *_flat(geometry), used)


def _forward(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: Geometry,
    output: Tensor,
) -> None:
    x, weight, where, mask, bias = wide(x, weight, offset, mask, bias)
    if x.is_cuda:
        bias = weight.new_zeros(weight.size(0)) if bias is None else bias
        used = mask is not None
        mask = mask if used else x.new_zeros((x.size(0), 1))
        kernel = torch.ops.torchvision.deform_conv2d
        output.copy_(kernel(x, weight, _readable(where), mask, bias, *_flat(geometry), used))
    else:
        output.copy_(deform_conv(x, weight, _readable(where), mask, bias, geometry))
    output.masked_fill_(offset.isnan().any(1, keepdim=True), math.nan)


def _flat(geometry: Geometry) -> tuple[int, ...]:
    """As torchvision's kernels take it."""
    return *geometry.stride, *geometry.padding, *geometry.dilation, geometry.groups, geometry.deform_groups


def _v1(kw: dict) -> Geometry:
    """Out of the compiled module's arguments."""
    pairs = ((kw[f"{name}H"], kw[f"{name}W"]) for name in ("d", "pad", "dilation"))
    return Geometry(*pairs, kw["group"], kw["deformable_group"])


def _v2(kw: dict) -> Geometry:
    """Out of the compiled module's arguments."""
    pairs = ((kw[f"{name}_h"], kw[f"{name}_w"]) for name in ("stride", "pad", "dilation"))
    return Geometry(*pairs, kw["group"], kw["deformable_group"])


def deform_conv_forward(x, weight, offset, output, columns, ones, **kw) -> None:
    """Deformable convolution v1 (Dai et al., 2017). ``offset [n, 2*k*k*groups, h, w]``, (y, x) interleaved."""
    _forward(x, weight, offset, None, None, _v1(kw), output)


def deform_conv_backward_input(x, offset, grad, grad_input, grad_offset, weight, columns, **kw) -> None:
    """Gradients of v1 by input and offset."""
    by_input, _, by_offset, _, _ = _backward(grad, x, weight, offset, None, _v1(kw))
    grad_input.copy_(by_input)
    grad_offset.copy_(by_offset)


def deform_conv_backward_parameters(x, offset, grad, grad_weight, columns, ones, *, scale=1.0, **kw) -> None:
    """Gradient of v1 by the weight, added to what is there."""
    by_weight = _backward(grad, x, grad_weight.new_ones(grad_weight.shape), offset, None, _v1(kw))[1]
    grad_weight.add_(by_weight, alpha=scale)


def modulated_deform_conv_forward(x, weight, bias, ones, offset, mask, output, columns, *, with_bias, **kw) -> None:
    """Deformable convolution v2 (Zhu et al., 2019), modulated by ``mask [n, k*k*groups, h, w]``."""
    _forward(x, weight, offset, mask, bias if with_bias else None, _v2(kw), output)


def modulated_deform_conv_backward(
    x, weight, bias, ones, offset, mask, columns,
    grad_input, grad_weight, grad_bias, grad_offset, grad_mask, grad, *, with_bias, **kw,
) -> None:  # fmt: skip
    """Gradients of v2 by input, weight, bias, offset and mask."""
    by_input, by_weight, by_offset, by_mask, by_bias = _backward(grad, x, weight, offset, mask, _v2(kw))
    grad_input.copy_(by_input)
    grad_weight.copy_(by_weight)
    grad_offset.copy_(by_offset)
    grad_mask.copy_(by_mask)
    if with_bias:
        grad_bias.copy_(by_bias)

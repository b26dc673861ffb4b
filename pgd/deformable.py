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
    moved = offset.reshape(n * groups, kh * kw, 2, h, w)
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
        columns = columns * mask.reshape(n, groups, 1, kh * kw, h, w)
    # what is left is a product for each group of channels
    product = weight.reshape(geometry.groups, -1, weight[0].numel()) @ columns.reshape(n, geometry.groups, -1, h * w)
    product = product.view(n, -1, h, w)
    return product if bias is None else product + bias.view(-1, 1, 1)


def _places(moved: Tensor, tap: Tensor, position: Tensor, size: int, axis: int, geometry: Geometry) -> Tensor:
    """Where taps read along one axis, in ``grid_sample``'s terms: -1 and 1 are the outer edges of the image.

    What is far outside is brought near: an infinite place that weighs nothing would be no number.
    """
    start = position * geometry.stride[axis] - geometry.padding[axis] + tap.view(-1, 1, 1) * geometry.dilation[axis]
    return ((moved + start).clamp(-2, size + 1) * 2 + 1) / size - 1


def _backward(
    wanted: tuple[str, ...],
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    geometry: Geometry,
) -> list[Tensor]:
    """Gradients by those of x, weight, offset and mask that are wanted: each costs time."""
    grad, x, weight, offset, mask = wide(grad, x, weight, offset, mask)
    own = {"x": x, "weight": weight, "offset": _readable(offset), "mask": mask}
    if not x.is_cuda:
        own |= {name: own[name].detach().requires_grad_() for name in wanted}
        with torch.enable_grad():
            output = deform_conv(*own.values(), None, geometry)
        return list(torch.autograd.grad(output, [own[name] for name in wanted], grad))
    own["mask"] = x.new_zeros((x.size(0), 1)) if mask is None else mask
    kernel = torch.ops.torchvision._deform_conv2d_backward
    found = kernel(grad, *own.values(), weight.new_zeros(weight.size(0)), *_flat(geometry), mask is not None)
    found = dict(zip(own, found, strict=False))
    return [found[name] for name in wanted]


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
    found = _backward(("x", "offset"), grad, x, weight, offset, None, _v1(kw))
    for target, value in zip((grad_input, grad_offset), found, strict=True):
        target.copy_(value)


def deform_conv_backward_parameters(x, offset, grad, grad_weight, columns, ones, *, scale=1.0, **kw) -> None:
    """Gradient of v1 by the weight, added to what is there."""
    (found,) = _backward(("weight",), grad, x, torch.ones_like(grad_weight), offset, None, _v1(kw))
    grad_weight.add_(found, alpha=scale)


def modulated_deform_conv_forward(x, weight, bias, ones, offset, mask, output, columns, *, with_bias, **kw) -> None:
    """Deformable convolution v2 (Zhu et al., 2019), modulated by ``mask [n, k*k*groups, h, w]``."""
    _forward(x, weight, offset, mask, bias if with_bias else None, _v2(kw), output)


def modulated_deform_conv_backward(
    x, weight, bias, ones, offset, mask, columns,
    grad_input, grad_weight, grad_bias, grad_offset, grad_mask, grad, *, with_bias, **kw,
) -> None:  # fmt: skip
    """Gradients of v2 by input, weight, bias, offset and mask."""
    found = _backward(("x", "weight", "offset", "mask"), grad, x, weight, offset, mask, _v2(kw))
    for target, value in zip((grad_input, grad_weight, grad_offset, grad_mask), found, strict=True):
        target.copy_(value)
    if with_bias:
        grad_bias.copy_(grad.sum((0, 2, 3)))

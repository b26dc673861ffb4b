"""mmcv's compiled operators, served by torchvision and plain torch.

mmcv-lite ships the Python side of ``mmcv.ops`` without the compiled module ``mmcv._ext`` behind it. :func:`install`
puts a module of that name in ``sys.modules`` whose functions have the compiled module's calling convention
(outputs are tensors passed in and filled in place), so that mmdet imports, trains and predicts without a compiler,
on CPU and CUDA alike. A real ``mmcv._ext`` is used when there is one. Every operator that is not served raises
:class:`OperatorNotServed` when it is called, never at import.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

EXT_NAME = "mmcv._ext"


class OperatorNotServed(NotImplementedError):
    """An mmcv operator was called that needs mmcv's compiled extension."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"mmcv operator '{name}' is not served by pgd.ops (torchvision has no counterpart that it uses). "
            f"Remedy: install a compiled mmcv 2.1.0 (it is preferred when present), or add '{name}' to pgd/ops.py."
        )


# ---------------------------------------------------------------------------------------------- suppression


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes ``[n]`` that greedy suppression keeps, by falling score.

    ``offset=1`` is the legacy convention in which a box covers ``x2 - x1 + 1`` pixels: the same as moving the far
    corner by one.
    """
    from torchvision.ops import nms as torchvision_nms

    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    # torchvision's CPU kernel has no half precision.
    return torchvision_nms(boxes.float(), scores.float(), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., 2017): fills ``dets [n, 5]`` from the top and returns the ``[k]`` kept indices.

    ``method``: 0 hard suppression, 1 linear decay ``1 - IoU`` above the threshold, 2 Gaussian ``exp(-IoU^2/sigma)``.
    """
    from torchvision.ops import box_iou

    shifted = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1) if offset else boxes
    # Two boxes without area have no IoU (0/0): the compiled loop's comparisons then leave the score as it is.
    iou = box_iou(shifted, shifted).nan_to_num(nan=0.0)
    scores = scores.clone()
    alive = torch.ones_like(scores, dtype=torch.bool)
    keep: list[int] = []
    while bool(alive.any()):
        best = int(torch.where(alive, scores, scores.new_full((), -torch.inf)).argmax())
        dets[len(keep), :4], dets[len(keep), 4] = boxes[best], scores[best]
        keep.append(best)
        alive[best] = False
        overlap = iou[best]
        if method == 0:
            decay = (overlap < iou_threshold).to(scores)
        elif method == 1:
            decay = torch.where(overlap >= iou_threshold, 1 - overlap, torch.ones_like(overlap))
        else:
            decay = torch.exp(-(overlap**2) / sigma)
        scores = torch.where(alive, scores * decay, scores)
        alive &= scores >= min_score
    return torch.tensor(keep, dtype=torch.long)


# ----------------------------------------------------------------------------------------------- focal loss


def _focal_terms(logits: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """One-hot targets, the balancing factor and the per-class weight, each broadcastable to ``logits [n, C]``."""
    hot = F.one_hot(target, logits.size(1) + 1)[:, : logits.size(1)].to(logits.dtype)
    balance = alpha * hot + (1 - alpha) * (1 - hot)
    if weight.numel():
        balance = balance * weight[target.clamp(max=logits.size(1) - 1)].unsqueeze(1)
    return hot, balance, torch.sigmoid(logits)


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of Lin et al. (2017), unreduced. ``logits [n, C]``, ``target [n]`` with C meaning background."""
    hot, balance, p = _focal_terms(logits, target, weight, alpha)
    miss = hot * (1 - p) + (1 - hot) * p
    bce = F.binary_cross_entropy_with_logits(logits, hot, reduction="none")
    output.copy_(balance * miss**gamma * bce)


def sigmoid_focal_loss_backward(
    logits: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of :func:`sigmoid_focal_loss_forward` by the logits.

    With ``m`` the missed probability and ``L = m^g * bce``: ``dL/dx = s * m^g * (g * (1 - m) * bce + m)`` where
    ``s`` is -1 on the target class and +1 elsewhere.
    """
    hot, balance, p = _focal_terms(logits, target, weight, alpha)
    miss = hot * (1 - p) + (1 - hot) * p
    bce = F.binary_cross_entropy_with_logits(logits, hot, reduction="none")
    grad_input.copy_((1 - 2 * hot) * balance * miss**gamma * (gamma * (1 - miss) * bce + miss))


# -------------------------------------------------------------------------------------- deformable convolution


def _wide(*tensors: Tensor | None) -> Iterator[Tensor | None]:
    """torchvision's kernels know no bfloat16: they get float32, and what they return is copied to where it belongs."""
    return (t.float() if t is not None and t.dtype == torch.bfloat16 else t for t in tensors)


def _readable(offset: Tensor) -> Tensor:
    """Offsets that are no number point outside of the image: torchvision's kernels would read from anywhere.

    So the training of a model that diverged ends with a sentence on its loss and not with a segmentation fault.
    """
    return offset.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)


def _deform_backward(
    grad: Tensor, x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, geometry: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by (input, weight, offset, mask, bias), straight from torchvision's kernel."""
    grad, x, weight, offset, mask = _wide(grad, x, weight, offset, mask)
    bias = weight.new_zeros(weight.size(0))
    used = mask is not None
    mask = mask if used else x.new_zeros((x.size(0), 1))
    offset = _readable(offset)
    return torch.ops.torchvision._deform_conv2d_backward(grad, x, weight, offset, mask, bias, *geometry, used)


def _deform_forward(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: tuple[int, ...],
    output: Tensor,
) -> None:
    x, weight, offset, mask, bias = _wide(x, weight, offset, mask, bias)
    bias = weight.new_zeros(weight.size(0)) if bias is None else bias
    used = mask is not None
    mask = mask if used else x.new_zeros((x.size(0), 1))
    output.copy_(torch.ops.torchvision.deform_conv2d(x, weight, _readable(offset), mask, bias, *geometry, used))
    output.masked_fill_(offset.isnan().any(1, keepdim=True), math.nan)


def _geometry_v1(kw: dict) -> tuple[int, ...]:
    return (
        *(kw["dH"], kw["dW"], kw["padH"], kw["padW"], kw["dilationH"], kw["dilationW"]),
        *(kw["group"], kw["deformable_group"]),
    )


def _geometry_v2(kw: dict) -> tuple[int, ...]:
    return (
        *(kw["stride_h"], kw["stride_w"], kw["pad_h"], kw["pad_w"], kw["dilation_h"], kw["dilation_w"]),
        *(kw["group"], kw["deformable_group"]),
    )


def deform_conv_forward(x, weight, offset, output, columns, ones, **kw) -> None:
    """Deformable convolution v1 (Dai et al., 2017). ``offset [n, 2*k*k*groups, h, w]``, (y, x) interleaved."""
    _deform_forward(x, weight, offset, None, None, _geometry_v1(kw), output)


def deform_conv_backward_input(x, offset, grad, grad_input, grad_offset, weight, columns, **kw) -> None:
    """Gradients of v1 by input and offset."""
    by_input, _, by_offset, _, _ = _deform_backward(grad, x, weight, offset, None, _geometry_v1(kw))
    grad_input.copy_(by_input)
    grad_offset.copy_(by_offset)


def deform_conv_backward_parameters(x, offset, grad, grad_weight, columns, ones, *, scale=1.0, **kw) -> None:
    """Gradient of v1 by the weight, added to what is there."""
    by_weight = _deform_backward(grad, x, grad_weight.new_ones(grad_weight.shape), offset, None, _geometry_v1(kw))[1]
    grad_weight.add_(by_weight, alpha=scale)


def modulated_deform_conv_forward(x, weight, bias, ones, offset, mask, output, columns, *, with_bias, **kw) -> None:
    """Deformable convolution v2 (Zhu et al., 2019), modulated by ``mask [n, k*k*groups, h, w]``."""
    _deform_forward(x, weight, offset, mask, bias if with_bias else None, _geometry_v2(kw), output)


def modulated_deform_conv_backward(
    x, weight, bias, ones, offset, mask, columns,
    grad_input, grad_weight, grad_bias, grad_offset, grad_mask, grad, *, with_bias, **kw,
) -> None:  # fmt: skip
    """Gradients of v2 by input, weight, bias, offset and mask."""
    by_input, by_weight, by_offset, by_mask, by_bias = _deform_backward(grad, x, weight, offset, mask, _geometry_v2(kw))
    grad_input.copy_(by_input)
    grad_weight.copy_(by_weight)
    grad_offset.copy_(by_offset)
    grad_mask.copy_(by_mask)
    if with_bias:
        grad_bias.copy_(by_bias)


# ------------------------------------------------------------------------------------------------- RoI align


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise OperatorNotServed("roi_align with pool_mode='max'")


def roi_align_forward(x, rois, output, argmax_y, argmax_x, *, aligned_height, aligned_width,
                      spatial_scale, sampling_ratio, pool_mode, aligned) -> None:  # fmt: skip
    """RoIAlign (He et al., 2017) with average pooling. ``rois [r, 5]``: image index, x1, y1, x2, y2."""
    _require_average(pool_mode)
    x, rois = _wide(x, rois)
    pooled = torch.ops.torchvision.roi_align(
        x, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
    )
    output.copy_(pooled)


def roi_align_backward(grad, rois, argmax_y, argmax_x, grad_input, *, aligned_height, aligned_width,
                       spatial_scale, sampling_ratio, pool_mode, aligned) -> None:  # fmt: skip
    """Gradient of :func:`roi_align_forward` by the feature map."""
    _require_average(pool_mode)
    grad, rois = _wide(grad, rois)
    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


SERVED = {
    f.__name__: f
    for f in (
        nms, softnms, sigmoid_focal_loss_forward, sigmoid_focal_loss_backward,
        deform_conv_forward, deform_conv_backward_input, deform_conv_backward_parameters,
        modulated_deform_conv_forward, modulated_deform_conv_backward, roi_align_forward, roi_align_backward,
    )
}  # fmt: skip


class _Extension(ModuleType):
    """Stands for ``mmcv._ext``: has every operator's name, because mmcv checks names at import."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*args, **kwargs):
            raise OperatorNotServed(name)

        return refuse


def install() -> bool:
    """Serve ``mmcv._ext`` unless a compiled one exists. Returns whether this module serves it. Idempotent."""
    present = sys.modules.get(EXT_NAME)
    if present is not None:
        return isinstance(present, _Extension)
    if importlib.util.find_spec(EXT_NAME) is not None:
        return False
    import torchvision  # noqa: F401  (registers torch.ops.torchvision)

    module = _Extension(EXT_NAME)
    # mmengine asks for the spec; None as loader says that nothing was read from disk.
    module.__spec__ = ModuleSpec(EXT_NAME, loader=None)
    module.__dict__.update(SERVED)
    sys.modules[EXT_NAME] = module
    return True

"""mmcv's compiled operators, served by torchvision and plain torch.

mmcv-lite ships the Python side of ``mmcv.ops`` without the compiled module ``mmcv._ext`` behind it. :func:`install`
puts a module of that name in ``sys.modules`` whose functions have the compiled module's calling convention
(outputs are tensors passed in and filled in place), so that mmdet imports, trains and predicts without a compiler,
on CPU and CUDA alike. A real ``mmcv._ext`` is used when there is one. Every operator that is not served raises
:class:`OperatorNotServed` when it is called, never at import.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from pgd.deformable import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    wide,
)

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


# ------------------------------------------------------------------------------------------------- RoI align


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        raise OperatorNotServed("roi_align with pool_mode='max'")


def roi_align_forward(x, rois, output, argmax_y, argmax_x, *, aligned_height, aligned_width,
                      spatial_scale, sampling_ratio, pool_mode, aligned) -> None:  # fmt: skip
    """RoIAlign (He et al., 2017) with average pooling. ``rois [r, 5]``: image index, x1, y1, x2, y2."""
    _require_average(pool_mode)
    x, rois = wide(x, rois)
    pooled = torch.ops.torchvision.roi_align(
        x, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
    )
    output.copy_(pooled)


def roi_align_backward(grad, rois, argmax_y, argmax_x, grad_input, *, aligned_height, aligned_width,
                       spatial_scale, sampling_ratio, pool_mode, aligned) -> None:  # fmt: skip
    """Gradient of :func:`roi_align_forward` by the feature map."""
    _require_average(pool_mode)
    grad, rois = wide(grad, rois)
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

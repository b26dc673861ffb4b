"""A training step on CUDA is the step on the CPU, for every method on every detector; under autocast it is finite.

Tolerances, float32 with TF32 off: a loss may be off by 1e-4 of itself; the gradient of a parameter tensor by 2e-2 of
the norm of its largest kin (``student`` or ``method``), since the last digit decides on which side of its kink a ReLU
is. Wider where it decides more: the derivative by a deformable convolution's offset jumps from position to position,
and a near tie makes GID's suppression pick another instance. What is found is reported.
"""

from __future__ import annotations

import pytest
import torch
from support.device import CUDA, QUIET, SERVED, batch, build

from pgd.distiller import Distiller

pytestmark = QUIET

LOSS, GRADIENT, OFFSET = 1e-4, 2e-2, 5e-2
#: of losses and gradients, for what picks
PICKING = {"gid": 0.1}
#: mmdet's own losses of these mix types under autocast
MIXING = ("autoassign", "vfnet")


def losses_and_gradients(model: Distiller, device: str) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Of one step, on the CPU."""
    losses = model.loss(*batch(device))
    total, logged = model.parse_losses(losses)
    total.backward()
    gradients = {key: p.grad.cpu() for key, p in model.named_parameters() if p.grad is not None}
    return {key: float(value.detach()) for key, value in logged.items()}, gradients


@pytest.mark.parametrize(("method", "name"), SERVED)
def test_cuda_agrees_with_cpu(method, name, full_precision, figure):
    expected, gradients = losses_and_gradients(build(method, name, "cpu"), "cpu")
    losses, found = losses_and_gradients(build(method, name, CUDA), CUDA)
    figure("loss, relative difference", max(abs(losses[key] / v - 1) for key, v in expected.items() if v))
    largest = 0.0
    wide = PICKING.get(method, 0.0)
    assert losses == pytest.approx(expected, rel=max(LOSS, wide), abs=1e-6)
    assert found.keys() == gradients.keys()
    for part in ("student", "method"):
        own = {key: g for key, g in gradients.items() if key.startswith(f"{part}.")}
        scale = max((float(g.norm()) for g in own.values()), default=0.0)
        for key, gradient in own.items():
            allowed = max(OFFSET if "conv_offset" in key else GRADIENT, wide)
            off = float((found[key] - gradient).norm())
            largest = max(largest, off / scale if scale else off)
            assert off <= allowed * scale, f"the gradient of {key} is off by {off:.2g}, of {scale:.2g}"
    figure("gradient, difference by the largest norm", largest)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize(("method", "name"), SERVED)
def test_autocast(method, name, dtype, monkeypatch):
    model = build(method, name, CUDA, still=False)
    if name in MIXING:
        own = {"loss_own": next(model.student.parameters()).sum() * 0}
        monkeypatch.setattr(model.student.bbox_head, "loss_by_feat", lambda *a, **k: own)
        if "assignment" in model.method.needs:
            pytest.skip("the assignment comes with the losses that cannot run")
    with torch.autocast(CUDA, dtype):
        losses = model.loss(*batch(CUDA))
    total, logged = model.parse_losses(losses)
    total.backward()
    assert not [key for key, value in logged.items() if not bool(value.isfinite())]
    assert not [key for key, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    assert any(bool(p.grad.any()) for p in model.student.neck.parameters())

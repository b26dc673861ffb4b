"""The distiller on a device: the teacher goes where the student goes, though it is no submodule."""

from __future__ import annotations

import pytest
import torch
from support.device import CUDA, QUIET, batch, build

pytestmark = QUIET


def devices(model: torch.nn.Module) -> set[str]:
    return {t.device.type for t in (*model.parameters(), *model.buffers())}


@pytest.mark.parametrize("move", [lambda m: m.cuda(), lambda m: m.to(CUDA)], ids=["cuda", "to"])
def test_the_teacher_moves_along(move):
    model = build("fgd", "gfl", "cpu")
    teacher = {key: value.clone() for key, value in model.teacher.state_dict().items()}
    assert devices(model.teacher) == {"cpu"}
    model = move(model)
    assert devices(model) == devices(model.teacher) == {CUDA}
    assert all(torch.equal(value.cpu(), teacher[key]) for key, value in model.teacher.state_dict().items())
    total, _ = model.parse_losses(model.loss(*batch(CUDA)))
    total.backward()
    assert not any(p.requires_grad or p.grad is not None for p in model.teacher.parameters())
    assert devices(model.cpu()) == devices(model.teacher) == {"cpu"}


@pytest.mark.parametrize("name", ["gfl", "fcos", "atss"])
def test_three_steps_with_a_scaler(name):
    """float16 as an ``AmpOptimWrapper`` trains: weights change and stay finite, the teacher's do not change."""
    model = build("pgd", name, CUDA)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    teacher = {key: value.clone() for key, value in model.teacher.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    scaler = torch.amp.GradScaler(CUDA, init_scale=64.0)
    for _ in range(3):
        with torch.autocast(CUDA, torch.float16):
            losses = model.loss(*batch(CUDA))
        optimizer.zero_grad()
        scaler.scale(model.parse_losses(losses)[0]).backward()
        scaler.step(optimizer)
        scaler.update()
    after = model.state_dict()
    assert all(bool(value.isfinite().all()) for value in after.values())
    assert any(not torch.equal(value, before[key]) for key, value in after.items())
    assert all(torch.equal(value, teacher[key]) for key, value in model.teacher.state_dict().items())

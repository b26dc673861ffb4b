"""The learning rate in a record is the one that mmengine trains with."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from benchmark.training.usage import effective_rate


@pytest.mark.parametrize(
    "scaling", [None, {"enable": False, "base_batch_size": 16}, {"enable": True, "base_batch_size": 16}]
)
@pytest.mark.parametrize(("batch", "world_size"), [(2, 1), (4, 2), (16, 1)])
def test_rate_is_that_of_mmengine(scaling, batch, world_size):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    runner = SimpleNamespace(
        _train_dataloader={"batch_size": batch},
        world_size=world_size,
        param_schedulers=None,
        logger=logging.getLogger("test"),
    )
    Runner.scale_lr(runner, OptimWrapper(optimizer), scaling)
    cfg = Config(
        {
            "train_dataloader": {"batch_size": batch},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}, "accumulative_counts": 3},
            "auto_scale_lr": scaling,
            "param_scheduler": [
                {"type": "LinearLR", "begin": 0, "end": 40},
                {"type": "CosineAnnealingLR", "begin": 40},
            ],
        }
    )
    found = effective_rate(cfg, world_size)
    assert found["lr"] == pytest.approx(optimizer.param_groups[0]["lr"])
    assert found["base_lr"] == 0.01
    assert found["optimizer"] == "SGD(lr=0.01, momentum=0.9)"
    assert found["schedule"] == "LinearLR(begin=0, end=40), CosineAnnealingLR(begin=40)"
    assert found["effective_batch"] == 3 * batch * world_size

"""What a record says of a training is so: the learning rate that mmengine trains with, the flags of torch."""

from __future__ import annotations

import logging
import os
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from benchmark.experiment.config import detector_config
from benchmark.experiment.settings import Detector
from benchmark.train import feed_gpus, repeat_on_gpus
from benchmark.training.usage import effective_rate, flags, machine, rate_notice


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


@pytest.mark.parametrize(
    ("batch", "world_size", "accumulated", "scaling", "said"),
    [
        (2, 1, 1, None, None),
        (2, 8, 1, {"base_batch_size": 16}, None),
        (2, 1, 1, {"base_batch_size": 16, "enable": True}, None),
        (
            2,
            1,
            1,
            {"base_batch_size": 16},
            "the rate 0.01 with 2 images a step: the config has 0.01 for 16, which",
        ),
        (2, 1, 8, {"base_batch_size": 16}, None),
        (2, 1, 8, {"base_batch_size": 16, "enable": True}, "the rate 0.00125 with 16 images a step"),
    ],
)
def test_a_rate_that_does_not_fit_the_batch_is_told(batch, world_size, accumulated, scaling, said):
    cfg = Config(
        {
            "train_dataloader": {"batch_size": batch},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.01}, "accumulative_counts": accumulated},
            "auto_scale_lr": scaling,
            "param_scheduler": [],
        }
    )
    notice = rate_notice(cfg, world_size)
    assert (notice is None) == (said is None)
    assert (notice or "").startswith(said or "")


CUDNN, MATMUL = torch.backends.cudnn, torch.backends.cuda.matmul
#: torch's own values
USUAL = [(MATMUL, "allow_tf32", False), (CUDNN, "allow_tf32", True), (CUDNN, "benchmark", False)]
USUAL += [(CUDNN, "deterministic", False)]


@pytest.fixture
def usual_flags():
    """Torch's flags as it comes with them, for the time of a test."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in USUAL]
    enabled = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    for owner, name, value in USUAL:
        setattr(owner, name, value)
    yield
    for owner, name, value in before:
        setattr(owner, name, value)
    torch.use_deterministic_algorithms(enabled[0], warn_only=enabled[1])


def test_flags_are_named_where_they_are_not_usual(usual_flags):
    assert machine()["flags"] == "torch's defaults"
    MATMUL.allow_tf32, CUDNN.allow_tf32, CUDNN.benchmark = True, False, True
    assert machine()["flags"] == "matmul.allow_tf32=True, cudnn.allow_tf32=False, cudnn.benchmark=True"


@pytest.mark.parametrize("gpu", [False, True])
def test_a_gpu_computes_the_same_again(usual_flags, monkeypatch, gpu):
    """Where it can: what has no such kernel warns and is computed nevertheless."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(os, "environ", {})
    CUDNN.benchmark = True
    repeat_on_gpus()
    assert os.environ == ({"CUBLAS_WORKSPACE_CONFIG": ":4096:8"} if gpu else {})
    assert torch.is_deterministic_algorithms_warn_only_enabled() is gpu
    assert flags() == ("cudnn.deterministic=True, deterministic_algorithms=True" if gpu else "cudnn.benchmark=True")


@pytest.mark.parametrize("there", [True, False])
def test_where_there_is_a_gpu_batches_wait_for_it_in_pinned_memory(monkeypatch, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    cfg = detector_config(Detector("benchmark/configs/mini/gfl_r18.py"))
    feed_gpus(cfg)
    monkeypatch.undo()
    assert [cfg[f"{part}_dataloader"].get("pin_memory", False) for part in ("train", "val")] == [there, there]
    # the preprocessor takes the word
    assert MODELS.build(cfg.model.data_preprocessor)._non_blocking is there

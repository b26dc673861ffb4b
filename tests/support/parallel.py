"""A step of each method, by one process or by two that share its images, as torch's data parallel training does it."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import pgd.plugin  # noqa: F401  registers with mmdet
from pgd.distiller import Distiller
from support.detectors import BOXES, LABELS, images, pair, sample
from support.served import STILL, settings_at_once

DETECTOR, PROCESSES = "gfl", 2
#: as many images for each process; those of the second have fewer objects, and small ones
ALL_BOXES = (*BOXES, [[100.0, 50, 120, 72]], [[10.0, 10, 26, 24]])
ALL_LABELS = (*LABELS, [2], [4])
SHARE = len(ALL_BOXES) // PROCESSES


@dataclass(frozen=True)
class Step:
    """Losses by name and gradients by parameter; of two processes the means."""

    losses: dict[str, Tensor]
    gradients: dict[str, Tensor]


class Summed(nn.Module):
    """Gives the sum of all losses, which is what data parallel training goes back from."""

    def __init__(self, model: Distiller) -> None:
        super().__init__()
        self.model = model
        self.losses: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor, samples: list) -> Tensor:
        found = self.model.loss(inputs, samples)
        self.losses = {k: sum(v) if isinstance(v, list) else v for k, v in found.items() if "loss" in k}
        return sum(self.losses.values())


def built(method: str) -> Distiller:
    """A pair of GFLs, with what is drawn at random made the same for each image."""
    settings = {**settings_at_once(method, DETECTOR), **STILL.get(method, {})}
    return pair(DETECTOR, method=method, **settings)


def step(method: str, first: int, last: int, parallel: bool) -> Step:
    """What the images from ``first`` to ``last`` give; together with the other process where it is ``parallel``."""
    module = Summed(built(method))
    model = DistributedDataParallel(module, find_unused_parameters=True) if parallel else module
    inputs = images(len(ALL_BOXES))[first:last]
    truth = zip(ALL_BOXES[first:last], ALL_LABELS[first:last], strict=True)
    torch.manual_seed(7)
    model(inputs, [sample(boxes, labels) for boxes, labels in truth]).backward()
    losses = {name: value.detach().clone() for name, value in module.losses.items()}
    if parallel:
        for value in losses.values():
            dist.all_reduce(value)
            value /= dist.get_world_size()
    named = module.model.named_parameters()
    return Step(losses, {name: p.grad.clone() for name, p in named if p.grad is not None})


def work(rank: int, methods: list[str], folder: str) -> None:
    """One of the processes: its share of each method's step, the means written to ``<method>.pth``."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=PROCESSES)
    for method in methods:
        found = step(method, rank * SHARE, (rank + 1) * SHARE, parallel=True)
        if rank == 0:
            torch.save({"losses": found.losses, "gradients": found.gradients}, Path(folder) / f"{method}.pth")
    dist.destroy_process_group()

"""A step of each method: by one process, by two that share its images, or after two batches of half of them."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import pgd.plugin  # noqa: F401  registers with mmdet
from pgd.distiller import Distiller
from support.detectors import BOXES, LABELS, images, pair, sample
from support.served import STILL, settings_at_once

DETECTOR, PROCESSES = "gfl", 2
#: why half batches do not add up to a whole one, by method
APART = {
    "bckd": "a level on which one process has no positive is left out there",
    "cankd": "batch norms take the statistics of one process",
    "crosskd": "features are standardised over the images of one process",
    "cskd": "cells of objects and background are counted in one process, and so are instances",
    "defeat": "cells of objects and background are counted in one process",
    "detkds": "relations are those among the images of one process",
    "dist": "a class correlates over the positions of one process's images",
    "fgfi": "chosen positions are counted in one process",
    "fkd": "roots are of sums over one process's images",
    "frs": "sums of richness are those of one process",
    "gid": "instances, and their mean distance, are those of one process",
    "icd": "objects are counted in one process",
    "ld": "sums over positions grow with the images of a process",
    "pcka": "patches are alike over the images of one process, side by side",
    "pgd": "L_reg is divided by the key positions of one process",
    "pgd_neck": "as pgd",
    "pgd_released": "as pgd, and its faults mix the images of one process",
    "pkd": "features are standardised over the images of one process",
}
#: of these, the terms that add up all the same
TOGETHER = {
    "cskd": ["loss_cskd_towers"],
    "dist": ["loss_dist_inter"],
    "icd": ["loss_icd"],
    "pgd": ["loss_pgd_cls"],
    "pgd_neck": ["loss_pgd_neck_cls"],
}
#: what single precision leaves equal
CLOSE = {"rtol": 1e-4, "atol": 1e-6}
#: as many images for each process; those of the second have fewer objects, and small ones
ALL_BOXES = (*BOXES, [[100.0, 50, 120, 72]], [[10.0, 10, 26, 24]])
ALL_LABELS = (*LABELS, [2], [4])
SHARE = len(ALL_BOXES) // PROCESSES


@dataclass(frozen=True)
class Step:
    """Losses by name and gradients by parameter; of two processes the means."""

    losses: dict[str, Tensor]
    gradients: dict[str, Tensor]


def close(a: Tensor, b: Tensor) -> bool:
    """Up to rounding, by the whole tensor's size."""
    return bool((a - b).norm() <= CLOSE["atol"] + CLOSE["rtol"] * b.norm())


def unlike(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """Names of what is not close."""
    assert ours.keys() == theirs.keys()
    return [name for name, value in theirs.items() if not close(ours[name], value)]


def terms_of(method: str) -> str:
    """How the names of a method's terms begin."""
    return f"loss_{method.removesuffix('_released')}"


class Summed(nn.Module):
    """Gives the sum of the losses whose names begin with ``of``: training goes back from it."""

    def __init__(self, model: Distiller, of: str = "") -> None:
        super().__init__()
        self.model, self.of = model, of
        self.losses: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor, samples: list) -> Tensor:
        found = {k: v for k, v in self.model.loss(inputs, samples).items() if "loss" in k and k.startswith(self.of)}
        self.losses = {k: sum(v) if isinstance(v, list) else v for k, v in found.items()}
        return sum(self.losses.values())

    def gradients(self) -> dict[str, Tensor]:
        """By parameter of the model."""
        return {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}


def built(method: str, **changes: object) -> Distiller:
    """A pair of GFLs, with what is drawn at random made the same for each image."""
    settings = {**settings_at_once(method, DETECTOR), **STILL.get(method, {}), **changes}
    return pair(DETECTOR, method=method, **settings)


def looked(model: nn.Module, first: int, last: int) -> Tensor:
    """The sum of losses on the images from ``first`` to ``last``."""
    inputs = images(len(ALL_BOXES))[first:last]
    truth = zip(ALL_BOXES[first:last], ALL_LABELS[first:last], strict=True)
    torch.manual_seed(7)
    return model(inputs, [sample(boxes, labels) for boxes, labels in truth])


def step(method: str, first: int, last: int, parallel: bool = False, of: str = "", **changes: object) -> Step:
    """What the images from ``first`` to ``last`` give; together with the other process where it is ``parallel``.

    Args:
        method: name.
        first, last: of all images.
        parallel: in one of several processes.
        of: how the losses' names begin; none: all.
        **changes: of the method's settings.
    """
    module = Summed(built(method, **changes), of)
    model = DistributedDataParallel(module, find_unused_parameters=True) if parallel else module
    looked(model, first, last).backward()
    losses = {name: value.detach().clone() for name, value in module.losses.items()}
    if parallel:
        for value in losses.values():
            dist.all_reduce(value)
            value /= dist.get_world_size()
    return Step(losses, module.gradients())


def accumulated(method: str) -> dict[str, Tensor]:
    """Gradients of the method's terms with which mmengine makes an update after two batches of half of the images."""
    module = Summed(built(method), terms_of(method))
    wrapper = OptimWrapper(torch.optim.SGD(module.parameters(), lr=0.0), accumulative_counts=PROCESSES)
    # as it would clear them behind the update
    wrapper.zero_grad = lambda **kwargs: None
    for share in range(PROCESSES):
        wrapper.update_params(looked(module, share * SHARE, (share + 1) * SHARE))
    return module.gradients()


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

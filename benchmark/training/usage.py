"""What a training used: of the machine, and as batch and learning rate."""

from __future__ import annotations

import resource
import sys

import torch
from mmengine.config import Config


def peak_memory_mb() -> float:
    """Peak memory of this process: of the GPU where one is used, else of the whole process (MB)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def effective_rate(cfg: Config, world_size: int = 1) -> dict:
    """Batch and learning rate that a training really has.

    Returns:
        ``batch_size`` a process, ``effective_batch`` over all processes and accumulated steps (images), ``lr`` after
        mmengine's ``auto_scale_lr``, which goes by the batch of all processes, and ``base_lr`` as configured.
    """
    batch, base = cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr
    scale = cfg.get("auto_scale_lr") or {}
    factor = batch * world_size / scale["base_batch_size"] if scale.get("enable") else 1
    return {
        "batch_size": batch,
        "effective_batch": batch * world_size * cfg.optim_wrapper.get("accumulative_counts", 1),
        "lr": base * factor,
        "base_lr": base,
    }

"""What a training used: the machine, its memory, and the batch and learning rate that it really had."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from benchmark.experiment.workspace import ROOT

LIBRARIES = ("torch", "torchvision", "mmdet", "mmengine", "mmcv", "numpy", "pycocotools")


def version(name: str) -> str | None:
    """Of an installed package or of its `-lite` form, as either serves mmcv; None without both."""
    for package in (name, f"{name}-lite"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return None


def flags() -> str:
    """What moves torch's results by rounding, where it is not as torch comes: ``cudnn.deterministic=True, ...``."""
    cudnn = torch.backends.cudnn
    found = {
        "matmul.allow_tf32": (torch.backends.cuda.matmul.allow_tf32, False),
        "cudnn.allow_tf32": (cudnn.allow_tf32, True),
        "cudnn.benchmark": (cudnn.benchmark, False),
        "cudnn.deterministic": (cudnn.deterministic, False),
        "deterministic_algorithms": (torch.are_deterministic_algorithms_enabled(), False),
    }
    return (
        ", ".join(f"{name}={value}" for name, (value, usual) in found.items() if value != usual) or "torch's defaults"
    )


def machine() -> dict[str, Any]:
    """Versions, hardware and :func:`flags`; ``threads`` are those of this process."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.split(":", 1)[1].strip()
            for line in info.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        cpu = f"{models[0]} x{len(models)}" if models else cpu
    return {
        **{name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "flags": flags(),
        "git_revision": revision(),
    }


def revision() -> str | None:
    """The commit of this repository; None where there is no git or no commit, as in an archive."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or None
    return None


def peak_memory_mb() -> float:
    """Peak memory of this process: of the GPU where one is used, else of the whole process (MB)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def call(part: dict) -> str:
    """A part of a config as it would be called: ``AdamW(lr=0.002, weight_decay=0.05)``."""
    arguments = ", ".join(f"{key}={value}" for key, value in part.items() if key != "type")
    return f"{part['type']}({arguments})"


def effective_rate(cfg: Config, world_size: int = 1) -> dict:
    """Batch and learning rate that a training really has.

    Returns:
        ``batch_size`` a process, ``effective_batch`` over all processes and accumulated steps (images), ``lr`` after
        mmengine's ``auto_scale_lr``, which goes by the batch of all processes, ``base_lr`` as configured, and
        ``optimizer`` and ``schedule`` with their arguments.
    """
    batch, base = cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr
    scale = cfg.get("auto_scale_lr") or {}
    factor = batch * world_size / scale["base_batch_size"] if scale.get("enable") else 1
    return {
        "batch_size": batch,
        "effective_batch": batch * world_size * cfg.optim_wrapper.get("accumulative_counts", 1),
        "lr": base * factor,
        "base_lr": base,
        "optimizer": call(cfg.optim_wrapper.optimizer),
        "schedule": ", ".join(map(call, cfg.param_scheduler)),
    }


def rate_notice(cfg: Config, world_size: int = 1) -> str | None:
    """What is to be said where the rate is not the one that the config's own batch would have; None where it fits.

    A config says by ``auto_scale_lr.base_batch_size`` what batch its rate was chosen for. Unless it is enabled nothing
    scales the rate, and mmengine does not count accumulated steps.
    """
    base_batch, found = (cfg.get("auto_scale_lr") or {}).get("base_batch_size"), effective_rate(cfg, world_size)
    fitting = found["base_lr"] * found["effective_batch"] / base_batch if base_batch else found["lr"]
    if abs(found["lr"] - fitting) <= 0.01 * fitting:
        return None
    return (
        f"the rate {found['lr']:g} with {found['effective_batch']} images a step: the config has {found['base_lr']:g} "
        f"for {base_batch}, which would be {fitting:g} here; set optim_wrapper.optimizer.lr or auto_scale_lr.enable, "
        "unless this is meant"
    )

"""What each switch of a student's step is worth alone, against the step as mmdet has it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.experiment.config import training_config
from tools.timed.bench import Bench, first_loss, listed
from tools.timed.turns import Work, in_turns, over, spreads, times_faster

LITERAL, OURS = "literal", "as trainings have it"
#: arguments of :meth:`tools.timed.bench.Bench.student`, by the name of the switch
ALONE: dict[str, dict[str, Any]] = {
    "channels_last": {"channels_last": True},
    "fused optimiser": {"fused": True},
    "foreach optimiser": {"foreach": True},
    "anchors made once": {"priors": True},
    "images stacked": {"stacked": True},
}
BF16 = "bf16 autocast"
THREADS = 2


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def autocast(loss: Callable) -> Callable:
    """A model's loss in bfloat16 where torch thinks it safe; the backward pass follows."""

    def cast(*arguments: Any) -> dict:
        with torch.autocast("cpu", torch.bfloat16):
            return loss(*arguments)

    return cast


def by_threads(work: Work, threads: int) -> Work:
    """The same by so many threads of torch's."""

    def run(turn: int) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            work(turn)
        finally:
            torch.set_num_threads(before)

    return run


def in_trainings(bench: Bench) -> dict[str, bool]:
    """Which switches trainings of this detector have on, by their config."""
    cfg = training_config(bench.job, bench.data, None, Path("work"))
    optimizer = cfg.optim_wrapper.optimizer
    return {
        "channels_last": bool(cfg.model.get("channels_last")),
        "fused optimiser": bool(optimizer.get("fused")),
        "foreach optimiser": bool(optimizer.get("foreach")),
        # pgd/distiller.py does it to every head
        "anchors made once": True,
        "images stacked": cfg.train_dataloader.get("collate_fn", {}).get("type") == "stacked",
        BF16: cfg.optim_wrapper.type == "AmpOptimWrapper",
        "torch.compile": bool(cfg.get("compile")),
    }


def built(bench: Bench) -> tuple[dict[str, Work], dict[str, nn.Module], dict[str, dict]]:
    """Steps and models of all variants of one thread, and a batch as each gets it."""
    steps: dict[str, Work] = {}
    models: dict[str, nn.Module] = {}
    steps[LITERAL], models[LITERAL] = bench.student()
    for name, switch in ALONE.items():
        steps[name], models[name] = bench.student(**switch)
    steps[BF16], models[BF16] = bench.student()
    models[BF16].loss = autocast(models[BF16].loss)
    steps[OURS], models[OURS] = bench.training()
    first = bench.batches[0]
    batches = {name: first if name in (OURS, "images stacked") else listed(first) for name in steps}
    return steps, models, batches


def switches(bench: Bench) -> dict[str, Any]:
    """Milliseconds of every variant and how many times faster it is than the literal step; threads one against two.

    ``first loss`` is how far the loss of the first batch is from the literal step's, relatively: all start from the
    same weights.
    """
    extent = bench.extent
    steps, models, batches = built(bench)
    losses = {name: first_loss(model, batches[name]) for name, model in models.items()}
    pairs = {name: f"{name}, {THREADS} threads" for name in (LITERAL, OURS)}
    refused = {}
    if cores() < THREADS:
        refused[f"{THREADS} threads"] = f"this process may use {cores()} core"
    else:
        steps |= {double: by_threads(steps[name], THREADS) for name, double in pairs.items()}
    times = in_turns(steps, extent.share(0.8), "switches", extent.warm_up)
    return {
        "detector": bench.detector,
        "ms": spreads(times),
        "times faster than literal": times_faster(times, LITERAL, list(models)[1:]),
        f"times faster by {THREADS} threads": {
            name: over(times[name], times[double]) for name, double in pairs.items() if double in times
        },
        "first loss": {name: abs(loss / losses[LITERAL] - 1) for name, loss in losses.items()},
        "in trainings": in_trainings(bench),
        "why not": refused,
    }

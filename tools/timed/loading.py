"""What it takes to load a batch, beside the student's step that waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.runner import Runner
from torch.utils.data import DataLoader

from benchmark.experiment.config import detector_config, training_config, use_dataset
from tools.timed.bench import Bench
from tools.timed.turns import Times, in_turns, over, spreads

LITERAL, OURS, FIRST, STUDENT = "literal", "here", "here, first sight", "student"


def literal(bench: Bench) -> dict:
    """The train loader as mmdet has it: every image is decoded whenever it is drawn, batches are lists of images."""
    cfg = detector_config(bench.job.detector)
    use_dataset(cfg, bench.data, monitor=True)
    loader = cfg.train_dataloader
    loader.pop("collate_fn", None)
    loader.dataset.pipeline = [
        {"type": "LoadImageFromFile"} if step["type"] == "LoadImageOnce" else step for step in loader.dataset.pipeline
    ]
    return loader


def ours(bench: Bench) -> dict:
    """The train loader of a training."""
    return training_config(bench.job, bench.data, None, Path("work")).train_dataloader


def opened(loader: dict) -> DataLoader:
    """In this process, whatever the config says: the cores are the trainings'."""
    loader.update(num_workers=0, persistent_workers=False)
    for key in ("worker_init_fn", "prefetch_factor"):
        loader.pop(key, None)
    return Runner.build_dataloader(loader, seed=0)


def forget(loader: DataLoader) -> None:
    """Let the loader see every image for the first time again."""
    for transform in loader.dataset.pipeline.transforms:
        getattr(transform, "_images", {}).clear()


def known_share(images: int, batch: int, steps: int) -> float:
    """Of the batches of a training those whose images have all been decoded before."""
    return max(0, steps - -(-images // batch)) / steps


def shares(times: Times, known: float) -> dict[str, dict[str, float]]:
    """Loading by the student's step: of images known, of images seen first, and over a training of which the share
    ``known`` of batches is known."""
    step = times[STUDENT]
    whole = [known * old + (1 - known) * new for old, new in zip(times[OURS], times[FIRST], strict=True)]
    return {
        OURS: over(times[OURS], step),
        FIRST: over(times[FIRST], step),
        "over a training": over(whole, step),
        LITERAL: over(times[LITERAL], step),
    }


def loading(bench: Bench) -> dict[str, Any]:
    """Milliseconds of a batch by mmdet's loader and by ours, and how much of a step that is."""
    cfg = ours(bench)
    plain, known, fresh = opened(literal(bench)), opened(cfg), opened(ours(bench))
    batches: dict[str, Iterator] = {LITERAL: iter(plain), OURS: iter(known), FIRST: iter(fresh)}
    count, size = len(known.dataset), known.batch_sampler.batch_size
    steps = detector_config(bench.job.detector).train_cfg.max_iters
    for _ in range(-(-count // size)):
        next(batches[OURS])

    def first(turn: int) -> None:
        forget(fresh)
        next(batches[FIRST])

    step, _ = bench.training()
    variants = {
        LITERAL: lambda turn: next(batches[LITERAL]),
        OURS: lambda turn: next(batches[OURS]),
        FIRST: first,
        STUDENT: step,
    }
    times = in_turns(variants, 2 * bench.extent.turns, "loader", bench.extent.warm_up)
    share = known_share(count, size, steps)
    return {
        "images": count,
        "batch": size,
        "steps of a training": steps,
        "batches known in a training": round(share, 4),
        "ms": spreads(times),
        "literal / here": over(times[LITERAL], times[OURS]),
        "share of the student's step": shares(times, share),
    }

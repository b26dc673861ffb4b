"""Stage `cost`: what each method costs in training, measured in one run: time, memory, parameters.

``python -m benchmark.cost`` takes the runs of the first pair of params.yaml, builds each as `distill` would and lets
them take turns at training steps on the same batches, so that their ratios are fair whatever else the machine does.
Writes ``results/cost.csv``, one row a run: medians over the turns, relative to the student alone, of the step time the
quartiles too, and, where a method has learned on the teacher before, the seconds that it took, once for all students.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("cost")

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from tqdm import tqdm

import benchmark.training.draws  # noqa: F401  registers what trainings draw by
import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.data.faults import DataError
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import DatasetInfo, training_config
from benchmark.experiment.pretrained import local_weights
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Job, Params, Run, SettingsError, load
from benchmark.experiment.workspace import HERE
from benchmark.match import masks_of, teacher_weights
from pgd.checkpoint import CheckpointError

OUT = HERE.results / "cost.csv"
BATCHES = 4
#: a name that no run can have
ALONE = "(student alone)"
MB = 2**20


def build(job: Job, data: DatasetInfo, teacher: Path | None) -> tuple[torch.nn.Module, Callable[[dict], None]]:
    """The model of a run and a function that trains it on one batch."""
    cfg = training_config(job, data, teacher, HERE.work / "cost")
    local_weights(cfg)
    cfg.custom_hooks = []
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    optimizer = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.model.train()

    def step(batch: dict) -> None:
        runner.model.train_step(batch, optimizer)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return runner.model, step


def first_batches(job: Job, data: DatasetInfo, count: int) -> list[dict]:
    """The first batches that every run of this data set is trained on."""
    cfg = training_config(replace(job, run=Run(pair=job.pair_name)), data, None, HERE.work / "cost")
    loader = cfg.train_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    batches = iter(Runner.build_dataloader(loader, seed=job.seed))
    return [next(batches) for _ in range(count)]


def peak_memory(step: Callable[[], None]) -> float:
    """The most that a step holds at one time beyond what was there before it (MB)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / MB
    # it tells of every start and stop on stderr; 6 is above all of its levels
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    # allocations and releases one after the other; the sum up to any of them is what is held
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).cumsum(0)
    return float(held.max()) / MB


def first_stage(job: Job) -> float:
    """Seconds that the method of a run has learned on the teacher before; 0 for all but MasKD."""
    if (masks := masks_of(job)) is None:
        return 0.0
    return json.loads(masks.with_suffix(".json").read_text(encoding="utf-8"))["seconds"]


def _megabytes(module: torch.nn.Module | None) -> float:
    tensors = [] if module is None else [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors) / MB


def measure(params: Params, turns: int) -> pd.DataFrame:
    """One row for each run of the first pair."""
    pair = next(iter(params.pairs))
    runs = {name: run for name, run in params.runs.items() if run.pair == pair}
    if not runs:
        raise SettingsError(f"pair '{pair}' has no run; add one, as `student: {{}}`")
    jobs = {name: params.student(name) for name in runs}
    data = DatasetInfo.load(params.pairs[pair].dataset)
    alone = next((name for name, run in runs.items() if not run.needs_teacher), ALONE)
    # to compare with, even where the experiment does not train it
    jobs.setdefault(alone, replace(next(iter(jobs.values())), run=Run(pair=pair)))
    init_default_scope("mmdet")
    batches = first_batches(jobs[alone], data, BATCHES)
    models, steps = {}, {}
    for name, job in jobs.items():
        models[name], steps[name] = build(job, data, teacher_weights(job) if job.run.needs_teacher else None)
    memory = {name: peak_memory(lambda step=step: step(batches[0])) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in tqdm(range(turns), desc="turns", mininterval=2):
        for name, step in steps.items():
            start = time.perf_counter()
            step(batches[turn % BATCHES])
            times[name].append(time.perf_counter() - start)
    rows = []
    for name in runs:
        model = models[name]
        # both of one turn, so that what else the machine did then weighs on both
        low, middle, high = np.quantile(np.divide(times[name], times[alone]), (0.25, 0.5, 0.75))
        # the teacher stays in memory through the whole training, even where its lesson is over after the first step
        held = _megabytes(model.method) + (_megabytes(model.teacher) if runs[name].needs_teacher else 0)
        rows.append(
            {
                "run": name,
                "method": runs[name].method,
                "extra_parameters": sum(p.numel() for p in model.method.parameters()) if model.method else 0,
                "step_ms": 1e3 * median(times[name]),
                "step_ratio": middle,
                "step_ratio_low": low,
                "step_ratio_high": high,
                "peak_mb": memory[name] + held,
                "extra_mb": memory[name] + held - memory[alone],
            }
        )
    if any(seconds := [first_stage(jobs[name]) for name in runs]):
        rows = [row | {"first_stage_s": own} for row, own in zip(rows, seconds, strict=True)]
    digits = dict.fromkeys(("step_ms", "peak_mb", "extra_mb"), 1)
    return pd.DataFrame(rows).round(digits | dict.fromkeys(("step_ratio", "step_ratio_low", "step_ratio_high"), 3))


def main() -> None:
    args = command_parser("cost").parse_args()
    quiet()
    table = measure(load(args.params), args.turns)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(OUT, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    run_cli(main, SettingsError, CheckpointError, DataError)

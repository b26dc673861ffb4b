"""Every method on every detector that it supports, for a few iterations.

``python -m benchmark.training.combinations`` takes the pairs of params.yaml and their trained teachers, trains one
student for each method that fits, through the same code as the stages `distill` and `evaluate` but without their
start-up and a core each, and writes ``results/combinations.csv``: method, pair, how it went (or the sentence that
refuses it), AP and seconds. The figures mean nothing; a loss that is not finite ends the stage. The smoke run takes
:func:`one_each` of the methods.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("training.combinations")

import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from multiprocessing import get_context

import pandas as pd
import torch
from tqdm import tqdm

from benchmark.evaluate import evaluate
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import MINI, detector_config
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Job, Params, Run, SettingsError, load
from benchmark.experiment.workspace import HERE, Workspace
from benchmark.match import match
from benchmark.methods import refusal
from benchmark.plan import plan
from benchmark.train import train
from pgd.checkpoint import CheckpointError
from pgd.methods import METHODS
from pgd.scaling import published_settings


def combinations(params: Params) -> tuple[dict[str, Run], list[dict]]:
    """A run for every method and pair that fit, and a row for every one that does not."""
    runs, refused = {}, []
    for pair, content in params.pairs.items():
        detector = detector_config(content.student).model.type.lower()
        for method in sorted(METHODS.module_dict):
            if why := refusal(method, detector):
                refused.append({"method": method, "pair": pair, "detector": detector, "outcome": why})
                continue
            settings = published_settings(method, detector, MINI)
            runs[f"{pair}-{method}"] = Run(method, "head+neck", pair, settings)
    return runs, refused


def one_each(runs: dict[str, Run]) -> dict[str, Run]:
    """One of the runs of every method, with the pairs in turn."""
    of_method: dict[str, list[str]] = {}
    for name, run in runs.items():
        of_method.setdefault(run.method, []).append(name)
    chosen = [names[turn % len(names)] for turn, names in enumerate(of_method.values())]
    return {name: runs[name] for name in chosen}


def _begin() -> None:
    """A process of the pool."""
    quiet()
    torch.set_num_threads(1)


def train_one(job: Job, scratch: Workspace) -> dict:
    """Train and evaluate one combination; its row."""
    start = time.perf_counter()
    # each training has a bar of its own, which would bury that of all
    with open(os.devnull, "w", encoding="utf-8") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        train(job, scratch)
        record = evaluate(job, scratch)
    row = {"method": job.run.method, "pair": job.pair_name, "detector": record.detector, "outcome": "trained"}
    return {**row, "AP": record.accuracy["AP"], "seconds": round(time.perf_counter() - start, 1)}


def train_all(params: Params, space: Workspace = HERE, every: bool = True) -> pd.DataFrame:
    """Train and evaluate every combination, or each method on one pair; writes and returns the table."""
    runs, rows = combinations(params)
    if not every:
        runs = one_each(runs)
    everything = replace(params, runs=runs, seeds=(0,))
    scratch = Workspace(space.work / "combinations", teachers_of=space.root, data_of=space.root)
    shutil.rmtree(scratch.root, ignore_errors=True)
    plan(everything, scratch)
    match(everything, scratch)
    # side by side, a core each; a GPU has one after the other
    workers = 1 if torch.cuda.is_available() else os.cpu_count()
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin) as pool:
        waiting = [pool.submit(train_one, everything.student(name), scratch) for name in runs]
        try:
            for done in tqdm(as_completed(waiting), desc="methods x detectors", total=len(waiting)):
                rows.append(done.result())
        finally:
            pool.shutdown(cancel_futures=True)
    table = pd.DataFrame(rows).sort_values(["pair", "method"], ignore_index=True)
    out = space.results / "combinations.csv"
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out, index=False)
    return table


def main() -> None:
    args = command_parser("training.combinations").parse_args()
    quiet()
    table = train_all(load(args.params))
    print(f"{(table['outcome'] == 'trained').sum()} combinations trained, results/combinations.csv written")


if __name__ == "__main__":
    run_cli(main, SettingsError, CheckpointError, FloatingPointError)

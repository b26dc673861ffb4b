"""Runs the smoke experiment from nothing and checks that it left what it should. ``python -m benchmark.smoke``

First the pipeline of the experiment, by `benchmark.launch` with a job a core, or on a Slurm cluster that shares this
folder (``--executor slurm``); then, here, on its teachers, every method on one detector that it fits, or on each of
them (``--every``; :mod:`benchmark.training.combinations`). The stages themselves fail on a loss that is not
finite and on a run that a table misses; here it is checked that every head takes part, and that no stage succeeded
without writing its files.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("smoke")

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mmdet.registry import MODELS

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import detector_config
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Params, load
from benchmark.experiment.workspace import ROOT, Workspace
from benchmark.report import NOTEBOOKS
from benchmark.training.combinations import train_all
from pgd.dense import served_heads
from pgd.methods import METHODS

PROFILE = Workspace(ROOT / "experiments" / "smoke")


class SmokeError(RuntimeError):
    """The smoke run did not do what it should."""


def expected_files(params: Params, space: Workspace) -> list[Path]:
    """What the experiment must leave."""
    files = [space.results / name for name in ("table.csv", "table.md", "report.html", "metrics.json")]
    files += [space.teacher_metrics(pair) for pair in params.pairs]
    for job in params.jobs:
        files += [space.trained(job) / "weights.pth", space.detections(job), space.record(job), space.curve(job)]
    return files + [space.results / "notebooks" / f"{path.stem}.html" for path in NOTEBOOKS.glob("*.ipynb")]


def left_out(params: Params) -> list[str]:
    """Heads with a reader that no pair has."""
    heads = [MODELS.get(detector_config(pair.student).model.bbox_head.type) for pair in params.pairs.values()]
    return [head.__name__ for head in served_heads() if not any(issubclass(own, head) for own in heads)]


def check(params: Params, space: Workspace) -> None:
    """Raise :class:`SmokeError` when a head is left out or a file is missing or empty."""
    if missing := left_out(params):
        raise SmokeError(f"{space.params}: no pair with a {missing[0]}; add one")
    for file in expected_files(params, space):
        if not file.is_file() or file.stat().st_size == 0:
            raise SmokeError(f"{file}: a stage ended well but did not write it")


def with_own_cache(space: Workspace) -> dict[str, str]:
    """The environment in which DVC keeps its cache in the experiment's work folder.

    An earlier result would prove nothing about today's code, and this one is nothing to keep.
    """
    folder = space.work.absolute() / "dvc"
    folder.mkdir(parents=True)
    (folder / "config").write_text(f"[cache]\n    dir = {folder / 'cache'}\n", encoding="utf-8")
    return {**os.environ, "DVC_GLOBAL_CONFIG_DIR": str(folder)}


def main() -> None:
    args = command_parser("smoke").parse_args()
    quiet()
    start = time.perf_counter()
    for leftover in (PROFILE.work, PROFILE.results):
        shutil.rmtree(leftover, ignore_errors=True)
    lock = PROFILE.root / "dvc.lock"
    lock.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmark.launch", "--executor", args.executor, "--jobs", str(args.jobs)]
    if args.slurm:
        command += ["--slurm", *args.slurm]
    try:
        if subprocess.run(command, cwd=PROFILE.root, env=with_own_cache(PROFILE), check=False).returncode:
            raise SmokeError("the smoke pipeline failed; the stage's own error stands above")
    finally:
        # DVC refuses a lock that git ignores, so it is taken away instead.
        lock.unlink(missing_ok=True)
    params = load(PROFILE.params)
    check(params, PROFILE)
    trained = (train_all(params, PROFILE, args.every)["outcome"] == "trained").sum()
    seconds = time.perf_counter() - start
    parts = f"every stage and {trained} pairs of {len(METHODS)} methods and {len(params.pairs)} detectors"
    print(f"smoke: {parts} ran in {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    run_cli(main, SmokeError)

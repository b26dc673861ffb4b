"""Runs the smoke experiment from nothing and checks that it left what it should. ``python -m benchmark.smoke``

First the pipeline of the experiment, by DVC; then, on its teachers, every method on every detector that it fits
(:mod:`benchmark.training.combinations`). The stages themselves fail on a loss that is not finite and on a run that a
table misses; here it is checked that every head takes part, and that no stage succeeded without writing its files.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("smoke")

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mmdet.registry import MODELS

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import detector_config
from benchmark.experiment.folders import ROOT, TEACHER_METRICS, folder_of
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Params, load
from benchmark.report import NOTEBOOKS
from benchmark.training.combinations import grid
from pgd.dense import served_heads
from pgd.methods import METHODS

PROFILE = ROOT / "experiments" / "smoke"


class SmokeError(RuntimeError):
    """The smoke run did not do what it should."""


def expected_files(params: Params) -> list[Path]:
    """What the experiment must leave, relative to its folder."""
    jobs = [params.teacher(pair) for pair in params.pairs]
    jobs += [params.student(run, seed) for run in params.runs for seed in params.seeds]
    files = [Path(p) for p in ("results/table.csv", "results/table.md", "results/report.html", "results/metrics.json")]
    files += [TEACHER_METRICS / f"{pair}.json" for pair in params.pairs]
    for job in jobs:
        files += [folder_of(job) / "weights.pth", Path(f"work/evaluate/{job.label}/detections.json")]
        files += [Path(f"results/runs/{job.label}.json"), Path(f"results/curves/{job.label}.csv")]
    files += [Path(f"results/notebooks/{path.stem}.html") for path in NOTEBOOKS.glob("*.ipynb")]
    return files


def left_out(params: Params) -> list[str]:
    """Heads with a reader that no pair has."""
    heads = [MODELS.get(detector_config(pair.student).model.bbox_head.type) for pair in params.pairs.values()]
    return [head.__name__ for head in served_heads() if not any(issubclass(own, head) for own in heads)]


def check(params: Params, folder: Path) -> None:
    """Raise :class:`SmokeError` when a head is left out or a file is missing or empty."""
    if missing := left_out(params):
        raise SmokeError(f"{folder}/params.yaml: no pair with a {missing[0]}; add one")
    for file in expected_files(params):
        if not (folder / file).is_file() or (folder / file).stat().st_size == 0:
            raise SmokeError(f"{folder / file}: a stage ended well but did not write it")


def main() -> None:
    command_parser("smoke").parse_args()
    quiet()
    start = time.perf_counter()
    for leftover in ("work", "results"):
        shutil.rmtree(PROFILE / leftover, ignore_errors=True)
    # Neither the run cache nor a lock: an earlier result would prove nothing about today's code.
    command = ["dvc", "repro", "--force", "--no-run-cache", "--no-commit", "dvc.yaml"]
    try:
        if subprocess.run(command, cwd=PROFILE, check=False).returncode:
            raise SmokeError("the smoke pipeline failed; the stage's own error stands above")
    finally:
        # DVC refuses a lock that git ignores, so it is taken away instead.
        (PROFILE / "dvc.lock").unlink(missing_ok=True)
    params = load(PROFILE / "params.yaml")
    check(params, PROFILE)
    with contextlib.chdir(PROFILE):
        trained = (grid(params)["outcome"] == "trained").sum()
    seconds = time.perf_counter() - start
    parts = f"every stage and {trained} pairs of {len(METHODS)} methods and {len(params.pairs)} detectors"
    print(f"smoke: {parts} ran in {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    run_cli(main, SmokeError)

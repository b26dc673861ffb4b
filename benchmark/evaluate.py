"""Stage `evaluate`: accuracy of one trained detector on the whole validation set, and its flat record.

``python -m benchmark.evaluate RUN --seed S`` (stage `evaluate_teacher`: ``PAIR --teacher``) loads the exported weights
into the plain detector (no teacher, no method) and writes ``results/runs/<run>-<seed>.json``,
``results/curves/<run>-<seed>.csv`` and the detections under ``work/evaluate/``.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("evaluate")

import contextlib
import importlib.metadata
import json
import math
import platform
import subprocess
import time
from pathlib import Path

import pandas as pd
import torch
from mmengine.runner import Runner

import benchmark.training.progress  # noqa: F401  registers its hook
import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import DatasetInfo, detector_config
from benchmark.experiment.evaluation import evaluation_config
from benchmark.experiment.folders import TEACHER_METRICS, WORK, folder_of
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import TEACHER, Job, SettingsError, load
from benchmark.match import file_digest
from benchmark.training.hooks import read_curve
from pgd.checkpoint import CheckpointError, load_strict

RESULTS = Path("results")
LIBRARIES = ("torch", "torchvision", "mmdet", "mmengine", "mmcv", "numpy", "pycocotools")


def version(name: str) -> str | None:
    """Of an installed package or of its `-lite` form, as either serves mmcv; None without both."""
    for package in (name, f"{name}-lite"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)
    return None


def machine() -> dict:
    """Versions and hardware, as flat record entries."""
    versions = {name: version(name) for name in LIBRARIES}
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = f"{models[0]} x{len(models)}" if models else cpu
    revision = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    return {
        **versions,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "git_revision": revision.stdout.strip() or None,
    }


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


def evaluate(job: Job) -> dict:
    """Evaluate one training's weights; writes and returns its record."""
    label, run, folder = job.label, job.run, folder_of(job)
    weights = folder / "weights.pth"
    data = DatasetInfo.load(job.pair.dataset)
    cfg = evaluation_config(job, data, WORK / "evaluate" / label / "detections.json")
    start = time.perf_counter()
    runner = Runner.from_cfg(cfg)
    load_strict(runner.model, weights, "detector")
    metrics = {k: _round(v) for k, v in runner.test().items()}
    seconds = time.perf_counter() - start
    train_record = json.loads((folder / "train.json").read_text())
    model = detector_config(job.detector, job.options).model
    record = {
        "run": job.name,
        "seed": job.seed,
        "pair": job.pair_name,
        "role": TEACHER if run is None else "student",
        "method": "none" if run is None else run.method,
        "inherit": "none" if run is None else run.inherit,
        "detector": model.type.lower(),
        "backbone": f"{model.backbone.type}-{model.backbone.get('depth', '')}".strip("-").lower(),
        "dataset": data.name,
        "metric": data.metric,
        "config": job.detector.config,
        "options": ", ".join(f"{key}: {value}" for key, value in sorted(job.options.items())),
        **{f"method.{k}": v for k, v in (run.settings if run else {}).items()},
        **metrics,
        **train_record,
        "eval_seconds": round(seconds, 1),
        "checkpoint_sha256": file_digest(weights),
        **machine(),
    }
    if run is None:
        # The gate in front of every distillation reads it (benchmark/match.py).
        TEACHER_METRICS.mkdir(parents=True, exist_ok=True)
        (TEACHER_METRICS / f"{job.pair_name}.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for kind in ("runs", "curves"):
        (RESULTS / kind).mkdir(parents=True, exist_ok=True)
    (RESULTS / "runs" / f"{label}.json").write_text(json.dumps(record, indent=2) + "\n")
    pd.DataFrame(read_curve(folder / "curve.jsonl")).to_csv(RESULTS / "curves" / f"{label}.csv", index=False)
    shown = [name for name in ("AP", "AP50", "AP75", "MR", "JI") if name in metrics]
    print(f"{label}: {'  '.join(f'{name} {metrics[name]:.1f}' for name in shown)}")
    return record


def main() -> None:
    args = command_parser("evaluate").parse_args()
    quiet()
    params = load(args.params)
    evaluate(params.teacher(args.run) if args.teacher else params.student(args.run, args.seed))


if __name__ == "__main__":
    run_cli(main, SettingsError, CheckpointError)

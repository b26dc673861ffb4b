"""Stage `evaluate`: accuracy of one trained detector on the whole validation set, and its record.

``python -m benchmark.evaluate RUN --seed S`` (stage `evaluate_teacher`: ``PAIR --teacher``) loads the exported weights
into the plain detector (no teacher, no method) and writes ``results/runs/<run>-<seed>.json``,
``results/curves/<run>-<seed>.csv``, its figures on resamples of the images under ``results/bootstrap/``, and the
detections under ``work/evaluate/``.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("evaluate")

import contextlib
import json
import math
import subprocess
import time
from pathlib import Path

import pandas as pd
from mmengine.runner import Runner

import benchmark.training.progress  # noqa: F401  registers its hook
import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.data.faults import DataError, room_to_load
from benchmark.evidence.intervals import bootstrap_file, scorer
from benchmark.evidence.record import TEACHER, Record, read_json
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import DatasetInfo, detector_config
from benchmark.experiment.evaluation import evaluation_config
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Job, SettingsError, load
from benchmark.experiment.workspace import HERE, ROOT, Workspace, file_digest
from benchmark.training.hooks import read_curve
from pgd.checkpoint import CheckpointError, load_strict
from pgd.evaluation.coco import coco_class_ap


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 3)


def code_date(revision: str | None) -> str | None:
    """Day of a commit, the same whenever it is asked for; None where git does not know it, as in an archive."""
    with contextlib.suppress(OSError):
        command = ["git", "show", "-s", "--format=%cs", str(revision)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or None
    return None


def evaluate(job: Job, space: Workspace = HERE) -> Record:
    """Evaluate one training's weights; writes and returns its record."""
    label, run, folder = job.label, job.run, space.trained(job)
    weights = folder / "weights.pth"
    data = DatasetInfo.load(job.pair.dataset, space)
    cfg = evaluation_config(job, data, space.detections(job))
    start = time.perf_counter()
    runner = Runner.from_cfg(cfg)
    load_strict(runner.model, weights, "detector")
    with room_to_load(label):
        metrics = {k: _round(v) for k, v in runner.test().items()}
    seconds = time.perf_counter() - start
    detections = read_json(space.detections(job))
    by_class = coco_class_ap(data.val_annotations, detections) if data.metric == "coco" else {}
    training = read_json(folder / "train.json")
    model = detector_config(job.detector, job.options).model
    record = Record(
        **training,
        run=job.name,
        seed=job.seed,
        pair=job.pair_name,
        role=TEACHER if run is None else "student",
        method="none" if run is None else run.method,
        inherit="none" if run is None else run.inherit,
        detector=model.type.lower(),
        backbone=f"{model.backbone.type}-{model.backbone.get('depth', '')}".strip("-").lower(),
        dataset=data.name,
        metric=data.metric,
        left_out=data.left_out,
        config=job.detector.config,
        options=dict(job.options),
        accuracy=metrics,
        class_ap={name: _round(ap) for name, ap in by_class.items()},
        eval_seconds=round(seconds, 1),
        code_date=code_date(training["environment"].get("git_revision")),
        checkpoint_sha256=file_digest(weights),
    )
    if run is None:
        # The gate in front of every distillation reads it (benchmark/match.py).
        gate = space.teacher_metrics(job.pair_name)
        gate.parent.mkdir(parents=True, exist_ok=True)
        gate.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    record.write(space.record(job))
    space.curve(job).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(read_curve(folder / "curve.jsonl")).to_csv(space.curve(job), index=False)
    resample = scorer(Path(data.val_annotations), data.val_odgt and Path(data.val_odgt))
    resampled = bootstrap_file(space.results, label)
    resampled.parent.mkdir(parents=True, exist_ok=True)
    resample(detections).round(3).to_csv(resampled, index=False)
    shown = [name for name in ("AP", "AP50", "AP75", "MR", "JI") if name in metrics]
    print(f"{label}: {'  '.join(f'{name} {metrics[name]:.1f}' for name in shown)}")
    return record


def main() -> None:
    args = command_parser("evaluate").parse_args()
    quiet()
    params = load(args.params)
    evaluate(params.teacher(args.run) if args.teacher else params.student(args.run, args.seed))


if __name__ == "__main__":
    run_cli(main, SettingsError, DataError, CheckpointError)

"""Stages `teacher` and `distill`: train one detector and export its plain weights.

``python -m benchmark.train teacher`` trains the teacher; ``python -m benchmark.train distill RUN --seed S`` trains the
student of one run of params.yaml. Writes ``work/runs/<run>-<seed>/``: ``weights.pth`` (loads in plain mmdet),
``train.json`` and ``curve.jsonl``. Checkpoints to resume from lie in ``work/checkpoints/``, out of DVC's reach; they
are used when they belong to the same plan, data and teacher, and thrown away otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine.runner import Runner

from benchmark.cli import run_cli
from benchmark.config import WORK, DatasetInfo, training_config
from benchmark.hooks import Record, use_atomic_files
from benchmark.plan import PLAN
from benchmark.quiet import quiet
from benchmark.settings import TEACHER, Params, Run, SettingsError, load
from pgd.checkpoint import CheckpointError, export, load_state
from pgd.methods.base import MethodError

RUNS = WORK / "runs"
CHECKPOINTS = WORK / "checkpoints"


def run_name(run: str, seed: int) -> str:
    return f"{run}-{seed}"


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def teacher_weights(params: Params) -> Path:
    """The teacher's weights, once it is known to be good enough."""
    folder = RUNS / run_name(TEACHER, params.teacher.seed)
    weights, record = folder / "weights.pth", folder / "metrics.json"
    load_state(weights)
    ap = json.loads(record.read_text())["AP"] if record.is_file() else float("nan")
    if not ap >= params.teacher.min_ap:
        raise SettingsError(
            f"{record}: the teacher has {ap:.1f} AP, below teacher.min_ap = {params.teacher.min_ap}; train it longer "
            "(teacher.iterations) or lower the bound in params.yaml"
        )
    return weights


def fingerprint(run: str, seed: int, data: DatasetInfo, teacher: Path | None) -> str:
    """Names what a training depends on; checkpoints of another one are not resumed."""
    parts = [(PLAN / f"{run}.json").read_text(), str(seed), json.dumps(asdict(data))]
    parts += [file_digest(Path(annotations)) for annotations in (data.train_annotations, data.val_annotations)]
    if teacher is not None:
        parts.append(file_digest(teacher))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def claim(work_dir: Path, mark: str) -> bool:
    """Make ``work_dir`` belong to the training ``mark``. Returns whether there is something to resume."""
    stamp = work_dir / "fingerprint"
    if not (stamp.is_file() and stamp.read_text() == mark):
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        stamp.write_text(mark)
    last = work_dir / "last_checkpoint"
    return last.is_file() and Path(last.read_text().strip()).is_file()


def peak_memory_mb() -> float:
    """Peak memory of this process: of the GPU where one is used, else of the whole process (MB)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _count(parameters) -> int:
    return sum(p.numel() for p in parameters)


def train(params: Params, name: str, run: Run | None, seed: int) -> Path:
    """Train (or finish) one detector; returns the folder with its results."""
    data = DatasetInfo.load()
    teacher = teacher_weights(params) if run is not None and run.needs_teacher else None
    label = run_name(name, seed)
    work_dir, out = CHECKPOINTS / label, RUNS / label
    resume = claim(work_dir, fingerprint(name, seed, data, teacher))
    cfg = training_config(params, run, seed, data, teacher, work_dir)
    cfg.resume = resume
    if resume:
        print(f"{label}: going on from {Path((work_dir / 'last_checkpoint').read_text()).name}")
    quiet()
    use_atomic_files()
    runner = Runner.from_cfg(cfg)
    runner.train()
    seconds = next(hook.seconds for hook in runner.hooks if isinstance(hook, Record))
    model = runner.model
    if model.inherit_report is not None:
        print(f"{label}: {model.inherit_report}")
    out.mkdir(parents=True, exist_ok=True)
    export(model.student, out / "weights.pth")
    shutil.copy(work_dir / "curve.jsonl", out / "curve.jsonl")
    record = {
        "iterations": runner.max_iters,
        "batch_size": cfg.train_dataloader.batch_size,
        "lr": cfg.optim_wrapper.optimizer.lr,
        "optimizer": cfg.optim_wrapper.optimizer.type,
        "train_seconds": round(seconds, 1),
        "resumed": resume,
        "peak_memory_mb": round(peak_memory_mb()),
        "parameters": _count(model.student.parameters()),
        "extra_parameters": 0 if model.method is None else _count(model.method.parameters()),
        "inherited_tensors": len(model.inherit_report.copied) if model.inherit_report else 0,
        "left_tensors": len(model.inherit_report.skipped) if model.inherit_report else 0,
    }
    (out / "train.json").write_text(json.dumps(record, indent=2) + "\n")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", default="params.yaml")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("teacher", help="train and evaluate the teacher")
    distill = commands.add_parser("distill", help="train the student of one run")
    distill.add_argument("run")
    distill.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    params = load(args.params)
    if args.command == "teacher":
        out = train(params, TEACHER, None, params.teacher.seed)
        from benchmark.evaluate import evaluate

        evaluate(params, TEACHER, None, params.teacher.seed)
    elif args.run not in params.runs:
        raise SettingsError(f"{args.params}: no run '{args.run}'; runs: {', '.join(params.runs)}")
    else:
        out = train(params, args.run, params.runs[args.run], args.seed)
    # All is written: the next `dvc repro --force` shall train, not resume at the last iteration.
    shutil.rmtree(CHECKPOINTS / out.name)


if __name__ == "__main__":
    run_cli(main, SettingsError, CheckpointError, MethodError, FloatingPointError)

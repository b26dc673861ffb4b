"""Stages `teacher` and `distill`: train one detector and export its plain weights.

``python -m benchmark.train teacher PAIR`` trains a pair's teacher into ``work/teachers/<pair>/``, or takes the weights
that params.yaml gives for it; ``python -m
benchmark.train distill RUN --seed S`` trains the student of one run of params.yaml into ``work/runs/<run>-<seed>/``:
``weights.pth`` (loads in plain mmdet), ``train.json`` and ``curve.jsonl``. Checkpoints to resume from lie in
``work/checkpoints/``, out of DVC's reach; they are used when they belong to the same plan, data and teacher, and thrown
away otherwise.
"""

from __future__ import annotations

if __name__ == "__main__":
    # help and usage errors come before the imports that take seconds
    from benchmark.experiment.cli import answer_early

    answer_early("train")

import hashlib
import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, get_world_size, is_main_process
from mmengine.runner import Runner

from benchmark.data.faults import DataError, room_to_load
from benchmark.experiment.cli import command_parser, run_cli
from benchmark.experiment.config import DatasetInfo, training_config, training_digest
from benchmark.experiment.pretrained import local_weights
from benchmark.experiment.quiet import quiet
from benchmark.experiment.settings import Job, Params, SettingsError, load
from benchmark.experiment.watching import announce, check_watch, watch
from benchmark.experiment.workspace import HERE, Workspace
from benchmark.look import check_unchanged
from benchmark.match import TOKENS, basis, masks_of, teacher_weights
from benchmark.training import divergence, processes  # noqa: F401  the first registers its hook
from benchmark.training.hooks import distiller, read_curve
from benchmark.training.result import Training
from benchmark.training.resuming import POINTER, point_to_newest
from benchmark.training.run import run
from benchmark.training.usage import effective_rate, machine, peak_memory_mb, rate_notice
from pgd.checkpoint import CheckpointError, InheritReport, export
from pgd.methods.base import Method, MethodError

#: what stores a teacher's features, besides what a training goes through
STORING = ("benchmark.training.draws", "benchmark.training.stored")
#: of the trainings of this process
NUMBERS = itertools.count()


def claim(work_dir: Path, mark: str) -> None:
    """Make ``work_dir`` belong to the training ``mark``: what another one left there goes."""
    stamp = work_dir / "fingerprint"
    if not (stamp.is_file() and stamp.read_bytes() == mark.encode()):
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        stamp.write_text(mark, encoding="utf-8")


def repeat_on_gpus() -> None:
    """Let GPUs compute the same again wherever they have a kernel that does; CPUs do so anyway.

    Where they have none, torch warns, and the training goes on.
    """
    if torch.cuda.is_available():
        # cuBLAS reads it when it is first used
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)


def feed_gpus(cfg: Config) -> None:
    """Have batches wait in memory that GPUs copy from by themselves, while the step before is still computed."""
    if torch.cuda.is_available():
        cfg.train_dataloader.pin_memory = cfg.val_dataloader.pin_memory = True
        cfg.model.data_preprocessor.non_blocking = True


def _count(parameters) -> int:
    return sum(p.numel() for p in parameters)


def describe(method: Method | None) -> dict:
    """The parts of a training's record that tell of its method."""
    if method is None:
        return {"extra_parameters": 0}
    return {
        "method_title": method.title,
        "method_place": method.place,
        "settings": dict(method.effective_settings),
        "extra_parameters": _count(method.parameters()),
    }


def precision_of(job: Job) -> str:
    """In which the teacher's features are stored, where they are."""
    kept = job.pair.teacher.features
    return "float32" if kept == "auto" else kept


def features_of(job: Job, cfg: Config, space: Workspace) -> str | None:
    """Where the training finds what its teacher sees in its images; None where it must look itself."""
    from benchmark.training.stored import stored_features

    kept = job.pair.teacher.features
    if kept == "live":
        return None
    known = json.loads(basis(job, space).read_text(encoding="utf-8"))
    # what the teacher's own training goes through, not what the method adds: students of all methods share the features
    own = json.loads(basis(job.of_teacher, space).read_text(encoding="utf-8"))["code"]
    code = {name: digest for name, digest in own.items() if not name.startswith("benchmark.")}
    plan = known["plan"]
    # and what stores them
    code |= {name: plan["code"][name] for name in STORING}
    depends = {"teacher": known["teacher"], "data": plan["data"], "libraries": plan["libraries"], "code": code}
    # others are stored beside them: students of one pair may differ in their batches, and be trained at once
    kind = json.dumps([job.options, torch.get_num_threads()], sort_keys=True)
    folder = space.features(job.pair_name) / hashlib.sha256(kind.encode()).hexdigest()[:8]
    folder = stored_features(cfg, folder, depends, precision_of(job))
    return folder and str(folder)


def planned_data(job: Job, space: Workspace) -> DatasetInfo:
    """The data of a training, once they are known to be those that it was planned for."""
    name = job.pair.dataset
    data, planned = DatasetInfo.load(name, space), json.loads(basis(job, space).read_text(encoding="utf-8"))
    if data.digest != (planned if job.run is None else planned["plan"])["data"]:
        raise DataError(f"{space.dataset(name)}: not the data that {basis(job, space)} names; run `dvc repro` again")
    check_unchanged(name, space)
    return data


def look_at_the_end(runner: Runner, work_dir: Path) -> None:
    """Measure the AP that a curve ends with, where a kill came between the last checkpoint and that."""
    curve = read_curve(work_dir / "curve.jsonl") if is_main_process() else []
    lacks = [not any(entry["step"] == runner.max_iters and "AP" in entry for entry in curve)]
    # all processes or none
    broadcast_object_list(lacks)
    if lacks[0]:
        runner.val_loop.run()


def train(job: Job, space: Workspace = HERE, params: Params | None = None) -> Path:
    """Train (or finish) one detector; returns the folder with its results.

    Of several processes the first one writes them.

    Args:
        job: what is trained.
        space: where its files lie.
        params: the experiment that it belongs to, which says what is shown while it runs; changes no result.
    """
    data = planned_data(job, space)
    if job.run is None and job.pair.teacher.checkpoint is not None:
        from benchmark.training.given import adopt

        return adopt(job, data, space)
    # The basis names all that the result depends on but for the seed.
    mark = hashlib.sha256(f"{basis(job, space).read_text(encoding='utf-8')}\n{job.seed}".encode()).hexdigest()
    teacher = teacher_weights(job, space) if job.run is not None and job.run.needs_teacher else None
    masks = masks_of(job, space) if teacher is not None else None
    # before, as a commit may be made while it trains
    label, environment = job.label, machine()
    work_dir, out = space.checkpoints(job), space.trained(job)
    cfg = training_config(job, data, teacher, work_dir)
    processes.join(job.detector)
    local_weights(cfg)
    repeat_on_gpus()
    feed_gpus(cfg)
    if is_main_process():
        claim(work_dir, mark)
        if last := point_to_newest(work_dir, cfg.model, job.seed):
            print(f"{label}: going on from {last.name}")
        if notice := rate_notice(cfg, get_world_size()):
            print(f"{label}: {notice}", file=sys.stderr)
    barrier()
    cfg.resume = resume = (work_dir / POINTER).is_file()
    if job.run is not None and job.run.method != "none":
        cfg.model.teacher_features = features_of(job, cfg, space)
    stored = cfg.model.get("teacher_features") is not None
    if masks is not None:
        cfg.model.method[TOKENS] = str(masks)
    # like what follows, it is nothing that weights depend on; mmengine itself calls all trainings that begin within a
    # second by one name, and has them share what they write to
    cfg.experiment_name = f"{label}-{next(NUMBERS)}"
    cfg.custom_hooks.append({"type": "Divergence"})
    if params is not None:
        watch(cfg, params, job, space)
        announce(cfg, params, job, space)
    with room_to_load(label):
        runner, seconds = run(cfg, label)
        look_at_the_end(runner, work_dir)
    if not is_main_process():
        return out
    model = distiller(runner)
    report, pretrained = model.inherit_report or InheritReport(), model.pretrained_report or InheritReport()
    if model.inherit_report is not None:
        print(f"{label}: {report}")
    out.mkdir(parents=True, exist_ok=True)
    export(model.student, out / "weights.pth", data.classes)
    (out / "inherit.json").write_text(json.dumps(report.as_dict(), indent=2) + "\n", encoding="utf-8")
    shutil.copy(work_dir / "curve.jsonl", out / "curve.jsonl")
    Training(
        **describe(model.method),
        method_losses=list(model.method_losses),
        clip_grad=(cfg.optim_wrapper.get("clip_grad") or {}).get("max_norm"),
        config_digest=training_digest(job, data),
        teacher_features=precision_of(job) if stored else "live",
        iterations=runner.max_iters,
        **effective_rate(cfg, runner.world_size),
        train_seconds=round(seconds, 1),
        resumed=resume,
        peak_memory_mb=round(peak_memory_mb()),
        parameters=_count(model.student.parameters()),
        inherited_tensors=len(report.copied),
        left_tensors=len(report.skipped),
        left="; ".join(f"{name}: {why}" for name, why in report.skipped.items()),
        pretrained_tensors=len(pretrained.copied),
        pretrained_absent=len(pretrained.skipped),
        environment=environment,
    ).write(out / "train.json")
    return out


def main() -> None:
    args = command_parser("train").parse_args()
    quiet()
    params = load(args.params)
    job = params.teacher(args.pair) if args.command == "teacher" else params.student(args.run, args.seed)
    processes.start(job.detector, "benchmark.train", sys.argv[1:])
    check_watch(params)
    train(job, params=params)
    if not is_main_process():
        return
    # All is written: the next `dvc repro --force` shall train, not resume at the last iteration.
    shutil.rmtree(HERE.checkpoints(job), ignore_errors=True)


if __name__ == "__main__":
    run_cli(main, SettingsError, DataError, CheckpointError, MethodError, FloatingPointError)

"""A teacher that exists already: its checkpoint takes the place of a training.

The weights are matched entry by entry and written as a training would have written them, so that nothing that comes
after (its AP, the gate, the students) knows the difference. Read are checkpoints of mmdet 2 and 3, whole ones with
optimiser and EMA, those of data-parallel wrappers and of distillers: see :func:`pgd.checkpoint.unwrapped`.
"""

from __future__ import annotations

import json
from pathlib import Path

from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

import pgd.plugin  # noqa: F401  registers with mmdet
from benchmark.data.download import Remote, fetch, named_digest
from benchmark.experiment.config import DatasetInfo, detector_config, model_dict, training_digest
from benchmark.experiment.settings import Job, Teacher
from benchmark.experiment.workspace import HERE, Workspace, file_digest
from benchmark.match import basis
from benchmark.training.result import Training
from benchmark.training.usage import machine
from pgd.checkpoint import CheckpointError, InheritReport, export, flat_copies, load_state, unwrapped
from pgd.class_names import require_classes

#: what the record says where a training would have had a value
NOT_TRAINED = "none: the weights were given"


def file_of(teacher: Teacher, folder: Path) -> Path:
    """The checkpoint's file, downloaded into ``folder`` where it is an address.

    Raises:
        DataError: it cannot be downloaded, or is not the file whose SHA-256 is given or named by its address.
    """
    if not teacher.is_address:
        return Path(teacher.checkpoint)
    name = teacher.checkpoint.rpartition("/")[2]
    remote = Remote(
        name,
        teacher.checkpoint,
        sha256=teacher.sha256 or named_digest(name),
        remedy=f"correct teacher.checkpoint or teacher.sha256, or put the file into {folder}",
    )
    path = fetch(remote, folder)
    if remote.sha256 is None:
        print(f"{teacher.checkpoint}: nothing to check it by; put `sha256: {file_digest(path)}` beside the checkpoint")
    return path


def adopt_state(model: nn.Module, state: dict[str, Tensor], path: Path) -> InheritReport:
    """Load a foreign state dict into a detector, every entry of which must be in it and finite.

    mmdet's own hooks translate the names of its earlier versions. Left out, and reported, is nothing but the second
    copy that mmdet 2 keeps for its EMA (``ema_backbone_conv1_weight``): the averages are under the plain names already.

    Raises:
        CheckpointError: an entry is missing, unknown, of another shape or not finite.
    """
    own = model.state_dict()
    state = unwrapped(state, own)
    copies = sorted(state.keys() & flat_copies(own))
    report = InheritReport(skipped=dict.fromkeys(copies, "mmdet 2's second copy for its EMA"))
    state = {name: value for name, value in state.items() if name not in report.skipped}
    if shapes := sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape):
        told = f"{shapes[0]} is {tuple(state[shapes[0]].shape)}, not {tuple(own[shapes[0]].shape)}"
        raise CheckpointError(_misfit(path, f"{len(shapes)} of {len(own)} entries have another shape ({told})"))
    result = model.load_state_dict(state, strict=False)
    for names, what in ((result.missing_keys, "are missing"), (result.unexpected_keys, "are not part of the detector")):
        if names:
            raise CheckpointError(_misfit(path, f"{len(names)} entries {what} (first: {sorted(names)[0]})"))
    loaded = model.state_dict()
    if broken := [name for name, value in loaded.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise CheckpointError(f"{path}: {broken[0]} is not finite; give a checkpoint of an earlier epoch")
    report.copied = list(loaded)
    return report


def _misfit(path: Path, what: str) -> str:
    return f"{path}: does not fit the teacher: {what}; give its own config under teacher.config"


def adopt(job: Job, data: DatasetInfo, space: Workspace = HERE) -> Path:
    """Write the folder of a trained teacher from the checkpoint that is given for it; returns the folder."""
    teacher, out = job.pair.teacher, space.trained(job)
    path = file_of(teacher, space.work / "downloads")
    state, sha256 = load_state(path), file_digest(path)
    if not teacher.is_address and sha256 != json.loads(basis(job, space).read_text())["checkpoint"]:
        raise CheckpointError(f"{path}: changed since it was planned; run `dvc repro` again")
    require_classes(path, data.classes, data.name)
    init_default_scope("mmdet")
    model = detector_config(teacher)
    model.model.backbone.init_cfg = None
    detector = MODELS.build(model_dict(model, len(data.classes)))
    report = adopt_state(detector, state, path)
    left = f"; left out {len(report.skipped)}: {next(iter(report.skipped.values()))}" if report.skipped else ""
    print(f"{job.label}: all {len(report.copied)} entries are from {path.name}{left}")
    out.mkdir(parents=True, exist_ok=True)
    export(detector, out / "weights.pth", data.classes)
    (out / "inherit.json").write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    # a curve without a step
    (out / "curve.jsonl").write_text('{"step": 0}\n')
    Training(
        config_digest=training_digest(job, data),
        iterations=0,
        batch_size=0,
        effective_batch=0,
        lr=0.0,
        base_lr=0.0,
        optimizer=NOT_TRAINED,
        schedule=NOT_TRAINED,
        train_seconds=0.0,
        resumed=False,
        peak_memory_mb=0,
        parameters=sum(p.numel() for p in detector.parameters()),
        extra_parameters=0,
        environment={**machine(), "checkpoint": path.name, "checkpoint_sha256": sha256},
    ).write(out / "train.json")
    return out

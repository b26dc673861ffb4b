"""What a training leaves beside its weights: ``train.json``, and the names of what its curve holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Features whose distance to the teacher's the curve holds as ``distance.<features>.<region>``.
FEATURES = ("neck", "cls_tower", "reg_tower")
#: Parts of an image's positions: PGD's key positions, the rest of the boxes, and what lies outside.
REGIONS = ("key", "box", "background")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one training really was: everything that its result depends on or that it cost."""

    #: what readers call the method; ``none`` without one
    method_title: str = "none"
    #: where it compares teacher and student: of :data:`pgd.methods.base.PLACES`, or ``none``
    method_place: str = "none"
    #: all settings of the method, those that params.yaml leaves to their defaults too
    settings: dict[str, Any] = field(default_factory=dict)
    #: names of the method's terms among the losses in the curve; the others are the detector's own
    method_losses: list[str] = field(default_factory=list)
    #: gradients of a larger norm were scaled down to it; None: they were left alone
    clip_grad: float | None = None
    #: SHA-256 (16 digits) of the whole mmengine config
    config_digest: str
    #: how the teacher's features came: ``live`` from each batch, or as they were stored, by their precision
    teacher_features: str = "live"
    iterations: int
    #: images a process
    batch_size: int
    #: images over all processes and accumulated steps
    effective_batch: int
    #: learning rate after mmengine's ``auto_scale_lr``
    lr: float
    #: learning rate as configured
    base_lr: float
    #: class and arguments
    optimizer: str
    #: what changes the learning rate, one scheduler after the other, in iterations
    schedule: str
    #: time of training and monitoring, over all processes that a resumed training took
    train_seconds: float
    #: whether it went on from a checkpoint
    resumed: bool
    #: of the GPU where there is one, else of the process
    peak_memory_mb: float
    #: of the detector
    parameters: int
    #: of the method, thrown away after training
    extra_parameters: int
    #: how many tensors the student took over from the teacher, and which it did not and why
    inherited_tensors: int = 0
    left_tensors: int = 0
    left: str = ""
    #: how many tensors of the backbone are the pretrained weights', and how many these know nothing of
    pretrained_tensors: int = 0
    pretrained_absent: int = 0
    #: versions, hardware and torch's flags
    environment: dict[str, Any]

    def write(self, path: Path) -> None:
        """As JSON, an entry a line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

"""A student, a frozen teacher and one method, as an mmdet detector that any mmengine Runner trains."""

from __future__ import annotations

# Serves mmcv's operators, which mmdet's models import, and registers the readers.
import pgd.heads  # noqa: F401

# isort: split
import copy
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import print_log
from torch import Tensor, nn

from pgd import INHERIT_CHOICES
from pgd.checkpoint import CheckpointError, InheritReport, inherit, load_strict, require_pretrained
from pgd.dense import DistillStep, reader_of
from pgd.inputs import other_input
from pgd.methods import MethodContext, build_method
from pgd.priors import remember_priors
from pgd.tape import Tape
from pgd.teacher_features import StoredFeatures


def _as_model(config: dict | str | Path, who: str, preprocessor: dict | None) -> dict:
    """A model dictionary from one, or the ``model`` of a config file or of an ``mmdet::`` name.

    Its own preprocessor is left out; it must do to pixels what ``preprocessor``, the Distiller's, does.
    """
    if not isinstance(config, dict):
        whole = get_config(config) if "::" in str(config) else Config.fromfile(config)
        # as mmengine's Runner does
        config = {"data_preprocessor": whole.get("data_preprocessor"), **whole.model}
    model = copy.deepcopy(dict(config))
    own = model.pop("data_preprocessor", None)
    if own is not None and (other := other_input(own, preprocessor or {})):
        key, theirs, shared = other
        raise ValueError(
            f"data_preprocessor.{key} is {theirs} for the {who}, {shared} for the Distiller, whose images it gets: "
            "take a student and a teacher with the same preprocessing, and give the Distiller theirs"
        )
    return model


def _first(state: dict) -> str:
    """Name and shape of the first entry of a state dict."""
    return next((f"{name} {tuple(getattr(value, 'shape', ()))}" for name, value in state.items()), "nothing")


def context_of(student: nn.Module, teacher: nn.Module) -> MethodContext:
    """What a method may know of two mmdet detectors; they must have levels of the same strides."""
    own, theirs = reader_of(student.bbox_head), reader_of(teacher.bbox_head)
    if own.strides != theirs.strides:
        raise ValueError(
            f"student and teacher must have levels of the same strides: {own.strides} and {theirs.strides}"
        )
    if student.bbox_head.num_classes != teacher.bbox_head.num_classes:
        raise ValueError(
            f"student and teacher know {student.bbox_head.num_classes} and {teacher.bbox_head.num_classes} classes: "
            "train both on the same data set"
        )
    return MethodContext(
        student_channels=student.neck.out_channels,
        teacher_channels=teacher.neck.out_channels,
        student_tower_channels=own.channels,
        teacher_tower_channels=theirs.channels,
        num_levels=len(own.strides),
        num_classes=student.bbox_head.num_classes,
        strides=own.strides,
        bins=own.bins if own.bins == theirs.bins else None,
        anchor_free=own.anchor_free,
        judges_predictions=own.judges_predictions,
        assigns_labels=own.assigns_labels,
        tower_blocks=min(len(tower) for reader in (own, theirs) for tower in reader.towers),
        per_position=own.per_position,
    )


def _ignored(sample: Any) -> Tensor:
    """The regions ``[R, 4]`` of a data sample whose content is not annotated."""
    ignored = sample.get("ignored_instances")
    return sample.gt_instances.bboxes[:0] if ignored is None else ignored.bboxes


@MODELS.register_module()
class Distiller(BaseDetector):
    """Trains ``student`` under its own loss plus the terms of ``method``.

    The teacher is no part of the module tree: it is never saved, never trained, always in eval mode. What is exported
    in the end is the student alone (:func:`pgd.checkpoint.export`).

    Args:
        student: an mmdet single-stage detector: a model dictionary, a config file, or the name of one that mmdet ships
            (``mmdet::gfl/gfl_r50_fpn_1x_coco.py``).
        teacher: the same for the teacher; None where neither method nor inheriting needs one.
        teacher_checkpoint: its weights; must fit exactly.
        method: ``{"type": name, **settings}`` of :data:`pgd.methods.METHODS`, or None for the plain student.
        inherit: ``"head+neck"``: start the student's neck and head from the teacher's; ``"none"``.
        data_preprocessor: shared by both; theirs, where they bring one, must do the same to pixels.
        channels_last: keep weights and features with channels innermost, which convolutions like better on CPUs and on
            GPUs with tensor cores; results differ by rounding. Not on CPUs for strided 1x1 convolutions of fewer
            than 16 channels, where oneDNN crashes (its issue 6035).
        teacher_features: folder of the teacher's neck features for all training images
            (:mod:`pgd.teacher_features`), so that it does not look at them again.
    """

    def __init__(
        self,
        student: dict | str,
        teacher: dict | str | None = None,
        teacher_checkpoint: str | None = None,
        method: dict | None = None,
        inherit: str = "none",
        data_preprocessor: dict | None = None,
        channels_last: bool = False,
        teacher_features: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if inherit not in INHERIT_CHOICES:
            raise ValueError(f"inherit: '{inherit}' is not one of {', '.join(INHERIT_CHOICES)}")
        if teacher is None and (method is not None or inherit != "none"):
            raise ValueError("a method or inheriting needs a teacher; give `teacher` and `teacher_checkpoint`")
        self.student = MODELS.build(_as_model(student, "student", data_preprocessor))
        self.inherit = inherit
        self.inherit_report: InheritReport | None = None
        self.pretrained_report: InheritReport | None = None
        # Held in a list, so that torch does not register it as a submodule.
        self._teacher: list[nn.Module] = []
        self.method: nn.Module | None = None
        #: names of the method's loss terms, known from the first step on
        self.method_losses: tuple[str, ...] = ()
        if teacher is not None:
            self._add_teacher(_as_model(teacher, "teacher", data_preprocessor), teacher_checkpoint)
        if method is not None:
            self._add_method(dict(method))
        self._stored = None if teacher_features is None else StoredFeatures(teacher_features)
        for model in (self.student, *self._teacher):
            remember_priors(model.bbox_head)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        # before anything wraps the model: data parallel training takes the order of memory as it finds it, and mixes up
        # gradients where it is another one later
        for model in (self.student, *self._teacher):
            model.to(memory_format=self.memory_format)

    def _add_teacher(self, teacher: dict, checkpoint: str | None) -> None:
        model = MODELS.build(teacher)
        if checkpoint is None:
            print_log("the teacher has random weights: give teacher_checkpoint", "current", logging.WARNING)
        else:
            load_strict(model, checkpoint, "teacher")
        model.eval().requires_grad_(False)
        self._teacher.append(model)

    def _add_method(self, settings: dict) -> None:
        self.method = build_method(settings.pop("type"), context_of(self.student, self.teacher), **settings)
        place = self.method.tower_place if "towers" in self.method.needs else None
        self._tapes = [Tape(self.student, place), Tape(self.teacher, place)]

    @property
    def teacher(self) -> nn.Module:
        return self._teacher[0]

    def _apply(self, fn, *args, **kwargs):
        """Moves and casts reach the teacher, though it is no submodule."""
        for model in self._teacher:
            model._apply(fn, *args, **kwargs)
        return super()._apply(fn, *args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Load a checkpoint of this model, or one of the student alone, which has the student's own names.

        Where names do not fit, mmengine warns and goes on, so that a training would start from nothing.

        Raises:
            CheckpointError: nothing in it fits.
        """
        own = {prefix + name: value for name, value in self.state_dict().items()}
        found = {name: value for name, value in state_dict.items() if name.startswith(prefix)}
        if not own.keys() & found.keys():
            for name in found:
                state_dict[f"{prefix}student.{name.removeprefix(prefix)}"] = state_dict.pop(name)
        if not any(getattr(state_dict.get(name), "shape", None) == value.shape for name, value in own.items()):
            raise CheckpointError(
                f"nothing in this checkpoint fits (it begins with {_first(found)}, the student with "
                f"{_first(self.student.state_dict())}); give one of this Distiller or of its student alone"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def init_weights(self) -> None:
        """Initialise the student as it would be alone under this seed, then inherit; adapters come last."""
        # random weights are drawn in the order of memory, which shall not change them
        self.student.to(memory_format=torch.contiguous_format)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch.initial_seed())
            self.student.init_weights()
        self.pretrained_report = require_pretrained(self.student.backbone)
        if self.method is not None and hasattr(self.method, "init_weights"):
            self.method.init_weights()
        if self.inherit != "none":
            self.inherit_report = inherit(self.student, self.teacher)
        self.student.to(memory_format=self.memory_format)

    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict[str, Tensor]:
        """The student's own losses, and the method's."""
        batch_inputs = batch_inputs.contiguous(memory_format=self.memory_format)
        if self.method is None:
            return self.student.loss(batch_inputs, batch_data_samples)
        student_tape, teacher_tape = self._tapes
        needs = self.method.needs
        with torch.no_grad(), teacher_tape.recording():
            if self._stored is None:
                features = self.teacher.extract_feat(batch_inputs)
            else:
                features = teacher_tape.neck = self._stored(batch_data_samples, batch_inputs.device)
            if needs - {"neck"}:
                self.teacher.bbox_head(features)
        assigning = nullcontext()
        if self.method.assign_by_teacher:
            assigning = student_tape.reader.assigning_by(teacher_tape.outputs)
        with student_tape.recording(targets="assignment" in needs), assigning:
            losses = self.student.loss(batch_inputs, batch_data_samples)
        metas = [sample.metainfo for sample in batch_data_samples]
        sizes = [feature.shape[-2:] for feature in student_tape.neck]
        grid = student_tape.reader.grid(sizes, metas, batch_inputs.device)
        step = DistillStep(
            student=student_tape.view(grid, needs),
            teacher=teacher_tape.view(grid, needs),
            image_sizes=[tuple(meta["img_shape"][:2]) for meta in metas],
            grid=grid,
        )
        if "ground_truth" in needs:
            step.gt_boxes = [sample.gt_instances.bboxes for sample in batch_data_samples]
            step.gt_labels = [sample.gt_instances.labels for sample in batch_data_samples]
            step.ignored_boxes = [_ignored(sample) for sample in batch_data_samples]
        if "assignment" in needs:
            step.labels, step.label_weights = student_tape.reader.assignment(student_tape.targets, len(metas))
            step.centerness = student_tape.reader.centerness_targets(student_tape.targets, len(metas))
        terms = self.method(step)
        self.method_losses = tuple(terms)
        student_tape.clear()
        teacher_tape.clear()
        if clash := losses.keys() & terms.keys():
            raise KeyError(f"method and detector both name a loss {sorted(clash)[0]}")
        return {**losses, **terms}

    def predict(self, batch_inputs: Tensor, batch_data_samples: list, rescale: bool = True) -> list:
        return self.student.predict(batch_inputs, batch_data_samples, rescale=rescale)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: list | None = None) -> tuple:
        return self.student._forward(batch_inputs, batch_data_samples)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        return self.student.extract_feat(batch_inputs)

"""Names of classes: what a checkpoint lists of them, and whether a teacher's are those of the data.

A config of one's own asks for it by a hook, as neither the Distiller nor mmdet compares them::

    custom_imports = dict(imports=["pgd.plugin", "pgd.class_names"])
    custom_hooks = [dict(type="TeacherClassesHook")]
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from pgd.checkpoint import CheckpointError


def listed_classes(path: str | Path) -> tuple[str, ...] | None:
    """What mmdet wrote down of the classes that a detector was trained for; None where there is no list of names.

    mmdet copies ``metainfo.classes``, and numbers classes by the annotation file: their order may be another one.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    meta = _dict_in(content, "meta")
    meta = _dict_in(meta, "dataset_meta") or meta
    # upper case: as mmdet before 3.0 wrote it
    names = meta.get("classes", meta.get("CLASSES"))
    names = (names,) if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names) or None


def _dict_in(content: object, key: str) -> dict:
    """The dictionary under a key; empty where there is none."""
    found = content.get(key) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def require_classes(path: str | Path, classes: Sequence[str], data: str) -> bool:
    """Compare the classes that a checkpoint names with those of a data set, here called ``data``.

    Returns:
        Whether it names any: without a list there is nothing to compare.

    Raises:
        CheckpointError: they are others, or in another order. mmdet numbers classes by the annotation file that it
            trains on and keeps the list of the config: which of the two orders the weights have, no file says.
    """
    names = listed_classes(path)
    if names is None:
        return False
    if other := sorted({*names} ^ {*classes}):
        raise CheckpointError(
            f"{path}: trained on {len({*names})} classes, {data} has {len(classes)} (first that "
            f"only one of them has: '{other[0]}'); give a teacher of these classes"
        )
    for place, (own, ours) in enumerate(zip(names, classes, strict=False)):
        if own != ours:
            raise CheckpointError(
                f"{path}: lists the classes in another order than {data} (number {place} is '{own}' there, "
                f"'{ours}' here); give the categories of the annotation files its order, or, where those of its "
                f"training had that of {data} (mmdet numbers classes by the file, whatever the list says), give a "
                "file of its state_dict alone"
            )
    return True


@HOOKS.register_module()
class TeacherClassesHook(Hook):
    """Before a training of the Distiller: are the teacher's classes, as listed, those of the training data?

    Raises CheckpointError where they are not (:func:`require_classes`), and warns where the teacher's checkpoint, the
    config's ``model.teacher_checkpoint``, lists none.
    """

    def before_train(self, runner: Runner) -> None:
        path, data = runner.cfg.model.teacher_checkpoint, runner.train_dataloader.dataset
        if not require_classes(path, data.metainfo["classes"], "the training data"):
            print_log(f"{path} lists no classes: nobody has compared them with the data's", "current", logging.WARNING)

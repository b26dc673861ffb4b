"""What a method may know of two detectors before either has been trained."""

from __future__ import annotations

from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope

import pgd.plugin  # noqa: F401  registers with mmdet
from pgd.distiller import context_of
from pgd.methods import MethodContext


def untrained_context(student: ConfigDict, teacher: ConfigDict) -> MethodContext:
    """That of two detectors, each the ``model`` of a config; they are built without pretrained weights.

    Raises:
        ValueError: they have levels of other strides, or know another number of classes.
        UnsupportedHead: no reader serves one of their heads.
    """
    init_default_scope("mmdet")
    for model in (student, teacher):
        model.backbone.init_cfg = None
    return context_of(MODELS.build(student), MODELS.build(teacher))

"""What a method may know of two detectors before either has been trained."""

from __future__ import annotations

from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

import pgd.plugin  # noqa: F401  registers with mmdet
from pgd.distiller import context_of
from pgd.methods import MethodContext


def untrained(model: ConfigDict) -> nn.Module:
    """A detector, the ``model`` of a config, without pretrained weights."""
    init_default_scope("mmdet")
    model.backbone.init_cfg = None
    return MODELS.build(model)


def untrained_context(student: ConfigDict, teacher: ConfigDict) -> MethodContext:
    """That of two detectors, each the ``model`` of a config; they are built without pretrained weights.

    Raises:
        ValueError: they have levels of other strides, or know another number of classes.
        UnsupportedHead: no reader serves one of their heads.
    """
    return context_of(untrained(student), untrained(teacher))

"""docs/distill-your-detector.md for tests: its blocks of code and its configs in a user's folder, without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from benchmark.experiment.workspace import ROOT
from pgd.checkpoint import export

#: mmdet's own heads use what mmdet deprecates, mmengine what setuptools does
MARKS = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:DeprecationWarning. .num_anchors"),
    pytest.mark.filterwarnings("ignore:pkg_resources is deprecated"),
    pytest.mark.filterwarnings("ignore:.*instance named of visualizer has been created"),
]
DOCS = ROOT / "docs"
PAGE = DOCS / "distill-your-detector.md"
DISTILL, STUDENT = "distill_gfl_coco_sample.py", "gfl_r18_coco_sample.py"
STEPS = 2
#: What a test must change: no network, no worker processes, few images.
HASTE = f"""
_base_ = {str(DOCS / "examples" / DISTILL)!r}
model = dict(student=dict(backbone=dict(init_cfg=None)))
train_cfg = dict(max_iters={STEPS}, val_interval={STEPS})
train_dataloader = dict(num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(indices=2))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval={STEPS}))
"""


def block(word: str) -> str:
    """The Python block of the page that contains ``word``."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    return next(text for text in blocks if word in text)


def model_of(cfg: dict) -> torch.nn.Module:
    init_default_scope("mmdet")
    set_random_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def write_teacher(path: Path, classes: int = 80) -> None:
    """A teacher that was never trained."""
    model = get_config("mmdet::gfl/gfl_r50_fpn_1x_coco.py").model
    model.backbone.init_cfg = None
    model.bbox_head.num_classes = classes
    export(model_of(model), path)


def settle(folder: Path, data: Path) -> None:
    """Make a user's folder: ``data`` and the configs of the page."""
    for target, link in ((data, "data/coco"), (DOCS / "examples" / STUDENT, f"docs/examples/{STUDENT}")):
        (folder / link).parent.mkdir(parents=True, exist_ok=True)
        (folder / link).symlink_to(target)
    (folder / "docs" / "examples" / DISTILL).write_text(HASTE)


def stand(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Go there; the page's configs look for data and teacher where it says."""
    patch.chdir(folder)
    for name in ("PGD_COCO_SAMPLE", "PGD_TEACHER"):
        patch.delenv(name, raising=False)

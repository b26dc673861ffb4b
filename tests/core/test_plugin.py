"""The walk-through of docs/distill-your-detector.md, word for word: its configs and its code, on the COCO sample."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner
from support.walk_through import (
    DISTILL,
    DOCS,
    MARKS,
    PAGE,
    STEPS,
    STUDENT,
    block,
    model_of,
    settle,
    stand,
    write_teacher,
)
from torch import Tensor
from torch.testing import assert_close

from pgd.checkpoint import load_state
from pgd.methods.base import MethodError

pytestmark = MARKS
#: Stands in for a compiled mmcv where there is none: the one operator that predicting needs. ``import pgd`` fails.
COMPILED_MMCV = """
import importlib.util, sys
from importlib.machinery import ModuleSpec
from types import ModuleType

class Ext(ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def operator(*args, **kwargs):
            raise NotImplementedError(name)
        return operator

    def nms(self, boxes, scores, iou_threshold, offset):
        import torchvision
        return torchvision.ops.nms(boxes, scores, iou_threshold)

sys.modules["pgd"] = None
if importlib.util.find_spec("mmcv._ext") is None:
    sys.modules["mmcv._ext"] = Ext("mmcv._ext")
    sys.modules["mmcv._ext"].__spec__ = ModuleSpec("mmcv._ext", None)
"""
#: What the tests want of the student that was loaded.
PROBE = """
image = torch.linspace(-2, 2, 3 * 64 * 64).reshape(1, 3, 64, 64)
with torch.no_grad():
    probe = {
        "outputs": [level for part in model(image, mode="tensor") for level in part],
        "classes": list(model.dataset_meta["classes"]),
        "boxes": result.pred_instances.bboxes,
    }
"""


def student_config() -> dict:
    model = Config.fromfile(f"docs/examples/{STUDENT}").model
    model.backbone.init_cfg = None
    return model


@pytest.fixture(scope="module")
def place(coco_sample, tmp_path_factory) -> Path:
    """A user's folder: data, configs and a teacher that was never trained."""
    folder = tmp_path_factory.mktemp("plugin")
    settle(folder, coco_sample)
    write_teacher(folder / "teacher.pth")
    return folder


@pytest.fixture(autouse=True)
def stand_there(place, monkeypatch):
    stand(place, monkeypatch)


@pytest.fixture(scope="module")
def runner(place) -> Runner:
    """After the block that trains and exports."""
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        stand(place, patch)
        exec(block("Runner.from_cfg"), names)
    return names["runner"]


def test_the_page_shows_the_config():
    text = (DOCS / "examples" / DISTILL).read_text()
    assert text.endswith(block("teacher_checkpoint"))
    assert 15 <= len(text.splitlines()) <= 30


def test_the_log_has_the_terms_of_both(runner):
    (scalars,) = Path(runner.work_dir).glob("*/vis_data/scalars.json")
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert len(steps) == STEPS
    terms = ["loss_cls", "loss_bbox", "loss_dfl", "loss_pgd_cls", "loss_pgd_reg"]
    for line in steps:
        assert all(math.isfinite(line[term]) for term in terms)
        assert line["loss_pgd_cls"] > 0
        assert line["loss"] == pytest.approx(sum(line[term] for term in terms), rel=1e-4)
    assert "coco/bbox_mAP" in lines[-1]


def test_the_log_says_what_was_inherited(runner):
    report = runner.model.inherit_report
    laterals = [f"neck.lateral_convs.{i}.conv.weight" for i in range(3)]
    assert list(report.skipped) == laterals
    assert len(report.copied) == 47
    assert all(why.startswith("shape (256, ") for why in report.skipped.values())
    (log,) = Path(runner.work_dir).glob("*/*.log")
    assert f"WARNING - {report}" in log.read_text()
    # the page quotes it
    assert f"WARNING - {report}" in PAGE.read_text()


def test_the_student_is_exported_alone(runner, place):
    state, teacher = load_state("student.pth"), load_state("teacher.pth")
    assert_close(state, dict(runner.model.student.state_dict()))
    plain = model_of(student_config())
    assert state.keys() == plain.state_dict().keys()
    towers = [name for name in state if name.startswith("bbox_head.") and name.endswith("conv.weight")]
    assert towers, "it was trained"
    assert not any(torch.equal(state[name], teacher[name]) for name in towers), "it was trained"


def test_a_finished_training_can_be_exported_later(runner):
    """As the page says: the Runner built anew, loaded, not trained."""
    names: dict = {}
    later = f"runner.load_checkpoint('work_dirs/distill_gfl/iter_{STEPS}.pth')"
    exec(block("Runner.from_cfg").replace("runner.train()", later).replace("student.pth", "later.pth"), names)
    assert names["runner"] is not runner
    assert_close(load_state("later.pth"), load_state("student.pth"))


@pytest.mark.long
def test_the_student_loads_where_pgd_does_not_exist(runner, place):
    """In a process of its own and, with pgd's operators, in this one: the same detector."""
    code = COMPILED_MMCV + block("init_detector") + PROBE + "torch.save(probe, 'probe.pth')"
    # a thread as here, so that sums come in the same order
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "InstanceData" in done.stdout
    assert "COCO classes by default" not in done.stderr
    theirs = torch.load("probe.pth", weights_only=True)
    names: dict = {}
    exec(block("init_detector") + PROBE, names)
    assert_close(theirs["outputs"], names["probe"]["outputs"])
    assert isinstance(theirs["boxes"], Tensor)
    assert theirs["classes"] == list(runner.train_dataloader.dataset.metainfo["classes"])
    assert len(theirs["classes"]) == 80


def test_another_width_needs_the_adapter(place):
    (place / "docs" / "examples" / "narrow.py").write_text(block("adapter=True"))
    cfg = Config.fromfile("docs/examples/narrow.py")
    model = model_of(cfg.model)
    report, own = model.inherit_report, model.student.state_dict()
    assert (len(report.copied), len(report.skipped)) == (8, 42), "the page says so"
    assert {*report.copied, *report.skipped} == {name for name in own if not name.startswith("backbone.")}
    assert str(report).splitlines()[1].startswith("  42: another shape: neck.lateral_convs.0.conv.weight, ")
    assert str(report).endswith(" and 36 more")
    cfg.model.method.adapter = False
    with pytest.raises(MethodError, match="set adapter: true"):
        MODELS.build(cfg.model)

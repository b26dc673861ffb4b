"""The config files: all of them build and are read, the mini ones train, teacher and student of a pair fit together."""

from __future__ import annotations

import json
import logging
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from support.marks import long_but
from support.worlds import LIGHT
from torch import nn

import pgd.plugin  # noqa: F401  registers heads and assigners
from benchmark.experiment.config import training_config
from benchmark.experiment.settings import Detector, Job, Pair, Teacher
from benchmark.experiment.settings import load as load_params
from benchmark.experiment.workspace import ROOT
from pgd.dense import reader_of

#: mmdet's own heads use what mmdet and torch deprecate
pytestmark = [pytest.mark.filterwarnings(f"ignore:{start}") for start in ("DeprecationWarning", "torch.meshgrid")]
CONFIGS = ROOT / "benchmark" / "configs"


def names(pattern: str) -> list[str]:
    """Of config files, without the suffix."""
    return sorted(str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob(f"{pattern}.py"))


ALL, MINI, PAPER = names("*/*"), names("mini/*"), names("paper/*")
#: dense.py and anchors.py are what the others have in common
DETECTORS = sorted({*names("detectors/*"), *MINI, *PAPER} - {"detectors/dense", "detectors/anchors"})


def name_of(detector: Detector) -> str:
    """Of its config file, as in :func:`names`."""
    return detector.config.removeprefix("benchmark/configs/").removesuffix(".py")


#: student and teacher
PAIRS = [(s, s.replace("_r18", "_r34")) for s in names("mini/*_r18")]
PAIRS += [
    (name_of(pair.student), name_of(pair.teacher))
    for pair in load_params(ROOT / "experiments/paper/params.yaml").pairs.values()
]
SMALL = [pair for pair in PAIRS if "_mb2_" in pair[0]]


@pytest.fixture(autouse=True, scope="module")
def scope():
    init_default_scope("mmdet")


@cache
def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / f"{name}.py")


@cache
def built(name: str) -> nn.Module:
    """The detector without memory for its weights, which is fast at any size."""
    model = deepcopy(load(name).model)
    model.backbone.init_cfg = None
    with torch.device("meta"):
        return MODELS.build(model)


def shapes(name: str) -> dict[str, torch.Size]:
    """Of all weights that a student may inherit."""
    return {k: v.shape for k, v in built(name).state_dict().items() if not k.startswith("backbone.")}


def job(name: str, **settings) -> Job:
    """A training of this config's detector alone."""
    detector = Teacher(config=str((CONFIGS / f"{name}.py").relative_to(ROOT)), **settings)
    return Job("teacher-x", 0, "x", Pair(detector, detector, "any"), None)


def test_something_is_tested():
    assert len(MINI) >= 15
    assert len(PAPER) >= 10
    assert len(PAIRS) >= 19
    assert len(SMALL) == 2
    assert {name for pair in PAIRS for name in pair} >= {*PAPER}, "every full-scale config is of a pair"


@pytest.mark.parametrize("name", ALL)
def test_loads(name):
    assert load(name).to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_builds_and_is_read(name):
    model, backbone = built(name), load(name).model.backbone
    reader = reader_of(model.bbox_head)
    assert reader.strides == (8, 16, 32, 64, 128)
    assert reader.channels == model.neck.out_channels
    assert len(reader.towers) == 2
    assert model.bbox_head.num_classes == (1 if "crowd" in name else 80)
    network = f"resnet{backbone.depth}" if backbone.type == "ResNet" else "mobilenet_v2"
    assert backbone.init_cfg.checkpoint in (
        f"torchvision://{network}",
        f"data/pretrained/{network}_c{backbone.get('base_channels')}.pth",
        f"open-mmlab://mmdet/{network}",
    ), "weights of another network"


@pytest.mark.slow
@pytest.mark.parametrize(("student", "teacher"), [pair for pair in PAIRS if pair not in SMALL])
def test_pairs_fit(student, teacher):
    """All but the backbone is the same, so that all of it can be inherited and one data preprocessor serves both."""
    ours, theirs = (load(n).model.to_dict() for n in (student, teacher))
    assert ours.pop("backbone")["depth"] <= theirs.pop("backbone")["depth"]
    assert ours == theirs
    assert shapes(student) == shapes(teacher)


@pytest.mark.slow
@pytest.mark.parametrize(("student", "teacher"), SMALL)
def test_a_small_student_inherits_all_but_its_laterals(student, teacher):
    ours, theirs = shapes(student), shapes(teacher)
    assert ours.keys() == theirs.keys()
    other = {name for name, shape in ours.items() if shape != theirs[name]}
    assert other == {f"neck.lateral_convs.{level}.conv.weight" for level in range(3)}
    with torch.device("meta"):
        levels = built(student).backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(level.shape[1:]) for level in levels] == [(24, 16, 24), (32, 8, 12), (96, 4, 6), (1280, 2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("name", long_but(lambda name: not name.endswith("r34"), [*MINI, "real/gfl_r18_half"]))
def test_two_steps(name, tiny_data):
    cfg = training_config(job(name, iterations=2, options=dict(LIGHT)), tiny_data, None, Path("w"))
    set_random_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    optimizer = build_optim_wrapper(model.train(), cfg.optim_wrapper)
    batches = iter(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    for _ in range(2):
        data = model.data_preprocessor(next(batches), True)
        losses = model(**data, mode="loss")
        total, _ = model.parse_losses(losses)
        assert torch.isfinite(total), losses
        assert total > 0, losses
        total.backward()
        trained = {k: p.grad for k, p in model.named_parameters() if p.requires_grad}
        assert not [k for k, grad in trained.items() if grad is None or not grad.isfinite().all()]
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        found = model.eval().predict(data["inputs"], data["data_samples"], rescale=False)
    assert all(sample.pred_instances.bboxes.isfinite().all() for sample in found)


@pytest.mark.parametrize(("name", "rate"), [("paper/gfl_r50_1x", 0.02 / 8), ("paper/crowdhuman_ddod_r50_1x", 0.01 / 8)])
def test_the_rate_goes_with_the_batch(name, rate, tiny_data, tmp_path):
    """Published with eight GPUs: mmengine takes an eighth on one."""
    cfg = training_config(job(name), tiny_data, None, tmp_path)
    wrapper = build_optim_wrapper(nn.Linear(1, 1), cfg.optim_wrapper)
    parts = {"_train_dataloader": cfg.train_dataloader, "param_schedulers": cfg.param_scheduler}
    runner = SimpleNamespace(world_size=1, logger=logging.getLogger(), **parts)
    Runner.scale_lr(runner, wrapper, cfg.auto_scale_lr)
    assert wrapper.param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper/gfl_r50_1x", "paper/gfl_r101_3x"])
def test_full_scale_images(name, coco_sample, tiny_data):
    files = {"images": "{}2017", "annotations": "annotations/instances_{}2017.json"}
    paths = {f"{s}_{k}": str(coco_sample / v.format(s)) for s in ("train", "val") for k, v in files.items()}
    categories = json.loads(Path(paths["val_annotations"]).read_text())["categories"]
    data = replace(tiny_data, classes=[c["name"] for c in categories], **paths)
    light = {k: v for k, v in LIGHT.items() if "batch" not in k}
    cfg = training_config(job(name, options=light), data, None, Path("w"))
    set_random_seed(0)
    batches = iter(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    sizes = [sample.img_shape for _ in range(2) for sample in next(batches)["data_samples"]]
    assert len(sizes) == 8
    assert all(max(size) <= 1333 and min(size) <= 960 for size in sizes)
    assert all(min(size) == 800 or max(size) == 1333 for size in sizes) == ("_1x" in name), "one scale or many"
    image = next(iter(Runner.build_dataloader(cfg.val_dataloader, seed=0)))["data_samples"][0]
    assert min(image.img_shape) == 800 or max(image.img_shape) == 1333

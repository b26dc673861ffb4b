"""CrowdHuman's configs: PGD's settings, models of one class, and the way from prepared data to training and metric."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from support.crowd_tree import FIRST, asked, stand_aside, tree
from support.worlds import LIGHT

import benchmark.training.hooks  # noqa: F401  registers the progress bar
from benchmark.experiment.config import DatasetInfo, detector_config, training_config
from benchmark.experiment.evaluation import evaluation_config
from benchmark.experiment.settings import Job, Pair, Teacher
from benchmark.experiment.workspace import ROOT
from benchmark.prepare import prepare
from pgd.evaluation.odgt import read_detections

__all__ = ["stand_aside", "tree"]  # fixtures
#: mmdet's own heads use what mmdet and torch deprecate
pytestmark = [pytest.mark.filterwarnings(f"ignore:{start}") for start in ("DeprecationWarning", "torch.meshgrid")]
STUDENT, TEACHER = "paper/crowdhuman_ddod_r50_1x", "paper/crowdhuman_ddod_r101_3x"
NAMES = (STUDENT, TEACHER, "mini/ddod_crowd_r18", "mini/ddod_crowd_r34")


@pytest.fixture(autouse=True, scope="module")
def scope():
    init_default_scope("mmdet")


def path_of(name: str) -> str:
    return f"benchmark/configs/{name}.py"


def job(name: str, options: dict | None = None, **settings) -> Job:
    """A training of this config's detector alone."""
    detector = Teacher(config=path_of(name), options=options or {}, **settings)
    return Job("teacher-x", 0, "x", Pair(detector, detector, "crowd"), None)


@pytest.fixture
def data(tree) -> DatasetInfo:
    return prepare("crowd", asked(tree))


@pytest.mark.parametrize("name", NAMES)
def test_models(name):
    cfg = Config.fromfile(ROOT / path_of(name))
    model = deepcopy(cfg.model)
    assert model.type == "DDOD"
    assert model.backbone.frozen_stages == -1
    model.backbone.init_cfg = None
    with torch.device("meta"):
        built = MODELS.build(model)
    assert built.bbox_head.num_classes == 1
    assert all(p.requires_grad for n, p in built.backbone.named_parameters() if "conv" in n), "no stage is frozen"
    assert not any(p.requires_grad for n, p in built.backbone.named_parameters() if ".bn" in n)
    test = cfg.model.test_cfg
    assert (test.score_thr, test.nms.iou_threshold, test.nms_pre) == (0.05, 0.6, 1000)
    assert test.max_per_img == (500 if name in (STUDENT, TEACHER) else 200)


def test_pgd_settings():
    student, teacher = (Config.fromfile(ROOT / path_of(name)) for name in (STUDENT, TEACHER))
    for cfg, epochs, steps, clip in (
        (student, 12, [8, 11], {"max_norm": 35, "norm_type": 2}),
        (teacher, 36, [24, 33], None),
    ):
        assert (cfg.train_cfg.max_epochs, cfg.param_scheduler[1].end) == (epochs, epochs)
        assert cfg.param_scheduler[1].milestones == steps
        assert cfg.optim_wrapper.clip_grad == clip
        assert cfg.optim_wrapper.optimizer == {"type": "SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
        assert (cfg.param_scheduler[0].start_factor, cfg.param_scheduler[0].end) == (0.001, 500)
        assert cfg.train_dataloader.batch_size == 2
        assert cfg.auto_scale_lr.base_batch_size == 16
        assert cfg.train_dataloader.dataset.filter_cfg == {"filter_empty_gt": True, "min_size": 32}
        assert cfg.val_dataloader.dataset.pipeline[1] == {"type": "Resize", "scale": (1400, 800), "keep_ratio": True}
    assert student.train_dataloader.dataset.pipeline[2].scale == (1400, 800)
    many = teacher.train_dataloader.dataset.pipeline[2]
    assert (many.type, many.scale) == ("RandomResize", [(1400, 480), (1400, 960)])
    for cfg, depth in ((student, 50), (teacher, 101)):
        assert cfg.model.backbone.depth == depth
        assert cfg.model.backbone.init_cfg.checkpoint == f"torchvision://resnet{depth}"


def test_options_reach_the_new_keys():
    options = {"model.test_cfg.max_per_img": 99, "train_dataloader.dataset.pipeline.3.prob": 0.0}
    cfg = detector_config(Teacher(path_of("mini/ddod_crowd_r18"), options=options))
    assert cfg.model.test_cfg.max_per_img == 99
    assert cfg.train_dataloader.dataset.pipeline[3].prob == 0


@pytest.mark.parametrize("name", NAMES)
def test_training_config(name, data, tiny_data):
    """The data set says how it is evaluated."""
    cfg = training_config(job(name), data, None, Path("w"))
    assert cfg.val_evaluator == {"type": "CrowdHumanBoxes", "ann_file": data.val_odgt}
    assert cfg.model.student.bbox_head.num_classes == 1
    assert cfg.val_dataloader.dataset.indices == 2
    assert cfg.train_dataloader.dataset.metainfo == {"classes": ("person",)}
    cfg = training_config(job(name), replace(data, metric="coco"), None, Path("w"))
    assert cfg.val_evaluator == {"type": "CocoBoxes", "ann_file": data.val_annotations, "areas": tuple(data.areas)}
    other = training_config(job("mini/ddod_r18"), tiny_data, None, Path("w")).val_evaluator
    assert other == {"type": "CocoBoxes", "ann_file": tiny_data.val_annotations, "areas": tuple(tiny_data.areas)}


@pytest.mark.slow
def test_what_training_sees(data):
    """Boxes clipped to the image, regions to ignore apart; images without any box are left out."""
    cfg = training_config(job("mini/ddod_crowd_r18"), data, None, Path("w")).train_dataloader.dataset
    cfg.pipeline[3].prob = 0.0
    dataset = DATASETS.build(cfg)
    assert [Path(dataset.get_data_info(i)["img_path"]).stem for i in range(len(dataset))] == [FIRST, "b,2"]
    first = dataset[0]["data_samples"]
    # 64x48 becomes 256x192, four times as large
    assert first.img_shape == (192, 256)
    assert first.gt_instances.bboxes.tensor.tolist() == [[40, 20, 120, 140], [0, 0, 88, 192]]
    assert first.ignored_instances.bboxes.tensor.tolist() == [[160, 0, 240, 80]]
    assert first.gt_instances.labels.tolist() == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "short"), [(STUDENT, {800}), (TEACHER, range(480, 961))])
def test_full_scale_images(name, short, data):
    cfg = training_config(job(name), data, None, Path("w"))
    sample = DATASETS.build(cfg.train_dataloader.dataset)[0]["data_samples"]
    # 64x48: the short side decides
    assert min(sample.img_shape) in short
    assert max(sample.img_shape) <= 1400
    boxes = sample.gt_instances.bboxes.tensor
    assert boxes.min() >= 0
    assert (boxes.amax(0)[2:] <= torch.tensor(sample.img_shape[::-1])).all()


@pytest.mark.slow
def test_evaluation(data):
    """From prepared data through a detector to the metric: every image has its entry, by its ID."""
    out = Path("found") / "detections.json"
    options = {**LIGHT, "model.test_cfg.score_thr": 0.0, "model.test_cfg.max_per_img": 7}
    runner = Runner.from_cfg(evaluation_config(job("mini/ddod_crowd_r18", options), data, out))
    figures = runner.test()
    assert set(figures) == {"AP", "MR", "JI"}
    found = {entry["ID"]: entry for entry in read_detections(out)}
    assert {name: (e["width"], e["height"]) for name, e in found.items()} == {"v,1": (64, 48), "v,2": (40, 30)}
    assert all(len(entry["boxes"]) == 7 for entry in found.values())

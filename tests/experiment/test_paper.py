"""`experiments/paper` against what was published, value by value: configs, PGD's settings, rivals' settings, figures.

Sources. PGD: ChenhongyiYang/PGD, commit 81c54d5, `work_configs/base` (schedules), `work_configs/detectors` and
`det_crowdhuman` (detectors), `work_configs/pgd_*.py` (settings), its README (figures). The 2x schedules: mmdet 3.3,
`gfl_r50_fpn_ms-2x_coco.py` and `retinanet_r50_fpn_2x_coco.py`, which the rivals' students inherit from, with their
clipping. Rivals: their releases, as the files in `pgd/methods` name them.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from mmdet.models.dense_heads import GFLHead
from mmengine.config import Config

from benchmark.experiment.config import detector_config, training_config
from benchmark.experiment.settings import Detector, Job, Pair, Teacher, load
from benchmark.experiment.workspace import ROOT
from benchmark.methods import full_context
from pgd.methods.base import build_method, settings_of
from pgd.scaling import published_settings

#: mmdet's own heads use what mmdet and torch deprecate
pytestmark = [pytest.mark.filterwarnings(f"ignore:{start}") for start in ("DeprecationWarning", "pkg_resources")]
PARAMS = load(ROOT / "experiments" / "paper" / "params.yaml")
FOLDER = "benchmark/configs/paper"

# ------------------------------------------------------------------------------------------ configs, as published

FLIP = 0.5
STUDENT = {
    "epochs": 12,
    "milestones": [8, 11],
    "decay": 0.1,
    "optimizer": ("SGD", 0.9, 1e-4),
    "rate an image": 0.02 / 32,
    "images a GPU": 4,
    "warm-up": (500, 0.001),
    "clip": {"max_norm": 35, "norm_type": 2},
    "training": ("Resize", (1333, 800), FLIP),
    "test": (1333, 800),
    "candidates": 1000,
    "score": 0.05,
    "NMS": 0.6,
    "boxes": 100,
}
TEACHER = STUDENT | {"epochs": 36, "milestones": [24, 33], "clip": None}
TEACHER |= {"training": ("RandomResize", [(1333, 480), (1333, 960)], FLIP)}
CROWD = {"rate an image": 0.01 / 16, "images a GPU": 2, "boxes": 500, "frozen": -1, "test": (1400, 800)}
CROWD_STUDENT = STUDENT | CROWD | {"training": ("Resize", (1400, 800), FLIP)}
CROWD_TEACHER = TEACHER | CROWD | {"training": ("RandomResize", [(1400, 480), (1400, 960)], FLIP)}
#: mmdet's has two images a GPU, which is no part of the learning rate here
TWICE = {k: v for k, v in STUDENT.items() if k != "images a GPU"}
TWICE |= {"epochs": 24, "milestones": [16, 22], "rate an image": 0.01 / 16, "norms learn": True}
MULTI = {"training": ("RandomResize", [(1333, 480), (1333, 800)], FLIP)}
NO_CLIP = {"clip": None}


def resnet(depth: int) -> dict:
    weights = f"torchvision://resnet{depth}"
    return {"backbone": ("ResNet", depth, weights), "frozen": 1, "norms learn": False, "norms in training": False}


WEIGHTS = "open-mmlab://mmdet/mobilenet_v2"
MOBILENET = {"backbone": ("MobileNetV2", None, WEIGHTS), "frozen": -1, "norms learn": False, "norms in training": True}
R50, R101, R152 = map(resnet, (50, 101, 152))
LOW = {"NMS": 0.5}
CONFIGS = {
    "fcos_r50_1x": R50 | STUDENT | LOW,
    "fcos_r101_3x": R101 | TEACHER | LOW,
    "fcos_mb2_1x": MOBILENET | STUDENT | LOW,
    "autoassign_r50_1x": R50 | STUDENT,
    "autoassign_r101_3x": R101 | TEACHER,
    "atss_r50_1x": R50 | STUDENT,
    "atss_r101_3x": R101 | TEACHER,
    "atss_mb2_1x": MOBILENET | STUDENT,
    "gfl_r50_1x": R50 | STUDENT,
    "gfl_r50_3x": R50 | TEACHER,
    "gfl_r101_3x": R101 | TEACHER,
    "gfl_r152_3x": R152 | TEACHER,
    "gfl_r50_2x": R50 | TWICE | MULTI,
    "gfl_r101_2x": R101 | TWICE | MULTI | NO_CLIP,
    "ddod_r50_1x": R50 | STUDENT,
    "ddod_r101_3x": R101 | TEACHER,
    "retinanet_r50_2x": R50 | TWICE | LOW,
    "retinanet_r101_2x": R101 | TWICE | LOW | NO_CLIP,
    "crowdhuman_ddod_r50_1x": R50 | CROWD_STUDENT,
    "crowdhuman_ddod_r101_3x": R101 | CROWD_TEACHER,
}


def job(name: str) -> Job:
    """The training of a config alone."""
    detector = Teacher(f"{FOLDER}/{name}.py")
    return Job("teacher-x", 0, "x", Pair(detector, detector, "any"), None)


def found_in(cfg: Config) -> dict:
    """The values that the tables name, of a training's config."""
    backbone, test = cfg.model.student.backbone, cfg.model.student.test_cfg
    optimizer, (warmup, steps) = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    resize, flip = cfg.train_dataloader.dataset.pipeline[2:4]
    return {
        "backbone": (backbone.type, backbone.get("depth"), backbone.init_cfg.checkpoint),
        "frozen": backbone.frozen_stages,
        "norms learn": backbone.norm_cfg.requires_grad,
        "norms in training": not backbone.get("norm_eval", False),
        "epochs": cfg.train_cfg.max_epochs,
        "milestones": steps.milestones,
        "decay": steps.gamma,
        "optimizer": (optimizer.type, optimizer.momentum, optimizer.weight_decay),
        "rate an image": pytest.approx(optimizer.lr / cfg.auto_scale_lr.base_batch_size),
        "images a GPU": cfg.train_dataloader.batch_size,
        "warm-up": (warmup.end, warmup.start_factor),
        "clip": cfg.optim_wrapper.clip_grad,
        "training": (resize.type, resize.scale, flip.prob),
        "test": cfg.val_dataloader.dataset.pipeline[1].scale,
        "candidates": test.nms_pre,
        "score": test.score_thr,
        "NMS": test.nms.iou_threshold,
        "boxes": test.max_per_img,
    }


def test_every_config_has_its_published_values():
    assert CONFIGS.keys() == {path.stem for path in (ROOT / FOLDER).glob("*.py")}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs(name, tiny_data):
    cfg = training_config(job(name), tiny_data, None, Path("w"))
    found = found_in(cfg)
    assert found.keys() - CONFIGS[name].keys() <= {"images a GPU"}
    assert {key: found[key] for key in CONFIGS[name]} == CONFIGS[name]
    assert cfg.auto_scale_lr.enable
    assert cfg.param_scheduler[1].end == cfg.train_cfg.max_epochs
    # the release has half precision in some detectors
    assert cfg.optim_wrapper.type == "OptimWrapper"
    assert "float32 unless the config says otherwise" in (ROOT / "docs/deviations.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("gfl_r50_2x", "gfl/gfl_r50_fpn_ms-2x_coco"),
        ("gfl_r101_2x", "gfl/gfl_r101_fpn_ms-2x_coco"),
        ("retinanet_r50_2x", "retinanet/retinanet_r50_fpn_2x_coco"),
        ("retinanet_r101_2x", "retinanet/retinanet_r101_fpn_2x_coco"),
    ],
)
def test_the_2x_detectors_are_mmdets(ours, theirs):
    own = detector_config(Detector(f"{FOLDER}/{ours}.py"))
    other = detector_config(Detector(f"mmdet::{theirs}.py"))
    # the default of mmdet's head, which ours says in words
    norm = inspect.signature(GFLHead).parameters["norm_cfg"].default if "gfl" in ours else None
    assert own.model.bbox_head.pop("norm_cfg", None) == norm
    assert own.model.to_dict() == other.model.to_dict()
    assert own.train_cfg.max_epochs == other.train_cfg.max_epochs
    assert [dict(one) for one in own.param_scheduler] == [dict(one) for one in other.param_scheduler]


# ------------------------------------------------------------------------------------------ PGD, as published

#: alpha, T, K by pair; `pgd_*.py` and the detectors' `kd_assigner`
PGD = {
    "fcos": (0.04, 0.8, 30),
    "autoassign": (0.08, 0.4, 30),
    "atss": (0.08, 0.8, 9),
    "gfl": (0.04, 0.8, 30),
    "ddod": (0.08, 0.8, 30),
    "crowd": (0.001, 0.8, 30),
    "atss-mb2": (0.04, 0.8, 9),
    "fcos-mb2": (0.04, 0.8, 30),
}
PGD_RUNS = [name for name, run in PARAMS.runs.items() if run.method.startswith("pgd")]


def detector_of(name: str) -> str:
    return detector_config(PARAMS.student(name).detector).model.type.lower()


@pytest.mark.parametrize("name", PGD_RUNS)
def test_pgds_settings(name):
    run = PARAMS.runs[name]
    method = build_method(run.method, full_context(detector_of(name)), **run.settings)
    # other teachers and schedules of GFL take its settings
    alpha, temperature, topk = PGD[run.pair if run.pair in PGD else "gfl"]
    assert (method.alpha, method.temperature, method.topk) == (alpha, temperature, topk)
    assert (method.beta, method.gamma, method.delta) == pytest.approx((0.5 * alpha, 1.6 * alpha, 8e-4))
    assert (method.xi_cls, method.xi_reg) == (0.8, 0.6)
    assert method.level_weights == (1.0, 1.25, 1.5, 1.75, 2.0)
    assert run.inherit == "head+neck"


# ------------------------------------------------------------------------------------------ rivals, as published

#: whether neck and head are inherited, and settings, by pair and method
RIVALS = {
    ("fcos", "fgd"): (True, {"alpha": 1.6e-3, "beta_ratio": 0.5, "gamma_ratio": 0.5, "temperature": 0.8}),
    ("fcos", "frs"): (False, {"weight_feature": 0.01, "weight_cls": 0.05, "warmup": 500}),
    ("fcos", "crosskd"): (False, {"block": 2, "weight_cls": 0.4, "weight_box": 0.75, "box_loss": "iou"}),
    ("fcos", "icd"): (True, {"weight": 8.0, "heads": 8, "warmup": 1000}),
    ("fcos", "maskd"): (False, {"weight": 10.0, "warmup": 5000, "boxes": 0.0}),
    ("fcos", "cankd"): (False, {"weight": 10.0, "levels": 4}),
    ("fcos", "detkds"): (True, {"weight_global": 5.0, "weight_fg": 2.0, "form": "masked", "keep": 0.35, "group": 2}),
    ("fcos", "cskd"): (False, {"mse_neck": 1.0, "cos_neck": 0.5, "mse_towers": 1.0, "plain_classes": True}),
    ("fcos", "pcka"): (False, {"weight": 10.0, "side": 16, "transposed": False}),
    ("atss", "crosskd"): (False, {"block": 3, "weight_cls": 1.0, "weight_box": 1.0, "weight_quality": 1.0}),
    ("gfl", "fitnet"): (False, {"weight": 2.0, "adapter": False, "place": "neck"}),
    ("gfl", "fgfi"): (False, {"weight": 2.0, "threshold": 0.5, "reduction": "mean", "adapter": False}),
    ("gfl", "frs"): (False, {"weight_feature": 0.1, "weight_cls": 0.05, "warmup": 500}),
    ("gfl", "fgd"): (True, {"alpha": 1e-3, "beta_ratio": 0.5, "lambda_ratio": 5e-3, "temperature": 0.5}),
    ("gfl", "ld"): (False, {"weight_ld": 0.25, "temperature_ld": 10.0, "weight_kd": 10.0, "temperature_kd": 2.0}),
    ("gfl", "cwd"): (False, {"weight": 5.0, "place": "classes", "tau": 1.0}),
    ("gfl", "crosskd"): (False, {"block": 3, "weight_cls": 1.0, "weight_box": 4.0, "box_loss": "kl"}),
    ("gfl", "bckd"): (False, {"weight_cls": 1.0, "weight_box": 4.0, "all_levels": False}),
    ("gfl", "detkds"): (True, {"weight_global": 10.0, "weight_fg": 0.0, "weight_bg": 0.0, "group": 2}),
    ("gfl", "cskd"): (False, {"mse_neck": 1.0, "cos_neck": 0.5, "mse_towers": 1.0, "plain_classes": False}),
    ("gfl", "pcka"): (False, {"weight": 10.0, "side": 16, "transposed": True}),
    ("retinanet", "frs"): (False, {"weight_feature": 0.005, "weight_cls": 0.02, "warmup": 500}),
    ("retinanet", "fgd"): (True, {"alpha": 1e-3, "beta_ratio": 0.5, "gamma_ratio": 0.5, "temperature": 0.5}),
    ("retinanet", "gid"): (False, {"weight_feature": 5e-4, "weight_relation": 40.0, "instances": 10, "beta": 0.1}),
    ("retinanet", "cwd"): (False, {"weight": 5.0, "place": "neck", "levels": 4, "tau": 1.0}),
    ("retinanet", "mgd"): (True, {"alpha": 2e-5, "mask_ratio": 0.65}),
    ("retinanet", "pkd"): (False, {"weight": 10.0, "levels": 4}),
    ("retinanet", "dist"): (False, {"weight": 1.0, "beta": 1.0, "gamma": 1.0}),
    ("retinanet", "crosskd"): (False, {"block": 3, "weight_cls": 1.0, "weight_box": 1.0, "box_loss": "giou"}),
    ("retinanet", "icd"): (True, {"weight": 8.0, "heads": 8, "warmup": 1000}),
    ("retinanet", "maskd"): (True, {"weight": 7.0, "warmup": 7000, "boxes": 1 / 7}),
    ("retinanet", "cankd"): (False, {"weight": 10.0, "levels": 4}),
    ("retinanet", "detkds"): (True, {"weight_global": 6.0, "weight_fg": 2.0, "weight_bg": 1.0, "form": "patches"}),
    ("retinanet", "cskd"): (False, {"cos_neck": 2.0, "mse_towers": 5.0, "cos_towers": 2.0, "cos_outputs": 2.0}),
    ("retinanet", "pcka"): (False, {"weight": 10.0, "side": 16, "transposed": False}),
    ("retinanet", "acamkd"): (True, {"weight": 1.0, "diversity": 1.0, "masks": 6}),
    ("retinanet", "skd_ssim"): (False, {"weight": 4.0, "deviation": 1.5}),
}
RIVALS |= {("gfl-2x", method): RIVALS["gfl", method] for method in ("frs", "detkds", "cskd")}
#: where figures are of a release that is not its paper, the release's; LD's code has FitNet's weight
RELEASED = {
    "crosskd": {"activated": True},
    "fgfi": {"positive_levels": True},
    "fitnet": {"weight": 2.0},
    "ld": {"overlap": "anchor"},
}
OTHERS = {name: run for name, run in PARAMS.runs.items() if run.method != "none" and name not in PGD_RUNS}


def test_every_rival_has_its_published_settings():
    assert {(run.pair, run.method) for run in OTHERS.values()} == RIVALS.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_rivals_settings(name):
    run = OTHERS[name]
    inherits, values = RIVALS[run.pair, run.method]
    settings = settings_of(run.method) | run.settings
    assert (run.inherit == "head+neck") == inherits
    approximately = {k: pytest.approx(v, rel=1e-5) if isinstance(v, float) else v for k, v in settings.items()}
    assert approximately.items() >= (values | RELEASED.get(run.method, {})).items()
    expected = published_settings(run.method, detector_of(name)) | RELEASED.get(run.method, {})
    assert {key: approximately[key] for key in expected} == expected
    build_method(run.method, full_context(detector_of(name)), **run.settings)

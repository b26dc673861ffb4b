"""The seven mini detectors with random weights, pairs of them and small batches, for tests that train nothing."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.structures import InstanceData
from torch import Tensor, nn

from benchmark.experiment.workspace import ROOT
from pgd.dense import Grid, View, reader_of
from pgd.distiller import Distiller

#: mmdet's own heads use what mmdet and torch deprecate
OLD = ("ignore:DeprecationWarning. .num_anchors", "ignore:DeprecationWarning. pos_bboxes", "ignore:torch.meshgrid")
QUIET = pytest.mark.filterwarnings(*OLD)
PAPER = ("fcos", "autoassign", "atss", "gfl", "ddod")
ALL = (*PAPER, "retinanet", "vfnet")
#: where in its cell a position lies, in strides
OFFSET = dict.fromkeys(ALL, 0.0) | {"fcos": 0.5}
STRIDES = (8, 16, 32, 64, 128)
CLASSES = 5
#: (height, width) of the images; their boxes: one over several levels, small ones, one cut by the border
SIZE = (96, 128)
BOXES = ([[10.0, 12, 70, 60], [60, 20, 100, 90]], [[30.0, 30, 45, 50], [-20, 40, 50, 110], [64, 8, 120, 40]])
LABELS = ([0, 3], [1, 4, 0])


@functools.cache
def model_config(name: str) -> dict:
    init_default_scope("mmdet")
    model = Config.fromfile(ROOT / f"benchmark/configs/mini/{name}_r18.py").model.to_dict()
    model["backbone"]["init_cfg"] = None
    model["bbox_head"]["num_classes"] = CLASSES
    model.pop("data_preprocessor")
    return model


def stir(model: nn.Module, seed: int) -> None:
    """Give all layers weights at which scores, boxes and features vary from place to place."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bn2.weight"):
                p.fill_(1.0)
            elif p.dim() == 4 and not name.startswith("backbone."):
                p.copy_(torch.randn(p.shape, generator=g) * (1.5 / p[0].numel()) ** 0.5)
        for name, m in model.bbox_head.named_modules():
            if isinstance(m, nn.Conv2d) and name.endswith("_cls"):
                m.bias.fill_(-1.0)
            # distances that are neither all cut off at zero nor wider than the image
            if name in ("conv_reg", "vfnet_reg"):
                m.bias.fill_(1.0 if name == "conv_reg" else -2.0)


def detector(name: str, seed: int = 0) -> nn.Module:
    set_random_seed(seed)
    model = MODELS.build(copy.deepcopy(model_config(name)))
    model.init_weights()
    stir(model, seed)
    return model


@functools.cache
def weights(name: str, seed: int) -> dict[str, Tensor]:
    return detector(name, seed).state_dict()


def pair(name: str, equal: bool = False, method: str = "pgd", **settings) -> Distiller:
    """A student and a teacher of the same architecture, with other weights unless ``equal``; in training mode."""
    set_random_seed(0)
    config = copy.deepcopy(model_config(name))
    model = Distiller(student=config, teacher=config, method={"type": method, **settings})
    model.student.load_state_dict(weights(name, 0))
    model.teacher.load_state_dict(weights(name, 0 if equal else 1))
    return model.train()


def sample(boxes: list, labels: list, size: tuple[int, int] = SIZE) -> DetDataSample:
    shapes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), size)
    data = DetDataSample(metainfo={**shapes, "scale_factor": (1.0, 1.0)})
    bboxes, classes = torch.tensor(boxes).reshape(-1, 4), torch.tensor(labels, dtype=torch.long)
    data.gt_instances = InstanceData(bboxes=bboxes, labels=classes)
    return data


def images(count: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


def batch() -> tuple[Tensor, list]:
    return images(), [sample(b, c) for b, c in zip(BOXES, LABELS, strict=True)]


def objects(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes of log-uniform sides, some of them cut by the border, and their classes."""
    g = torch.Generator().manual_seed(seed)
    side = 4 * 20 ** torch.rand(count, 2, generator=g)
    corner = torch.rand(count, 2, generator=g) * torch.tensor([128.0, 96.0]) - side / 2
    return torch.cat((corner, corner + side), dim=1), torch.randint(CLASSES, (count,), generator=g)


@torch.no_grad()
def view_of(model: nn.Module, inputs: Tensor) -> View:
    reader, features = reader_of(model.bbox_head), model.extract_feat(inputs)
    metas = [{"pad_shape": tuple(inputs.shape[-2:])}] * len(inputs)
    grid = reader.grid([f.shape[-2:] for f in features], metas, inputs.device)
    return View(reader, grid, features, None, model.bbox_head(features))


def terms(losses: dict) -> dict[str, Tensor]:
    return {k: v for k, v in losses.items() if k.startswith("loss_pgd")}


@functools.cache
def taught(name: str, image: int = 0) -> tuple[Grid, Tensor, Tensor]:
    """Grid, scores and boxes of one image: what a teacher says."""
    view = view_of(detector(name, 1).eval(), images())
    return view.grid, view.scores[image], view.boxes[image]
